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
from torch import Tensor

__all__ = ["Forest", "grow_forest", "nodes_of"]

#: What a node holds: the column it asks for (-1: a leaf), the largest value of it that
#: goes left, where left and right are, and what a leaf adds.
_COLUMN, _THRESHOLD, _LEFT, _RIGHT, _VALUE = range(5)
_N_FIELDS = 5
#: Of a column's values.
_N_BINS = 64
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


class Forest:
    """A forest, checked and laid out to be asked.

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

    def __init__(
        self, nodes: npt.NDArray[np.float64], n_columns: int, device: torch.device
    ) -> None:
        check_forest(nodes, n_columns)
        self.depth = _depth(nodes)
        of = torch.as_tensor(nodes, dtype=torch.float64, device=device)
        column, left, right = (of[:, :, f].long() for f in (_COLUMN, _LEFT, _RIGHT))
        n_trees, n_nodes = column.shape
        # One long row of nodes: the place of a node is that of its tree, and its own.
        self.first = torch.arange(n_trees, device=device) * n_nodes
        own = torch.arange(n_nodes, device=device).expand_as(column)
        self.left, self.right = (
            (self.first[:, None] + torch.where(column < 0, own, child)).flatten()
            for child in (left, right)
        )
        self.column = column.clamp(min=0).flatten()
        self.threshold = of[:, :, _THRESHOLD].flatten()
        self.value = of[:, :, _VALUE].flatten()

    def __call__(self, X: Tensor) -> Tensor:
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
        found = []
        for rows in X.split(_ROWS):
            at = self.first.expand(len(rows), -1)
            for _ in range(self.depth):
                asked = rows.gather(1, self.column[at])
                goes_left = asked <= self.threshold[at]
                at = torch.where(goes_left, self.left[at], self.right[at])
            found.append(self.value[at].sum(dim=1))
        return torch.cat(found)


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
        its parent, so no walk is endless.
    """
    if not (
        isinstance(forest, np.ndarray)
        and forest.dtype == np.float64
        and forest.ndim == 3
        and forest.shape[2] == _N_FIELDS
        and forest.shape[0] > 0 < forest.shape[1]
    ):
        raise ValueError(
            "a forest must be a float64 array of shape (n_trees, n_nodes, "
            f"{_N_FIELDS}); got {getattr(forest, 'shape', type(forest).__name__)}"
        )
    column = forest[:, :, _COLUMN]
    inner = column >= 0
    own = np.broadcast_to(np.arange(forest.shape[1]), column.shape)[inner]
    children = forest[inner][:, [_LEFT, _RIGHT]]
    allowed = (
        np.isfinite(forest).all()
        and (column == np.floor(column)).all()
        and ((column >= -1) & (column < n_columns)).all()
        and (children == np.floor(children)).all()
        and (children > own[:, None]).all()
        and (children < forest.shape[1]).all()
    )
    if not allowed:
        raise ValueError(
            f"a forest must hold finite numbers, columns below {n_columns}, and "
            "children after their parents; this one does not. Was its file changed?"
        )


def _depth(forest: npt.NDArray[np.float64]) -> int:
    """Return how many questions the longest walk asks."""
    column = forest[:, :, _COLUMN]
    deep = np.zeros(column.shape, dtype=np.int64)
    for node in range(forest.shape[1]):  # parents come first
        inner = column[:, node] >= 0
        for field in (_LEFT, _RIGHT):
            child = forest[inner, node, field].astype(np.int64)
            deep[inner, child] = deep[inner, node] + 1
    return int(deep.max())
