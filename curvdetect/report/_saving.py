"""Pictures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curvdetect._base.files import written_at_once

__all__ = ["save_picture"]


def save_picture(figure: Any, path: Path, **settings: Any) -> None:
    """Save a figure of matplotlib as PNG, at once or not at all."""
    with written_at_once(path) as partial:
        figure.savefig(partial, format="png", **settings)
