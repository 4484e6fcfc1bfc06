"""Signals of boundaries that take finite steps: their own, or the featurizer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from curvdetect._base.checks import check_steps
from curvdetect.signals.base import BoundarySignal, Signal
from curvdetect.signals.setup import Setup

__all__ = ["SteppedSignal"]


class SteppedSignal(BoundarySignal):
    """A frozen dataclass with a field `step`: a length, several, or None.

    None leaves it to the featurizer.
    """

    step: float | Sequence[float] | None

    def __post_init__(self) -> None:
        if self.step is not None:
            check_steps("step", self.step, "None, ")

    @property
    def takes_step(self) -> bool:
        """Whether its step is the featurizer's."""
        return self.step is None

    @property
    def steps(self) -> tuple[float, ...]:
        """Its own steps; none where they are the featurizer's."""
        return () if self.step is None else tuple(float(h) for h in np.ravel(self.step))

    def steps_in(self, setup: Setup) -> tuple[float, ...]:
        """Return its own steps, or the featurizer's."""
        return setup.steps if self.step is None else self.steps

    def parts(self) -> list[Signal]:
        """Return a signal for each step."""
        return [replace(self, step=(h,)) for h in self.steps]  # type: ignore[type-var]

    def blocks(self) -> list[str]:
        """Name the steps: "curvature", or "curvature_h0.5", ..."""
        if len(self.steps) < 2:  # a single one needs no number
            return [self.name]
        return [f"{self.name}_h{h:g}" for h in self.steps]
