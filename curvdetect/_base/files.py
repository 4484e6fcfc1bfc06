"""Files that are whole at any time, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["partial_file", "writing", "written_at_once", "written_text"]

#: What the system calls a place that holds no more: a disk, a quota, a limit.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SUFFIX = ".curvdetect-partial"


@contextmanager
def written_at_once(path: str | Path) -> Iterator[Path]:
    """Give a file to write to that takes the place of `path` when it is complete.

    Until then `path` is what it was; a process that dies leaves a hidden file, which
    the next that writes `path` removes.

    Parameters
    ----------
    path : str or Path
        A link stays one: what it leads to is replaced. What is no regular file, such as
        a pipe, is written to directly.

    Yields
    ------
    Path
        In the same folder; its name does not say of what format it is.

    Raises
    ------
    OSError
        That names `path`, for whatever the system could not do: write here alone.
    """
    with partial_file(path) as partial, writing(path):
        yield partial


def written_text(path: str | Path, text: str) -> None:
    """Write a text file at once, or not at all."""
    with written_at_once(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def partial_file(path: str | Path) -> Iterator[Path]:
    """Do as `written_at_once`, for those who also do other things meanwhile.

    They write within `writing`, so that no other error is taken for one of `path`.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    with writing(path):
        _remove_abandoned(target)
        partial, locked = _created(target)
    try:
        yield partial
        with writing(path):
            _finish(partial, target)
    finally:
        partial.unlink(missing_ok=True)
        if locked is not None:
            os.close(locked)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Let errors of the system name the file, and say what to do.

    Raises
    ------
    OSError
        Of the same number, and so of the same class.
    """
    try:
        yield
    except Exception as error:
        found = _of_the_system(error)
        if found is None:
            raise
        said = found.strerror or str(found)
        kept = "; the earlier one is unchanged" if Path(path).is_file() else ""
        room = "Free some space there, or choose" if found.errno in _FULL else "Choose"
        message = f"{path} cannot be written: {said}{kept}. {room} another place"
        if found.errno is None:
            raise OSError(message) from error
        raise OSError(found.errno, message) from error


def _of_the_system(error: BaseException | None) -> OSError | None:
    """Return the system's error behind another: torch, closing a file, raises anew."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _finish(partial: Path, target: Path) -> None:
    """Give a file its name."""
    if target.exists():
        shutil.copymode(target, partial)
    with partial.open("r+b") as file:
        # Before the name: else, after a power cut, some file systems have the new name
        # without what was written under it.
        os.fsync(file.fileno())
    partial.replace(target)


def _created(target: Path) -> tuple[Path, int | None]:
    """Create a file beside another, and hold its lock while this process lives."""
    while True:
        partial = target.with_name(f".{target.name}-{secrets.token_hex(4)}{_SUFFIX}")
        # Not by tempfile, whose files nobody else may read.
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if sys.platform == "win32":  # there, a file that is open cannot be renamed
            os.close(handle)
            return partial, None
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if partial.exists():
            return partial, handle
        os.close(handle)  # it was taken for abandoned before it was locked


def _remove_abandoned(target: Path) -> None:
    """Remove what processes left that died while they wrote the same file."""
    if sys.platform == "win32":
        return
    left = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{8}}{re.escape(_SUFFIX)}")
    try:
        beside = list(target.parent.iterdir())
    except PermissionError:  # to write is allowed, to look is not
        return
    for path in beside:
        if not left.fullmatch(path.name):
            continue
        # Locked: another process writes it. Gone: another was as quick.
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
