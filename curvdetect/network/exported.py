"""Networks that torch.export wrote: read, checked, and made to behave as modules do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils._pytree import tree_structure

from curvdetect._base.messages import one_line
from curvdetect._base.stand_ins import check_file

__all__ = ["as_exported_module", "load_exported"]


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
        ``train`` and ``eval`` change nothing. It cannot be pickled or copied.

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
    >>> from curvdetect.network import load_exported
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
    check_file("model", path)
    try:
        program = torch.export.load(path)
    except Exception as error:  # whatever a broken file makes of torch's reader
        raise ValueError(f"model: {path} cannot be read: {one_line(error)}") from error
    return _of_program(program, f"model: {path}")


def as_exported_module(module: Any) -> Any:
    """Return an exported program as a module that can be used as any other.

    Parameters
    ----------
    module : ExportedProgram, torch.nn.Module or anything else
        What ``torch.export.export`` returns, or the ``module()`` of that.

    Returns
    -------
    torch.nn.Module
        Around the program: ``train`` and ``eval``, which torch refuses on it, change
        nothing, and it is in eval mode. Whatever else was given, unchanged.

    Raises
    ------
    ValueError
        If the program takes anything but one tensor, or not batches of any size.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.network.exported import as_exported_module
    >>> net, example = torch.nn.Linear(4, 3), torch.zeros(2, 4)
    >>> sizes = ({0: torch.export.Dim("n")},)
    >>> program = torch.export.export(net, (example,), dynamic_shapes=sizes)
    >>> as_exported_module(program.module()).eval()(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    >>> as_exported_module(net) is net
    True
    """
    if isinstance(module, ExportedProgram):
        return _of_program(module, "the exported program")
    # torch marks the module of a program by methods of its own on the instance.
    if isinstance(module, GraphModule) and "train" in vars(module):
        return _of_module(module)
    return module


def _of_program(program: ExportedProgram, what: str) -> nn.Module:
    inputs = [
        node
        for node in program.graph.nodes
        if node.name in program.graph_signature.user_inputs
    ]
    _check_inputs(inputs, program.call_spec.in_spec, program.range_constraints, what)
    return _Exported(program.module())


def _of_module(module: GraphModule) -> nn.Module:
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    limits: Any = getattr(module, "range_constraints", {})
    spec = getattr(module, "_in_spec", None)
    _check_inputs(inputs, spec, limits, "the exported program")
    return _Exported(module)


def _check_inputs(
    inputs: list[Any], spec: Any, limits: Mapping[Any, Any], what: str
) -> None:
    """Refuse a program that does not take batches of images."""
    shape: Any = getattr(inputs[0].meta.get("val"), "shape", ()) if inputs else ()
    one_tensor = tree_structure(((0,), {}))
    if len(inputs) != 1 or spec not in (one_tensor, None) or not len(shape):
        raise ValueError(
            f"{what} must take one tensor, a batch of images; it takes "
            f"{', '.join(node.name for node in inputs)}"
        )
    smallest, largest = _sizes(shape[0], limits)
    taken = None
    if largest < float("inf"):
        taken = f"batches of up to {largest:g} images"
    elif smallest > 2:  # torch means any number by 2: it tells none and one apart
        taken = f"batches of at least {smallest:g} images"
    elif not _is_free(shape):
        taken = f"batches of shape {tuple(map(str, shape))} only"
    if taken:
        raise ValueError(
            f"{what} takes {taken}; export it for "
            'any number: dynamic_shapes=({0: torch.export.Dim("n")},)'
        )


def _sizes(size: Any, limits: Mapping[Any, Any]) -> tuple[float, float]:
    """Return the smallest and the largest batch."""
    if isinstance(size, int):
        return size, size
    known = limits.get(size.node.expr)
    if known is None:
        return 0, float("inf")
    return float(known.lower), float(known.upper)


def _is_free(shape: Any) -> bool:
    """Say whether the size of a batch is a number that nothing else depends on."""
    size, *others = shape
    symbols = size.node.expr.free_symbols
    return bool(size.node.expr.is_symbol) and not any(
        symbols & other.node.expr.free_symbols
        for other in others
        if not isinstance(other, int)
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
            "a network from a .pt2 file cannot be pickled or copied, as other "
            "processes need it, nor can another exported program; make it by its class"
        )
