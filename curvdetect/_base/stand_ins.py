"""Files that are there in the place of others."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_file", "stand_in"]

_POINTERS = (b"version https://git-lfs.github.com/", b"version https://hawser.github.")
_PAGES = (b"<!doctype html", b"<html")


def stand_in(path: str | Path) -> str | None:
    """Say what a file is that stands in the place of another.

    Parameters
    ----------
    path : str or Path
        Any path.

    Returns
    -------
    str or None
        "a pointer of git-lfs, ..." or "a web page, ...", with the remedy; None for
        every other file, and where there is none that can be read.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
    except OSError:  # whoever reads it will say more
        return None
    if start.startswith(_POINTERS):
        return "a pointer of git-lfs, not the file itself: fetch it by git lfs pull"
    if start.lstrip().lower().startswith(_PAGES):
        return "a web page, not the file itself: look at it in a browser"
    return None


def check_file(name: str, path: str | Path) -> None:
    """Refuse, in the name of a parameter, what is not there or stands in its place."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{name}: there is no {path}")
    if reason := stand_in(path):
        raise ValueError(f"{name}: {path} is {reason}")
