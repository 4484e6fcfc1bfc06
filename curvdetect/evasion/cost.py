"""What it costs to evade a guard: how much larger a perturbation has to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Evasion", "MeasuredEvasion", "evasion_cost", "smallest"]

#: Of the bootstrap: how many resamples, and the ends of the interval.
_N_RESAMPLES, _ENDS = 1000, (0.025, 0.975)


class Evasion(NamedTuple):
    """What one search by an attacker who knows the guard found.

    Attributes
    ----------
    attack : str
        What it is called.
    n_images : int
        Images that it was tried on.
    norm_to_fool, norm_to_evade : float
        Median L2 norms, in input units, of the smallest perturbations found that the
        network gets wrong; and that it gets wrong while the guard does not flag them.
        The second is infinite where half of the images, or more, never evaded.
    target_fpr : float
        The guard's false-positive rate.
    n_never : int or None
        How many images never evaded; None if nobody counted.
    largest_norm : float or None
        How far was searched: the largest norm that was tried, or the median of those of
        the images. None if nothing but the bounds of images limits the search, or
        nobody says.
    interval : (float, float) or None
        95 % interval of the cost.
    """

    attack: str
    n_images: int
    norm_to_fool: float
    norm_to_evade: float
    target_fpr: float
    n_never: int | None = None
    largest_norm: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def cost(self) -> float:
        """How many times as long a perturbation has to be because of the guard."""
        return self.norm_to_evade / self.norm_to_fool

    @property
    def is_found(self) -> bool:
        """Whether more than half of the images evaded: else there is no median."""
        return math.isfinite(self.norm_to_evade)


@dataclass(frozen=True)
class MeasuredEvasion:
    """What :func:`measure_evasion` found; ``print`` shows it.

    Attributes
    ----------
    fooling, evading : dict of str to ndarray of shape (n_images,)
        By attack, the L2 norms, in input units, of the smallest perturbations found
        that the network gets wrong; and that it gets wrong while the guard does not
        flag them. Infinity where none was found.
    images : ndarray of shape (n_images, *input_shape)
        The nearest images found that evade; the clean ones where none was found.
    rows : ndarray of shape (n_images,), int64
        Which of the images given were attacked.
    largest_norms : dict of str to float
        By attack, the largest norm that it tries, as a median over the images; infinity
        where only the bounds of images limit it.
    target_fpr : float
        The guard's false-positive rate.

    Examples
    --------
    Three images, of which one never evaded; by one attack two did not.

    >>> import numpy as np
    >>> from curvdetect.evasion import MeasuredEvasion
    >>> found = MeasuredEvasion(
    ...     fooling={"smallest perturbation": np.array([1.0, 2.0, 3.0])},
    ...     evading={
    ...         "further on": np.array([3.0, np.inf, np.inf]),
    ...         "shortest way": np.array([2.5, 5.0, np.inf]),
    ...     },
    ...     images=np.zeros((3, 1, 2, 2)),
    ...     rows=np.arange(3),
    ...     largest_norms={"further on": 24.0, "shortest way": np.inf},
    ...     target_fpr=0.01,
    ... )
    >>> found.cost, found.n_never
    (2.5, 1)
    >>> [search.cost for search in found.searches()]
    [2.5, inf, 2.5]
    """

    fooling: dict[str, npt.NDArray[np.float64]]
    evading: dict[str, npt.NDArray[np.float64]]
    images: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]
    largest_norms: dict[str, float]
    target_fpr: float

    @property
    def norm_to_fool(self) -> float:
        """Median, over the images, of the smallest norm by any attack that fools."""
        return float(np.median(smallest(self.fooling)))

    @property
    def norm_to_evade(self) -> float:
        """The same of what evades: infinite where half never do."""
        return float(np.median(smallest(self.evading)))

    @property
    def cost(self) -> float:
        """`norm_to_evade` / `norm_to_fool`: an upper bound of what attackers need."""
        return evasion_cost(self.evading, self.fooling)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the cost, by resampling the images 1,000 times."""
        return _interval(smallest(self.evading), smallest(self.fooling))

    @property
    def n_never(self) -> int:
        """How many images never evaded, by any attack."""
        return int(np.isinf(smallest(self.evading)).sum())

    def searches(self) -> list[Evasion]:
        """Return the figures for a report: of the best for each image, then by attack.

        Returns
        -------
        list of Evasion
            ``curvdetect.report.guard.evasion.write_evasion`` makes a file of it.
        """
        best = f"the shortest of {len(self.evading)} attacks, for each image"
        furthest = max(self.largest_norms.values())
        return [
            self._search(best, smallest(self.evading), furthest),
            *(
                self._search(name, norms, self.largest_norms[name])
                for name, norms in self.evading.items()
            ),
        ]

    def _search(
        self, name: str, norms: npt.NDArray[np.float64], largest: float
    ) -> Evasion:
        return Evasion(
            attack=name,
            n_images=len(norms),
            norm_to_fool=self.norm_to_fool,
            norm_to_evade=float(np.median(norms)),
            target_fpr=self.target_fpr,
            n_never=int(np.isinf(norms).sum()),
            largest_norm=largest if math.isfinite(largest) else None,
            interval=_interval(norms, smallest(self.fooling)),
        )

    def _searched(self) -> str:
        """Return how far the attacks went, those with a limit and those without."""
        limits = [norm for norm in self.largest_norms.values() if math.isfinite(norm)]
        said = []
        if limits:
            times = max(limits) / self.norm_to_fool
            said.append(
                f"not up to a norm of {max(limits):.3g}, {times:.3g} times what fools "
                "the network"
            )
        if len(limits) < len(self.largest_norms):
            said.append(
                "not by attacks to which the bounds of images alone are a limit"
            )
        return ", and ".join(said)

    def __str__(self) -> str:
        best, *others = self.searches()
        lines = [_line(each) for each in [*others, best]]
        return "\n".join([self._fooled(), *lines, self._concluded(best)])

    def _fooled(self) -> str:
        return (
            f"{len(self.rows)} images; to fool the network alone: a median norm of "
            f"{self.norm_to_fool:.3g}"
        )

    def _concluded(self, best: Evasion) -> str:
        """Return what the figures come to: never a number where there is none."""
        if not best.is_found:
            return (
                "evasion cost: not found, for half or more of the images never evaded: "
                f"{self._searched()}. This says nothing of other attacks: a better one "
                "may"
            )
        return (
            f"evasion cost: {_number(best)} times as long a perturbation as fools the "
            f"network alone, at a false-positive rate of {self.target_fpr:.3g}. An "
            "upper bound: a better attack needs less"
        )


def _line(search: Evasion) -> str:
    """Return a line about one search."""
    norm = f"a median norm of {search.norm_to_evade:.3g}"
    if not search.is_found:
        norm = "not found"
        if search.largest_norm is not None:
            norm += f" up to {search.largest_norm:.3g}"
    n_evaded = search.n_images - (search.n_never or 0)
    return (
        f"{search.attack}: {norm}, cost {_number(search)}; evades on {n_evaded} of "
        f"{search.n_images}"
    )


def _number(search: Evasion) -> str:
    """Return a cost, with its interval if that is known."""
    cost, *ends = (
        "not found" if math.isinf(value) else f"{value:.3g}"
        for value in (search.cost, *(search.interval or ()))
    )
    if not ends or ends[0] == "not found":  # then none of the three is a number
        return cost
    return f"{cost} (95 %: {ends[0]} to {ends[1]})"


# Figures -----------------------------------------------------------------------


def smallest(norms: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Return the smallest norm of each image over all attacks.

    Parameters
    ----------
    norms : dict of str to array of shape (n,)
        By attack.

    Returns
    -------
    ndarray of shape (n,)
        Infinity where no attack found anything.
    """
    return np.min([np.asarray(each) for each in norms.values()], axis=0)


def evasion_cost(
    evading: Mapping[str, npt.ArrayLike], fooling: Mapping[str, npt.ArrayLike]
) -> float:
    """Return the ratio of the medians of the smallest norms.

    Parameters
    ----------
    evading, fooling : dict of str to array of shape (n,)
        Norms by attack, infinite where nothing was found: an image that never evades
        counts as one that needs more than all others.

    Returns
    -------
    float
        Infinite where half of the images never evade.
    """
    return float(np.median(smallest(evading)) / np.median(smallest(fooling)))


def _interval(
    evade: npt.NDArray[np.float64], fool: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Return the percentile interval of a ratio of medians, images resampled."""
    random = np.random.default_rng(0)
    rows = random.integers(len(evade), size=(_N_RESAMPLES, len(evade)))
    above, below = np.median(evade[rows], axis=1), np.median(fool[rows], axis=1)
    cost = np.full(_N_RESAMPLES, np.inf)  # also where both are infinite
    np.divide(above, below, out=cost, where=np.isfinite(above))
    # Not between two resamples: one may be infinite.
    low, high = np.quantile(cost, _ENDS, method="inverted_cdf")
    return float(low), float(high)
