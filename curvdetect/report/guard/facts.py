"""What a page about a guard is made of: the guard, images, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from curvdetect.attacks.effort import effort_for
from curvdetect.estimators import SelfTest, VotingDetector
from curvdetect.estimators._p_values import p_values
from curvdetect.estimators.detector import target_fpr_of
from curvdetect.estimators.guard import Assessment, GuardedClassifier
from curvdetect.estimators.voting import Certified
from curvdetect.evasion import Evasion
from curvdetect.network import TorchModel
from curvdetect.report.guard.attacked import Attacked, attack
from curvdetect.report.guard.stages import Stage

__all__ = ["Facts", "Given", "Origin", "measured"]

#: Assessed at a time, between two steps of the progress bar.
_AT_ONCE = 256


@dataclass(frozen=True)
class Given:
    """The images that were given, which are taken for clean.

    Attributes
    ----------
    X : ndarray of shape (n, *input_shape)
        Images in [0, 1].
    names : sequence of n str
        What they are called.
    labels : ndarray of shape (n,), int64, or None
        True labels, if they are known.
    of_labels : str
        Where the labels come from, or why there are none.
    """

    X: npt.NDArray[Any]
    names: Sequence[str]
    labels: npt.NDArray[np.int64] | None = None
    of_labels: str = "none were given"


@dataclass(frozen=True)
class Origin:
    """Where what the page is about comes from, as its reader would name it.

    Attributes
    ----------
    guard, network, companion, images : str
        File of the guard; how the networks are made; files of the images. "" where
        nobody said.
    date : str
        Day of the report.
    """

    guard: str = ""
    network: str = ""
    companion: str = ""
    images: str = ""
    date: str = ""


@dataclass(frozen=True)
class Facts:
    """All that the sections of a page may say.

    Attributes
    ----------
    guard : GuardedClassifier
        Fitted.
    given : Given
        Images.
    origin : Origin
        Names of files.
    found : Assessment
        What the guard makes of the images.
    p_values : ndarray of shape (n,) or None
        Theirs, if they are known without a further look.
    attacked : Attacked or None
        What it makes of attacks on some of them; None where none was made.
    certified : Certified or None
        Of the images that were attacked, by a guard that certifies.
    evasion : sequence of Evasion
        What was measured elsewhere of attackers who know the guard.
    seed : int
        Of everything random.
    """

    guard: GuardedClassifier
    given: Given
    origin: Origin
    found: Assessment
    p_values: npt.NDArray[np.float64] | None
    attacked: Attacked | None
    certified: Certified | None
    evasion: Sequence[Evasion]
    seed: int

    @property
    def model(self) -> TorchModel:
        """The guarded network."""
        return self.guard.model_

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the network gets each image right; all, where no labels are known."""
        return is_right(self.found, self.given)

    @property
    def stages(self) -> Sequence[Stage]:
        """What each stage of a cascade adds; none, where there is none."""
        return () if self.attacked is None else self.attacked.stages

    @property
    def target_fpr(self) -> float | None:
        """The false-positive rate that the guard was made for, if it says one."""
        return _rate_of(self.guard.detector_)

    @property
    def self_test(self) -> SelfTest | None:
        """What a learned detector said at `fit`, also that of one that votes."""
        inner = getattr(self.guard.detector_, "detector_", None)
        return self.guard.self_test_ or getattr(inner, "self_test_", None)

    def name_of(self, label: int) -> str:
        """Return what a class is called, its number at least."""
        names = self.model.class_names
        if names is None or not 0 <= label < len(names):
            return f"class {label}"
        return names[label]


def _rate_of(detector: Any) -> float | None:
    """Return the rate that a fitted detector was made for; None if it says none."""
    contamination = getattr(detector, "contamination", None)  # of outlier detectors
    return target_fpr_of(detector) or (
        contamination if isinstance(contamination, float) else None
    )


def is_right(found: Assessment, given: Given) -> npt.NDArray[np.bool_]:
    """Say which images the network gets right; all, where no labels are known."""
    if given.labels is None:
        return np.ones(len(given.X), dtype=bool)
    return np.asarray(found.model_label == given.labels)


def measured(
    guard: GuardedClassifier,
    given: Given,
    *,
    origin: Origin,
    evasion: Sequence[Evasion] = (),
    n_attacked: int | None = None,
    seed: int = 0,
    verbose: int = 0,
) -> Facts:
    """Measure all that takes long: scores, attacks, certificates.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted.
    given : Given
        Images.
    origin : Origin
        Names of files.
    evasion : sequence of Evasion
        What was measured elsewhere.
    n_attacked : int, optional
        How many of the images are attacked, and certified, at most; 0 attacks none. By
        default 200, and 30 where images have more than 50,000 values.
    seed : int, default=0
        Of the choice of these images, of attacks and noise.
    verbose : int, default=0
        1 shows progress bars.

    Returns
    -------
    Facts
        For the sections.
    """
    found = assessed(guard, given.X, verbose)
    usable = np.flatnonzero(is_right(found, given))
    if n_attacked is None:
        n_attacked = effort_for(given.X[0].size).n_tested
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(usable)[:n_attacked])
    attacks = certified = None
    if len(chosen):
        attacks = attack(
            guard,
            torch.from_numpy(given.X[chosen]),
            torch.from_numpy(found.model_label[chosen]),
            clean=given.X[usable],
            clean_score=found.score[usable],
            assess=lambda images: assessed(guard, images.numpy(), 0),
            target_fpr=_rate_of(guard.detector_),
            seed=seed,
            verbose=verbose,
        )
        if isinstance(guard.detector_, VotingDetector):
            certified = guard.certify(given.X[chosen])
    return Facts(
        guard=guard,
        given=given,
        origin=origin,
        found=found,
        p_values=p_values(guard, found),
        attacked=attacks,
        certified=certified,
        evasion=evasion,
        seed=seed,
    )


def assessed(guard: GuardedClassifier, X: npt.NDArray[Any], verbose: int) -> Assessment:
    """Assess images, some at a time, and say how far it is."""
    parts = []
    with tqdm(total=len(X), unit="image", desc="assess", disable=not verbose) as bar:
        for start in range(0, len(X), _AT_ONCE):
            parts.append(guard.assess(X[start : start + _AT_ONCE]))
            bar.update(len(parts[-1].label))
    arrays = zip(*(part[:-1] for part in parts), strict=True)
    joined = map(np.concatenate, arrays)
    return Assessment._make([*joined, guard.model_.class_names])
