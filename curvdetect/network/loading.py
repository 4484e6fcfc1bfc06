"""Load a network of your own: made by a function, or from a file of a whole network."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from torch import nn

from curvdetect._base.messages import one_line
from curvdetect.network.exported import as_exported_module, load_exported
from curvdetect.network.sources.onnx import load_onnx
from curvdetect.network.weights import load_weights

__all__ = ["load_exported", "load_module"]

#: Files that hold a network with its weights.
_WHOLE_NETWORKS = {".pt2": load_exported, ".onnx": load_onnx}


def load_module(
    factory: str,
    weights: str | Path | None = None,
    *,
    weights_key: str | None = None,
) -> nn.Module:
    """Make a network by a function that is named.

    Parameters
    ----------
    factory : str
        ``package.module:name``, where `name` is a module or a function without
        arguments that returns one. Looked for in the current folder too. It is code of
        yours, and is executed. Or a .pt2 file, see :func:`load_exported`, or an .onnx
        file, in which nothing is executed.
    weights : str or Path, optional
        State dict, of torch or of safetensors, or a checkpoint with one, whatever its
        key, and with or without prefixes such as "module." in its names. Loaded with
        ``weights_only=True``: nothing in it is executed.
    weights_key : str, optional
        Where a checkpoint has more than one that fits: which, such as
        "state_dict_ema"; "a.b" for b within a.

    Returns
    -------
    torch.nn.Module
        In eval mode, where it was made.

    Raises
    ------
    FileNotFoundError
        If there are no such weights, or no such .pt2 or .onnx file.
    ValueError
        If there is no such function, it raises or returns something else, or the
        weights do not fit, or more than one set of them does.
    ImportError
        If the weights are a file of safetensors, or the network one of ONNX, and what
        reads it is not installed.
    """
    if weights_key is not None and weights is None:
        raise ValueError(f"weights_key needs weights; got {weights_key!r} alone")
    suffix = Path(factory).suffix
    if suffix in _WHOLE_NETWORKS:
        if weights is not None:
            raise ValueError(
                f"weights must be left out where the network is a {suffix} file, which "
                f"has its own; got {weights}"
            )
        return _WHOLE_NETWORKS[suffix](factory)
    made = as_exported_module(_made(factory))
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"model must give a torch.nn.Module; {factory} gave {type(made).__name__}"
        )
    if weights is not None:
        load_weights(made, weights, key=weights_key)
    return _in_eval_mode(made)


def _made(factory: str) -> Any:
    """Return what a name stands for, called if it is no network yet."""
    package, _, name = factory.partition(":")
    if not package or not name:
        raise ValueError(
            "model must be package.module:factory, or a .pt2 or .onnx file; got "
            f"{factory!r}"
        )
    module = _imported(package, factory)
    try:
        made = as_exported_module(getattr(module, name))
    except AttributeError as error:
        raise ValueError(f"model: cannot find {factory} ({error})") from error
    if isinstance(made, nn.Module):
        return made
    if not callable(made):
        raise ValueError(f"model: {factory} is neither a network nor a function")
    return _called(made, factory)


def _imported(package: str, factory: str) -> Any:
    """Import a module, and tell one that is missing from one that fails."""
    if package.startswith("."):
        raise ValueError(
            f"model: cannot find {factory} (a name that begins with a dot belongs to "
            "no package)"
        )
    if "" not in sys.path:
        sys.path.append("")  # last: nothing in the current folder hides a package
    try:
        return importlib.import_module(package)
    except (Exception, SystemExit) as error:  # whatever the code of yours raises
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(
            f"{missing}."
        ):
            raise ValueError(f"model: cannot find {factory} ({error})") from error
        raise ValueError(
            f"model: importing {package} raised {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error


def _called(make: Any, factory: str) -> Any:
    """Call a function, and tell one that needs arguments from one that fails."""
    try:
        return make()
    except (Exception, SystemExit) as error:  # whatever the code of yours raises
        if isinstance(error, TypeError) and _needs_arguments(make, error):
            raise ValueError(
                f"model: {factory} cannot be called without arguments ({error})"
            ) from error
        raise ValueError(
            f"model: {factory} raised {type(error).__name__}: {one_line(error)}"
        ) from error


def _needs_arguments(make: Any, error: TypeError) -> bool:
    """Say whether a call failed before any line of the function ran."""
    traceback = error.__traceback__
    if traceback is not None and traceback.tb_next is not None:
        return False
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError):
        return True
    return False


def _in_eval_mode(module: nn.Module) -> nn.Module:
    try:
        return module.eval()
    except NotImplementedError:  # a part is an exported program, which has no mode
        for part in module.modules():
            part.training = False
        return module
