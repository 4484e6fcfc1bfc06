"""``curvdetect serve``: a guard of ``curvdetect fit`` over HTTP."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._guards import add_guard, loaded_guard
from curvdetect.cli._options import add_command, add_device, check_folder
from curvdetect.cli._pictures import add_resize
from curvdetect.cli._streams import results_alone

if TYPE_CHECKING:
    from curvdetect import GuardMonitor

__all__ = ["run_serve"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "serve",
        run_serve,
        help="answer over HTTP with a guard that fit saved",
        description=(
            "Serve a guard that curvdetect fit saved. POST /score takes a picture, a "
            ".npy file, JSON (nested lists), or a form with several of them, and "
            "answers what curvdetect score writes, as JSON. GET /health and GET "
            "/metrics (Prometheus) say how it is. SIGTERM or Ctrl-C ends it, when what "
            "it took is answered. It has neither authentication nor a limit of how "
            "often a client may ask. Needs the extra serve."
        ),
    )
    add_guard(parser)
    add_device(parser, default="cpu")
    _add_address(parser)
    _add_limits(parser)
    add_resize(parser)
    parser.add_argument(
        "--monitor",
        type=Path,
        metavar="FILE",
        help="a monitor of curvdetect monitor, or a GuardMonitor, fitted without guard "
        "in it, that curvdetect.storage.save wrote; it watches all answers, and is "
        "saved to the same file at the end",
    )
    return parser


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="and at which port; 0 takes a free one (default: %(default)s)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add what is taken; the defaults are those of :class:`curvdetect.serving.Limits`.

    They are written twice, since what they are written in is slow to import; a test
    compares them.
    """
    for name, kind, default, said in (
        ("--max-bytes", int, 2**23, "bytes of a request"),
        ("--max-pixels", int, 2**24, "pixels of a picture"),
        ("--max-batch", int, 128, "images that the guard is given at once"),
        ("--queue", int, 256, "images that may wait, before others are refused"),
        ("--timeout", float, 30.0, "seconds for an answer"),
    ):
        parser.add_argument(
            name, type=kind, default=default, help=f"{said} (default: %(default)s)"
        )


def run_serve(
    factory: str | None,
    guard: str | Path,
    *,
    preset: str | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    device: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    monitor: str | Path | None = None,
    resize: bool = False,
    **limits: Any,
) -> None:
    """Serve a guard until SIGTERM or Ctrl-C.

    Parameters
    ----------
    factory, guard, preset, weights, weights_key, companion, companion_weights, device
        As in :func:`curvdetect.cli.score.run_score`.
    host, port
        As in :func:`curvdetect.serving.run_server`.
    monitor : str or Path, optional
        File of a fitted :class:`~curvdetect.GuardMonitor` without a guard in it. It
        sees every assessment; its state is saved there at the end.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`; a guard whose network has a
        preparation resizes pictures as that says.
    **limits
        As in :class:`curvdetect.serving.Limits`.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    OSError
        If the port is taken.
    """
    from curvdetect._base.extras import require
    from curvdetect.serving import Limits, create_app, run_server

    require("uvicorn", extra="serve")  # before any long work
    checked = Limits(**limits)
    watching = None if monitor is None else _loaded_monitor(monitor)
    with results_alone():
        loaded = loaded_guard(
            guard,
            {"factory": factory, "preset": preset},
            companion,
            {"weights": weights, "weights_key": weights_key},
            companion_weights,
            device=device,
        )
        app = create_app(
            loaded,
            limits=checked,
            monitor=watching,
            monitor_file=monitor,
            resize=resize,
        )
        run_server(
            app,
            host=host,
            port=port,
            started=lambda address: print(
                f"curvdetect: serving {guard} at {address}", file=sys.stderr, flush=True
            ),
        )


def _loaded_monitor(path: str | Path) -> GuardMonitor:
    """Load a monitor, and see that it can be saved to the same place."""
    from curvdetect import GuardMonitor
    from curvdetect.storage.guards import read_saved

    check_folder(path)
    saved = read_saved(path)
    if saved.holds_weights:
        raise ValueError(
            "monitor must hold no network of its own: fit it without a guard, "
            f"GuardMonitor().fit(guard.assess(images)); {path} holds one"
        )
    loaded = saved.around(None)
    if not isinstance(loaded, GuardMonitor):
        raise ValueError(
            f"monitor must be the file of a GuardMonitor; {path} holds a "
            f"{type(loaded).__name__}"
        )
    return loaded
