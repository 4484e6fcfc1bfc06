import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import get_scorer

from curvdetect import CurvatureRelabeler

NAN = np.nan
X = np.array([[NAN, -0.2, 0.3, 0.1], [0.5, NAN, -0.1, NAN], [-0.3, -0.2, NAN, -0.1]])


def test_the_largest_curvature_is_the_original_label():
    relabeler = CurvatureRelabeler().fit(X)
    assert relabeler.predict(X).tolist() == [2, 0, 3]
    assert relabeler.classes_.tolist() == [0, 1, 2, 3]


def test_missing_boundaries_come_last_and_scores_are_finite():
    scores = CurvatureRelabeler().fit(X).decision_function(X)
    assert np.isfinite(scores).all()
    assert scores.argsort(axis=1)[:, 0].tolist() == [0, 1, 2]


def test_rank():
    relabeler = CurvatureRelabeler().fit(X)
    assert relabeler.rank(X, [2, 0, 3]).tolist() == [1, 1, 1]
    assert relabeler.rank(X, [3, 2, 0]).tolist() == [2, 2, 3]


@given(st.integers(0, 10**6), st.integers(2, 12))
def test_rank_one_is_what_predict_says(seed, n_classes):
    rng = np.random.default_rng(seed)
    F = rng.normal(size=(20, n_classes))
    y = rng.integers(n_classes, size=20)
    relabeler = CurvatureRelabeler().fit(F)
    np.testing.assert_array_equal(relabeler.rank(F, y) == 1, relabeler.predict(F) == y)


def test_labels_that_miss_a_class_keep_their_columns():
    relabeler = CurvatureRelabeler().fit(X, [2, 0, 3])
    assert relabeler.classes_.tolist() == [0, 1, 2, 3]
    assert relabeler.predict(X).tolist() == [2, 0, 3]


def test_names_belong_to_the_columns_in_order():
    names = np.array(["bag", "coat", "dress", "shirt"])
    relabeler = CurvatureRelabeler().fit(X[[0, 1, 2, 0]], names)
    assert relabeler.predict(X).tolist() == ["dress", "bag", "shirt"]


def test_two_classes():
    F = np.array([[NAN, 0.1], [-0.2, NAN]])
    relabeler = CurvatureRelabeler().fit(F)
    assert relabeler.predict(F).tolist() == [1, 0]
    assert relabeler.decision_function(F).shape == (2,)
    assert (relabeler.decision_function(F) > 0).tolist() == [True, False]


@pytest.mark.parametrize("name", ["accuracy", "top_k_accuracy"])
def test_scorers(name):
    rng = np.random.default_rng(0)
    F, y = rng.normal(size=(50, 5)), rng.integers(5, size=50)
    F[np.arange(50), y] += 2
    score = get_scorer(name)(CurvatureRelabeler().fit(F, y), F, y)
    assert 0.7 < score <= 1


def test_labels_and_columns_that_do_not_match_warn():
    with pytest.warns(UserWarning, match="y holds 3 labels, but X has 4 columns"):
        CurvatureRelabeler().fit(X, ["a", "b", "c"])
