"""Load a network of your own: made by a function, or exported by torch."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
        In eval mode, on the CPU.

    Raises
    ------
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
        A .pt2 file of your own: a program is executed. Exported in eval mode, with a
        batch of any size: ``torch.export.export(net.eval(), (example,),
        dynamic_shapes=({0: torch.export.Dim("n")},))``.

    Returns
    -------
    torch.nn.Module
        On the devices that it was exported on. It stays in the mode it was exported in.

    Raises
    ------
    ValueError
        If the file is not such a program, or takes batches of one size only.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from curvdetect.loading import load_exported
    >>> from curvdetect.networks import LeNet
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
    inputs = program.graph_signature.user_inputs
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.name in inputs and isinstance(node.meta.get("val"), Tensor)
    ]
    if len(shapes) != 1:
        raise ValueError(
            f"model: {path} must take one tensor, a batch of images; it takes "
            f"{len(inputs)} inputs"
        )
    if isinstance(shapes[0][0], int):
        raise ValueError(
            f"model: {path} takes batches of {shapes[0][0]} only; export it with "
            'dynamic_shapes=({0: torch.export.Dim("n")},)'
        )
    return _Exported(program.module())


class _Exported(nn.Module):
    """An exported program, which cannot change its mode and refuses to be asked."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.program(x)
        return logits

    def train(self, mode: bool = True) -> _Exported:
        return self


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
