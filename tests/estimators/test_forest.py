"""Forests as plain numbers: equal to scikit-learn's, and checked before use."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier

from curvdetect.estimators._forest import Forest, _cuts, grow_forest, nodes_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learned():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5))
    y = X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=400) > 0
    return X, y, HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(X, y)


@pytest.mark.parametrize("max_leaf_nodes", [2, 15, 16, 31, 32, 63])
def test_is_what_scikit_learn_gives(learned, max_leaf_nodes):
    X, y, learner = learned
    learner = clone(learner).set_params(max_leaf_nodes=max_leaf_nodes)
    learner.set_params(min_samples_leaf=2).fit(X, y)
    X = np.random.default_rng(1).normal(size=(1000, 5)) * 2
    X[:400] = learned[0]  # values on a cut
    ours = Forest(nodes_of(learner), 5, CPU)(torch.from_numpy(X))
    np.testing.assert_allclose(ours, learner.decision_function(X), rtol=0, atol=1e-12)


def test_is_the_same_in_any_batch(learned):
    X, _, learner = learned
    forest, rows = Forest(nodes_of(learner), 5, CPU), torch.from_numpy(X)
    one_by_one = torch.cat([forest(row[None]) for row in rows])
    assert torch.equal(forest(rows), one_by_one)
    assert torch.equal(forest(rows.repeat(12, 1))[-len(X) :], one_by_one)


def test_rounding_of_what_was_learned_from_changes_nothing(learned):
    X, y, _ = learned
    forest = Forest(grow_forest(X, y, np.ones(len(X)), 0), 5, CPU)
    rows = torch.from_numpy(X)
    assert torch.equal(forest(rows), forest(rows * (1 + 1e-9)))
    assert torch.equal(forest(rows), forest(rows * (1 - 1e-9)))


def test_cuts_are_halfway_between_values():
    """Few values are all told apart; of many, as many lie between any two cuts."""
    np.testing.assert_allclose(_cuts(np.array([4.0, 1.0, 1.0, 8.0])), [2.5, 6.0])
    cuts = _cuts(np.random.default_rng(0).permutation(6400).astype(float))
    np.testing.assert_allclose(cuts, np.arange(1, 64) * 100 - 0.5)


def test_tells_a_product_from_noise(learned):
    X, y, _ = learned
    forest = Forest(grow_forest(X, y, np.ones(len(X)), 0), 5, CPU)
    new = np.random.default_rng(2).normal(size=(2000, 5))
    right = (forest(torch.from_numpy(new)).numpy() > 0) == (new[:, 0] * new[:, 1] > 0)
    assert right.mean() > 0.8


def test_weights_count(learned):
    X, y, _ = learned
    even = grow_forest(X, y, np.ones(len(X)), 0)
    heavy = grow_forest(X, y, np.where(y, 20.0, 1.0), 0)
    rows = torch.from_numpy(X)
    assert Forest(heavy, 5, CPU)(rows).mean() > Forest(even, 5, CPU)(rows).mean() + 1


def test_one_leaf_is_a_constant():
    nodes = np.array([[[-1.0, 0, 0, 0, 0.5]]])
    assert Forest(nodes, 3, CPU)(torch.zeros(2, 3, dtype=torch.float64)).tolist() == [
        0.5,
        0.5,
    ]


@pytest.mark.parametrize(
    ("node", "field", "value"),
    [
        (0, 0, 5.0),  # a column that is not there
        (0, 0, -2.0),
        (0, 0, 0.5),
        (0, 2, 0.0),  # a child that is the node itself: an endless walk
        (0, 3, 1e9),  # or outside
        (0, 3, 1.5),
        (0, 3, 1.0),  # or another's too
        (0, 1, np.nan),
        (0, 4, np.inf),
    ],
)
def test_refuses_numbers_that_no_forest_holds(learned, node, field, value):
    nodes = nodes_of(learned[2])
    nodes[1, node, field] = value
    with pytest.raises(ValueError, match="Was its file changed"):
        Forest(nodes, 5, CPU)


@pytest.mark.parametrize(
    "nodes",
    [
        None,
        np.zeros((2, 3)),
        np.zeros((0, 1, 5)),
        np.zeros((1, 1, 5), int),
        np.zeros((1, 200, 5)),
        np.zeros((1, 126, 5)),  # 63 leaves have 62 nodes above them
    ],
)
def test_refuses_what_is_no_forest(nodes):
    with pytest.raises(ValueError, match="a forest must be a float64 array"):
        Forest(nodes, 5, CPU)


@given(st.integers(0, 10_000))
def test_whatever_passes_the_check_has_an_answer(seed):
    """Random numbers either are refused, or give a finite answer."""
    rng = np.random.default_rng(seed)
    nodes = np.zeros((2, 4, 5))
    nodes[..., 0] = rng.integers(-1, 3, (2, 4))
    nodes[..., 1] = rng.normal(size=(2, 4))
    nodes[..., 2:4] = rng.integers(0, 5, (2, 4, 2))
    nodes[..., 4] = rng.normal(size=(2, 4))
    try:
        forest = Forest(nodes, 2, CPU)
    except ValueError:
        return
    assert forest(torch.zeros(3, 2, dtype=torch.float64)).isfinite().all()
