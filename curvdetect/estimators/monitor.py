"""`GuardMonitor`: says when a guard is served other images than it knows."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, hypergeom
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from curvdetect._base.checks import check_share
from curvdetect.estimators._betting import N_BETS, Stakes, ranked, staked
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.estimators.detector import check_target_fpr, target_fpr_of

__all__ = ["FlagCount", "GuardMonitor", "MonitorState"]

Alarm = Literal["burst", "drift"]

_SAID = {
    "burst": "more suspicious images than among those of the calibration",
    "drift": "scores elsewhere than those of the calibration",
}


class MonitorState(NamedTuple):
    """What a monitor thinks of its stream; see :meth:`GuardMonitor.update`.

    Attributes
    ----------
    n_images : int
        How many images it has seen since `fit`.
    n_flagged : int
        How many of them were flagged.
    log10_martingale : float
        Common logarithm of what bets against the stream have made of 1. At
        -log10(level) it is an alarm.
    alarm : {"burst", "drift"} or None
        What the stream has turned out to be, at any time since `fit`: "burst", more
        suspicious images than among those of the calibration; or "drift", scores that
        lie elsewhere on the whole, lower or higher, or are spread more or less.
    alarm_at : int or None
        After how many images the alarm was raised.
    p_values : ndarray of shape (n,)
        Of the images of the last update, in order: small for large scores.
    path : ndarray of shape (n,)
        `log10_martingale` after each of them.
    """

    n_images: int
    n_flagged: int
    log10_martingale: float
    alarm: Alarm | None
    alarm_at: int | None
    p_values: npt.NDArray[np.float64]
    path: npt.NDArray[np.float64]

    def __str__(self) -> str:
        said = f"{self.n_images} images, {self.n_flagged} of them flagged; "
        if self.alarm is None:
            return said + f"no alarm (log10 martingale {self.log10_martingale:.2f})"
        return said + (
            f"alarm after {self.alarm_at}, {self.alarm}: {_SAID[self.alarm]}"
        )


class FlagCount(NamedTuple):
    """How many images of a stream were flagged; see :meth:`GuardMonitor.flags`.

    Attributes
    ----------
    n_images, n_flagged : int
        Of the stream.
    n_calibration, n_calibration_flagged : int
        Of the images given to `fit`.
    n_expected : float
        How many of the stream `target_fpr` flags on average; NaN without one.
    n_allowed : int or None
        How many it flags at most, but for a probability of `level`: a binomial
        quantile. None without a `target_fpr`.
    p_value : float
        Probability of as many flags or more in the stream, given those in the stream
        and the calibration together, if any order of these is equally likely (Fisher's
        exact test, one-sided).
    """

    n_images: int
    n_flagged: int
    n_calibration: int
    n_calibration_flagged: int
    n_expected: float
    n_allowed: int | None
    p_value: float


class GuardMonitor(SharedNetworkMixin, BaseEstimator):
    r"""Watch whether the stream that a guard serves is like its calibration.

    A guard looks at one image at a time. The monitor looks at all of them in turn, and
    raises an alarm when there are more suspicious images than there should be, or their
    scores have moved: an attack is going on, or the guard's calibration is out of date.
    It needs scores and flags alone, whatever the guard's detector.

    Parameters
    ----------
    guard : GuardedClassifier or any object with ``assess``, optional
        Fitted; used, not copied. Without it, :meth:`fit` takes an assessment: a monitor
        that holds no network, which makes a small file.
    level : float, default=0.01
        a: with which probability there may ever be a false alarm.
    target_fpr : float, optional
        For :meth:`flags`, the share of clean images that may be flagged. By default
        that of the guard, if it has one.
    random_state : int, RandomState or None, default=None
        Of the numbers that break ties.

    Attributes
    ----------
    target_fpr_ : float or None
        The rate that :meth:`flags` counts with.
    n_calibration_, n_calibration_flagged_ : int
        How many images were given to `fit`, and how many of them were flagged.
    n_images_, n_flagged_ : int
        The same of the stream.
    log10_martingale_ : float
        After the last image.
    alarm_ : {"burst", "drift"} or None
        As in :class:`MonitorState`.
    alarm_at_ : int or None
        After how many images it was raised.

    Notes
    -----
    *p-values.* With the scores :math:`s_1, ..., s_m` of the calibration and
    :math:`s_{m+1}, ...` of the stream, image n of all has

    .. math:: p_n = \frac{\#\{i \le n: s_i > s_n\}
        + \theta_n \#\{i \le n: s_i = s_n\}}{n},
        \qquad \theta_n \sim U[0, 1].

    If all images are exchangeable, any order of them equally likely, then the
    :math:`p_n` are independent and uniform [1], ties or not. (Ranks among the
    calibration alone are not independent.) Bets with densities f, :math:`\int_0^1 f =
    1`, each begun at a random image, make of a capital of 1

    .. math:: M_n = \sum_{f} c_f \Bigl[ \sum_{s \le n} w_s \prod_{t=s}^{n} f(p_{m+t})
        + \sum_{s > n} w_s \Bigr], \qquad \sum c_f = \sum w_s = 1,

    a martingale: by Ville's inequality P(M ever reaches 1 / a) <= a, with the alarm
    at 1 / a. Half of the capital is on small p-values, "burst", and half on shifts and
    spreads, "drift"; the alarm is named after that which has grown more. It takes
    longer to raise one after a long quiet time: the weights w are about 1 / (s ln^2 s).

    *What is claimed.* On average over calibrations, a stream that is exchangeable with
    the calibration ever raises an alarm with probability at most `level`. An alarm says
    that it is not; that can also mean that images come sorted (a class at a time,
    frames of a video, day and night), or were learned from. Without an alarm nothing is
    claimed: a few attacks among many images, and whatever leaves the scores as they
    are, do not show. What goes on for long becomes the past that p-values compare with:
    act on the first alarm, and `fit` again. The score must be a fixed function of the
    image; those of a learned detector are, whatever stage an image leaves it at.
    Attackers who know the monitor, and change the stream so slowly or so little that it
    does not show, are not thought of.

    *Cost.* None in passes. About 10 microseconds an image in batches, 0.3 ms one by
    one; 8 bytes for every image ever seen, since ranks need all. One thread at a time.

    References
    ----------
    [1] V. Vovk, I. Nouretdinov, A. Gammerman, "Testing exchangeability on-line", ICML
    2003. [2] V. Vovk, I. Petej, I. Nouretdinov, E. Ahlberg, L. Carlsson, A. Gammerman,
    "Retrain or not retrain: conformal test martingales for change-point detection",
    COPA 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect import GuardMonitor
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(-3, size=300)  # of clean images, as guard.assess gives them
    >>> monitor = GuardMonitor(random_state=0).fit(scores)
    >>> print(monitor.update(rng.normal(-3, size=100)))
    100 images, 0 of them flagged; no alarm (log10 martingale -0.49)
    >>> print(monitor.update(rng.normal(2, size=10)))
    110 images, 10 of them flagged; alarm after 104, burst: more suspicious images than
    among those of the calibration
    """

    _shared_parameters = ("guard",)

    def __init__(
        self,
        guard: Any = None,
        *,
        level: float = 0.01,
        target_fpr: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.guard = guard
        self.level = level
        self.target_fpr = target_fpr
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> GuardMonitor:
        """Take the scores of clean images; a stream begins.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape), or Assessment
            Clean images as they will come, also those that the network gets wrong, for
            those will come too; hundreds, since few tell little. Or what the guard
            makes of them, as :meth:`update` takes it. The guard must not have learned
            from them: it is surer of those, and everything else would be an alarm. No
            record says which they were, so give images that it was not fitted with; for
            a detector that learns nothing but a threshold, they may be the same.
        y : None
            Not used.

        Returns
        -------
        GuardMonitor
            Itself; of an earlier stream nothing is left.

        Raises
        ------
        TypeError
            If `guard` has no ``assess``, or X are images and there is no `guard`.
        ValueError
            If a parameter or a score is not allowed, or there are none.
        """
        self._check_parameters()
        found = X
        if not _is_assessed(X):
            if self.guard is None:
                raise TypeError(
                    "X must be an assessment, or scores of shape (n,), where guard is "
                    f"None: give guard.assess(X); got {type(X).__name__}"
                )
            found = self.guard.assess(X)
        scores, flagged = _scores("X", found)
        if not len(scores):
            raise ValueError("X must hold at least one clean image; got none")
        random = check_random_state(self.random_state)
        self.seed_ = int(random.randint(2**31 - 1))
        self.target_fpr_ = (
            target_fpr_of(getattr(self.guard, "detector_", self.guard))
            if self.target_fpr is None
            else float(self.target_fpr)
        )
        self.n_calibration_ = len(scores)
        self.n_calibration_flagged_ = int(flagged.sum())
        self.n_images_, self.n_flagged_ = 0, 0
        self.log10_martingale_ = 0.0
        self.alarm_: Alarm | None = None
        self.alarm_at_: int | None = None
        self.known_, self.recent_ = np.sort(scores), np.zeros(0)
        self.won_, self.placed_ = Stakes.none()
        return self

    def update(self, assessment: Any) -> MonitorState:
        """Look at the next images of the stream.

        Parameters
        ----------
        assessment : Assessment, Examined, Guarded, or array of shape (n,)
            What the guard of `fit` made of them, in the order in which they came; or
            scores alone, which are positive where an image is flagged. That they are of
            the same guard cannot be checked: if they are not, it is a drift.

        Returns
        -------
        MonitorState
            After these images. 200 at once, 100 twice and one by one give the very
            same.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If it is neither an assessment nor an array.
        ValueError
            If a score is NaN, or there is not a flag for each; nothing is counted then.
        """
        check_is_fitted(self)
        self._check_parameters()
        scores, flagged = _scores("assessment", assessment)
        n = self.n_images_
        found = ranked(self.known_, self.recent_, scores)
        n_so_far = self.n_calibration_ + n + 1 + np.arange(len(scores))
        ties = self._uniform(len(scores)) * (1 + found.n_equal)
        p_values = (found.n_larger + ties) / n_so_far
        capital = staked(Stakes(self.won_, self.placed_), n, p_values)
        path = capital.total / math.log(10)
        over = np.flatnonzero(path >= -math.log10(self.level))
        if self.alarm_ is None and len(over):
            first = over[0]
            burst = capital.burst[first] >= capital.drift[first]
            self.alarm_ = "burst" if burst else "drift"
            self.alarm_at_ = n + int(first) + 1
        self.n_images_ = n + len(scores)
        self.n_flagged_ += int(flagged.sum())
        if len(path):
            self.log10_martingale_ = float(path[-1])
        self.known_, self.recent_ = found.known, found.recent
        self.won_, self.placed_ = capital.stakes
        return MonitorState(
            self.n_images_,
            self.n_flagged_,
            self.log10_martingale_,
            self.alarm_,
            self.alarm_at_,
            p_values,
            path,
        )

    def flags(self) -> FlagCount:
        """Count flags, beside what may be expected.

        Two comparisons, each for one look at a time of your choice; what may be watched
        all the time is the alarm. `target_fpr` is a promise for images that the network
        gets right, on average over calibrations: a stream with others in it has more
        flags. The calibration of the monitor has those too, so its `p_value` is exact
        for any stream that is exchangeable with it.

        Returns
        -------
        FlagCount
            Of the stream since `fit`.

        Examples
        --------
        >>> from curvdetect import GuardMonitor
        >>> monitor = GuardMonitor(target_fpr=0.1).fit([-1.0, -2.0, 1.0, -3.0])
        >>> _ = monitor.update([-1.5, 0.5, 2.0])
        >>> count = monitor.flags()
        >>> count.n_flagged, round(count.n_expected, 1), count.n_allowed
        (2, 0.3, 2)
        >>> round(count.p_value, 3)
        0.371
        """
        check_is_fitted(self)
        n, n_flagged, fpr = self.n_images_, self.n_flagged_, self.target_fpr_
        n_allowed, n_expected = None, math.nan
        if fpr is not None:
            n_allowed, n_expected = int(binom.ppf(1 - self.level, n, fpr)), n * fpr
        all_flagged = n_flagged + self.n_calibration_flagged_
        p_value = hypergeom.sf(n_flagged - 1, n + self.n_calibration_, all_flagged, n)
        return FlagCount(
            n,
            n_flagged,
            self.n_calibration_,
            self.n_calibration_flagged_,
            n_expected,
            n_allowed,
            float(p_value),
        )

    def check_learned(self) -> None:
        """Refuse what was read from a file, if it is no state of a monitor.

        Raises
        ------
        ValueError
            If a number is not what `fit` and `update` make it.
        """
        counts: list[Any] = [
            getattr(self, name, None)
            for name in (
                "seed_",
                "n_calibration_",
                "n_calibration_flagged_",
                "n_images_",
                "n_flagged_",
            )
        ]
        arrays: list[Any] = [
            getattr(self, name, None)
            for name in ("known_", "recent_", "won_", "placed_")
        ]
        if not (
            all(type(count) is int and count >= 0 for count in counts)
            and all(
                isinstance(a, np.ndarray)
                and a.dtype == np.float64
                and a.ndim == 1
                and not np.isnan(a).any()
                for a in arrays
            )
            and len(arrays[0]) + len(arrays[1]) == counts[1] + counts[3]
            and (arrays[0][1:] >= arrays[0][:-1]).all()
            and [len(a) for a in arrays[2:]] == [N_BETS, N_BETS]
            and getattr(self, "alarm_", "") in (None, *_SAID)
        ):
            raise ValueError(
                "what the monitor keeps is not what it makes of a stream; was its file "
                "changed?"
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "known_")

    def _check_parameters(self) -> None:
        if self.guard is not None and not callable(getattr(self.guard, "assess", None)):
            hint = "; give its .guard" if hasattr(self.guard, "guard") else ""
            raise TypeError(
                "guard must have a method assess, as GuardedClassifier has, or be "
                f"None; got {type(self.guard).__name__}{hint}"
            )
        check_share("level", self.level)
        check_target_fpr(self.target_fpr)

    def _uniform(self, n: int) -> npt.NDArray[np.float64]:
        """Return the next numbers that break ties: one for each image, ever the same.

        They are counted from the seed, so that two numbers are all that must be kept to
        go on.
        """
        bits = np.random.PCG64(self.seed_)
        bits.advance(self.n_images_)
        return np.random.Generator(bits).random(n)


def _is_assessed(X: Any) -> bool:
    """Say whether something is an assessment, or scores; not images."""
    if isinstance(X, list | tuple) and len(X) and not hasattr(X, "score"):
        return np.ndim(X[0]) == 0  # without making one array of many images
    return hasattr(X, "score") or np.ndim(X) == 1


def _scores(
    name: str, found: Any
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return checked scores and flags of an assessment, or of scores alone."""
    scores = _array(getattr(found, "score", found))
    if scores.ndim != 1 or scores.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be an assessment of n images, or n scores; got an array of "
            f"shape {scores.shape} and dtype {scores.dtype}. For images, give "
            "guard.assess(images)"
        )
    scores = scores.astype(np.float64)
    n_missing = int(np.isnan(scores).sum())
    if n_missing:
        raise ValueError(
            f"{name} must have scores that are numbers; got NaN for {n_missing} of "
            f"{len(scores)} images"
        )
    flagged = _array(getattr(found, "flagged", scores > 0))
    if flagged.shape != scores.shape or flagged.dtype != bool:
        raise ValueError(
            f"{name} must have a flag, true or false, for each of its {len(scores)} "
            f"scores; got shape {flagged.shape} and dtype {flagged.dtype}"
        )
    return scores, flagged


def _array(values: Any) -> npt.NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values)
