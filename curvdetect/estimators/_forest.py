"""Boosted trees as plain numbers: grown by scikit-learn, read and evaluated here.

A forest is one array, so that a file or a state dict holds numbers and nothing that is
executed; whatever it holds, it is checked before a number in it is followed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

__all__ = ["Forest", "grow_forest", "nodes_of"]

#: What a node holds: the column it asks for (-1: a leaf), the largest value of it that
#: goes left, where left and right are, and what a leaf adds.
_COLUMN, _THRESHOLD, _LEFT, _RIGHT, _VALUE = range(5)
_N_FIELDS = 5
#: Of a column's values.
_N_BINS = 64
#: Of a tree: each is a bit of a positive integer.
_MOST_LEAVES = 63
#: Rows evaluated at a time.
_ROWS = 4096


def grow_forest(
    X: npt.NDArray[np.float64],
    positive: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.float64],
    seed: int,
) -> npt.NDArray[np.float64]:
    """Learn the log-odds of the positive rows.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_columns)
        Finite numbers.
    positive : ndarray of shape (n_rows,), bool
        Both values.
    weight : ndarray of shape (n_rows,)
        How much each row counts.
    seed : int
        Of scikit-learn.

    Returns
    -------
    ndarray of shape (n_trees, n_nodes, 5)
        For :class:`Forest`.
    """
    cuts = [_cuts(column) for column in X.T]
    # The learner is given the positions among the cuts. With weights it would else take
    # weighted percentiles, in Python, which was most of the time.
    positions = np.stack(
        [np.searchsorted(at, column) for at, column in zip(cuts, X.T, strict=True)],
        axis=1,
    )
    learner = HistGradientBoostingClassifier(
        max_iter=200,
        learning_rate=0.05,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        max_bins=_N_BINS,
        early_stopping=False,
        random_state=seed,
    )
    nodes = nodes_of(learner.fit(positions, positive, sample_weight=weight))
    inner = nodes[:, :, _COLUMN] >= 0
    nodes[inner, _THRESHOLD] = [
        cuts[int(column)][int(position)]
        for column, position in nodes[inner][:, [_COLUMN, _THRESHOLD]]
    ]
    return nodes


def _cuts(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return where to cut a column: at quantiles, halfway between two of its values.

    On a value, rounding would move it to either side.
    """
    distinct = np.unique(values)
    if len(distinct) <= _N_BINS:
        below = np.arange(len(distinct) - 1)
    else:
        shares = np.linspace(0, 1, _N_BINS + 1)[1:-1]
        quantiles = np.quantile(values, shares, method="inverted_cdf")
        below = np.unique(np.searchsorted(distinct, quantiles))
        below = below[below < len(distinct) - 1]
    return np.asarray((distinct[below] + distinct[below + 1]) / 2)


def nodes_of(learner: HistGradientBoostingClassifier) -> npt.NDArray[np.float64]:
    """Return a fitted classifier of two classes as numbers.

    Parameters
    ----------
    learner : HistGradientBoostingClassifier
        Fitted on finite numbers, without categories.

    Returns
    -------
    ndarray of shape (n_trees, n_nodes, 5)
        The first tree is a leaf: what all start from.
    """
    grown: list[Any] = [tree.nodes for (tree,) in learner._predictors]
    width = max([1, *(len(nodes) for nodes in grown)])
    forest = np.zeros((1 + len(grown), width, _N_FIELDS))
    forest[:, :, _COLUMN] = -1
    forest[0, 0, _VALUE] = float(np.ravel(learner._baseline_prediction)[0])
    for tree, nodes in zip(forest[1:], grown, strict=True):
        part, leaf = tree[: len(nodes)], nodes["is_leaf"].astype(bool)
        part[:, _COLUMN] = np.where(leaf, -1, nodes["feature_idx"])
        part[:, _THRESHOLD] = np.where(leaf, 0, nodes["num_threshold"])
        part[:, _LEFT] = np.where(leaf, 0, nodes["left"])
        part[:, _RIGHT] = np.where(leaf, 0, nodes["right"])
        part[:, _VALUE] = np.where(leaf, nodes["value"], 0)
    return forest


class Forest(nn.Module):
    """A forest, checked and laid out to be asked.

    Whether a row goes left at a node depends on where its value lies among the cuts of
    that column, and each answer rules out the leaves of the other side. So there is a
    table, for each column and place among its cuts, of the leaves of every tree that
    are left, as bits; a row takes one entry of each column, and the bit that is in all
    of them is its leaf. No walk, no branch: Lucchese et al., "QuickScorer", SIGIR 2015.

    Parameters
    ----------
    nodes : ndarray of shape (n_trees, n_nodes, 5)
        As :func:`grow_forest` returns it, from wherever.
    n_columns : int
        Of the rows it will be asked about.
    device : torch.device
        Where they are.

    Raises
    ------
    ValueError
        If it is no forest for so many columns.
    """

    used: Tensor
    cuts: Tensor
    table: Tensor
    values: Tensor
    first: Tensor

    def __init__(
        self, nodes: npt.NDArray[np.float64], n_columns: int, device: torch.device
    ) -> None:
        super().__init__()
        check_forest(nodes, n_columns)
        leaf = _leaf_numbers(nodes)
        cuts, table = _table(nodes, leaf, n_columns)
        used = np.flatnonzero(np.isfinite(cuts[:, 0]))
        n_leaves = leaf.max() + 1
        values = np.zeros((len(nodes), n_leaves))
        of, at = np.nonzero(leaf >= 0)
        values[of, leaf[of, at]] = nodes[of, at, _VALUE]
        held = {
            "used": used,
            "cuts": cuts[used],
            "table": table[used],
            "values": values.ravel(),
            "first": np.arange(len(nodes)) * int(n_leaves),
        }
        for name, numbers in held.items():
            self.register_buffer(name, torch.as_tensor(numbers, device=device))

    def forward(self, X: Tensor) -> Tensor:
        """Return the log-odds of every row.

        Parameters
        ----------
        X : Tensor of shape (n_rows, n_columns), float64
            Finite numbers.

        Returns
        -------
        Tensor of shape (n_rows,), float64
            What scikit-learn's ``decision_function`` gives, to rounding.
        """
        if torch.compiler.is_compiling():  # a program knows no number of rows
            return self._of_rows(X)
        return torch.cat([self._of_rows(rows) for rows in X.split(_ROWS)])

    def _of_rows(self, rows: Tensor) -> Tensor:
        # A value on a cut goes left, as in scikit-learn.
        place = torch.searchsorted(self.cuts, rows.T[self.used].contiguous())
        left = rows.new_ones(  # of a forest of single leaves
            rows.shape[0], len(self.first), dtype=self.table.dtype
        )
        for column, (table, at) in enumerate(zip(self.table, place, strict=True)):
            left = table[at] if column == 0 else left & table[at]
        leaf = left.float().log2().round().long()
        return self.values[self.first + leaf].sum(dim=1)


def _leaf_numbers(nodes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the number of each leaf that its tree's root leads to; -1 elsewhere."""
    inner = nodes[:, :, _COLUMN] >= 0
    reached = np.zeros(inner.shape, dtype=bool)
    reached[:, 0] = True
    for node in range(inner.shape[1]):  # parents come first
        of = np.flatnonzero(reached[:, node] & inner[:, node])
        for field in (_LEFT, _RIGHT):
            reached[of, nodes[of, node, field].astype(np.int64)] = True
    leaf = reached & ~inner
    return np.where(leaf, leaf.cumsum(axis=1) - 1, -1)


def _table(
    nodes: npt.NDArray[np.float64], leaf: npt.NDArray[np.int64], n_columns: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Return the cuts of each column, and which leaves each place among them leaves.

    Returns
    -------
    tuple of ndarray
        Cuts of shape (n_columns, n_cuts), in order, then infinity; and, of shape
        (n_columns, n_cuts + 1, n_trees), integers of which each bit is a leaf.
    """
    n_leaves = leaf.max() + 1
    kind = next(k for k in (np.int16, np.int32, np.int64) if n_leaves < 8 * k(0).nbytes)
    below = np.where(leaf >= 0, 1 << np.maximum(leaf, 0), 0)
    inner = nodes[:, :, _COLUMN] >= 0
    for node in reversed(range(inner.shape[1])):  # children come later
        of = np.flatnonzero(inner[:, node])
        for field in (_LEFT, _RIGHT):
            below[of, node] |= below[of, nodes[of, node, field].astype(np.int64)]
    tree, asking = np.nonzero(inner)
    column, left, right = (
        nodes[tree, asking, field].astype(np.int64)
        for field in (_COLUMN, _LEFT, _RIGHT)
    )
    threshold = nodes[tree, asking, _THRESHOLD]
    of_columns = [np.unique(threshold[column == c]) for c in range(n_columns)]
    cuts = np.full((n_columns, max(map(len, of_columns)) + 1), np.inf)
    place = np.zeros(len(tree), dtype=np.int64)
    for c, known in enumerate(of_columns):
        cuts[c, : len(known)] = known
        place[column == c] = np.searchsorted(known, threshold[column == c])
    every = np.broadcast_to(below[:, 0], (n_columns, cuts.shape[1] + 1, len(nodes)))
    # Up to its cut a node goes left, and rules out the right; beyond it, the left.
    at_most, beyond = every.copy(), every.copy()
    np.bitwise_and.at(at_most, (column, place, tree), ~below[tree, right])
    np.bitwise_and.at(beyond, (column, place + 1, tree), ~below[tree, left])
    up = np.bitwise_and.accumulate(at_most[:, ::-1], axis=1)[:, ::-1]
    return cuts, (up & np.bitwise_and.accumulate(beyond, axis=1)).astype(kind)


def check_forest(forest: Any, n_columns: int) -> None:
    """Refuse what is no forest for so many columns: nothing in it is trusted.

    Parameters
    ----------
    forest : ndarray
        Numbers from a file, perhaps.
    n_columns : int
        Of the rows it will be asked about.

    Raises
    ------
    ValueError
        If its shape, a number, a column or a child is not allowed. A child comes after
        its parent, and has no other.
    """
    if not (
        isinstance(forest, np.ndarray)
        and forest.dtype == np.float64
        and forest.ndim == 3
        and forest.shape[2] == _N_FIELDS
        and forest.shape[0] > 0
        and 0 < forest.shape[1] < 2 * _MOST_LEAVES
    ):
        raise ValueError(
            "a forest must be a float64 array of shape (n_trees, n_nodes, "
            f"{_N_FIELDS}), of at most {2 * _MOST_LEAVES - 1} nodes; got "
            f"{getattr(forest, 'shape', type(forest).__name__)}"
        )
    column = forest[:, :, _COLUMN]
    inner = column >= 0
    tree, own = np.nonzero(inner)
    children = forest[inner][:, [_LEFT, _RIGHT]]
    places = tree[:, None] * forest.shape[1] + children
    allowed = (
        np.isfinite(forest).all()
        and (column == np.floor(column)).all()
        and ((column >= -1) & (column < n_columns)).all()
        and (children == np.floor(children)).all()
        and (children > own[:, None]).all()
        and (children < forest.shape[1]).all()
        and len(np.unique(places)) == places.size
    )
    if not allowed:
        raise ValueError(
            f"a forest must hold finite numbers, columns below {n_columns}, and "
            "children after their only parents; this one does not. Was its file "
            "changed?"
        )
