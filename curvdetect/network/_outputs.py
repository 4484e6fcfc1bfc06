"""What modules return, as logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["as_logits"]


def as_logits(output: Any, n: int) -> Tensor:
    """Return the logits among what a module returned for n inputs.

    That is the tensor itself, the "logits" of a dict or of an object (as transformers
    return them), or the first of several. Axes of 1 beside that of the classes are
    dropped: (n, k, 1, 1) of convolutions, (n, 1, k) of some ONNX files.

    Raises
    ------
    ValueError
        If it is not one row of at least two logits for each input.
    """
    logits = output
    if isinstance(output, Mapping):
        if "logits" not in output:
            raise ValueError(
                'the module must return logits, or a dict with "logits"; got a dict '
                f"with {sorted(map(str, output))}"
            )
        logits = output["logits"]
    elif not isinstance(output, Tensor) and hasattr(output, "logits"):
        logits = output.logits
    elif isinstance(output, tuple | list) and len(output):
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the module must return a tensor of logits; got {type(logits).__name__}"
        )
    if not logits.is_floating_point():
        raise ValueError(
            f"the module must return logits, floating-point numbers; got {logits.dtype}"
        )
    beside = [k for k in logits.shape[1:] if k != 1]
    if logits.ndim > 2 and logits.shape[0] == n and len(beside) == 1:
        logits = logits.flatten(1)
    if logits.ndim != 2 or logits.shape[0] != n:
        raise ValueError(
            "the module must return logits of shape (n_samples, n_classes); got "
            f"{tuple(logits.shape)} for {n} samples"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the module must have at least two classes, one logit each; got one. A "
            "network with a single output s for two classes has the logits (0, s)."
        )
    return logits
