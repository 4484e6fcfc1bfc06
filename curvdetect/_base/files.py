"""Files that are whole at any time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["written_at_once"]


@contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """Give a file to write to that takes the place of `path` when it is complete."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        yield Path(name)
        with Path(name).open("rb") as file:
            os.fsync(file.fileno())  # before the name: a power cut leaves all or none
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
