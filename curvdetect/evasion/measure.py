"""Measure what it costs attackers who know a guard to evade it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from curvdetect._base.checks import check_count, check_labels
from curvdetect._base.rows import per_row
from curvdetect.attacks import Attack
from curvdetect.attacks.minimal_norm import smallest as smallest_perturbations
from curvdetect.estimators._cascade import decided
from curvdetect.estimators._right import labels_of
from curvdetect.estimators.learned import LearnedDetector, learned_detector
from curvdetect.evasion.cost import MeasuredEvasion, smallest
from curvdetect.evasion.searches import (
    Budgeted,
    Search,
    agreement_attacks,
    in_batches,
    largest_budget,
    shortest_way,
    taught,
    within_budgets,
)
from curvdetect.evasion.shortest import (
    FURTHEST,
    Succeeds,
    further_on,
    lengths,
    on_the_network,
    unflagged,
)
from curvdetect.evasion.stand_in import StandIn

__all__ = ["LEAST_OTHERS", "measure_evasion"]

#: Images that are left to the attackers, at least, for a stand-in to learn from; and
#: how many they look at.
LEAST_OTHERS, _MOST_OTHERS = 20, 400


def measure_evasion(
    guard: Any,
    X: npt.ArrayLike | Tensor,
    y: npt.ArrayLike | None = None,
    *,
    n_attacked: int = 40,
    light: bool = True,
    seed: int = 0,
    verbose: int = 0,
) -> MeasuredEvasion:
    """Measure what it costs attackers who know a guard to evade it.

    For each of some clean images, the smallest perturbation is sought that fools the
    network alone, and the smallest that fools it while the guard, at its own threshold,
    does not flag the result. The evasion cost is the ratio of the medians of both, by
    the best attack for each image. An upper bound of what an attacker needs: a better
    one needs less, and nothing is proven.

    Parameters
    ----------
    guard : LearnedDetector, GuardedClassifier or CurvatureGuard
        Fitted, with a learned detector.
    X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
        Clean images that neither the network nor the guard was fitted on, in random
        order.
    y : array of shape (n_samples,), optional
        Their true labels. By default the network's are taken as true.
    n_attacked : int, default=40
        How many are attacked: the first that the network gets right and the guard does
        not flag. The attackers learn from the others, of which at least 20 must be
        right, better some 200; they are not attacked for the figures. More than 400
        change nothing.
    light : bool, default=True
        Whether six attacks are enough, of which the shortest way leads to one class,
        and stand-ins learn from 80 images; else it is eight, three classes and a start
        at other images, and 200.
    seed : int, default=0
        Of the stand-ins.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    MeasuredEvasion
        Norms by attack, their medians, the cost and its interval.

    Raises
    ------
    TypeError
        If the guard has no learned detector.
    ValueError
        If the images, labels or parameters are not what they must be, too few images
        can be attacked or learned from, or the network cannot be fooled on most.

    Notes
    -----
    *Attacks.* :class:`AgreementAttack`, evenly and not, towards two classes (if not
    light, also with a :class:`StandIn`), by :func:`find_minimal_evasion` within ten
    times the median norm that fools the network; going on where the smallest
    perturbation led; and :class:`JointAttack` with a stand-in that was taught on the
    attackers' own images, clean and attacked, and with another that learned from what
    the first one found. Whatever is found, the guard itself judges. What evades also
    fools the network, and counts there too, so that no cost is below 1.

    *Cost.* Some 20,000 forward-equivalents for each image attacked, and 8,000 for each
    of those that the attackers learn from, up to 80: for 20 images of MNIST and a small
    convolutional network, two minutes on one core; for photographs, use a GPU. Several
    times as much if not light.

    Examples
    --------
    For a fitted guard, clean images and their labels; it takes minutes.

    >>> from curvdetect.evasion import measure_evasion
    >>> print(measure_evasion(guard, X, y, n_attacked=20))  # doctest: +SKIP
    """
    detector = learned_detector(guard)
    check_count("n_attacked", n_attacked)
    images = detector._checked(X)
    labels = None if y is None else _labels(y, len(images), detector.n_classes_)
    rows, others, labels = _chosen(detector, images, labels, n_attacked)
    place = detector.model_.split
    x, own = (next(place(images[part], len(part))) for part in (rows, others))
    found = _Found(detector, x, labels[rows].to(x.device))
    found.search(
        (own, labels[others].to(own.device)),
        Search(
            light=light,
            seed=seed,
            batch_size=detector.model_.rows_per_batch(images[:1]),
        ),
        verbose,
    )
    return MeasuredEvasion(
        fooling=found.fooling,
        evading=found.evading,
        images=found.best.cpu().numpy(),
        rows=rows.numpy(),
        largest_norms=found.largest,
        target_fpr=float(detector.target_fpr_),
    )


def _labels(y: npt.ArrayLike, n: int, n_classes: int) -> Tensor:
    given = labels_of(y, n)
    if given.dtype.kind not in "iu":
        raise ValueError(
            f"y must hold the position of each class, 0 to {n_classes - 1}; got dtype "
            f"{given.dtype}"
        )
    return check_labels("y", torch.from_numpy(given.astype(np.int64)), n, n_classes)


def _chosen(
    detector: LearnedDetector, images: Tensor, labels: Tensor | None, n_attacked: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which images to attack, which to leave to attackers, and all labels."""
    known = decided(detector._cascade(), images, 0)
    predicted = known.logits.argmax(dim=1)
    labels = predicted if labels is None else labels
    right = predicted == labels
    usable = right & (known.score <= detector.threshold_)
    rows = usable.nonzero().squeeze(1)[:n_attacked]
    left = torch.ones_like(right)
    left[rows] = False
    n_others = int((left & right).sum())
    if len(rows) < n_attacked or n_others < LEAST_OTHERS:
        raise ValueError(
            f"X must hold n_attacked={n_attacked} images that the network gets right "
            f"and the guard does not flag, and {LEAST_OTHERS} others that it gets "
            f"right, which teach the attackers; of the {len(images)} given it gets "
            f"{int(right.sum())} right, and {int(usable.sum())} of these are not "
            "flagged. Give more images, or a smaller n_attacked"
        )
    return rows, left.nonzero().squeeze(1)[:_MOST_OTHERS], labels


class _Found:
    """The images under attack, and the norms of what was found so far, by attack."""

    def __init__(self, detector: LearnedDetector, x: Tensor, label: Tensor) -> None:
        self.detector, self.x, self.label = detector, x, label
        self.evades: Succeeds = partial(unflagged, detector, detector.threshold_)
        self.fooling: dict[str, npt.NDArray[np.float64]] = {}
        self.evading: dict[str, npt.NDArray[np.float64]] = {}
        self.largest: dict[str, float] = {}
        self.best, self._norms = x, x.new_full((len(x),), torch.inf)
        self.unit = math.nan

    def search(self, own: tuple[Tensor, Tensor], search: Search, verbose: int) -> None:
        """Run all attacks, on the network and on the guard."""
        with tqdm(unit="search", disable=not verbose) as progress:
            progress.set_description("fool the network")
            points = self._fool(search.batch_size)
            progress.set_description("learn from the guard")
            stand_ins = taught(
                self.detector,
                *own,
                threshold=self.detector.threshold_,
                unit=self.unit,
                search=search,
            )
            attacks = self._attacks(points, own[0], stand_ins, search)
            progress.reset(total=len(attacks))
            for name, (attack, largest) in attacks.items():
                progress.set_description(name)
                self.largest[name] = largest
                self._keep(name, attack())
                progress.update()
        self.fooling["by what evades"] = smallest(self.evading)

    def _fool(self, batch_size: int | None) -> Tensor:
        """Fool the network alone; return the nearest points of its boundaries."""
        model, x, label = self.detector.model_, self.x, self.label
        least = smallest_perturbations(model, x, label)
        self.fooling["smallest perturbation"] = _as_array(least.norms)
        self.unit = float(np.median(self.fooling["smallest perturbation"]))
        if not 0 < self.unit < math.inf:
            raise ValueError(
                "X must hold images on which the network can be fooled; on half or "
                f"more of the {len(x)} attacked no change was found that fools it"
            )
        size = batch_size or len(x)
        norms = [
            on_the_network(model, *part, self.unit)
            for part in zip(x.split(size), label.split(size), strict=True)
        ]
        self.fooling["shortest way"] = _as_array(torch.cat(norms))
        return least.points

    def _attacks(
        self, points: Tensor, own: Tensor, stand_ins: list[StandIn], search: Search
    ) -> dict[str, tuple[Callable[[], Tensor], float]]:
        """Return attacks that know the guard, by name, and how far each of them goes.

        An attack gives perturbed images.
        """
        known = None if search.light else stand_ins[-1]
        within = agreement_attacks(self.detector, known, search.steps)
        found: dict[str, tuple[Callable[[], Tensor], float]] = {
            name: (
                partial(self._within, attack, search.batch_size),
                largest_budget(self.unit),
            )
            for name, attack in within.items()
        }
        found["further on"] = partial(self._further_on, points), FURTHEST * self.unit
        starts = None if search.light else self._starts(own)
        for name, stand_in in zip(("shortest way", "again"), stand_ins, strict=True):
            attack = shortest_way(
                self.detector,
                stand_in,
                starts,
                threshold=self.detector.threshold_,
                unit=self.unit,
                light=search.light,
            )
            call = partial(attack, self.x, self.label)
            found[f"{name}, a stand-in"] = call, math.inf
        return found

    def _within(self, budgeted: Budgeted, batch_size: int | None) -> Tensor:
        def attack(eps: float) -> Attack:
            return in_batches(budgeted(eps=eps), batch_size)

        return within_budgets(attack, self.evades, self.x, self.label, self.unit).images

    def _further_on(self, points: Tensor) -> Tensor:
        model = self.detector.model_
        return further_on(model, self.x, self.label, points, self.evades).images

    def _starts(self, own: Tensor) -> Tensor | None:
        """Return the attackers' images that are not flagged, if there are any."""
        score = decided(self.detector._cascade(), own, 0).score
        starts = own[(score <= self.detector.threshold_).to(own.device)]
        return starts if len(starts) else None

    def _keep(self, name: str, found: Tensor) -> None:
        """Keep what an attack found, as far as the guard says that it evades."""
        norms = lengths(self.x, found, self.evades, self.label)
        shorter = norms < self._norms
        self.best = found.where(per_row(shorter, self.x), self.best)
        self._norms = self._norms.minimum(norms)
        self.evading[name] = _as_array(norms)


def _as_array(norms: Tensor) -> npt.NDArray[np.float64]:
    return norms.cpu().numpy().astype(np.float64)
