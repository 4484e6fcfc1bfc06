"""``curvdetect monitor``: make what watches the answers of ``curvdetect serve``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._guards import add_guard, loaded_guard
from curvdetect.cli._options import (
    add_command,
    add_device,
    add_seed,
    check_folder,
)
from curvdetect.cli._pictures import add_pictures, read_all

if TYPE_CHECKING:
    from curvdetect import GuardMonitor

__all__ = ["run_monitor"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "monitor",
        run_monitor,
        help="make a monitor, which watches what serve answers",
        description=(
            "Fit a monitor for curvdetect serve --monitor to clean images that the "
            "guard was not fitted with, also such as the network gets wrong; a "
            "thousand rather than a hundred. It raises an alarm when the images that "
            "are served are not like these. Needs the extra skops, and vision for "
            "pictures."
        ),
    )
    add_guard(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    parser.add_argument(
        "--level",
        type=float,
        default=0.01,
        help="probability that there is ever a false alarm (default: %(default)s)",
    )
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, help="file for the monitor")
    return parser


def run_monitor(
    factory: str | None,
    guard: str | Path,
    images: str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    level: float = 0.01,
    resize: bool = False,
    device: str | None = None,
    seed: int = 0,
) -> GuardMonitor:
    """Fit a monitor to clean images, and save it; say on stderr what was done.

    Parameters
    ----------
    factory, guard, preset, weights, weights_key, companion, companion_weights, device
        As in :func:`curvdetect.cli.score.run_score`.
    images : str or Path
        Clean images that the guard was not fitted with.
    out : str or Path
        The file of the monitor.
    level : float, default=0.01
        As in :class:`~curvdetect.GuardMonitor`.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`; a guard whose network has a
        preparation resizes pictures as that says.
    seed : int, default=0
        Of the numbers that break ties.

    Returns
    -------
    GuardMonitor
        Fitted, without a guard in it.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    from curvdetect import GuardMonitor
    from curvdetect._base.checks import check_share
    from curvdetect.storage import save

    check_share("level", level)  # before any long work
    check_folder(out)
    loaded = loaded_guard(
        guard,
        {"factory": factory, "preset": preset},
        companion,
        {"weights": weights, "weights_key": weights_key},
        companion_weights,
        device=device,
    )
    X = read_all(images, loaded.model_, resize=resize)
    monitor = GuardMonitor(level=level, random_state=seed).fit(loaded.assess(X))
    save(monitor, out)
    print(
        f"{len(X)} images, {monitor.n_calibration_flagged_} of them flagged; the "
        f"monitor is in {out}",
        file=sys.stderr,
    )
    return monitor
