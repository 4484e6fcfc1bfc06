import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curvdetect.geometry import (
    PairwiseMargin,
    margin_value_and_gradient,
    mean_curvature,
    normal_curvature,
    tangent_basis,
)
from modules import SmoothNet
from surfaces import SURFACES

METHODS = ["forward", "gradient", "autodiff"]
STEP = 1e-4  # small enough for the closed forms, large enough for float64


def quadric(seed, d=5):
    """A random quadric F = b x + x A x / 2 through the origin."""
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(d, dtype=torch.float64, generator=generator)
    A = torch.randn(d, d, dtype=torch.float64, generator=generator)
    A = A + A.T
    return (lambda x: x @ b + ((x @ A) * x).sum(1) / 2), b, A


def dense_mean_curvature(gradient, hessian):
    """The definition with matrices, in NumPy: tr(P H P) / ((1 - d) |g|)."""
    g, H = np.asarray(gradient), np.asarray(hessian)
    n = g / np.linalg.norm(g)
    P = np.eye(len(g)) - np.outer(n, n)
    return -np.trace(P @ H @ P) / ((len(g) - 1) * np.linalg.norm(g))


# Closed forms -------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_mean_curvature_of_a_known_surface(surface, method):
    kappa = mean_curvature(
        surface.margin,
        surface.point[None],
        method=method,
        n_directions="all",
        step=STEP,
    )
    tolerance = 1e-8 if method == "autodiff" else 1e-3
    assert float(kappa) == pytest.approx(surface.mean, abs=tolerance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_normal_curvatures_of_a_known_surface(surface, method):
    """Over a whole tangent basis: their mean is the average curvature (Euler)."""
    z = surface.point[None]
    _, gradient = margin_value_and_gradient(surface.margin, z)
    basis = tangent_basis(gradient / gradient.norm())
    kappa = normal_curvature(surface.margin, z, basis, method=method, step=STEP)
    low, high = min(surface.curvatures), max(surface.curvatures)
    assert float(kappa.mean()) == pytest.approx(surface.mean, abs=1e-3)
    assert float(kappa.min()) >= low - 1e-3
    assert float(kappa.max()) <= high + 1e-3


def test_normal_curvature_does_not_depend_on_the_length_of_v():
    z = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[[0.0, 1.0, 1.0]]], dtype=torch.float64)
    ball = lambda x: 2 - x.norm(dim=1)
    short, long = (normal_curvature(ball, z, s * v, step=STEP) for s in (1e-2, 1e2))
    torch.testing.assert_close(short, long)


# Properties ---------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6), step=st.floats(0.01, 1.0))
def test_finite_differences_are_exact_on_quadrics(method, seed, step):
    margin, b, A = quadric(seed)
    z = torch.zeros(1, 5, dtype=torch.float64)
    kappa = mean_curvature(margin, z, method=method, n_directions="all", step=step)
    assert float(kappa) == pytest.approx(dense_mean_curvature(b, A), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6))
def test_the_other_side_has_the_opposite_sign(method, seed):
    margin, _, _ = quadric(seed)
    z = torch.zeros(1, 5, dtype=torch.float64)
    directions = torch.randn(4, 5, dtype=torch.float64)
    settings = {"method": method, "directions": directions, "step": 0.1}
    one = mean_curvature(margin, z, **settings)
    other = mean_curvature(lambda x: -margin(x), z, **settings)
    torch.testing.assert_close(one, -other)


@given(
    seed=st.integers(0, 10**6),
    phi=st.sampled_from(
        [torch.tanh, torch.expm1, lambda F: F + F**3, lambda F: 100 * F]
    ),
)
def test_an_increasing_function_of_the_margin_has_the_same_boundary(seed, phi):
    margin, _, _ = quadric(seed)
    z = torch.zeros(1, 5, dtype=torch.float64)
    settings = {"method": "autodiff", "n_directions": "all"}
    one = mean_curvature(margin, z, **settings)
    other = mean_curvature(lambda x: phi(margin(x)), z, **settings)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6))
def test_rotations_do_not_change_it(method, seed):
    margin, _, _ = quadric(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    Q, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator))
    z = torch.zeros(1, 5, dtype=torch.float64)
    settings = {"method": method, "n_directions": "all", "step": 0.1}
    one = mean_curvature(margin, z, **settings)
    other = mean_curvature(lambda x: margin(x @ Q), z, **settings)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
def test_a_larger_copy_is_less_curved(method, seed, scale):
    margin, _, _ = quadric(seed)
    z = torch.zeros(1, 5, dtype=torch.float64)
    one = mean_curvature(margin, z, method=method, n_directions="all", step=0.1)
    other = mean_curvature(
        lambda x: margin(x / scale),
        z,
        method=method,
        n_directions="all",
        step=0.1 * scale,
    )
    torch.testing.assert_close(one, scale * other, rtol=1e-6, atol=1e-9)


# Against a dense computation ----------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_smooth_network_against_its_dense_hessian(method):
    module = SmoothNet()
    z = torch.randn(4, 6, dtype=torch.float64)
    margin = PairwiseMargin(module, torch.zeros(4).long(), torch.tensor([1, 2, 1, 2]))
    kappa = mean_curvature(margin, z, method=method, n_directions="all", step=1e-4)
    for row in range(4):
        one = margin.take(torch.tensor([row]))
        function = lambda x, one=one: one(x[None])[0]
        g = torch.func.grad(function)(z[row]).detach()
        H = torch.func.hessian(function)(z[row]).detach()
        tolerance = {"autodiff": 1e-9, "forward": 1e-5, "gradient": 1e-3}[method]
        expected = dense_mean_curvature(g, H)
        assert float(kappa[row]) == pytest.approx(expected, rel=tolerance)


# Errors of the estimate ---------------------------------------------


@pytest.mark.parametrize(("method", "order"), [("forward", 2), ("gradient", 1)])
def test_order_of_the_finite_differences(method, order):
    margin = lambda x: x[:, 0] + x[:, 1] ** 2 + x[:, 1] ** 3 + x[:, 1] ** 4
    z = torch.zeros(1, 2, dtype=torch.float64)
    exact = mean_curvature(margin, z, method="autodiff", n_directions="all")
    errors = [
        abs(
            float(
                mean_curvature(margin, z, method=method, n_directions="all", step=h)
                - exact
            )
        )
        for h in (1e-2, 5e-3)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def test_spread_of_the_random_estimate_is_the_documented_one():
    margin, b, A = quadric(3)
    z = torch.zeros(1, 5, dtype=torch.float64)
    m, n_draws = 4, 2000
    draws = torch.cat(
        [
            mean_curvature(
                margin, z, n_directions=m, generator=torch.Generator().manual_seed(k)
            )
            for k in range(n_draws)
        ]
    )
    g, H = b.numpy(), A.numpy()
    n = g / np.linalg.norm(g)
    P = np.eye(5) - np.outer(n, n)
    shape = -P @ H @ P / np.linalg.norm(g)
    kappa = np.trace(shape) / 4
    variance = 2 * (np.trace(shape @ shape) / 4 - kappa**2) / (5 + 1) / m
    assert float(draws.mean()) == pytest.approx(
        kappa, abs=4 * (variance / n_draws) ** 0.5
    )
    assert float(draws.std()) == pytest.approx(variance**0.5, rel=0.1)


def test_estimators_agree_on_a_relu_network_at_a_finite_step(model, images):
    x = torch.from_numpy(images[0][:4])
    i = model.logits(x).argmax(1)
    margin = model.margin(i, (i + 1) % 10)
    settings = {"n_directions": "all", "step": 0.3}
    with torch.no_grad():
        forward = mean_curvature(margin, x, method="forward", **settings)
        gradient = mean_curvature(margin, x, method="gradient", **settings)
    # The gradient's difference weighs the kinks on the way otherwise: same sign and
    # size, not the same number.
    torch.testing.assert_close(forward, gradient, rtol=0.5, atol=0.05)
    assert (forward * gradient > 0.05**2).all()


# Piecewise-linear networks ------------------------------------------


def test_exact_derivatives_warn_on_a_relu_network(model, images):
    x = torch.from_numpy(images[0][:2])
    margin = model.margin(torch.tensor([0, 0]), torch.tensor([1, 2]))
    with pytest.warns(UserWarning, match="piecewise linear"):
        kappa = mean_curvature(margin, x, method="autodiff")
    assert not kappa.any()


def test_exact_derivatives_do_not_warn_on_a_plane():
    z = torch.ones(1, 3, dtype=torch.float64)
    kappa = mean_curvature(lambda x: x.sum(1) - 3, z, method="autodiff")
    assert kappa.tolist() == [0]  # and warnings are errors


# Rows and batches ---------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_directions", [3, "all"])
def test_rows_do_not_depend_on_each_other_or_on_the_batch_size(method, n_directions):
    module = SmoothNet()
    z = torch.randn(5, 6, dtype=torch.float64)
    margin = PairwiseMargin(
        module, torch.zeros(5).long(), torch.tensor([1, 2, 1, 2, 1])
    )

    def curvature(rows, batch_size=None):
        rows = torch.tensor(rows, dtype=torch.int64)
        return mean_curvature(
            margin.take(rows),
            z[rows],
            method=method,
            n_directions=n_directions,
            generator=torch.Generator().manual_seed(0),
            batch_size=batch_size,
        )

    everything = curvature([0, 1, 2, 3, 4])
    for batch_size in (1, 2, 7, 100):
        torch.testing.assert_close(curvature([0, 1, 2, 3, 4], batch_size), everything)
    torch.testing.assert_close(curvature([3, 1]), everything[[3, 1]])
    assert curvature([]).shape == (0,)


def test_a_vanishing_gradient_gives_nan():
    kappa = mean_curvature(lambda x: 1 - x.square().sum(1), torch.zeros(1, 3))
    assert kappa.isnan().all()


# Errors -------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "method must be one of"),
        ({"step": 0.0}, "step must be a positive finite number; got 0.0"),
        ({"step": math.nan}, "step must be"),
        ({"n_directions": 0}, "n_directions must be a positive integer"),
        ({"n_directions": "some"}, "n_directions must be"),
    ],
)
def test_bad_parameters(settings, message):
    with pytest.raises(ValueError, match=message):
        mean_curvature(lambda x: 1 - x.norm(dim=1), torch.ones(1, 3), **settings)


def test_one_value_has_no_tangent():
    with pytest.raises(ValueError, match="at least 2 values"):
        mean_curvature(lambda x: x.sum(1), torch.ones(1, 1))


def test_directions_of_another_shape():
    with pytest.raises(ValueError, match="v must hold directions"):
        normal_curvature(lambda x: x.sum(1), torch.ones(2, 3), torch.ones(2, 3))


def test_a_margin_without_gradient():
    with pytest.raises(ValueError, match="must depend differentiably"):
        mean_curvature(lambda x: x.detach().sum(1), torch.ones(1, 3))
