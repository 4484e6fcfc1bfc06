"""Load a network of your own: made by a function, or exported by torch."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_structure

__all__ = ["load_exported", "load_module"]


def load_module(factory: str, weights: str | Path | None = None) -> nn.Module:
    """Make a network by a function that is named.

    Parameters
    ----------
    factory : str
        ``package.module:name``, where `name` is a module or a function without
        arguments that returns one. Looked for in the current folder too. It is code of
        yours, and is executed. Or a .pt2 file, see :func:`load_exported`.
    weights : str or Path, optional
        State dict, or a checkpoint with one called "state_dict" or "model". Loaded
        with ``weights_only=True``: nothing in it is executed.

    Returns
    -------
    torch.nn.Module
        In eval mode, where it was made.

    Raises
    ------
    FileNotFoundError
        If there are no such weights, or no such .pt2 file.
    ValueError
        If there is no such function, it returns something else, or the weights do not
        fit.
    """
    if factory.endswith(".pt2"):
        if weights is not None:
            raise ValueError(
                f"weights must be left out where the network is a .pt2 file, which has "
                f"its own; got {weights}"
            )
        return load_exported(factory)
    package, _, name = factory.partition(":")
    if not package or not name:
        raise ValueError(
            f"model must be package.module:factory or a .pt2 file; got {factory!r}"
        )
    if "" not in sys.path:
        sys.path.append("")  # last: nothing in the current folder hides a package
    try:
        made = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"model: cannot find {factory} ({error})") from error
    if not isinstance(made, nn.Module):
        made = _called(made, factory)
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"model must give a torch.nn.Module; {factory} gave {type(made).__name__}"
        )
    if weights is not None:
        _load_weights(made, weights)
    return made.eval()


def load_exported(path: str | Path) -> nn.Module:
    """Load a network that ``torch.export.save`` wrote.

    Parameters
    ----------
    path : str or Path
        A .pt2 file of your own: reading it can execute whatever is in it. Exported in
        eval mode, with a batch of any size: ``torch.export.export(net.eval(),
        (example,), dynamic_shapes=({0: torch.export.Dim("n")},))``.

    Returns
    -------
    torch.nn.Module
        On the devices that it was exported on, and in the mode that it was exported in:
        ``train`` and ``eval`` change nothing. It cannot be pickled, copied or hashed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a program, takes anything but one tensor, or not batches of
        any size.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from curvdetect.network.loading import load_exported
    >>> from curvdetect.study.networks import LeNet
    >>> program = torch.export.export(
    ...     LeNet().eval(),
    ...     (torch.zeros(2, 1, 28, 28),),
    ...     dynamic_shapes=({0: torch.export.Dim("n")},),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.export.save(program, f"{folder}/lenet.pt2")
    ...     network = load_exported(f"{folder}/lenet.pt2")
    >>> network(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"model: there is no {path}")
    try:
        program = torch.export.load(path)
    except Exception as error:  # whatever a broken file makes of torch's reader
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ValueError(f"model: {path} cannot be read: {reason}") from error
    _check_program(program, path)
    return _Exported(program.module())


def _check_program(program: Any, path: str | Path) -> None:
    """Refuse a program that does not take batches of images."""
    one_tensor = tree_structure(((0,), {}))
    inputs = program.graph_signature.user_inputs
    values = [n.meta.get("val") for n in program.graph.nodes if n.name in inputs]
    shape: Any = getattr(values[0], "shape", ()) if values else ()
    if program.call_spec.in_spec != one_tensor or not len(shape):
        raise ValueError(
            f"model: {path} must take one tensor, a batch of images; it takes "
            f"{', '.join(map(str, inputs))}"
        )
    largest = shape[0]
    if not isinstance(largest, int):
        limits = program.range_constraints.get(largest.node.expr)
        largest = float("inf") if limits is None else float(limits.upper)
    if largest < float("inf"):
        raise ValueError(
            f"model: {path} takes batches of up to {largest:g} images; export it for "
            'any number: dynamic_shapes=({0: torch.export.Dim("n")},)'
        )


class _Exported(nn.Module):
    """An exported program, whose mode is fixed: torch refuses to change it."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.program(x)
        return logits

    def train(self, mode: bool = True) -> _Exported:
        return self

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "a network from a .pt2 file cannot be pickled, copied or hashed, as caches "
            "and other processes need it; make it by its class"
        )


def _called(make: Any, factory: str) -> Any:
    if not callable(make):
        raise ValueError(f"model: {factory} is neither a network nor a function")
    try:
        return make()
    except TypeError as error:
        raise ValueError(
            f"model: {factory} cannot be called without arguments ({error})"
        ) from error


def _load_weights(module: nn.Module, path: str | Path) -> None:
    try:
        known = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a broken file makes of torch's reader
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ValueError(f"weights: {path} cannot be read: {reason}") from error
    for name in ("state_dict", "model"):
        if isinstance(known, dict) and isinstance(known.get(name), dict):
            known = known[name]
    try:
        module.load_state_dict(known)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"weights do not fit the network: {reason}") from error
