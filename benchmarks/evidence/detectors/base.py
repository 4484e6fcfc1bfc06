"""What the benchmark asks of a detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import nn

from benchmarks.evidence.case import Case, Training
from curvdetect import TorchModel

__all__ = ["Detector", "Learns", "Scorer"]

Learns = Literal["nothing", "clean images", "attacks", "attacks of its own"]


class Scorer(Protocol):
    """Learns, then scores images: the more, the more it looks attacked.

    The score of an image depends on no other image of the call. Where `clean_scores`
    is there after `fit`, thresholds are set by these scores of images that it kept back
    for that; else by those of images of the benchmark. `fit_seconds` is there where
    what was learned was kept from another run, and `networks` where it runs copies.
    """

    def fit(self, training: Training) -> Scorer:
        """Learn from what it may learn from."""
        ...

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return the scores of images (n, C, H, W), shape (n,)."""
        ...


def every(case: Case) -> bool:
    """Say that a detector can be had for every network."""
    return True


def has_companion(case: Case) -> bool:
    """Say whether a second network was trained for the data."""
    return case.companion is not None


def companion_of(case: Case) -> TorchModel:
    """Return that network."""
    if case.companion is None:
        raise ValueError(f"{case.name} has no companion for {case.network.data}")
    return case.companion


def of_both_networks(case: Case) -> tuple[nn.Module, ...]:
    """Say that a detector runs the guarded network and its companion."""
    return case.model.module, companion_of(case).module


def of_the_network(case: Case) -> tuple[nn.Module, ...]:
    """Say that a detector runs the guarded network, and no other."""
    return (case.model.module,)


@dataclass(frozen=True)
class Detector:
    """A detector as it is compared.

    `make(case)` gives one that has learned nothing yet; `learns` says from what it
    does, and those that learn from attacks are made again without each kind. `source`
    is where it is from: a package with its version, or a paper; `ours` where it is this
    package's. `applies(case)` is false where a network lacks what it needs.
    `networks(case)` are those whose passes are its cost.
    """

    name: str
    make: Callable[[Case], Scorer]
    learns: Learns
    source: str
    ours: bool = False
    applies: Callable[[Case], bool] = every
    networks: Callable[[Case], tuple[nn.Module, ...]] = of_the_network
    #: Of a slow one: the first images of each set, which alone are scored.
    n_images: int | None = None
    #: Of one that attacks by itself: the only kinds that it makes again without.
    own_kinds: tuple[str, ...] | None = None

    def asks_companion(self, case: Case) -> bool:
        """Say whether it runs the companion of the network."""
        companion = case.companion
        return companion is not None and companion.module in self.networks(case)
