"""A guard that fit saved: the options of its networks, and how it is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._network import (
    add_companion,
    add_companion_weights,
    add_model,
    add_weights,
    check_companion_weights,
    loaded_module,
    source_of,
)
from curvdetect.cli._options import check_device

if TYPE_CHECKING:
    from curvdetect import GuardedClassifier

__all__ = ["add_guard", "add_networks", "loaded_guard"]


def add_guard(parser: argparse.ArgumentParser) -> None:
    """Add the file of a saved guard, and where its networks come from."""
    parser.add_argument("guard", type=Path, metavar="GUARD", help="file of the guard")
    add_networks(parser)


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add where the networks of a saved guard come from."""
    add_model(parser)
    add_weights(parser)
    add_companion(parser)
    add_companion_weights(parser)


def loaded_guard(
    guard: str | Path,
    source: dict[str, str | None],
    companion: str | None,
    weights: dict[str, Any],
    companion_weights: str | Path | None,
    *,
    device: str | None,
) -> GuardedClassifier:
    """Load a guard, and networks for it: with weights where the guard lacks them."""
    from curvdetect import GuardedClassifier
    from curvdetect.storage.guards import read_saved

    check_companion_weights(companion, companion_weights)
    check_device(device)
    saved = read_saved(guard)
    held = (*saved.holds_weights, True, True)[:2]
    for name, given, holds in zip(
        ("weights", "companion_weights"),
        (weights["weights"], companion_weights),
        held,
        strict=True,
    ):
        if given is not None and holds:
            raise ValueError(
                f"{name} must be left out: the guard in {guard} holds its own; got "
                f"{given}"
            )
    module = loaded_module(**source, **weights, pretrained=not held[0], device=device)
    second = None
    if companion is not None:
        second = loaded_module(
            **source_of(companion),
            weights=companion_weights,
            pretrained=not held[1],
            device=device,
        )
    loaded = saved.around(module, second)
    if not isinstance(loaded, GuardedClassifier):
        raise ValueError(
            f"guard must be a file of curvdetect fit; {guard} holds a "
            f"{type(loaded).__name__}"
        )
    if (bounds := loaded.model_.bounds) != (0, 1):
        raise ValueError(
            f"guard must be for pictures in [0, 1]; got one for bounds {bounds}"
        )
    return loaded
