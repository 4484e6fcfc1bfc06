import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh

from curvdetect.geometry import (
    ClassLoss,
    PairwiseMargin,
    goldman_curvature,
    hessian_eigenvalues,
    margin_gradient,
    mean_curvature,
    normal_curvature,
    principal_curvatures,
    tangent_basis,
)
from curvdetect.study.datasets import load_fashion_mnist_sample
from modules import SmoothNet, smooth_lenet
from surfaces import SURFACES, random_quadric

METHODS = ["gradient", "autodiff"]


def descending(values):
    return torch.as_tensor(values, dtype=torch.float64).sort(descending=True).values


def leading(values, k, which):
    """Choose by sorting a list: most positive first, as the package orders them."""
    key = {"magnitude": abs, "largest": lambda v: v, "smallest": lambda v: -v}[which]
    return descending(sorted(values.tolist(), key=key, reverse=True)[:k])


# Closed forms -------------------------------------------------------


@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_principal_curvatures_of_a_known_surface(surface):
    found = principal_curvatures(surface.margin, surface.point[None], method="autodiff")
    expected = descending(surface.curvatures)
    torch.testing.assert_close(found.values[0], expected, rtol=1e-6, atol=1e-9)
    assert bool(found.converged)


@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_directions_are_orthonormal_tangents_of_that_curvature(surface):
    z = surface.point[None]
    found = principal_curvatures(surface.margin, z, method="autodiff")
    g = margin_gradient(surface.margin, z)
    V = found.directions[0]
    eye = torch.eye(len(V), dtype=torch.float64)
    torch.testing.assert_close(V @ V.T, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(V @ g[0], 0 * V[:, 0], rtol=0, atol=1e-12)
    along = normal_curvature(surface.margin, z, found.directions, method="autodiff")
    torch.testing.assert_close(along, found.values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("d", [2, 30, 1000])
def test_all_curvatures_of_a_quadric_with_a_chosen_spectrum(d, method, rng):
    kappa = np.concatenate(
        [rng.normal(size=d - 1 - (d - 1) // 2), np.zeros((d - 1) // 2)]
    )
    margin, z = random_quadric(kappa, seed=d)
    found = principal_curvatures(margin, z, method=method, directions=False)
    assert found.directions is None
    torch.testing.assert_close(found.values[0], descending(kappa), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest"])
def test_leading_curvatures_of_a_large_quadric(which, method, rng):
    """Clustered, repeated and many small ones, in a space of 1,000 dimensions."""
    kappa = np.concatenate(
        [[5, 5, 5, -4, 3.9, 2, -2, -2], rng.normal(scale=0.05, size=991)]
    )
    margin, z = random_quadric(kappa, seed=1)
    found = principal_curvatures(margin, z, k=5, which=which, method=method, tol=1e-7)
    assert bool(found.converged)
    expected = leading(kappa, 5, which)
    torch.testing.assert_close(found.values[0], expected, rtol=1e-6, atol=1e-9)
    along = normal_curvature(margin, z, found.directions, method="autodiff")
    torch.testing.assert_close(along, found.values, rtol=1e-6, atol=1e-9)


@settings(max_examples=25)
@given(
    kappa=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    k=st.integers(1, 6),
    which=st.sampled_from(["magnitude", "largest", "smallest"]),
    seed=st.integers(0, 10**6),
)
def test_repeated_curvatures_are_all_found(kappa, k, which, seed):
    """Any spectrum of small integers: multiplicities everywhere."""
    k = min(k, len(kappa))
    margin, z = random_quadric(kappa, seed)
    found = principal_curvatures(margin, z, k=k, which=which, method="autodiff")
    key = {"magnitude": torch.abs, "largest": lambda v: v, "smallest": lambda v: -v}
    values, best = found.values[0], leading(np.array(kappa), k, which)
    # Among equal absolute values either sign may be chosen.
    torch.testing.assert_close(
        descending(key[which](values)), descending(key[which](best)), rtol=0, atol=1e-6
    )


def test_order_of_the_gradient_differences():
    margin = lambda x: x[:, 0] + x[:, 1] ** 2 + x[:, 1] ** 3 - x[:, 2] ** 2
    z = torch.zeros(1, 3, dtype=torch.float64)
    exact = principal_curvatures(margin, z, method="autodiff").values
    errors = [
        float((principal_curvatures(margin, z, step=h).values - exact).abs().max())
        for h in (1e-2, 5e-3)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.05)


# Properties ---------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6))
def test_the_other_side_has_the_opposite_signs(method, seed):
    margin, z = random_quadric([3.0, 1.0, 0.0, -2.0], seed)
    one = principal_curvatures(margin, z, method=method).values
    other = principal_curvatures(lambda x: -margin(x), z, method=method).values
    torch.testing.assert_close(one, -other.flip(1), rtol=1e-9, atol=1e-9)


@given(
    seed=st.integers(0, 10**6),
    phi=st.sampled_from([torch.tanh, torch.expm1, lambda F: F + F**3]),
)
def test_an_increasing_function_of_the_margin_has_the_same_curvatures(seed, phi):
    margin, z = random_quadric([3.0, 1.0, 0.0, -2.0], seed)
    one = principal_curvatures(margin, z, method="autodiff").values
    other = principal_curvatures(lambda x: phi(margin(x)), z, method="autodiff").values
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_three_ways_to_the_average_agree(surface):
    """Principal curvatures, the average over tangents, and Goldman's formula."""
    z = surface.point[None]
    principal = principal_curvatures(surface.margin, z, method="autodiff").values.mean()
    exact = {"method": "autodiff", "n_directions": "all"}
    tangents = mean_curvature(surface.margin, z, **exact)
    goldman = goldman_curvature(surface.margin, z, **exact)
    assert float(tangents) == pytest.approx(float(principal), abs=1e-9)
    assert float(goldman) == pytest.approx(float(principal), abs=1e-9)


# Against dense computations -----------------------------------------


@pytest.fixture(scope="module")
def smooth():
    """A margin of a smooth LeNet, points, and their dense Hessians and gradients."""
    X = torch.from_numpy(load_fashion_mnist_sample()[0][:3]).double()
    module = smooth_lenet().requires_grad_(False)
    margin = PairwiseMargin(module, torch.tensor([0, 5, 9]), torch.tensor([1, 2, 7]))
    g, H = [], []
    for x, i, j in zip(X.flatten(1), margin.predicted, margin.other, strict=True):

        def one(x, i=int(i), j=int(j)):
            f = module(x.reshape(1, 1, 28, 28))[0]
            return f[i] - f[j]

        g.append(torch.func.grad(one)(x))
        H.append(torch.func.hessian(one)(x))
    return margin, X, torch.stack(g), torch.stack(H)


@pytest.fixture(scope="module")
def dense(smooth):
    """All principal curvatures by the definition, in NumPy."""
    _, _, g, H = (
        np.asarray(part) if torch.is_tensor(part) else part for part in smooth
    )
    profiles = []
    for gradient, hessian in zip(g, H, strict=True):
        norm = np.linalg.norm(gradient)
        n = gradient / norm
        P = np.eye(len(n)) - np.outer(n, n)
        values, vectors = np.linalg.eigh(-P @ hessian @ P / norm)
        tangent = np.abs(vectors.T @ n) < 0.5  # leave the normal's zero out
        profiles.append(values[tangent][::-1])
    return torch.tensor(np.array(profiles))


def test_all_curvatures_of_a_smooth_lenet(smooth, dense):
    margin, z, _, _ = smooth
    found = principal_curvatures(margin, z, method="autodiff", directions=False)
    assert found.values.shape == (3, 783)
    torch.testing.assert_close(found.values, dense, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest"])
def test_leading_curvatures_of_a_smooth_lenet(smooth, dense, which):
    margin, z, _, _ = smooth
    found = principal_curvatures(margin, z, k=6, which=which, method="autodiff")
    assert bool(found.converged.all())
    for values, profile in zip(found.values, dense, strict=True):
        expected = leading(profile, 6, which)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)


def test_leading_eigenvalues_agree_with_scipy(smooth):
    """The plain Hessian, by ARPACK with the dense matrix."""
    margin, z, _, H = smooth
    found = hessian_eigenvalues(margin, z, k=4, method="autodiff")
    for values, hessian in zip(found.values, H.numpy(), strict=True):
        product = LinearOperator(hessian.shape, matvec=lambda v, H=hessian: H @ v)
        expected = eigsh(product, k=4, which="LM", v0=np.ones(784))[0]
        np.testing.assert_allclose(values, np.sort(expected)[::-1], rtol=1e-6)


def test_all_eigenvalues_of_the_plain_hessian(smooth):
    margin, z, _, H = smooth
    found = hessian_eigenvalues(margin, z, method="autodiff", directions=False)
    expected = torch.linalg.eigvalsh(H).flip(1)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-11)


def test_gradient_differences_approach_the_exact_curvatures(smooth, dense):
    margin, z, _, _ = smooth
    found = principal_curvatures(margin, z, step=1e-5, directions=False)
    torch.testing.assert_close(found.values, dense, rtol=0, atol=1e-3)


def test_loss_curvature_profile(smooth):
    """Cross-entropy by default, any loss by name; against torch.func."""
    margin, z, _, _ = smooth
    label = torch.tensor([0, 5, 9])
    logits = margin.logits
    cosh = lambda f, label, reduction: f.gather(1, label[:, None]).squeeze(1).cosh()
    for loss in (torch.nn.functional.cross_entropy, cosh):
        found = hessian_eigenvalues(
            ClassLoss(logits, label, loss), z[:1], method="autodiff", directions=False
        )
        function = lambda x, loss=loss: loss(
            logits(x[None]), label[:1], reduction="none"
        )[0]
        H = torch.func.hessian(function)(z[0]).reshape(784, 784).detach()
        expected = torch.linalg.eigvalsh(H).flip(0)
        torch.testing.assert_close(found.values[0], expected, rtol=1e-9, atol=1e-9)


# A ReLU network -----------------------------------------------------


@pytest.fixture
def relu(model, images):
    x = torch.from_numpy(images[0][:2]).requires_grad_(False)
    return model.margin(torch.tensor([0, 5]), torch.tensor([1, 2])), x


def test_exact_derivatives_warn_on_a_relu_network(relu):
    with pytest.warns(UserWarning, match="piecewise linear") as caught:
        found = principal_curvatures(*relu, k=2, method="autodiff")
    assert [warning.filename for warning in caught] == [__file__]
    assert not found.values.any()
    with pytest.warns(UserWarning, match="piecewise linear"):
        hessian_eigenvalues(*relu, k=2, method="autodiff")


def test_exact_derivatives_do_not_warn_on_a_plane():
    z = torch.ones(1, 3, dtype=torch.float64)
    found = principal_curvatures(lambda x: x.sum(1) - 3, z, method="autodiff")
    assert found.values.tolist() == [[0, 0]]  # and warnings are errors


def test_a_relu_network_at_a_finite_step_follows_the_definition(relu):
    """The report's matrix, column by column, in double precision."""
    margin, z = relu
    h = 0.1
    found = principal_curvatures(margin, z, step=h, directions=False)
    g = margin_gradient(margin, z)
    norm = g.flatten(1).norm(dim=1)
    V = tangent_basis(g / norm.reshape(-1, 1, 1, 1)).flatten(2)
    for row in range(len(z)):
        one = margin.take(torch.full((783,), row))
        shifted = margin_gradient(one, z[row] + h * V[row].reshape(-1, 1, 28, 28))
        change = (shifted - g[row]).flatten(1).double() / h
        G = V[row].double() @ change.T / norm[row].double()
        expected = torch.linalg.eigvalsh(-(G + G.T) / 2).flip(0)
        torch.testing.assert_close(
            found.values[row].double(), expected, rtol=1e-3, atol=1e-3
        )


def test_leading_curvatures_of_a_relu_network_say_that_they_did_not_converge(relu):
    with pytest.warns(
        UserWarning, match="those of a piecewise-linear network at no step"
    ):
        found = principal_curvatures(*relu, k=3, step=0.3, max_iter=5)
    assert not found.converged.any()
    assert bool(found.values.isfinite().all())


# Rows and batches ---------------------------------------------------


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("method", METHODS)
def test_rows_do_not_depend_on_each_other_or_on_the_batch_size(method, k):
    module = SmoothNet(d=40)
    z = torch.randn(5, 40, dtype=torch.float64)
    margin = PairwiseMargin(
        module, torch.zeros(5).long(), torch.tensor([1, 2, 1, 2, 1])
    )
    measure = lambda margin, z, batch_size: (
        principal_curvatures(
            margin,
            z,
            k=k,
            method=method,
            step=1e-5,
            batch_size=batch_size,
            generator=torch.Generator().manual_seed(0),
        ).values
    )
    together = measure(margin, z, None)
    for batch_size in (1, 7):
        torch.testing.assert_close(measure(margin, z, batch_size), together)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(measure(margin.take(rows), z[rows], 4), together[rows])
    assert measure(margin.take(rows[:0]), z[:0], 4).shape == (0, k or 39)


@pytest.mark.parametrize("k", [None, 1])
def test_a_row_without_a_gradient_is_nan_and_leaves_the_others_alone(k):
    saddle = lambda x: x[:, 0] ** 2 - x[:, 1] ** 2 + x[:, 2] ** 2
    z = torch.tensor([[0.0, 0, 0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    found = principal_curvatures(saddle, z, k=k, method="autodiff")
    assert bool(found.values[0].isnan().all())
    assert bool(found.directions[0].isnan().all())
    assert found.converged.tolist() == [False, True]
    alone = principal_curvatures(saddle, z[1:], k=k, method="autodiff")
    torch.testing.assert_close(found.values[1:], alone.values)


def test_high_dimensions_need_no_matrix():
    """As many values as a 224 x 224 colour image; a matrix would take 90 GB."""
    d = 150_528
    a = torch.zeros(d, dtype=torch.float64)
    a[:4] = torch.tensor([0.0, 3.0, -2.0, 1.0])
    margin = lambda x: x[:, 0] - (a * x**2).sum(1) / 2
    z = torch.zeros(1, d, dtype=torch.float64)
    found = principal_curvatures(margin, z, k=2, method="autodiff")
    expected = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="k must be given for inputs of 150528 values"):
        principal_curvatures(margin, z)


# Errors -------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be a positive integer of at most 2 or None; got 0"),
        ({"k": 3}, "k must be a positive integer of at most 2 or None; got 3"),
        ({"k": 1.5}, "k must be a positive integer"),
        ({"which": "LM"}, "which must be one of .* got 'LM'"),
        ({"method": "forward"}, "method must be one of .* got 'forward'"),
        ({"step": 0}, "step must be a positive finite number; got 0"),
        ({"tol": -1}, "tol must be a positive finite number; got -1"),
        ({"max_iter": 0}, "max_iter must be a positive integer; got 0"),
    ],
)
def test_bad_parameters(settings, message):
    z = torch.ones(1, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        principal_curvatures(lambda x: x.norm(dim=1), z, **settings)


def test_there_are_as_many_as_dimensions_however_many_points():
    z = torch.ones(4, 3, dtype=torch.float64)
    ball = lambda x: x.norm(dim=1)
    with pytest.raises(ValueError, match="integer of at most 2 or None; got 3"):
        principal_curvatures(ball, z, k=3)
    with pytest.raises(ValueError, match="integer of at most 3 or None; got 4"):
        hessian_eigenvalues(ball, z, k=4)
    found = hessian_eigenvalues(ball, z, k=3, method="autodiff")
    expected = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64) / 3**0.5
    torch.testing.assert_close(found.values, expected.expand(4, 3))


def test_the_generator_says_where_to_begin():
    """Unfinished, the answer depends on it; the same one gives the same."""
    margin, z = random_quadric(np.linspace(-1, 1, 80), seed=0)

    def unfinished(seed):
        with pytest.warns(UserWarning, match="did not reach a residual"):
            return principal_curvatures(
                margin,
                z,
                k=1,
                method="autodiff",
                max_iter=2,
                generator=torch.Generator().manual_seed(seed),
            ).values

    assert torch.equal(unfinished(0), unfinished(0))
    assert not torch.allclose(unfinished(0), unfinished(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    z = torch.ones(1, 3, dtype=dtype)
    with pytest.raises(ValueError, match="float32 or float64 for eigenvalues"):
        principal_curvatures(lambda x: x.sum(1), z)


def test_a_single_value_has_no_tangents():
    with pytest.raises(ValueError, match="at least 2 values"):
        principal_curvatures(lambda x: x[:, 0], torch.ones(1, 1))
