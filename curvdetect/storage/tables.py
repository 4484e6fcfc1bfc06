"""Write a table as its rows come: CSV, JSON or Parquet.

A file appears when it is complete: half a table cannot be told from a whole one.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from curvdetect._base.extras import require
from curvdetect._base.files import partial_file, writing, written_at_once

__all__ = ["as_json", "check_table", "written_table"]

_SUFFIXES = (".csv", ".json", ".parquet")
#: Takes some rows, as a list or array for each column.
Write = Callable[[Sequence[Any]], None]


def check_table(out: str | Path) -> None:
    """Refuse a file that cannot become a table, before there is anything to write."""
    if str(out) == "-":
        return
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"out must be a file; {out} is a folder")
    if path.suffix not in _SUFFIXES:
        raise ValueError(
            f"out must end with {', '.join(_SUFFIXES)}, or be -; got {out}"
        )
    if not path.absolute().parent.is_dir():
        raise ValueError(f"out: there is no folder {path.parent}")
    if path.suffix == ".parquet":
        require("pyarrow.parquet", extra="parquet")


@contextmanager
def written_table(out: str | Path | IO[str], columns: Sequence[str]) -> Iterator[Write]:
    """Open a table.

    Parameters
    ----------
    out : str, Path or text file
        As :func:`check_table` allows it; "-" is standard output, as CSV. A file that is
        open gets CSV too.
    columns : sequence of str
        Names.

    Yields
    ------
    callable
        Writes some rows.

    Raises
    ------
    OSError
        If it cannot be written, as where the disk is full; a file that was there
        before is still whole. Errors of what the caller does meanwhile are not touched.
    """
    if not isinstance(out, str | Path) or str(out) == "-":
        file = sys.stdout if isinstance(out, str | Path) else out
        yield _csv(file, "standard output", columns)
    elif Path(out).suffix == ".parquet":
        with _parquet(Path(out), columns) as write:
            yield write
    else:
        with _text(Path(out)) as file:
            if Path(out).suffix == ".csv":
                yield _csv(file, out, columns)
            else:
                with _json(file, out, columns) as write:
                    yield write


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    """Open a text file that takes its place when it is complete."""
    with partial_file(path) as partial:
        file = partial.open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        )
        try:
            yield file
        finally:
            with writing(path):  # what is still in its buffer
                file.close()


def _csv(file: IO[str], name: str | Path, columns: Sequence[str]) -> Write:
    writer = csv.writer(file)

    def write(values: Sequence[Any]) -> None:
        with writing(name):
            writer.writerows(_rows(values))
            file.flush()

    with writing(name):
        writer.writerow(columns)
        file.flush()
    return write


@contextmanager
def _json(file: IO[str], name: str | Path, columns: Sequence[str]) -> Iterator[Write]:
    """Write an array of objects."""
    separator = "[\n"

    def write(values: Sequence[Any]) -> None:
        nonlocal separator
        with writing(name):
            for row in _rows(values):
                file.write(separator + as_json(dict(zip(columns, row, strict=True))))
                separator = ",\n"
            file.flush()

    yield write
    with writing(name):
        file.write("[]\n" if separator == "[\n" else "\n]\n")


@contextmanager
def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    """Write a file that is not there until it is complete."""
    pyarrow = require("pyarrow", extra="parquet")
    parquet = require("pyarrow.parquet", extra="parquet")
    tables: list[Any] = []

    def write(values: Sequence[Any]) -> None:
        tables.append(pyarrow.table(dict(zip(columns, values, strict=True))))

    yield write
    empty = pyarrow.table({name: [] for name in columns})
    with written_at_once(path) as file:
        parquet.write_table(pyarrow.concat_tables(tables or [empty]), file)


def as_json(value: Any, indent: int | None = None) -> str:
    """Return JSON, with null for numbers that it lacks."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    # NumPy's numbers are not JSON's.
    plain = (v if isinstance(v, list) else v.tolist() for v in values)
    return zip(*plain, strict=True)
