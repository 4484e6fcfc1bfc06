"""Estimates from random directions, and whether their errors are what they say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curvdetect.geometry import (
    PairwiseMargin,
    goldman_curvature,
    hessian_trace,
    mean_curvature,
    principal_curvatures,
)
from modules import SmoothNet, smooth_lenet
from surfaces import SURFACES, random_quadric

ESTIMATES = [mean_curvature, goldman_curvature, hessian_trace]
METHODS = ["forward", "gradient", "autodiff"]
ALL = {"method": "autodiff", "n_directions": "all"}


def some_seed(seed):
    return torch.Generator().manual_seed(seed)


# Goldman's formula and the trace ------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_goldman_curvature_of_a_known_surface(surface, method):
    kappa = goldman_curvature(
        surface.margin, surface.point[None], method=method, step=1e-4
    )
    tolerance = 1e-8 if method == "autodiff" else 1e-3
    assert float(kappa) == pytest.approx(surface.mean, abs=tolerance)


@given(seed=st.integers(0, 10**6))
def test_the_trace_is_that_of_the_dense_hessian(seed):
    margin, z = random_quadric([3.0, 1.0, 0.0, -2.0], seed)
    H = torch.func.hessian(lambda x: margin(x[None])[0])(z[0])
    for method in METHODS:
        found = hessian_trace(margin, z, method=method, n_directions="all")
        assert float(found) == pytest.approx(float(H.trace()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("method", "order"), [("forward", 2), ("gradient", 1)])
def test_order_of_goldmans_finite_differences(method, order):
    margin = lambda x: x[:, 0] + x[:, 1] ** 2 + x[:, 1] ** 3 + x[:, 1] ** 4
    z = torch.zeros(1, 2, dtype=torch.float64)
    exact = goldman_curvature(margin, z, method="autodiff")
    errors = [
        float((goldman_curvature(margin, z, method=method, step=h) - exact).abs())
        for h in (1e-2, 5e-3)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def test_exact_trace_warns_on_a_relu_network(model, images):
    x = torch.from_numpy(images[0][:2])
    margin = model.margin(torch.tensor([0, 0]), torch.tensor([1, 2]))
    settings = {"method": "autodiff", "n_directions": 8}
    for estimate in ESTIMATES:
        for estimator in ("hutchinson", "xtrace"):
            with pytest.warns(UserWarning, match="piecewise linear") as caught:
                estimate(margin, x, estimator=estimator, **settings)
            assert [warning.filename for warning in caught] == [__file__]


# Standard errors ----------------------------------------------------


@pytest.fixture(scope="module")
def smooth():
    """A margin of a smooth LeNet at a few points, and its exact average curvature."""
    from curvdetect.study.datasets import load_fashion_mnist_sample

    z = torch.from_numpy(load_fashion_mnist_sample()[0][:3]).double()
    module = smooth_lenet().requires_grad_(False)
    margin = PairwiseMargin(module, torch.tensor([0, 5, 9]), torch.tensor([1, 2, 7]))
    profile = principal_curvatures(margin, z, method="autodiff", directions=False)
    return margin, z, profile.values.mean(1)


@pytest.mark.parametrize("estimator", ["hutchinson", "xtrace"])
@pytest.mark.parametrize("estimate", [mean_curvature, goldman_curvature])
def test_a_smooth_lenet_within_four_standard_errors(smooth, estimate, estimator):
    margin, z, exact = smooth
    kappa, error = estimate(
        margin,
        z,
        method="autodiff",
        n_directions=64,
        estimator=estimator,
        return_error=True,
        generator=some_seed(0),
    )
    assert bool(((kappa - exact).abs() <= 4 * error).all())
    assert bool((error < 0.01).all())


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("estimator", ["hutchinson", "xtrace"])
def test_standard_errors_are_calibrated(estimate, estimator):
    """The squared deviation over many draws is the mean squared standard error."""
    rng = np.random.default_rng(0)
    margin, z = random_quadric(rng.normal(size=99) * np.linspace(0, 1, 99), seed=0)
    exact = estimate(margin, z, **ALL)
    settings = {"method": "autodiff", "n_directions": 24, "estimator": estimator}
    draws, errors = torch.cat(
        [
            estimate(margin, z, **settings, return_error=True, generator=some_seed(s))
            for s in range(400)
        ],
        dim=1,
    )
    rms = (draws - exact).square().mean().sqrt()
    assert float((draws - exact).mean().abs()) <= 4 * float(rms) / 400**0.5
    ratio = float(errors.square().mean().sqrt() / rms)
    assert ratio == pytest.approx(1, abs=0.1 if estimator == "hutchinson" else 0.25)
    within = ((draws - exact).abs() <= 2 * errors).double().mean()
    # Student's t for 23 degrees of freedom gives 0.94; XTrace has 11, not independent.
    assert 0.85 <= float(within) <= 0.98


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_xtrace_is_exact_for_a_few_curved_directions(estimate):
    margin, z = random_quadric([4.0, -3.0, 2.0] + [0.0] * 60, seed=0)
    if estimate is goldman_curvature:  # the plain Hessian has two more
        assert int(torch.linalg.matrix_rank(hessian(margin, z))) == 5
    found, error = estimate(
        margin,
        z,
        method="autodiff",
        estimator="xtrace",
        n_directions=16,
        return_error=True,
        generator=some_seed(1),
    )
    exact = estimate(margin, z, **ALL)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)
    assert float(error) < 1e-5 * float(exact.abs()) + 1e-6


def hessian(margin, z):
    return torch.func.hessian(lambda x: margin(x[None])[0])(z[0])


def test_xtrace_has_a_smaller_error_where_few_directions_are_curved(smooth):
    margin, z, exact = smooth
    rms = {}
    for estimator in ("hutchinson", "xtrace"):
        draws = [
            mean_curvature(
                margin,
                z,
                method="autodiff",
                n_directions=64,
                estimator=estimator,
                generator=some_seed(seed),
            )
            for seed in range(10)
        ]
        rms[estimator] = float((torch.stack(draws) - exact).square().mean().sqrt())
    assert rms["xtrace"] < rms["hutchinson"]


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("estimator", ["hutchinson", "xtrace"])
def test_a_plane_has_no_curvature_and_no_error(estimate, estimator):
    z = torch.ones(2, 9, dtype=torch.float64)
    found = estimate(
        lambda x: x.sum(1) - 9,
        z,
        method="autodiff",
        n_directions=8,
        estimator=estimator,
        return_error=True,
    )
    torch.testing.assert_close(found, torch.zeros(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_xtrace_records_no_gradient(estimate):
    margin, z = random_quadric([3.0, 1.0, 0.0, -2.0, 1.0, 1.0], seed=0)
    z.requires_grad_()
    settings = {"method": "autodiff", "estimator": "xtrace", "n_directions": 4}
    value, error = estimate(margin, z, return_error=True, **settings)
    assert not value.requires_grad
    assert not error.requires_grad


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_errors_of_the_extremes(estimate):
    """All directions leave no error, and a single one says nothing of its own."""
    margin, z = random_quadric([3.0, 1.0, 0.0, -2.0], seed=0)
    _, error = estimate(margin, z, n_directions="all", return_error=True)
    assert float(error) == 0
    value, error = estimate(margin, z, n_directions=1, return_error=True)
    assert bool(value.isfinite())
    assert bool(error.isnan())


# Rows and batches ---------------------------------------------------


@pytest.mark.parametrize("estimator", ["hutchinson", "xtrace"])
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_rows_do_not_depend_on_each_other_or_on_the_batch_size(estimate, estimator):
    z = torch.randn(5, 12, dtype=torch.float64)
    margin = PairwiseMargin(
        SmoothNet(d=12), torch.zeros(5).long(), torch.tensor([1, 2, 1, 2, 1])
    )
    measure = lambda margin, z, batch_size: estimate(
        margin,
        z,
        method="autodiff",
        estimator=estimator,
        n_directions=9,
        batch_size=batch_size,
        return_error=True,
        generator=some_seed(0),
    )
    together = measure(margin, z, None)
    rows = torch.tensor([3, 1])
    for batch_size in (1, 7):
        torch.testing.assert_close(measure(margin, z, batch_size), together)
        part = measure(margin.take(rows), z[rows], batch_size)
        torch.testing.assert_close(part, together[:, rows])
    assert measure(margin.take(rows[:0]), z[:0], 4).shape == (2, 0)


# Errors -------------------------------------------------------------


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_bad_directions(estimate):
    z = torch.ones(1, 3, dtype=torch.float64)
    ball = lambda x: x.norm(dim=1)
    for directions in (torch.ones(2, 4), torch.ones(3)):
        with pytest.raises(ValueError, match="directions must have shape"):
            estimate(ball, z, directions=directions)
    with pytest.raises(ValueError, match="directions must hold at least one vector"):
        estimate(ball, z, directions=torch.ones(0, 3))
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        estimate(ball, z, batch_size=0)


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "exact"}, "method must be one of .* got 'exact'"),
        ({"estimator": "hutch++"}, "estimator must be one of .* got 'hutch\\+\\+'"),
        ({"step": -1}, "step must be a positive finite number; got -1"),
        (
            {"n_directions": 0},
            'n_directions must be a positive integer or "all"; got 0',
        ),
        ({"estimator": "xtrace"}, "method must be .* got 'forward'"),
        (
            {"estimator": "xtrace", "method": "autodiff", "n_directions": 3},
            "integer of at least 4, and directions None; got n_directions=3",
        ),
        (
            {"estimator": "xtrace", "method": "autodiff", "n_directions": "all"},
            "got n_directions='all'",
        ),
        (
            {"estimator": "xtrace", "method": "autodiff", "n_directions": 8},
            "n_directions must be at most [46] for .*; got 8",
        ),
    ],
)
def test_bad_parameters(estimate, settings, message):
    z = torch.ones(1, 3, dtype=torch.float64)
    settings = {"n_directions": 8, **settings}
    with pytest.raises(ValueError, match=message):
        estimate(lambda x: x.norm(dim=1), z, **settings)
