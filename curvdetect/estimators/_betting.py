"""Bets on whether a stream is like what came before: ranks, and the capital they win.

The derivation is in the theory, "Watching a stream".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BURST", "N_BETS", "Capital", "Ranked", "Stakes", "ranked", "staked"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

#: Scores that came last are kept in order of arrival, and sorted in when there are as
#: many: what an image costs does not grow with the stream, but for that.
_BLOCK = 256


class Ranked(NamedTuple):
    """Where new scores are among all that came before them.

    Attributes
    ----------
    n_larger, n_equal : ndarray of shape (n,), int64
        How many of those are larger, and as large.
    known : ndarray of shape (m,)
        All scores but the last ones, sorted.
    recent : ndarray of shape (r,)
        These, in order of arrival.
    """

    n_larger: Counts
    n_equal: Counts
    known: Floats
    recent: Floats


def ranked(known: Floats, recent: Floats, scores: Floats) -> Ranked:
    """Count for each score what came before it, and is larger or as large.

    Parameters
    ----------
    known : ndarray of shape (m,)
        Scores, sorted.
    recent : ndarray of shape (r,)
        Scores that came after these, in order.
    scores : ndarray of shape (n,)
        New ones, in order, without NaN.

    Returns
    -------
    Ranked
        Counts, and the arguments of the next call. However the scores are cut into
        calls, all of it is the same. Cost: O(log m) each, and sorting all again, which
        are nearly in order, once in 256.
    """
    larger, equal = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    while len(scores):
        block, scores = np.split(scores, [_BLOCK - len(recent)])
        low = np.searchsorted(known, block, side="left")
        high = np.searchsorted(known, block, side="right")
        arrived = np.concatenate([recent, block])
        before = np.tri(len(block), len(arrived), len(recent) - 1, dtype=bool)
        above = (arrived > block[:, None]) & before
        same = (arrived == block[:, None]) & before
        larger.append(len(known) - high + above.sum(axis=1))
        equal.append(high - low + same.sum(axis=1))
        recent = arrived
        if len(recent) == _BLOCK:
            known = np.sort(np.concatenate([known, recent]), kind="stable")
            recent = np.zeros(0)
    return Ranked(np.concatenate(larger), np.concatenate(equal), known, recent)


def _tail(limit: float, stake: float) -> Callable[[Floats], Floats]:
    """Bet a share of the capital on a p-value up to a limit."""
    return lambda p: (1 - stake) + np.where(p <= limit, stake / limit, 0.0)


def _shift(by: float) -> Callable[[Floats], Floats]:
    """Bet on large p-values; with a negative number on small ones."""
    return lambda p: 1 + by * (2 * p - 1)


def _spread(by: float) -> Callable[[Floats], Floats]:
    """Bet on p-values at both ends; with a negative number in the middle."""
    return lambda p: 1 + by * (1.5 * (2 * p - 1) ** 2 - 0.5)


#: Densities of p-values, mean 1 on [0, 1] and positive: what a bet is multiplied by.
#: Chosen on development images, see `benchmarks/detection/monitor.py`.
_BETS: dict[str, tuple[Callable[[Floats], Floats], ...]] = {
    "burst": tuple(
        _tail(limit, stake)
        for limit in (0.003, 0.015, 0.06)
        for stake in (0.05, 0.2, 0.6)
    ),
    "drift": (
        *(_shift(by) for by in (-0.9, -0.4, 0.4, 0.9)),
        *(_spread(by) for by in (-0.9, -0.4, 0.5, 1.5)),
    ),
}
N_BETS = sum(map(len, _BETS.values()))
#: Which bets are on more suspicious images; the others are on scores elsewhere.
BURST = np.arange(N_BETS) < len(_BETS["burst"])
#: Either kind has half of the capital.
_LOG_SHARES = -np.log(2 * np.where(BURST, BURST.sum(), (~BURST).sum()))


class Stakes(NamedTuple):
    """Where the bets are, in the middle of a stream; natural logarithms.

    Attributes
    ----------
    won : ndarray of shape (n_bets,)
        What a bet that began with the stream has made of 1.
    placed : ndarray of shape (n_bets,)
        Sum of what has been staked, each part divided by `won` when it was.
    """

    won: Floats
    placed: Floats

    @classmethod
    def none(cls) -> Stakes:
        """Return those before the first image."""
        return cls(np.zeros(N_BETS), np.full(N_BETS, -np.inf))


class Capital(NamedTuple):
    """What the bets have made of a capital of 1, after each of n images; logarithms.

    Attributes
    ----------
    total : ndarray of shape (n,)
        The mean of the next two: the test martingale.
    burst, drift : ndarray of shape (n,)
        With bets of that kind alone.
    stakes : Stakes
        After the last image.
    """

    total: Floats
    burst: Floats
    drift: Floats
    stakes: Stakes


def staked(stakes: Stakes, n_before: int, p_values: Floats) -> Capital:
    r"""Bet on the next p-values.

    Of the capital of each bet, a share w_s = g(s) - g(s + 1), with g(s) = 1 / (1 + ln
    s), is staked from the s-th image on, and lies idle until then.

    Parameters
    ----------
    stakes : Stakes
        So far.
    n_before : int
        How many images that was.
    p_values : ndarray of shape (n,)
        Of the next ones.

    Returns
    -------
    Capital
        However p-values are cut into calls, all of it is the same: sums are taken from
        left to right.
    """
    s = n_before + 1 + np.arange(len(p_values), dtype=np.float64)
    idle, later = 1 + np.log(s), 1 + np.log(s + 1)
    log_share = np.log(np.log1p(1 / s)) - np.log(idle) - np.log(later)
    bets = (bet for kind in _BETS.values() for bet in kind)
    log_bets = np.log(np.stack([bet(p_values) for bet in bets], axis=1))
    won = np.cumsum(np.concatenate([stakes.won[None], log_bets]), axis=0)
    new = log_share[:, None] - won[:-1]
    placed = np.logaddexp.accumulate(np.concatenate([stakes.placed[None], new]), axis=0)
    capital = won[1:] + placed[1:] + _LOG_SHARES
    burst, drift = (
        np.logaddexp(
            np.logaddexp.reduce(capital[:, of_kind], axis=1), -np.log(2 * later)
        )
        for of_kind in (BURST, ~BURST)
    )
    return Capital(
        np.logaddexp(burst, drift),
        burst + np.log(2),
        drift + np.log(2),
        Stakes(won[-1], placed[-1]),
    )
