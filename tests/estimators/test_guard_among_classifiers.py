"""What scikit-learn makes of a guard, beside a classifier with the same logits."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay, get_scorer
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from torch import nn

from curvdetect import CurvatureFeaturizer, GuardedClassifier, TorchModel

N = 90


class Logits(ClassifierMixin, BaseEstimator):
    """A plain classifier: what a network says, computed here."""

    def __init__(self, network=None):
        self.network = network

    def fit(self, X, y):
        self.classes_ = np.arange(self.network[-1].out_features)
        return self

    def decision_function(self, X):
        with torch.no_grad():
            logits = self.network(torch.from_numpy(X)).numpy()
        return logits if logits.shape[1] > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X):
        decision = self.decision_function(X)
        if decision.ndim == 1:
            return np.stack([expit(-decision), expit(decision)], axis=1)
        return softmax(decision, axis=1)

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)

    def __deepcopy__(self, memo):
        return self


class Problem:
    """Images of a network with n classes, and labels that are 90 % right."""

    def __init__(self, n_classes):
        torch.manual_seed(1)
        self.network = nn.Sequential(
            nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, n_classes)
        )
        self.network.double().eval()
        rng = np.random.default_rng(0)
        self.X = rng.random((N, 6))
        with torch.no_grad():
            logits = self.network(torch.from_numpy(self.X))
            self.network[-1].bias -= logits.mean(0)
            self.network[-1].weight *= 5
            self.network[-1].bias *= 5
        self.plain = Logits(self.network).fit(None, None)
        own = self.plain.predict(self.X)
        self.y = np.where(rng.random(N) < 0.1, (own + 1) % n_classes, own)
        self.model = TorchModel(self.network, input_shape=(6,))

    def guard(self, on_flag="label", target_fpr=0.3):
        parts = CurvatureFeaturizer(None, step=0.1, n_directions=2, random_state=0)
        return GuardedClassifier(
            self.model, featurizer=parts, on_flag=on_flag, target_fpr=target_fpr
        )


@pytest.fixture(scope="module")
def four():
    return Problem(4)


@pytest.fixture(scope="module")
def two():
    return Problem(2)


@pytest.mark.parametrize("on_flag", ["label", "relabel", "reject"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_scores_probabilities_and_labels_agree(two, four, on_flag, n_classes):
    problem = two if n_classes == 2 else four
    guard = problem.guard(on_flag).fit(problem.X)
    decision, proba = (
        guard.decision_function(problem.X),
        guard.predict_proba(problem.X),
    )
    found = guard.assess(problem.X)
    assert 5 < found.flagged.sum() < N - 5
    if n_classes == 2:
        assert decision.shape == (N,)
        np.testing.assert_allclose(proba[:, 1], expit(decision), atol=1e-12)
    else:
        assert decision.shape == (N, 4)
        np.testing.assert_allclose(proba, softmax(decision, axis=1), atol=1e-12)
    kept = ~found.flagged if on_flag == "reject" else np.ones(N, dtype=bool)
    np.testing.assert_array_equal(proba.argmax(1)[kept], guard.predict(problem.X)[kept])
    np.testing.assert_allclose(proba[~kept], 1 / n_classes)
    unflagged = problem.plain.decision_function(problem.X)[~found.flagged]
    np.testing.assert_allclose(decision[~found.flagged], unflagged, rtol=1e-9)
    np.testing.assert_array_equal(guard.anomaly_score(problem.X), found.score)
    np.testing.assert_array_equal(found.score > 0, found.flagged)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_calibrated_it_is_as_good_as_the_network(two, four, method, n_classes):
    problem = two if n_classes == 2 else four
    if method == "temperature" and n_classes == 2:
        method = "sigmoid"
    calibrated = [
        CalibratedClassifierCV(inner, method=method, cv=KFold(3), ensemble=ensemble)
        .fit(problem.X, problem.y)
        .predict_proba(problem.X)
        for ensemble in (True, False)
        for inner in (problem.guard(), problem.plain)
    ]
    np.testing.assert_allclose(calibrated[0], calibrated[1], atol=1e-6)
    np.testing.assert_allclose(calibrated[2], calibrated[3], atol=1e-6)
    assert np.mean(calibrated[0].argmax(1) == problem.y) > 0.7


def test_calibrated_where_it_is_fitted_already(four):
    inner = [FrozenEstimator(m) for m in (four.guard().fit(four.X), four.plain)]
    by_guard, by_plain = (
        CalibratedClassifierCV(m, cv=KFold(3)).fit(four.X, four.y).predict_proba(four.X)
        for m in inner
    )
    np.testing.assert_allclose(by_guard, by_plain, atol=1e-6)


@pytest.mark.parametrize("method", ["predict_proba", "decision_function", "predict"])
def test_a_class_that_a_fold_misses(four, method):
    """The columns are those of the network all the same."""
    order = np.argsort(four.y, kind="stable")
    X, y = four.X[order], four.y[order]
    found, expected = (
        cross_val_predict(m, X, y, cv=KFold(4), method=method)
        for m in (four.guard(), four.plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_class_that_is_missing_altogether_is_an_error(four):
    """scikit-learn numbers the labels anew for these methods, and drops a column."""
    some = four.y != 1
    with (
        pytest.warns(UserWarning, match=r"gets only \d+ of the \d+ images right"),
        pytest.warns(RuntimeWarning, match="Number of classes in training fold"),
        pytest.raises(IndexError),
    ):
        cross_val_predict(
            four.guard(), four.X[some], four.y[some], cv=3, method="predict_proba"
        )
    by_label = cross_val_predict(four.guard(), four.X[some], four.y[some], cv=3)
    np.testing.assert_array_equal(by_label, four.plain.predict(four.X[some]))


@pytest.mark.parametrize(
    "metric",
    ["accuracy", "top_k_accuracy", "roc_auc_ovr", "neg_log_loss", "f1_macro"],
)
def test_scorers_of_four_classes(four, metric):
    guard, score = four.guard().fit(four.X), get_scorer(metric)
    expected = score(four.plain, four.X, four.y)
    assert score(guard, four.X, four.y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "accuracy"])
def test_scorers_of_two_classes(two, metric):
    found, expected = (
        cross_val_score(m, two.X, two.y, scoring=metric, cv=KFold(3))
        for m in (two.guard(), two.plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_top_k_holds_the_label_that_was_exchanged(four):
    """With as many classes as there are, every label is found; with one, accuracy."""
    guard = four.guard("relabel").fit(four.X)
    decision = guard.decision_function(four.X)
    second = np.argsort(decision, axis=1)[:, -2]
    flagged = guard.assess(four.X)
    changed = flagged.flagged & (flagged.label != flagged.model_label)
    assert changed.any()
    rank = (decision >= decision[np.arange(N), flagged.model_label][:, None]).sum(1)
    assert (rank[changed] >= 2).all()
    assert get_scorer("accuracy")(guard, four.X, four.y) == np.mean(
        np.argsort(decision, axis=1)[:, -1] == four.y
    )
    assert second.shape == (N,)


@pytest.mark.parametrize("show", ["confusion", "roc", "voting"])
def test_what_asks_for_a_classifier_is_refused(two, show):
    """A guard learns no classes from y: that is said, nothing wrong is shown."""
    guard = two.guard().fit(two.X)
    calls = {
        "confusion": lambda: ConfusionMatrixDisplay.from_estimator(guard, two.X, two.y),
        "roc": lambda: RocCurveDisplay.from_estimator(guard, two.X, two.y),
        "voting": lambda: VotingClassifier([("guard", guard)]).fit(two.X, two.y),
    }
    with pytest.raises(ValueError, match="classifier"):
        calls[show]()


def test_it_votes_where_it_is_calibrated(four):
    """A calibrated guard is a classifier."""

    def voted(inner):
        calibrated = CalibratedClassifierCV(inner, cv=KFold(3))
        vote = VotingClassifier([("one", calibrated)], voting="soft")
        return vote.fit(four.X, four.y).predict_proba(four.X)

    np.testing.assert_allclose(voted(four.guard()), voted(four.plain), atol=1e-6)


def test_displays_of_predictions(four):
    guard = four.guard().fit(four.X)
    shown = ConfusionMatrixDisplay.from_predictions(four.y, guard.predict(four.X))
    right = np.trace(shown.confusion_matrix)
    assert right == np.sum(four.plain.predict(four.X) == four.y)


def test_the_boundary_that_is_displayed():
    network = nn.Sequential(nn.Linear(2, 5), nn.Softplus(), nn.Linear(5, 2))
    network.double().eval()
    rng = np.random.default_rng(0)
    X = rng.random((40, 2))
    with torch.no_grad():
        network[-1].bias -= network(torch.from_numpy(X)).mean(0)
    model = TorchModel(network, input_shape=(2,), bounds=None)
    parts = CurvatureFeaturizer(None, step=0.1, random_state=0)
    guard = GuardedClassifier(
        model, featurizer=parts, on_flag="label", target_fpr=0.3
    ).fit(X)
    shown, expected = (
        DecisionBoundaryDisplay.from_estimator(
            m, X, response_method="predict", grid_resolution=10
        ).response
        for m in (guard, Logits(network).fit(X, None))
    )
    np.testing.assert_array_equal(shown, expected)
