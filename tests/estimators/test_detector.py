import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    get_scorer,
    roc_auc_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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


@pytest.mark.filterwarnings("ignore:the scores rank the images the wrong way")
def test_without_boundary_is_flagged_whatever_the_threshold():
    X, y = column([np.nan, 1.0, 0.0, 0.0]), [0, 0, 1, 1]
    detector = CurvatureThresholdDetector().fit(X, y)
    with pytest.warns(UserWarning, match="they are flagged"):
        assert detector.predict(X)[0] == 1


# The best threshold -------------------------------------------------


@pytest.mark.filterwarnings("ignore:the scores rank the images the wrong way")
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


@pytest.mark.filterwarnings("ignore:the scores rank the images the wrong way")
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
    detector = CurvatureThresholdDetector(pos_label=labels[1])
    detector.fit(X, np.asarray(labels)[y])
    assert detector.classes_.tolist() == list(labels)
    assert detector.predict(X).tolist() == [labels[0]] * 2 + [labels[1]] * 2


OTHER_LABELS = [
    ("clean", "adversarial"),
    ("adversarial", "clean"),  # the same two the other way round
    (1, -1),  # as outlier detectors have it
    (-1, 1),
    (1, 2),
    ("natural", "attacked"),
]


@pytest.mark.parametrize("target_fpr", [None, 0.4])
@pytest.mark.parametrize("labels", OTHER_LABELS)
def test_the_adversarial_label_is_the_one_that_is_given(labels, target_fpr):
    """Whatever its place in the order; checked against the labels 0 and 1."""
    X, y = labelled([0, 1, 2, 5], [3, 4, 6, 7])
    expected = CurvatureThresholdDetector(target_fpr=target_fpr).fit(X, y)
    detector = CurvatureThresholdDetector(target_fpr=target_fpr, pos_label=labels[1])
    detector.fit(X, np.asarray(labels)[y])
    assert detector.pos_label_ == labels[1]
    assert detector.classes_.tolist() == sorted(labels)
    assert detector.threshold_ == expected.threshold_
    predicted = expected.predict(X)
    assert detector.predict(X).tolist() == [labels[k] for k in predicted]
    np.testing.assert_array_equal(detector.p_values(X), expected.p_values(X))
    np.testing.assert_array_equal(detector.score_samples(X), expected.score_samples(X))
    decision = detector.decision_function(X)
    sign = 1 if detector.classes_[1] == labels[1] else -1
    np.testing.assert_allclose(
        decision, sign * expected.decision_function(X), atol=1e-300
    )
    second = detector.predict(X) == detector.classes_[1]
    np.testing.assert_array_equal(decision > 0, second)  # scikit-learn's contract
    names = np.asarray(labels)[y]
    scored = get_scorer("roc_auc")(detector, X, names)
    assert scored == roc_auc_score(y, X[:, 0])


@pytest.mark.parametrize("labels", OTHER_LABELS)
def test_without_it_the_scores_tell_and_a_warning_says_so(labels):
    X, y = labelled([0, 1], [2, 3])
    message = re.escape(f"pos_label is not given: {labels[1]!r} is taken")
    with pytest.warns(UserWarning, match=message) as caught:
        detector = CurvatureThresholdDetector().fit(X, np.asarray(labels)[y])
    assert [w.filename for w in caught] == [__file__]
    assert detector.pos_label_ == labels[1]
    assert detector.predict(X).tolist() == [labels[k] for k in y]


@pytest.mark.parametrize("labels", [(0, 1), (False, True), (0.0, 1.0)])
def test_labels_that_need_no_explanation(labels):
    X, y = labelled([0, 1], [2, 3])
    detector = CurvatureThresholdDetector().fit(X, np.asarray(labels)[y])
    assert detector.pos_label_ == labels[1]
    inverted = CurvatureThresholdDetector(pos_label=labels[0])
    with pytest.warns(UserWarning, match=r"wrong way round \(AUROC 0.00\)"):
        inverted.fit(X, np.asarray(labels)[y])


@pytest.mark.parametrize(
    ("settings", "labels", "message"),
    [
        (
            {"pos_label": "c"},
            ["a", "a", "b"],
            r"one of the two labels, \['a', 'b'\]; g",
        ),
        ({"pos_label": 2}, [0, 0, 1], r"pos_label must be .* \[0, 1\]; got 2"),
        (
            {"pos_label": "a", "target_fpr": 0.5},
            None,
            r"\[0, 1\] where y is left out; got 'a'",
        ),
        ({}, ["a", "b", "a"], "pos_label must say .* scores of 'a' and 'b' do not"),
    ],
)
def test_adversarial_labels_that_are_not_among_them(settings, labels, message):
    with pytest.raises(ValueError, match=message):
        CurvatureThresholdDetector(**settings).fit(column([1, 2, 3]), labels)


def test_without_labels_the_adversarial_one_may_be_0():
    detector = CurvatureThresholdDetector(target_fpr=0.5, pos_label=0)
    detector.fit(column(range(5)))
    assert detector.predict(column([-1, 9])).tolist() == [1, 0]


@pytest.mark.parametrize("target_fpr", [None, 0.5])
@pytest.mark.parametrize(
    ("labels", "auroc"),
    [
        ([1, 1, 0, 0], "0.00"),
        ([0, 1, 0, 0], "0.33"),
        ([True, False, True, False], 0.25),
    ],
)
def test_scores_that_rank_the_wrong_way_round_warn(labels, auroc, target_fpr):
    detector = CurvatureThresholdDetector(target_fpr=target_fpr)
    message = rf"wrong way round \(AUROC {auroc}\): those labelled"
    with pytest.warns(UserWarning, match=message) as caught:
        detector.fit(column([0, 1, 2, 3]), labels)
    assert [w.filename for w in caught] == [__file__]
    with pytest.warns(UserWarning, match="wrong way") as caught:
        make_pipeline(StandardScaler(), clone(detector)).fit(
            column([0, 1, 2, 3]), labels
        )
    assert [w.filename for w in caught] == [__file__]


def test_how_many_images_were_clean_is_said():
    X, y = labelled(range(4), range(10, 20))
    message = "at least 9 clean images to fit; got 4 among 14 images, those labelled 0"
    with pytest.raises(ValueError, match=message):
        CurvatureThresholdDetector(target_fpr=0.1).fit(X, y)
    names = np.where(y, "bad", "good")
    with pytest.raises(ValueError, match="got 4 among 14 images, those labelled good"):
        CurvatureThresholdDetector(target_fpr=0.1, pos_label="bad").fit(X, names)


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
