import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from curvdetect import CurvatureThresholdDetector

scores = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


def column(values):
    return np.asarray(values, dtype=float).reshape(-1, 1)


def labelled(clean, adversarial):
    X = column([*clean, *adversarial])
    return X, np.repeat([0, 1], [len(clean), len(adversarial)])


# Scores -------------------------------------------------------------


@pytest.mark.parametrize(
    ("statistic", "expected"), [("max", [2, 4]), ("sum", [3, 4]), ("mean", [1.5, 4])]
)
def test_statistics_ignore_nan(statistic, expected):
    X = np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 4.0]])
    detector = CurvatureThresholdDetector(statistic=statistic, target_fpr=0.5).fit(X)
    np.testing.assert_allclose(detector.score_samples(X), expected)


def test_an_image_without_boundary_is_flagged_with_a_warning():
    detector = CurvatureThresholdDetector().fit(*labelled([0, 1], [2, 3]))
    X = np.array([[np.nan], [0.0]])
    with pytest.warns(UserWarning, match="1 of 2 images have no boundary"):
        assert detector.predict(X).tolist() == [1, 0]
    with pytest.warns(UserWarning, match="no boundary"):
        decision = detector.decision_function(X)
    assert np.isfinite(decision).all()
    assert roc_auc_score([1, 0], decision) == 1  # scorers accept it


def test_decision_function_is_score_minus_threshold():
    X, y = labelled([0, 1, 5], [2, 3])
    detector = CurvatureThresholdDetector().fit(X, y)
    np.testing.assert_allclose(
        detector.decision_function(X), detector.score_samples(X) - detector.threshold_
    )


def test_too_many_clean_images_without_boundary():
    X = column([np.nan] * 15 + list(range(85)))
    with pytest.raises(ValueError, match="15 of the 100 clean images have no boundary"):
        CurvatureThresholdDetector(target_fpr=0.1).fit(X)
    detector = CurvatureThresholdDetector(target_fpr=0.2).fit(X)
    with pytest.warns(UserWarning, match="they are flagged"):
        assert detector.predict(column([np.nan])).tolist() == [1]


def test_without_boundary_is_flagged_whatever_the_threshold():
    X, y = column([np.nan, 1.0, 0.0, 0.0]), [0, 0, 1, 1]
    detector = CurvatureThresholdDetector().fit(X, y)
    with pytest.warns(UserWarning, match="they are flagged"):
        assert detector.predict(X)[0] == 1


# The best threshold -------------------------------------------------


@pytest.mark.parametrize(
    ("criterion", "metric"),
    [("balanced_accuracy", balanced_accuracy_score), ("accuracy", accuracy_score)],
)
@given(clean=scores, adversarial=scores)
def test_no_other_threshold_is_better(criterion, metric, clean, adversarial):
    X, y = labelled(clean, adversarial)
    detector = CurvatureThresholdDetector(criterion=criterion).fit(X, y)
    reached = metric(y, detector.predict(X))
    everywhere = [metric(y, X[:, 0] > t) for t in [-11, *np.sort(X[:, 0])]]
    assert reached == pytest.approx(max(everywhere))


@given(clean=scores, adversarial=scores)
def test_predictions_follow_the_sign_of_the_decision(clean, adversarial):
    X, y = labelled(clean, adversarial)
    detector = CurvatureThresholdDetector().fit(X, y)
    flagged = detector.predict(X) == 1
    decision = detector.decision_function(X)
    assert (decision[flagged] >= 0).all()
    assert (decision[~flagged] <= 0).all()


@pytest.mark.parametrize(
    "labels", [(0, 1), ("clean", "perturbed"), (-1, 1), (False, True)]
)
def test_any_two_labels(labels):
    X, y = labelled([0, 1], [2, 3])
    detector = CurvatureThresholdDetector().fit(X, np.asarray(labels)[y])
    assert detector.classes_.tolist() == list(labels)
    assert detector.predict(X).tolist() == [labels[0]] * 2 + [labels[1]] * 2


# The conformal threshold --------------------------------------------


@pytest.mark.parametrize("fpr", [0.05, 0.2])
@pytest.mark.parametrize("n", [19, 100])
def test_false_positive_rate_is_guaranteed(fpr, n):
    """Over many calibration sets, for skewed scores: at most the target."""
    rng = np.random.default_rng(0)
    n_sets, n_new = 2000, 50
    flagged = np.empty(n_sets)
    for k in range(n_sets):
        clean = rng.standard_exponential(n)
        detector = CurvatureThresholdDetector(target_fpr=fpr).fit(column(clean))
        new = rng.standard_exponential(n_new)
        flagged[k] = detector.predict(column(new)).mean()
    error = 3 * flagged.std() / n_sets**0.5
    assert flagged.mean() <= fpr + error
    assert flagged.mean() >= np.floor(fpr * (n + 1)) / (n + 1) - error


def test_ties_do_not_break_the_guarantee():
    clean = np.zeros(99)
    detector = CurvatureThresholdDetector(target_fpr=0.05).fit(column(clean))
    assert detector.predict(column([0.0])).tolist() == [0]
    assert detector.predict(column([1e-9])).tolist() == [1]


@given(
    clean=st.lists(st.floats(-10, 10), min_size=20, max_size=60),
    new=scores,
    percent=st.integers(5, 95),
)
def test_flagged_just_if_the_p_value_is_at_most_the_target(clean, new, percent):
    fpr = percent / 100
    detector = CurvatureThresholdDetector(target_fpr=fpr).fit(column(clean))
    X = column([*new, *clean])
    np.testing.assert_array_equal(
        detector.predict(X) == 1, detector.p_values(X) <= fpr * (1 + 1e-12)
    )


def test_only_clean_images_set_a_conformal_threshold():
    X, y = labelled(range(50), [1000, 2000])
    with_adversarial = CurvatureThresholdDetector(target_fpr=0.1).fit(X, y)
    clean_only = CurvatureThresholdDetector(target_fpr=0.1).fit(X[y == 0])
    assert with_adversarial.threshold_ == clean_only.threshold_ == 45
    assert clean_only.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(("fpr", "needed"), [(0.05, 19), (0.01, 99), (0.3, 3)])
def test_number_of_clean_images_needed(fpr, needed):
    detector = CurvatureThresholdDetector(target_fpr=fpr)
    detector.fit(column(range(needed)))
    with pytest.raises(
        ValueError,
        match=f"needs at least {needed} clean images to fit; got {needed - 1}",
    ):
        detector.fit(column(range(needed - 1)))
