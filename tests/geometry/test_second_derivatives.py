"""Exact second derivatives of what modern networks are made of, in closed form."""

import copy
import math
import threading

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from curvdetect import TorchModel
from curvdetect._base.second_derivatives import twice_differentiable
from curvdetect.geometry import (
    hessian_eigenvalues,
    hessian_trace,
    mean_curvature,
    normal_curvature,
    principal_curvatures,
)
from curvdetect.study.training import cure_penalty

DOUBLE = torch.float64
METHODS = ["forward", "gradient", "autodiff"]
#: Errors of the differences at a step of 1e-4: O(h^2), O(h), and rounding.
ERRORS = {"forward": 1e-6, "gradient": 1e-3, "autodiff": 1e-10}


def tensor(*values):
    return torch.tensor(values, dtype=DOUBLE)


class TwoLogits(nn.Module):
    """(F, 0): a margin as a network."""

    def __init__(self, margin):
        super().__init__()
        self.margin = margin

    def forward(self, x):
        value = self.margin(x)
        return torch.stack([value, torch.zeros_like(value)], dim=1)


def margin_of(function, d):
    model = TorchModel(TwoLogits(function).eval(), input_shape=(d,), bounds=None)
    return model.margin(torch.zeros(1, dtype=torch.int64), torch.ones(1).long())


def curvatures(gradient, hessian):
    """Principal curvatures from a gradient and a Hessian."""
    complement = torch.linalg.qr(
        torch.cat([gradient[:, None], torch.eye(len(gradient), dtype=DOUBLE)], dim=1)
    )[0][:, 1:]
    shape = -complement.T @ hessian @ complement / gradient.norm()
    return torch.linalg.eigvalsh(shape).flip(0)


def check_against(function, x, gradient, hessian, loosely=0.0):
    """Compare what the package measures with a gradient and Hessian that are known."""
    expected = curvatures(gradient, hessian)
    margin, z = margin_of(function, len(x)), x[None]
    for method in METHODS:
        kappa = mean_curvature(margin, z, method=method, n_directions="all", step=1e-4)
        error = max(ERRORS[method], loosely)
        assert float(kappa) == pytest.approx(
            float(expected.mean()), rel=error, abs=error
        )
    tight = {"rtol": max(1e-9, loosely), "atol": max(1e-11, loosely)}
    found = principal_curvatures(margin, z, method="autodiff").values[0]
    torch.testing.assert_close(found, expected, **tight)
    spectrum = hessian_eigenvalues(margin, z, method="autodiff").values[0]
    torch.testing.assert_close(
        spectrum, torch.linalg.eigvalsh(hessian).flip(0), **tight
    )


def _gelu(t):
    density = math.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    cumulated = (1 + math.erf(t / math.sqrt(2))) / 2
    return cumulated + t * density, density * (2 - t**2)


def _silu(t):
    s = 1 / (1 + math.exp(-t))
    slope = s * (1 - s)
    return s + t * slope, slope * (2 + t * (1 - 2 * s))


def _hardswish(t):
    return (2 * t + 3) / 6, 1 / 3


@pytest.mark.parametrize(
    ("activation", "derivatives"),
    [(nn.GELU(), _gelu), (nn.SiLU(), _silu), (nn.Hardswish(), _hardswish)],
)
def test_a_unit_of_a_smooth_activation(activation, derivatives):
    """The Hessian of a(w . x) + u . x is a''(w . x) w w^T."""
    w, u = tensor(1.0, -2.0, 0.5, 0.3), tensor(0.2, 0.7, -0.4, 1.0)
    x = tensor(0.4, 0.1, -0.3, 0.8)
    first, second = derivatives(float(w @ x))
    check_against(
        lambda x: activation(x @ w) + x @ u,
        x,
        first * w + u,
        second * torch.outer(w, w),
    )


def _two_tokens(x):
    """Attention of a query c to keys and values a, b: b + (a - b) s(c (a - b))."""
    tokens, query = x[:, None, :2, None], x[:, None, 2:, None]
    return functional.scaled_dot_product_attention(query, tokens, tokens).flatten()


def test_attention_to_two_tokens():
    a, b, c = 0.7, -0.4, 1.3
    d = a - b
    s = 1 / (1 + math.exp(-c * d))
    s1 = s * (1 - s)
    s2 = s1 * (1 - 2 * s)
    along, across = tensor(1.0, -1.0, 0.0), tensor(0.0, 0.0, 1.0)
    by_d = s + c * d * s1
    mixed = torch.outer(along, across)
    check_against(
        _two_tokens,
        tensor(a, b, c),
        by_d * along + tensor(0.0, 1.0, 0.0) + d**2 * s1 * across,
        (2 * c * s1 + c**2 * d * s2) * torch.outer(along, along)
        + (2 * d * s1 + c * d**2 * s2) * (mixed + mixed.T)
        + d**3 * s2 * torch.outer(across, across),
    )


def test_squeeze_and_excite():
    """x_1 s(x_2) + x_3 with the hard sigmoid s(t) = (t + 3) / 6: a saddle.

    torch's first derivative of it is the single-precision 1 / 6, in float64 too.
    """
    hessian = torch.zeros(3, 3, dtype=DOUBLE)
    hessian[0, 1] = hessian[1, 0] = 1 / 6
    for inplace in (False, True):
        gate = nn.Hardsigmoid(inplace)
        check_against(
            lambda x, gate=gate: x[:, 0] * gate(1 * x[:, 1]) + x[:, 2],
            tensor(0.6, 0.9, 0.0),
            tensor(3.9 / 6, 0.1, 1.0),
            hessian,
            loosely=1e-7,
        )


def test_layer_norm_bends_planes_into_cones():
    """a . LayerNorm(x) is the cosine of an angle: level sets are cones, times a line.

    Their curvatures at a distance r from the axis 1: cot(angle) / r, 0 and 0.
    """
    norm = nn.LayerNorm(4, eps=0.0, elementwise_affine=False)
    axis, aside = tensor(1.0, -1.0, 0.0, 0.0), tensor(0.0, 0.0, 1.0, -1.0)
    angle, r = 0.6, 1.7
    x = 0.3 + r / 2**0.5 * (math.cos(angle) * axis + math.sin(angle) * aside)
    margin, z = margin_of(lambda x: norm(x) @ axis, 4), x[None]
    expected = tensor(1 / math.tan(angle) / r, 0.0, 0.0)
    found = principal_curvatures(margin, z, method="autodiff").values[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for method in METHODS:
        kappa = mean_curvature(margin, z, method=method, n_directions="all", step=1e-4)
        assert float(kappa) == pytest.approx(
            float(expected.mean()), rel=ERRORS[method], abs=ERRORS[method]
        )


class Attentive(nn.Module):
    """Self-attention over four tokens, by any function."""

    def __init__(self, attention, **arguments):
        super().__init__()
        torch.manual_seed(0)
        self.into, self.head = nn.Linear(3, 12), nn.Linear(16, 3)
        self.attention, self.arguments = attention, arguments

    def forward(self, x):
        q, k, v = self.into(x).unflatten(2, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        mixed = self.attention(q, k, v, **self.arguments)
        return self.head(mixed.transpose(1, 2).flatten(1))


def by_hand(q, k, v, attn_mask=None, is_causal=False):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(-1) @ v


MASK = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0]]).bool()
ATTENTIONS = [{}, {"is_causal": True}, {"attn_mask": MASK}]


def models_of_attention(arguments, dtype=DOUBLE):
    for attention in (functional.scaled_dot_product_attention, by_hand):
        module = Attentive(attention, **arguments).to(dtype).eval()
        yield TorchModel(module, input_shape=(4, 3), bounds=None)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("arguments", ATTENTIONS, ids=["full", "causal", "masked"])
def test_default_attention_equals_that_by_hand(arguments, dtype):
    x = torch.randn(3, 4, 3, dtype=dtype)
    pair = torch.zeros(3).long(), torch.ones(3).long()
    tight = {"rtol": 2e2 * torch.finfo(dtype).eps, "atol": 2e2 * torch.finfo(dtype).eps}
    results = []
    for model in models_of_attention(arguments, dtype):
        margin = model.margin(*pair)
        generator = torch.Generator().manual_seed(1)
        with model.evaluating():
            ways = torch.randn(3, 2, 4, 3, dtype=dtype, generator=generator)
            results.append(
                [
                    mean_curvature(margin, x, method="autodiff", generator=generator),
                    normal_curvature(margin, x, ways, method="autodiff"),
                    hessian_trace(margin, x, method="autodiff", n_directions="all"),
                    principal_curvatures(margin, x, method="autodiff").values,
                    hessian_eigenvalues(margin, x, method="autodiff").values,
                ]
            )
    for default, plain in zip(*results, strict=True):
        assert bool((plain.abs() > 1e-4).any())
        torch.testing.assert_close(default, plain, **tight)


def test_the_curvature_penalty_trains_attention():
    """The penalty is differentiated in the weights: a second derivative in all."""
    x, y = torch.randn(3, 4, 3, dtype=DOUBLE), torch.tensor([0, 1, 2])
    penalties = []
    for model in models_of_attention({}):
        module = model.module
        penalty = cure_penalty(module, x, y, step=0.5).sum()
        weight = module.into.weight
        penalties.append((penalty, torch.autograd.grad(penalty, weight)[0]))
    torch.testing.assert_close(penalties[0], penalties[1], rtol=1e-9, atol=1e-12)


def test_an_exported_network_with_a_hard_sigmoid_and_attention():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.attentive = Attentive(functional.scaled_dot_product_attention)

        def forward(self, x):
            return self.attentive(x * functional.hardsigmoid(x + 0.1))

    module = Both().double().eval()
    x = torch.randn(2, 4, 3, dtype=DOUBLE)
    shapes = ({0: torch.export.Dim("n")},)
    program = torch.export.export(module, (x,), dynamic_shapes=shapes)
    pair = torch.zeros(2).long(), torch.ones(2).long()
    curvature = [
        mean_curvature(
            TorchModel(each, input_shape=(4, 3), bounds=None).margin(*pair),
            x,
            method="autodiff",
            n_directions="all",
        )
        for each in (module, program)
    ]
    assert bool((curvature[0].abs() > 1e-4).all())
    torch.testing.assert_close(*curvature, rtol=1e-9, atol=1e-12)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


@pytest.fixture
def only_once():
    return margin_of(lambda x: Once.apply(x).sum(1) + x[:, 0], 3)


@pytest.mark.parametrize(
    "measure", [mean_curvature, principal_curvatures, hessian_eigenvalues]
)
def test_what_has_no_second_derivative_is_named(only_once, measure):
    with pytest.raises(ValueError, match='method="gradient"') as caught:
        measure(only_once, torch.ones(1, 3), method="autodiff")
    text = str(caught.value)
    assert "Once in the network has no second derivative" in text
    assert 'set_attn_implementation("eager")' in text
    assert "set_fused_attn(False)" in text


def test_what_has_no_second_derivative_has_differences(only_once):
    x = tensor(1.0, 2.0, 0.5)
    kappa = mean_curvature(
        only_once, x[None], method="gradient", n_directions="all", step=1e-5
    )
    gradient = 3 * x**2 + tensor(1.0, 0.0, 0.0)
    expected = curvatures(gradient, torch.diag(6 * x)).mean()
    assert float(kappa) == pytest.approx(float(expected), rel=1e-3)


def test_an_operation_of_torch_without_a_second_derivative_is_named():
    """A network may insist on a kernel; then there is nothing to replace it by."""

    def flash(x):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return _two_tokens(x)

    with pytest.raises(ValueError, match="flash_attention.* in the network has no sec"):
        mean_curvature(margin_of(flash, 3), torch.rand(1, 3), method="autodiff")


class Outside(torch.autograd.Function):
    """Whose gradient leaves torch on its way."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        x = ctx.saved_tensors[0].detach().numpy()
        return torch.from_numpy(3 * x**2 * gradient.detach().numpy())


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


@pytest.mark.parametrize("function", [Once, Outside])
@pytest.mark.parametrize("last", [True, False])
def test_none_is_passed_over(function, last):
    """torch takes such gradients for constants, and the rest of the Hessian for all."""

    def margin(x):
        bent = function.apply(x)
        return (bent if last else bent**2).sum(1) + x[:, 0] ** 2

    with pytest.raises(ValueError, match=f"^{function.__name__} in the network has no"):
        mean_curvature(margin_of(margin, 3), torch.ones(1, 3), method="autodiff")


def test_a_function_of_ones_own_with_a_second_derivative():
    x = tensor(1.0, 2.0, 0.5)
    check_against(
        lambda x: Twice.apply(x).sum(1) + x[:, 0],
        x,
        3 * x**2 + tensor(1.0, 0.0, 0.0),
        torch.diag(6 * x),
    )


def test_the_curvature_penalty_names_what_has_no_second_derivative():
    module = TwoLogits(lambda x: Once.apply(x).sum(1))
    with pytest.raises(ValueError, match="^Once in the network has no second"):
        cure_penalty(module, torch.ones(1, 3), torch.zeros(1).long(), step=0.1)


def test_other_errors_are_raised_as_they_are():
    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            return Squared.apply(ctx.saved_tensors[0]) * gradient

    class Squared(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 3 * x**2

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("out of patience")

    margin = margin_of(lambda x: Raises.apply(x).sum(1), 3)
    with pytest.raises(RuntimeError, match="^out of patience$"):
        mean_curvature(margin, torch.ones(1, 3), method="autodiff")


def flash_is_allowed():
    return torch.backends.cuda.flash_sdp_enabled()


def test_torch_chooses_again_afterwards():
    assert flash_is_allowed()
    with twice_differentiable():
        assert not flash_is_allowed()
    assert flash_is_allowed()
    with pytest.raises(ZeroDivisionError), twice_differentiable():
        1 / 0  # noqa: B018
    assert flash_is_allowed()
    with sdpa_kernel(SDPBackend.MATH):
        with twice_differentiable():
            pass
        assert not flash_is_allowed()


def test_threads_that_overlap_leave_the_choice_as_it_was():
    """The second begins before the first ends, and ends after it."""
    begun, may_end = threading.Event(), threading.Event()

    def second():
        try:
            with twice_differentiable():
                begun.set()
                may_end.wait()
        finally:
            begun.set()  # an error must not keep the other thread waiting

    thread = threading.Thread(target=second)
    with twice_differentiable():
        thread.start()
        begun.wait()
    assert not flash_is_allowed()
    may_end.set()
    thread.join()
    assert flash_is_allowed()


def test_copies_are_not_affected_by_what_was_measured():
    """Nothing of the module is replaced for the second derivatives."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Hardsigmoid(), nn.Linear(4, 2)).eval()
    before = copy.deepcopy(module.state_dict())
    model = TorchModel(module, input_shape=(3,), bounds=None)
    margin = model.margin(torch.zeros(1).long(), torch.ones(1).long())
    with pytest.warns(UserWarning, match="piecewise linear"):
        mean_curvature(margin, torch.zeros(1, 3), method="autodiff", step=20.0)
    assert [type(part) for part in module] == [nn.Linear, nn.Hardsigmoid, nn.Linear]
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
