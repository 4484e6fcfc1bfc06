"""Finite steps of a signal: its own, or the featurizer's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curvdetect.signals.setup import Setup

__all__ = ["as_steps", "names_of_steps", "steps_of"]

Steps = float | Sequence[float] | None


def steps_of(step: Steps) -> tuple[float, ...]:
    """Return steps as a tuple; none where they are left to the featurizer."""
    return () if step is None else tuple(float(h) for h in np.ravel(step))


def as_steps(step: Steps, setup: Setup) -> tuple[float, ...]:
    """Return a signal's own steps, or the featurizer's."""
    return setup.steps if step is None else steps_of(step)


def names_of_steps(name: str, step: Steps) -> list[str]:
    """Name each step; a single one needs no number."""
    steps = steps_of(step)
    return [name] if len(steps) < 2 else [f"{name}_h{h:g}" for h in steps]
