"""Try a module on a few inputs, and explain what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from curvdetect._base.warn import warn
from curvdetect.network.checks import check_finite

__all__ = ["cannot_be_called", "check_answers", "warn_of_answers"]

_COARSE = (torch.float16, torch.bfloat16)
_SHAPE_WORDS = ("shape", "size", "dimension", "channel", "mat1", "expected input")
_DTYPE_WORDS = ("dtype", "scalar type", "same type", "Float", "Double", "Half")


def cannot_be_called(error: Exception, x: Tensor) -> ValueError:
    """Make the error for a module that raised, with a guess where one is likely."""
    text = str(error)
    hint = ""
    if isinstance(error, RuntimeError) and any(w in text for w in _DTYPE_WORDS):
        hint = (
            f" It was given {x.dtype}, the format of its weights: bring all of them to "
            "one by module.float()."
        )
    elif isinstance(error, RuntimeError | IndexError | TypeError | ValueError) and any(
        word in text.lower() for word in _SHAPE_WORDS
    ):
        hint = (
            " If that is not the shape of its images, wrap it: TorchModel(module, "
            "input_shape=(channels, height, width))"
        )
    return ValueError(
        f"the module cannot be called on inputs of shape {tuple(x.shape)}: "
        f"{type(error).__name__}: {text}.{hint}"
    )


def check_answers(
    module: nn.Module, logits: Callable[[Tensor], Tensor], x: Tensor, first: Tensor
) -> None:
    """Refuse a module that answers differently twice, or mixes rows.

    `first` is what it answered.
    """
    check_finite(first)
    second = logits(x)
    if not _close(first, second):
        raise ValueError(
            "the module must give the same answer twice; two calls on the same inputs "
            f"differ by up to {float((first - second).abs().max()):g} logits, in eval "
            "mode. Switch off its randomness (dropout by hand, random augmentation)."
        )
    try:
        alone = logits(x[:1])
    except Exception as error:  # some layers need others beside an input
        raise ValueError(
            "the module must treat each input for itself; called on one input alone it "
            f"raised {type(error).__name__}: {error}{_mixing_layer(module)}"
        ) from error
    if not _close(first[:1], alone):
        raise ValueError(
            "the module must treat each input for itself; the logits of one input "
            f"change with the others in its batch{_mixing_layer(module)}"
        )


def _mixing_layer(module: nn.Module) -> str:
    """Name a layer that is likely to mix the rows of a batch, if there is one."""
    for name, part in module.named_modules():
        batch_norm = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if batch_norm and part.running_mean is None:
            return f" ({name} has no running statistics)"
    return ""


def warn_of_answers(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    first: Tensor,
    bounds: tuple[float, float] | None,
) -> None:
    """Warn of probabilities, of coarse arithmetic, of no gradient at the bounds."""
    if _are_probabilities(first):
        warn(
            "the module seems to return probabilities; curvatures are defined on "
            "logits, and softmax flattens them. Leave the softmax out.",
        )
    coarse = [
        str(d).removeprefix("torch.") for d in _formats(logits, x) if d in _COARSE
    ]
    if coarse:
        warn(
            f"the module computes in {coarse[0]}, in which second differences are "
            "mostly rounding. Use module.float(), and no autocast inside.",
        )
    if bounds is not None and _lost_at_bounds(logits, x, bounds):
        warn(
            f"the module has no gradient at values that are exactly {bounds[0]:g} or "
            f"{bounds[1]:g}: it seems to clamp its input, where this version of torch "
            f"({torch.__version__}) stops gradients. Attacks and features would pass "
            'over black and white pixels. TorchModel(..., clamp="inside") moves them '
            "inwards by a millionth of the range, which mends it.",
        )


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to what rounding and the choice of kernels may change."""
    tolerance = 2e3 * torch.finfo(a.dtype).eps * float(a.abs().max())
    return bool(((a - b).abs() <= tolerance).all())


def _are_probabilities(logits: Tensor) -> bool:
    sums = logits.sum(dim=1)
    return bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())


class _Formats(TorchDispatchMode):
    """Writes down in which number formats operations give their results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.seen |= {t.dtype for t in tree_leaves(result) if isinstance(t, Tensor)}
        return result


def _formats(logits: Callable[[Tensor], Tensor], x: Tensor) -> set[torch.dtype]:
    with torch.no_grad(), _Formats() as formats:
        logits(x[:1])
    return formats.seen


def _lost_at_bounds(
    logits: Callable[[Tensor], Tensor], x: Tensor, bounds: tuple[float, float]
) -> bool:
    """Say whether values at the bounds have no gradient, but a little inside do."""
    low, high = bounds
    at = (x <= low) | (x >= high)
    if not bool(at.any()):
        return False
    inside = x.clamp(low + 1e-4 * (high - low), high - 1e-4 * (high - low))
    gradients = []
    for points in (x, inside):
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            largest = logits(leaf).amax(1).sum()
            if not largest.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(largest, leaf)
        gradients.append(gradient[at].abs().mean())
    return bool(gradients[0] < 0.6 * gradients[1])
