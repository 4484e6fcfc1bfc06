"""What a detector can do: attacks on images that it did not learn from, and figures.

The self-test of `fit`, :func:`curvdetect.assess_guard` and the page about a guard make
the same attacks and judge them alike; they differ in who looks at the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from curvdetect._base.warn import warn
from curvdetect.attacks import Lesson, shortest_budgets
from curvdetect.attacks.effort import effort_for
from curvdetect.attacks.gradient_steps import Norm
from curvdetect.attacks.minimal_norm import smallest
from curvdetect.estimators._lessons import attacked, noise_like
from curvdetect.network import TorchModel
from curvdetect.study.metrics import auroc, proportion

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LEAST_FOOLED",
    "Attempt",
    "Seen",
    "SelfTest",
    "Tried",
    "attempts",
    "minimal_points",
    "shortest_for",
    "tried",
    "warn_of_misses",
]

#: Fewer successes say nothing of an attack.
LEAST_FOOLED = 10
#: Attacks of which less is detected are named in a warning.
_MISSED = 0.5
#: A mean AUROC below which a guard is hardly better than chance.
_CHANCE = 0.6


class Tried(NamedTuple):
    """How well the detector detects one attack, with 95 % intervals.

    Attributes
    ----------
    attack, kind : str
        Name and kind: "gradient steps", "minimal norm" or "given".
    budget : float
        Largest change of a value (linf), L2 norm (l2), or multiple of the minimal
        norm; NaN if unknown.
    norm : float
        Mean L2 norm of the perturbations that succeeded, in input units.
    n_attacked, n_fooled : int
        Images that were attacked, which the network got right; and those of them that
        it got wrong after the attack.
    auroc, auroc_low, auroc_high : float
        AUROC of adversarial against clean images.
    detected, detected_low, detected_high : float
        Share of adversarial images that are flagged (true-positive rate).
    relabelled, relabelled_low, relabelled_high : float
        Share of adversarial images whose recovered label is the original one.
    flagged_noise : float
        Share flagged of clean images with noise of the norms of the perturbations.
    auroc_without : float
        AUROC of a detector that learned from no attack of this kind; NaN without one.
    """

    attack: str
    kind: str
    budget: float
    norm: float
    n_attacked: int
    n_fooled: int
    auroc: float
    auroc_low: float
    auroc_high: float
    detected: float
    detected_low: float
    detected_high: float
    relabelled: float
    relabelled_low: float
    relabelled_high: float
    flagged_noise: float
    auroc_without: float

    @property
    def success(self) -> float:
        """Share of the attacked images that the network then got wrong."""
        return self.n_fooled / self.n_attacked


class SelfTest:
    """How well a detector detects each attack, on images that it did not learn from.

    Attributes
    ----------
    rows : list of Tried
        One for each attack that fooled the network at least ten times.
    target_fpr : float
        The false-positive rate that the threshold guarantees.

    Notes
    -----
    ``print(self_test)`` shows a table, ``to_frame()`` gives it to pandas, and
    :class:`curvdetect.plotting.SelfTestDisplay` draws it. Attackers who know the
    detector (:class:`curvdetect.evasion.AgreementAttack`) are not in it: they evade it,
    and docs/learned.md says how large their perturbations are.
    """

    def __init__(self, rows: Sequence[Tried], target_fpr: float) -> None:
        self.rows, self.target_fpr = list(rows), target_fpr

    def __iter__(self) -> Iterator[Tried]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mean_auroc(self) -> float:
        """Mean AUROC over the attacks."""
        return float(np.mean([row.auroc for row in self.rows]))

    def missed(self) -> dict[str, float]:
        """Return families of attacks of which less than half is detected.

        Returns
        -------
        dict of str to float
            The share detected of each, by name: "one step", "PGD", "minimal norm x 2".
        """
        families: dict[str, list[Tried]] = {}
        for row in self.rows:
            families.setdefault(row.attack.split(",")[0], []).append(row)
        shares = {
            name: sum(r.detected * r.n_fooled for r in rows)
            / sum(r.n_fooled for r in rows)
            for name, rows in families.items()
        }
        return {name: value for name, value in shares.items() if value < _MISSED}

    def to_frame(self) -> pd.DataFrame:
        """Return the table for pandas.

        Returns
        -------
        DataFrame
            A row an attack, a column an attribute of :class:`Tried`.
        """
        import pandas as pd

        return pd.DataFrame(self.rows)

    def __str__(self) -> str:
        head = (
            f"{'attack':<24}{'success':>9}{'norm':>8}{'AUROC':>21}"
            f"{f'detected at {self.target_fpr:.2g}':>23}{'relabelled':>21}"
            f"{'without its kind':>18}"
        )
        lines = [
            f"{row.attack:<24}{row.success:>9.2f}{row.norm:>8.3g}"
            f"{_interval(row.auroc, row.auroc_low, row.auroc_high):>21}"
            f"{_interval(row.detected, row.detected_low, row.detected_high):>23}"
            f"{_interval(row.relabelled, row.relabelled_low, row.relabelled_high):>21}"
            f"{row.auroc_without:>18.2f}"
            for row in self.rows
        ]
        return "\n".join([head, *lines])


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def minimal_points(
    model: TorchModel, x: Tensor, y: Tensor, verbose: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the nearest boundary points of images, and their distances.

    Parameters
    ----------
    model : TorchModel
        The network.
    x : Tensor of shape (n, *input_shape)
        Images.
    y : Tensor of shape (n,)
        Labels to get away from.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    tuple of Tensor
        Points of shape (n, *input_shape), the images themselves where none was found;
        distances of shape (n,), infinite there. On the CPU.
    """
    points, norms = [], []
    size = model.rows_per_batch(x[:1])
    effort = effort_for(x[0].numel())
    with (
        model.evaluating(),
        tqdm(total=len(x), unit="image", desc="measure", disable=not verbose) as bar,
    ):
        for batch, label in zip(model.split(x), y.split(size), strict=True):
            found = smallest(
                model,
                batch,
                label.to(batch.device),
                n_boundaries=effort.n_boundaries,
                n_projections=effort.n_projections,
            )
            points.append(found.points.cpu())
            norms.append(found.norms.cpu())
            bar.update(len(batch))
    return torch.cat(points), torch.cat(norms)


def shortest_for(detector: Any, minimal: Tensor, norms: Tensor) -> dict[Norm, float]:
    """Return where the ladders of budgets begin: where those of `fit` did, if known.

    Parameters
    ----------
    detector : estimator
        Fitted. One that learned from attacks knows, and so does one that votes with
        such a one in it.
    minimal : Tensor of shape (n, *input_shape)
        Minimal L2 perturbations of the images that are to be attacked, for others.
    norms : Tensor of shape (n,)
        Their norms; infinite where none was found.

    Returns
    -------
    dict of str to float
        As :func:`~curvdetect.attacks.shortest_budgets` returns it.

    Raises
    ------
    ValueError
        If the detector does not know, and no perturbation was found either.
    """
    for each in (detector, getattr(detector, "detector_", None)):
        if (known := getattr(each, "shortest_", None)) is not None:
            return dict(zip(("linf", "l2"), known, strict=True))
    found = norms.isfinite() & (norms > 0)
    if not found.any():
        raise ValueError(
            "no boundary of the network was found near any of the images, so they "
            "cannot be attacked"
        )
    return shortest_budgets(minimal[found])


class Attempt(NamedTuple):
    """What an attack made of n images that the network got right.

    Attributes
    ----------
    lesson : Lesson
        The attack.
    n_attacked : int
        n.
    fooled : ndarray of shape (m,), int64
        Positions of the images that the network gets wrong after it.
    images, adversarial, noisy : Tensor of shape (m, *input_shape)
        These images before and after it, and with noise as long as the perturbations.
    before : ndarray of shape (m,), int64
        Their labels before it.
    """

    lesson: Lesson
    n_attacked: int
    fooled: npt.NDArray[np.int64]
    images: Tensor
    adversarial: Tensor
    noisy: Tensor
    before: npt.NDArray[np.int64]

    def judged(
        self,
        clean: npt.NDArray[np.float64],
        score: npt.NDArray[np.float64],
        recovered: npt.NDArray[np.int64],
        of_noise: npt.NDArray[np.float64],
        threshold: float,
        alone: float = math.nan,
    ) -> Tried:
        """Say how well a detector tells these images from clean ones.

        Parameters
        ----------
        clean : ndarray
            Scores of clean images.
        score, of_noise : ndarray of shape (m,)
            Scores of `adversarial` and of `noisy`.
        recovered : ndarray of shape (m,), int64
            Recovered labels of `adversarial`.
        threshold : float
            What is above it is flagged.
        alone : float, default=NaN
            AUROC of a detector that learned from no attack of this kind.

        Returns
        -------
        Tried
            Figures with their intervals.
        """
        change = (self.adversarial - self.images).flatten(1).norm(dim=1)
        figures = (
            *auroc(clean, score),
            *proportion(score > threshold),
            *proportion(recovered == self.before),
            np.mean(of_noise > threshold),
            alone,
        )
        return Tried(
            self.lesson.name,
            self.lesson.kind,
            float(self.lesson.budget),
            float(change.mean()),
            self.n_attacked,
            len(self.fooled),
            *(float(figure) for figure in figures),
        )


def attempts(
    model: TorchModel,
    lessons: Iterable[Lesson],
    images: Tensor,
    labels: Tensor,
    points: Tensor,
    seed: int,
) -> Iterator[Attempt]:
    """Attack images, one attack after another.

    Parameters
    ----------
    model : TorchModel
        The network.
    lessons : iterable of Lesson
        The attacks.
    images : Tensor of shape (n, *input_shape)
        Clean images that the network gets right.
    labels : Tensor of shape (n,)
        Their labels.
    points : Tensor of shape (n, *input_shape)
        Their nearest boundary points; see :func:`minimal_points`.
    seed : int
        Of attacks and noise.

    Yields
    ------
    Attempt
        What each attack made of them; not of attacks that hardly ever succeed.
    """
    for lesson in lessons:
        perturbed = attacked(model, lesson, images, labels, points, seed)
        fooled = np.flatnonzero(model.predict(perturbed) != labels.numpy())
        if len(fooled) < LEAST_FOOLED:
            continue
        adversarial = perturbed[fooled]
        noisy = noise_like(model, images[fooled], adversarial, seed)
        before = labels.numpy()[fooled]
        yield Attempt(
            lesson, len(images), fooled, images[fooled], adversarial, noisy, before
        )


class Seen(Protocol):
    """What somebody makes of n images, such as an `Examined` or an `Assessment`."""

    @property
    def score(self) -> npt.NDArray[np.float64]:
        """The larger, the more likely adversarial."""

    @property
    def recovered_label(self) -> npt.NDArray[np.int64]:
        """The label before an attack, if there was one."""


S = TypeVar("S", bound=Seen)


def tried(
    look: Callable[[Tensor], S],
    attempts: Iterable[Attempt],
    clean: npt.NDArray[np.float64],
    threshold: float,
    alone: Callable[[Attempt], float] = lambda attempt: math.nan,
) -> Iterator[tuple[Attempt, S, Tried]]:
    """Look at what attacks made, and say how well it is told from clean images.

    Parameters
    ----------
    look : callable
        Looks at images: a detector, a guard, or what is about to become one.
    attempts : iterable of Attempt
        See :func:`attempts`.
    clean : ndarray
        Scores of clean images that nothing was learned from.
    threshold : float
        What is above it is flagged.
    alone : callable, optional
        Returns the AUROC of a detector that learned from no attack of this kind.

    Yields
    ------
    tuple
        The attempt, what was seen in its adversarial images, and the figures.
    """
    for attempt in attempts:
        found, noise = look(attempt.adversarial), look(attempt.noisy)
        judged = attempt.judged(
            clean,
            found.score,
            found.recovered_label,
            noise.score,
            threshold,
            alone(attempt),
        )
        yield attempt, found, judged


def warn_of_misses(test: SelfTest) -> None:
    """Name the attacks that the detector will miss, if any, in one warning."""
    if not len(test):
        warn(
            "the self-test found no attack that fools the network often enough to try "
            "the detector: nothing is known of what it can do"
        )
        return
    missed = test.missed()
    chance = test.mean_auroc < _CHANCE
    if not missed and not chance:
        return
    what = ", ".join(f"{value:.0%} of {name}" for name, value in missed.items())
    warn(
        (
            "THE DETECTOR IS HARDLY BETTER THAN CHANCE ON THIS NETWORK: "
            if chance
            else ""
        )
        + f"mean AUROC {test.mean_auroc:.2f} in its self-test"
        + (f"; at a rate of {test.target_fpr:.2g} it detects only {what}" * bool(what))
        + ". See self_test_; a larger target_fpr, more images to learn from, or the "
        "attacks that matter to you (attacks=) may help"
    )
