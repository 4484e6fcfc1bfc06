"""What the learned detector learns from: clean images, attacks on them, noise."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect._base.seeding import seeded
from curvdetect.attacks import Lesson, MinimalNormAttack, same_norm_noise
from curvdetect.estimators._cascade import Nodes, forests_of, log_odds, vetoed
from curvdetect.estimators._corruptions import corrupted
from curvdetect.estimators._evidence import N_STAGES, Columns, Evidence
from curvdetect.estimators._forest import grow_forest
from curvdetect.network import TorchModel

__all__ = [
    "CLEAN",
    "CORRUPTED",
    "N_VETO",
    "UNKNOWN",
    "Material",
    "attacked",
    "corrupted_material",
    "cross_fitted",
    "doubt",
    "grown",
    "kept_material",
    "lesson_material",
    "measured_material",
    "noise_like",
    "veto",
]

#: Label before the attack, of images that nobody attacked; and their lesson.
CLEAN = -1
#: Lesson of clean images that were changed as nobody does to fool a network.
CORRUPTED = -2
#: Label before the attack, of adversarial images that were given.
UNKNOWN = -2
#: Share of the attacked images that may leave a stage as clean.
_LOST = 0.01
#: Attacked images count twice as much as clean ones, noise as much as these, and so do
#: corrupted ones.
_ATTACKED, _NOISE, _CORRUPTED = 2.0, 1.0, 1.0
#: How often a clean image is corrupted.
_N_CORRUPTED = 4
#: Adversarial images that were given count as much as all other attacks together: they
#: are what the user expects.
_GIVEN = 2.0
#: Where a companion's doubt of harmless images is compared with their scores. Below
#: the median it says nothing.
_VETO_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 1.0)
N_VETO = len(_VETO_QUANTILES)
#: Of clean images of a label: which quantile of their scores is compared with that of
#: all, and how many images it takes to trust half of the difference.
_USUAL_QUANTILE, _USUAL_SHRINKAGE = 0.75, 20
#: Of the first stage, a budget holds a pass of the network, and one of a companion: one
#: that is larger must not leave nothing for the other stages.
_COMPANION_COUNTS = 2.0


@dataclass(frozen=True)
class Material:
    """Rows to learn from.

    Attributes
    ----------
    columns : list of Columns
        By stage.
    before : ndarray of shape (n,), int64
        Label before the attack; CLEAN for clean images and noise, UNKNOWN for
        adversarial images that were given.
    lesson : ndarray of shape (n,), int64
        Which attack made it, or gave its noise the norm; CLEAN for clean images.
    source : ndarray of shape (n,), int64
        Of which clean image it was made.
    """

    columns: list[Columns]
    before: npt.NDArray[np.int64]
    lesson: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]

    @staticmethod
    def joined(parts: Sequence[Material]) -> Material:
        """Put the rows of several one after the other."""
        return Material(
            [
                Columns(*map(torch.cat, zip(*stage, strict=True)))
                for stage in zip(*(part.columns for part in parts), strict=True)
            ],
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("before", "lesson", "source")
            ),
        )

    def at(
        self, stage: int, rows: npt.NDArray[np.bool_]
    ) -> tuple[Columns, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return columns, labels before and weights of some rows, at a stage."""
        columns = self.columns[stage].take(torch.from_numpy(np.flatnonzero(rows)))
        return columns, self.before[rows], self.weights(rows)

    def weights(self, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return how much each of some rows counts: every attack as much as another."""
        before, lesson = self.before[rows], self.lesson[rows]
        given, clean = before == UNKNOWN, lesson == CLEAN
        changed = lesson == CORRUPTED
        attacked = (before != CLEAN) & ~given
        weight = np.ones(len(before))
        for part, total in (
            (attacked, _ATTACKED),
            (given, _GIVEN),
            (changed, _CORRUPTED),
            (~attacked & ~given & ~clean & ~changed, _NOISE),
        ):
            names, n_each = np.unique(lesson[part], return_counts=True)
            each = total * max(clean.sum(), 1) / (len(names) * n_each)
            weight[part] = each[np.searchsorted(names, lesson[part])]
        # One lucky success of a weak attack is not a whole attack.
        return np.minimum(weight, 1.0 + 0.05 * clean.sum())


def grown(
    material: Material, stage: int, rows: npt.NDArray[np.bool_], seed: int
) -> Nodes:
    """Grow the two forests of a stage: of the image, and of its candidates."""
    columns, before, weight = material.at(stage, rows)
    _, k, width = columns.candidate.shape
    was = columns.classes.numpy() == before[:, None]
    told = before != UNKNOWN
    return (
        grow_forest(columns.image.numpy(), before != CLEAN, weight, seed),
        grow_forest(
            columns.candidate.numpy()[told].reshape(-1, width),
            was[told].ravel(),
            np.repeat(weight[told], k),
            seed,
        ),
    )


def doubt(
    material: Material,
    evidence: Evidence,
    vetoes: npt.NDArray[np.float64] | None,
    budget: float,
    cross_fitted: Sequence[npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    """Return between which scores an image goes on to the next stage.

    What goes on is as suspicious as the budget allows, measured on clean images; what
    is below nearly all attacked images stops, and what is above all clean and noisy
    ones.

    Parameters
    ----------
    material : Material
        What is learned from.
    evidence : Evidence
        What is measured.
    vetoes : ndarray or None
        Of the companion; see :func:`veto`.
    budget : float
        Of a clean image on average, in forward-equivalents.
    cross_fitted : sequence of ndarray of shape (n,)
        Scores by stage; see :func:`cross_fitted`.

    Returns
    -------
    ndarray of shape (N_STAGES - 1, 2)
        Lowest and highest score.
    """
    costs = evidence.costs()
    between = np.zeros((N_STAGES - 1, 2))
    left, going = budget - min(costs[0], _COMPANION_COUNTS), 1.0
    on = np.ones(len(material.before), dtype=bool)
    for stage in range(N_STAGES - 1):
        against = evidence.against(material.columns[stage])
        found = vetoed(torch.from_numpy(cross_fitted[stage]), against, vetoes)
        scores = found.numpy()
        clean, attacked = material.lesson == CLEAN, material.before != CLEAN
        share = float(np.clip(left / costs[stage + 1], 0, going))
        lowest = np.quantile(scores[clean], 1 - share) if share < 1 else -np.inf
        weight = material.weights(attacked)
        low = max(lowest, _weighted_quantile(scores[attacked], weight, _LOST))
        high = scores[~attacked].max()
        between[stage] = low, max(high, low)
        on &= scores >= low
        going = float(on[clean].mean())
        left -= going * costs[stage + 1]
    return between


def veto(
    material: Material, evidence: Evidence, scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64] | None:
    """Return what a companion's doubt alone is worth, as a score.

    As much as is as rare among clean images: where a share s of them has larger odds
    against the label, the score that a share s of them exceeds. So either may flag, and
    neither is outvoted. The same is asked of corrupted ones, and the less it is worth
    counts: a companion may doubt whatever is pale or blurred.

    Parameters
    ----------
    material : Material
        What is learned from.
    evidence : Evidence
        What is measured.
    scores : ndarray of shape (n,)
        Of the last stage; see :func:`cross_fitted`.

    Returns
    -------
    ndarray of shape (m, 2), or None
        Log-odds against the label, and scores, both increasing; None without a
        companion.
    """
    against = evidence.against(material.columns[-1])
    if against is None:
        return None
    groups = [material.lesson == of for of in (CLEAN, CORRUPTED)]
    odds, worth = (
        np.stack([np.quantile(v[of], _VETO_QUANTILES) for of in groups if of.any()])
        for v in (against.numpy(), scores)
    )
    both = np.stack([odds.max(axis=0), worth.min(axis=0)], axis=1)
    # Strictly increasing, so that there is a slope beyond the largest.
    return np.maximum.accumulate(both) + np.arange(N_VETO)[:, None] * 1e-3


def cross_fitted(
    material: Material, evidence: Evidence, stage: int, seed: int
) -> npt.NDArray[np.float64]:
    """Return scores of all rows, by forests that did not see their clean image.

    Two halves, by the clean image that rows were made of, learn for each other.

    Parameters
    ----------
    material : Material
        What is learned from.
    evidence : Evidence
        What is measured.
    stage : int
        Which, from 0.
    seed : int
        Of the halves and the forests.

    Returns
    -------
    ndarray of shape (n,)
        Of the forests alone.
    """
    half = np.random.default_rng(seed).permutation(material.source.max() + 1) % 2
    of = half[material.source]
    scores = np.zeros(len(of))
    for part in (0, 1):
        nodes = grown(material, stage, of != part, seed)
        columns, _, _ = material.at(stage, of == part)
        widths = columns.image.shape[1], columns.candidate.shape[2]
        forests = forests_of(nodes, widths, columns.image.device)
        scores[of == part] = log_odds(forests, columns)[0].numpy()
    return scores


def usual_scores(
    material: Material,
    evidence: Evidence,
    cross_fitted: Sequence[npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    """Return how much more suspicious clean images of a label look than all of them.

    Some classes lie near others - shirts and pullovers -, and a threshold for all flags
    many of them and few of the rest. Compared is a high quantile of the scores; with
    few images of a label, the difference is trusted little.

    Parameters
    ----------
    material : Material
        What is learned from.
    evidence : Evidence
        What is measured.
    cross_fitted : sequence of ndarray of shape (n,)
        Scores by stage; see :func:`cross_fitted`.

    Returns
    -------
    ndarray of shape (N_STAGES, n_classes)
        To be taken off scores; zero of labels without clean images, and of all where
        there are too many classes for columns of their own.
    """
    usual = np.zeros((N_STAGES, evidence.n_classes))
    label = evidence.labels(material.columns[0])
    if label is None:
        return usual
    clean, told = material.lesson == CLEAN, label.numpy()
    for stage, scores in enumerate(cross_fitted):
        of_all = np.quantile(scores[clean], _USUAL_QUANTILE)
        for c in np.unique(told[clean]):
            own = scores[clean & (told == c)]
            trust = len(own) / (len(own) + _USUAL_SHRINKAGE)
            usual[stage, c] = trust * (np.quantile(own, _USUAL_QUANTILE) - of_all)
    return usual


def _weighted_quantile(
    values: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], q: float
) -> float:
    order = values.argsort()
    reached = weight[order].cumsum() / weight.sum()
    return float(values[order][np.searchsorted(reached, q)])


# Making the material ---------------------------------------------------------


def lesson_material(
    evidence: Evidence,
    images: Tensor,
    labels: Tensor,
    points: Tensor,
    lesson: Lesson,
    number: int,
    rows: npt.NDArray[np.int64],
    seed: int,
) -> Material:
    """Attack some images, and measure what became of them and noise as long.

    Parameters
    ----------
    evidence : Evidence
        What is measured.
    images : Tensor of shape (n, *input_shape)
        Clean images that the network gets right.
    labels : Tensor of shape (n,)
        Their labels.
    points : Tensor of shape (n, *input_shape)
        Their nearest boundary points.
    lesson : Lesson
        The attack.
    number : int
        Which it is.
    rows : ndarray of int
        Which images to attack.
    seed : int
        Of the attack and the noise.

    Returns
    -------
    Material
        Of the attacks that succeeded, and of noise that does not fool the network.
    """
    x, y = images[rows], labels[rows]
    perturbed = attacked(evidence.model, lesson, x, y, points[rows], seed)
    fooled = np.flatnonzero(evidence.model.predict(perturbed) != y.numpy())
    noisy = noise_like(evidence.model, x, perturbed, seed)
    kept = np.flatnonzero(evidence.model.predict(noisy) == y.numpy())
    return measured_material(
        evidence,
        torch.cat([perturbed[fooled], noisy[kept]]),
        np.concatenate([y.numpy()[fooled], np.full(len(kept), CLEAN)]),
        np.full(len(fooled) + len(kept), number),
        rows[np.concatenate([fooled, kept])],
    )


def corrupted_material(
    evidence: Evidence, images: Tensor, labels: Tensor, seed: int
) -> Material:
    """Corrupt clean images, and measure those that the network still gets right.

    Parameters
    ----------
    evidence : Evidence
        What is measured.
    images : Tensor of shape (n, *input_shape)
        Clean images that the network gets right.
    labels : Tensor of shape (n,)
        Their labels.
    seed : int
        Of the corruptions.

    Returns
    -------
    Material
        Of at most `_N_CORRUPTED` of each.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = torch.cat(
        [
            corrupted(images, evidence.model.bounds, generator)
            for _ in range(_N_CORRUPTED)
        ]
    )
    told = evidence.model.predict(changed)
    kept = np.flatnonzero(told == labels.repeat(_N_CORRUPTED).numpy())
    return measured_material(
        evidence,
        changed[kept],
        np.full(len(kept), CLEAN),
        np.full(len(kept), CORRUPTED),
        kept % len(images),
    )


def kept_material(
    evidence: Evidence,
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    points: npt.NDArray[Any],
    lesson: Lesson,
    named: tuple[str, float],
    number: int,
    rows: npt.NDArray[np.int64],
    seed: int,
) -> Material:
    """Do the same for a cache: of arrays, with the name and the budget of the attack.

    Those tell an attack of our own; the object itself need not be hashed.
    """
    x, y, at = map(torch.from_numpy, (images, labels, points))
    return lesson_material(evidence, x, y, at, lesson, number, rows, seed)


def measured_material(
    evidence: Evidence,
    images: Tensor,
    before: npt.NDArray[np.int64],
    lesson: npt.NDArray[np.int64],
    source: npt.NDArray[np.int64],
) -> Material:
    """Measure images, batch by batch, in all stages."""
    model = evidence.model
    stages: list[list[Columns]] = [[] for _ in range(N_STAGES)]
    with evidence.evaluating(), torch.no_grad():
        for batch in model.split(images):
            logits, columns = model.logits(batch), None
            for stage in range(N_STAGES):
                columns = evidence.measured(stage, batch, logits, columns)
                stages[stage].append(Columns(*(part.cpu() for part in columns)))
    return Material(
        [Columns(*map(torch.cat, zip(*of, strict=True))) for of in stages],
        before,
        lesson,
        source,
    )


def attacked(
    model: TorchModel,
    lesson: Lesson,
    images: Tensor,
    labels: Tensor,
    points: Tensor,
    seed: int,
) -> Tensor:
    """Return perturbed images, on the CPU; an image itself where an attack gave NaN."""
    found = []
    with model.evaluating(), seeded(seed):
        for x, at, y in zip(
            model.split(images),
            model.split(points),
            labels.split(model.rows_per_batch(images[:1])),
            strict=True,
        ):
            if isinstance(lesson.attack, MinimalNormAttack):  # the way is known
                result = lesson.attack.along(x, at)
            else:
                result = lesson.attack(x, y.to(x.device))
            if result.shape != x.shape:
                raise ValueError(
                    f"attack {lesson.name!r} must keep the shape of the images, "
                    f"{tuple(x.shape)}; got {tuple(result.shape)}"
                )
            result = result.detach().to(x)
            found.append(torch.where(result.isfinite(), result, x).cpu())
    return torch.cat(found).to(images.dtype)


def noise_like(
    model: TorchModel, images: Tensor, perturbed: Tensor, seed: int
) -> Tensor:
    """Return images with Gaussian noise as long as a perturbation of each."""
    norms = (perturbed - images).flatten(1).norm(dim=1).double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noise cannot be as long as an attack
        noisy = same_norm_noise(
            images.numpy(), norms, bounds=model.bounds, random_state=seed
        )
    return torch.from_numpy(noisy).to(images.dtype)
