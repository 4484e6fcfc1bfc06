"""Import what only some users need, with an error that names the extra."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["require"]


def require(module: str, *, extra: str) -> Any:
    """Import a module, or say which extra of the package brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed for this and could not be imported ({error}). "
            f"Install it with: pip install 'curvdetect[{extra}]'"
        ) from error
