"""The self-test's attacks on the images given: figures, scores, and a few to look at.

The file of a guard keeps the figures of its self-test, but neither its images nor their
scores. ROC curves, pictures and what each stage adds need them: the attacks are made
once more, on images that the guard has never seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor
from tqdm.auto import tqdm

from curvdetect.attacks import curriculum
from curvdetect.estimators import LearnedDetector
from curvdetect.estimators.guard import Assessment, GuardedClassifier
from curvdetect.estimators.self_test import (
    Attempt,
    SelfTest,
    Tried,
    attempts,
    minimal_points,
    shortest_for,
    tried,
)
from curvdetect.report.guard.stages import Stage, Staged

__all__ = ["Attacked", "Example", "attack", "family"]


class Example(NamedTuple):
    """An image before and after an attack, and what the guard makes of both.

    Attributes
    ----------
    attack : str
        Name of the attack.
    before, after : ndarray of shape (*input_shape,)
        The image.
    label, label_after, recovered : int
        The network's label before and after the attack, and the recovered one.
    score, score_after : float
        Positive where the image is flagged.
    """

    attack: str
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    label: int
    label_after: int
    recovered: int
    score: float
    score_after: float


@dataclass(frozen=True)
class Attacked:
    """What the guard makes of attacks on images that it has not seen.

    Attributes
    ----------
    test : SelfTest
        A row for each attack that succeeded at least ten times.
    n_attacked, n_clean : int
        Images attacked; clean images that the adversarial ones are told from.
    clean : ndarray of shape (n_clean,)
        Scores of these.
    scores : dict of str to ndarray
        Of the adversarial images, by the name of the attack.
    norms : ndarray of shape (n_attacked,)
        L2 norms of the smallest perturbations found that fool the network; infinite
        where none was found.
    stages : sequence of Stage
        What each stage of a cascade adds; none without a cascade.
    examples : list of Example
        One of each family of attacks.
    """

    test: SelfTest
    n_attacked: int
    clean: npt.NDArray[np.float64]
    scores: dict[str, npt.NDArray[np.float64]]
    norms: npt.NDArray[np.float64]
    stages: Sequence[Stage]
    examples: list[Example]

    @property
    def n_clean(self) -> int:
        """How many clean images there are."""
        return len(self.clean)

    def hardest(self) -> list[Tried]:
        """Return the attack of each family that is told worst from clean images."""
        worst: dict[str, Tried] = {}
        for row in self.test:
            other = worst.setdefault(family(row.attack), row)
            if row.auroc < other.auroc:
                worst[family(row.attack)] = row
        return list(worst.values())


def family(name: str) -> str:
    """Return the name of an attack without its budget.

    Examples
    --------
    >>> from curvdetect.report.guard.attacked import family
    >>> family("PGD, linf 0.0314"), family("minimal norm x 1.02")
    ('PGD, linf', 'minimal norm')
    """
    return name.rpartition(" x " if " x " in name else " ")[0] or name


def attack(
    guard: GuardedClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    clean: npt.NDArray[Any],
    clean_score: npt.NDArray[np.float64],
    assess: Callable[[Tensor], Assessment],
    target_fpr: float | None,
    seed: int,
    verbose: int = 0,
) -> Attacked:
    """Make the attacks of the self-test on images, and let the guard judge them.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted, with any detector.
    images : Tensor of shape (n, *input_shape)
        Clean images that the network gets right.
    labels : Tensor of shape (n,)
        Their labels.
    clean, clean_score : ndarray of shape (m, *input_shape), (m,)
        Clean images that the network gets right, `images` among them, and their scores.
    assess : callable
        What the guard makes of further images.
    target_fpr : float or None
        The guard's, if it has one.
    seed : int
        Of attacks and noise.
    verbose : int, default=0
        1 shows progress bars.

    Returns
    -------
    Attacked
        Some hundred forward-equivalents an image and attack, besides what the guard
        itself takes.
    """
    detector = guard.detector_
    model = guard.model_.clamped()  # as in the self-test
    points, norms = minimal_points(model, images, labels, verbose)
    try:
        shortest = shortest_for(detector, points - images, norms)
    except ValueError as error:
        raise ValueError(
            f"images: {error}; give n_attacked=0 for a report without attacks"
        ) from None
    lessons = curriculum(model, images[0].numel(), shortest, {})
    staged = Staged(detector, clean) if isinstance(detector, LearnedDetector) else None
    rows: list[Tried] = []
    scores: dict[str, npt.NDArray[np.float64]] = {}
    examples: list[Example] = []
    with tqdm(lessons, unit="attack", desc="attack", disable=not verbose) as progress:
        made = attempts(model, progress, images, labels, points, seed)
        for attempt, found, row in tried(assess, made, clean_score, 0.0):
            rows.append(row)
            scores[row.attack] = found.score
            # Not the same image each time, and none for what the guard makes of it.
            examples.append(_example(attempt, found, len(examples), assess))
            if staged:
                staged.add(attempt.adversarial)
    return Attacked(
        test=SelfTest(rows, target_fpr or math.nan),
        n_attacked=len(images),
        clean=clean_score,
        scores=scores,
        norms=norms.numpy().astype(np.float64),
        stages=staged.stages() if staged else (),
        examples=_chosen(examples),
    )


def _example(
    attempt: Attempt,
    found: Assessment,
    place: int,
    assess: Callable[[Tensor], Assessment],
) -> Example:
    """Return one of the images that an attack fooled the network on."""
    place %= len(attempt.fooled)
    image = attempt.images[place]
    return Example(
        attack=attempt.lesson.name,
        before=image.numpy(),
        after=attempt.adversarial[place].numpy(),
        label=int(attempt.before[place]),
        label_after=int(found.model_label[place]),
        recovered=int(found.recovered_label[place]),
        score=float(assess(image[None]).score[0]),
        score_after=float(found.score[place]),
    )


def _chosen(examples: list[Example]) -> list[Example]:
    """Return that of the attack in the middle of the budgets of each family."""
    families: dict[str, list[Example]] = {}
    for example in examples:
        families.setdefault(family(example.attack), []).append(example)
    return [of[(len(of) - 1) // 2] for of in families.values()]
