"""Curvatures and decreases with a gradient, through the forward passes alone."""

import pytest
import torch

from curvdetect.geometry import (
    goldman_curvature,
    margin_value,
    margin_value_and_gradient,
    mean_curvature,
    mean_decrease,
    random_directions,
)
from modules import SmoothNet

STEP = 0.3


def cubic(x):
    """Third derivatives along the axes are 6, 12, ...; the mixed ones vanish."""
    weights = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
    return (weights * x**3).sum(1)


@pytest.fixture
def z():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 6, dtype=torch.float64, generator=generator)


@pytest.fixture
def margin():
    torch.manual_seed(0)
    module = SmoothNet()
    return lambda x: module(x)[:, 0] - module(x)[:, 1]


def numerically(function, z, eps=1e-5):
    """The gradient of a sum by central differences."""
    gradient = torch.zeros_like(z)
    for i in range(z.numel()):
        shift = torch.zeros_like(z).reshape(-1)
        shift[i] = eps
        shift = shift.reshape(z.shape)
        difference = function(z + shift).sum() - function(z - shift).sum()
        gradient.reshape(-1)[i] = difference / (2 * eps)
    return gradient


def test_decrease_of_a_cubic():
    """-h^2/(2d) tr(H) = -h^2/(2d) sum of 6 w x: exact for second differences."""
    x = torch.tensor([[0.2, -0.4, 1.0]], dtype=torch.float64, requires_grad=True)
    f = lambda x: torch.stack([cubic(x), 2 * cubic(x)], dim=1)
    decrease = mean_decrease(f, x, "all", step=STEP, batch_size=2)
    (gradient,) = torch.autograd.grad(decrease.sum(), x)
    weights = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, -3 * STEP**2 / 6 * 6 * weights)


def test_curvature_of_a_cubic_for_a_fixed_gradient():
    """The normal is the first axis, and kappa = -(12 w y + ...) / (2 |g|)."""
    z = torch.tensor([[0.0, 0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    tilted = lambda x: cubic(x) + 5 * x[:, 0]
    g = torch.tensor([[5.0, 0.0, 0.0]], dtype=torch.float64)
    evaluated = tilted(z), g
    kappa = mean_curvature(
        tilted, z, n_directions="all", step=STEP, evaluated=evaluated
    )
    (gradient,) = torch.autograd.grad(kappa.sum(), z)
    expected = torch.tensor([[0.0, 12.0, 18.0]], dtype=torch.float64) / (-2 * 5)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("n_directions", ["all", 1, 5])
def test_curvature_against_differences(margin, z, batch_size, known, n_directions):
    g = margin_value_and_gradient(margin, z)[1]

    def kappa(z, evaluated):
        return mean_curvature(
            margin,
            z,
            n_directions=n_directions,
            step=STEP,
            generator=torch.Generator().manual_seed(1),
            evaluated=evaluated,
            batch_size=batch_size,
        )

    leaf = z.clone().requires_grad_()
    values = kappa(leaf, (margin(leaf), g) if known else None)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    expected = numerically(lambda z: kappa(z, (margin(z).detach(), g)), z)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(values.detach(), kappa(z, None))


@pytest.mark.parametrize("directions", ["all", "random"])
def test_decrease_against_differences(z, directions):
    torch.manual_seed(0)
    module = SmoothNet()
    if directions == "random":
        directions = random_directions(3, (6,), dtype=torch.float64)
    decrease = lambda z: mean_decrease(module, z, directions, step=STEP, batch_size=5)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(decrease(leaf).square().sum(), leaf)
    expected = numerically(lambda z: decrease(z).square(), z)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9)


def test_the_value_given_is_a_constant_without_its_graph(margin, z):
    leaf = z.clone().requires_grad_()
    value, g = margin_value_and_gradient(margin, z)
    given = {"n_directions": "all", "step": STEP}
    whole, part = (
        torch.autograd.grad(
            mean_curvature(margin, leaf, evaluated=(f, g), **given).sum(), leaf
        )[0]
        for f in (margin(leaf), value)
    )
    # -kappa |g| = ... - 2 F(z) / h^2
    missing = 2 * g / (STEP**2 * g.norm(dim=1, keepdim=True))
    torch.testing.assert_close(whole - part, missing)


def test_a_point_without_a_gradient_spoils_no_other(z):
    """F is flat at the origin: NaN there, and a gradient of 0."""
    leaf = torch.cat([torch.zeros_like(z[:1]), z]).requires_grad_()
    kappa = mean_curvature(cubic, leaf, n_directions=3, step=STEP)
    assert kappa.isnan().tolist() == [True, False, False, False, False]
    (gradient,) = torch.autograd.grad(kappa[1:].sum(), leaf)
    assert gradient.isfinite().all()
    assert (gradient[0] == 0).all()


@pytest.mark.parametrize("method", ["forward", "gradient", "autodiff"])
@pytest.mark.parametrize("curvature", [mean_curvature, goldman_curvature])
def test_nothing_is_recorded_unless_asked_for(margin, z, method, curvature):
    settings = {"method": method, "n_directions": 3, "step": STEP}
    assert not curvature(margin, z, **settings).requires_grad
    leaf = z.clone().requires_grad_()
    asked = curvature(margin, leaf, **settings)
    assert asked.requires_grad == (method == "forward")
    with torch.no_grad():
        assert not curvature(margin, leaf, **settings).requires_grad
    # A value with a graph does not ask for one.
    evaluated = margin(leaf), margin_value_and_gradient(margin, z)[1]
    assert not curvature(margin, z, evaluated=evaluated, **settings).requires_grad


def test_no_decrease_is_recorded_unless_asked_for(z):
    module = SmoothNet()
    assert not mean_decrease(module, z, "all", step=STEP).requires_grad
    leaf = z.clone().requires_grad_()
    assert mean_decrease(module, leaf, "all", step=STEP).requires_grad
    with torch.no_grad():
        assert not mean_decrease(module, leaf, "all", step=STEP).requires_grad


def test_all_axes_are_those_of_the_identity_and_never_held_at_once(z):
    module = SmoothNet()
    largest = 0

    def watched(x):
        nonlocal largest
        largest = max(largest, len(x))
        return module(x)

    everything = mean_decrease(watched, z, "all", step=STEP, batch_size=4)
    assert largest == 4
    axes = torch.eye(6, dtype=torch.float64)
    expected = mean_decrease(module, z, axes, step=STEP, value=margin_value(module, z))
    torch.testing.assert_close(everything, expected)
    with pytest.raises(ValueError, match="directions must be one of"):
        mean_decrease(module, z, "some", step=STEP)
