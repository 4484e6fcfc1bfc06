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

__all__ = ["forest_value", "grow_forest", "nodes_of"]

#: What a node holds: the column it asks for (-1: a leaf), the largest value of it that
#: goes left, where left and right are, and what a leaf adds.
_COLUMN, _THRESHOLD, _LEFT, _RIGHT, _VALUE = range(5)
_N_FIELDS = 5
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
        For :func:`forest_value`.
    """
    learner = HistGradientBoostingClassifier(
        max_iter=200,
        learning_rate=0.05,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    return nodes_of(learner.fit(X, positive, sample_weight=weight))


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


def forest_value(forest: npt.NDArray[np.float64], X: Tensor) -> Tensor:
    """Evaluate a forest: the log-odds of every row.

    Parameters
    ----------
    forest : ndarray of shape (n_trees, n_nodes, 5)
        As :func:`grow_forest` returns it, from wherever.
    X : Tensor of shape (n_rows, n_columns)
        Finite numbers.

    Returns
    -------
    Tensor of shape (n_rows,), float64
        What scikit-learn's ``decision_function`` gives, to rounding.

    Raises
    ------
    ValueError
        If the forest is not one for so many columns.
    """
    check_forest(forest, X.shape[1])
    nodes = torch.as_tensor(forest, dtype=torch.float64, device=X.device)
    column, left, right = (
        nodes[:, :, field].long() for field in (_COLUMN, _LEFT, _RIGHT)
    )
    n_trees, n_nodes = column.shape
    # One long row of nodes: a node's place is that of its tree, and its own.
    first = torch.arange(n_trees, device=X.device)[:, None] * n_nodes
    leaf = column < 0
    own = torch.arange(n_nodes, device=X.device).expand_as(column)
    left, right = (
        (first + torch.where(leaf, own, child)).flatten() for child in (left, right)
    )
    flat = column.clamp(min=0).flatten()
    threshold = nodes[:, :, _THRESHOLD].flatten()
    value = nodes[:, :, _VALUE].flatten()
    depth = _depth(forest)
    found = []
    for rows in X.double().split(_ROWS):
        at = first.T.expand(len(rows), -1)
        for _ in range(depth):
            asked = rows.gather(1, flat[at])
            at = torch.where(asked <= threshold[at], left[at], right[at])
        found.append(value[at].sum(dim=1))
    return torch.cat(found) if found else X.new_empty(0, dtype=torch.float64)


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
            f"a forest must hold finite numbers, columns below {n_columns}, and children "
            "after their parents; this one does not. Was its file changed?"
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
