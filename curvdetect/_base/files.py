"""Files that are whole at any time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["written_at_once"]


@contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """Give a file to write to that takes the place of `path` when it is complete."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    temporary.open("xb").close()  # with the permissions of any file, not of a secret
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # before the name: a power cut leaves all or none
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
