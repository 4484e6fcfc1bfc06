"""A guard in a file of ``curvdetect fit``: how it is loaded, with its networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._network import loaded_module, source_of
from curvdetect.cli._options import check_device

if TYPE_CHECKING:
    from curvdetect import GuardedClassifier

__all__ = ["check_pictures", "loaded_guard"]


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
    return loaded


def check_pictures(guard: GuardedClassifier) -> None:
    """Refuse a guard whose images are no pictures."""
    if (bounds := guard.model_.bounds) != (0, 1):
        raise ValueError(
            f"guard must be for pictures in [0, 1]; got one for bounds {bounds}"
        )
