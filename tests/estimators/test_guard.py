import copy
import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import OneClassSVM

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.metrics import count_passes
from curvdetect.study.networks import LeNet, load_lenet
from modules import Returns


@pytest.fixture(scope="module")
def data():
    return load_fashion_mnist_sample()


@pytest.fixture
def guard(model, data):
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.05)
    return guard.fit(data[0][:120], data[1][:120])


def test_it_is_featurizer_detector_and_relabeler(guard, model, data):
    """The same by hand."""
    X, y = data
    X_clean = X[:120][model.predict(X[:120]) == y[:120]]
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(X[:120])
    F = featurizer.transform(X_clean)
    detector = CurvatureThresholdDetector(target_fpr=0.05).fit(F)
    relabeler = CurvatureRelabeler().fit(F)
    found = guard.assess(X[120:150])
    features = featurizer.transform(X[120:150])
    np.testing.assert_array_equal(found.flagged, detector.predict(features))
    np.testing.assert_allclose(found.score, detector.decision_function(features))
    np.testing.assert_array_equal(found.recovered_label, relabeler.predict(features))
    np.testing.assert_array_equal(found.model_label, model.predict(X[120:150]))
    np.testing.assert_allclose(guard.p_values(X[120:150]), detector.p_values(features))


@pytest.mark.parametrize("on_flag", ["relabel", "reject", "label"])
def test_probabilities_agree_with_the_labels(guard, data, on_flag):
    X = data[0][120:160]
    guard.detector_.threshold_ += np.median(guard.anomaly_score(X))  # flags half
    guard.set_params(on_flag=on_flag)
    found, proba = guard.assess(X), guard.predict_proba(X)
    assert 10 < found.flagged.sum() < 30
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    if on_flag == "reject":
        np.testing.assert_allclose(proba[found.flagged], 0.1)
        proba, found = proba[~found.flagged], found.label[~found.flagged]
        np.testing.assert_array_equal(proba.argmax(axis=1), found)
    else:
        np.testing.assert_array_equal(proba.argmax(axis=1), found.label)
    logits = guard.featurizer_.model_.predict_logits(X)
    own = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if on_flag == "label":
        np.testing.assert_allclose(proba, own, rtol=1e-4)


def test_it_recovers_what_an_attack_took(guard, model, data):
    attacked = make_adversarial_set(
        model, MinimalNormAttack(model), data[0][200:240], data[1][200:240]
    )
    assert np.all(model.predict(attacked.adversarial) != attacked.original_label)
    assert guard.score(attacked.adversarial, attacked.original_label) > 0.7
    assert guard.score(attacked.clean, attacked.clean_label) > 0.85


def test_what_is_done_with_flagged_images(guard, data):
    X = data[0][120:200]
    found = guard.assess(X)
    assert 0 < found.flagged.sum() < 80
    expected = np.where(found.flagged, found.recovered_label, found.model_label)
    np.testing.assert_array_equal(guard.predict(X), expected)
    guard.set_params(on_flag="reject", reject_label=-7)
    expected = np.where(found.flagged, -7, found.model_label)
    np.testing.assert_array_equal(guard.predict(X), expected)
    guard.set_params(on_flag="label")
    np.testing.assert_array_equal(guard.predict(X), found.model_label)
    np.testing.assert_array_equal(guard.anomaly_score(X) > 0, found.flagged)


def test_in_cross_validation_and_pipelines(model, data):
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.1)
    scores = cross_val_score(guard, data[0][:90], data[1][:90], cv=2)
    assert scores.min() > 0.7
    pipeline = make_pipeline(FunctionTransformer(), guard)
    flat = data[0][:60].reshape(60, -1)
    shaped = clone(guard).fit(data[0][:60], data[1][:60])
    expected = shaped.predict(data[0][:60])
    found = pipeline.fit(flat, data[1][:60]).predict(flat)
    np.testing.assert_array_equal(found, expected)


def test_parts_of_ones_own(model, data):
    guard = GuardedClassifier(
        model,
        featurizer=CurvatureFeaturizer(None, at="input", random_state=1),
        detector=CurvatureThresholdDetector(target_fpr=0.2, statistic="sum"),
    )
    guard.fit(data[0][:40])
    assert guard.featurizer_.at == "input"
    assert guard.featurizer_.model is model
    assert guard.featurizer.model is None
    assert guard.detector_.statistic == "sum"


def test_copies_share_the_network_and_predict_the_same(guard, model, data, tmp_path):
    assert clone(guard).model is model
    joblib.dump(guard, tmp_path / "guard.joblib")
    loaded = joblib.load(tmp_path / "guard.joblib")
    X = data[0][120:130]
    np.testing.assert_array_equal(loaded.predict(X), guard.predict(X))


def test_a_bare_network_is_shared_and_hashes_the_same(lenet, data):
    guard = GuardedClassifier(lenet, detector="threshold", target_fpr=0.1)
    assert clone(guard).model is lenet
    copy = pickle.loads(pickle.dumps(guard))
    assert joblib.hash(copy) == joblib.hash(guard)
    guard.fit(data[0][:30])
    copy = pickle.loads(pickle.dumps(guard))
    np.testing.assert_array_equal(copy.predict(data[0][:5]), guard.predict(data[0][:5]))


@pytest.mark.filterwarnings("ignore:no boundary was found")
def test_an_image_without_boundaries_keeps_its_label():
    """Beyond 2 the logits are constant, and class 2 wins."""

    def logits(x):
        first = x[:, :1]
        near = torch.cat([3 * first, 2 - first, 0 * first - 9], dim=1)
        return near.where(first < 2, torch.tensor([0.0, 0.0, 9.0]).to(x))

    model = TorchModel(Returns(logits), input_shape=(3,), bounds=None)
    X = np.random.default_rng(0).uniform(size=(30, 3))
    featurizer = CurvatureFeaturizer(None, step=0.1, random_state=0)
    guard = GuardedClassifier(model, featurizer=featurizer, target_fpr=0.5).fit(X)
    with pytest.warns(UserWarning, match="bound"):
        found = guard.assess(X[:5] + 10)
    assert found.flagged.all()
    assert set(found.label) == set(found.recovered_label) == {2}


def test_images_keep_their_shape(lenet, data):
    """Where the model would take any."""
    guard = GuardedClassifier(
        TorchModel(lenet, input_shape=None), detector="threshold", target_fpr=0.2
    )
    guard.fit(data[0][:20])
    labels = guard.predict(data[0][20:30])
    assert labels.shape == (10,)
    np.testing.assert_array_equal(guard.predict(data[0][20:30].reshape(10, -1)), labels)
    assert guard.predict_proba(data[0][20:30]).shape == (10, 10)


def test_what_fit_learned_is_logged(model, data, caplog):
    with caplog.at_level("INFO", logger="curvdetect"):
        guard = GuardedClassifier(model, detector="threshold", target_fpr=0.2)
        guard.fit(data[0][:30], data[1][:30])
    n_right = (model.predict(data[0][:30]) == data[1][:30]).sum()
    assert f"30 images, 10 classes, step {guard.featurizer_.step_}" in caplog.text
    assert f"the network gets {n_right} of 30 images right" in caplog.text


def test_labels_that_cannot_be_right(model, data):
    X, y = data[0][:30], data[1][:30]
    with pytest.warns(UserWarning, match="none of these images right.*0 to 9"):
        GuardedClassifier(model, detector="threshold", target_fpr=0.2).fit(X, y + 100)


# What is left of the images -----------------------------------------


@pytest.mark.parametrize(
    ("relabelled", "hint"),
    [
        (
            lambda y: y + 1,
            r"off by one\? They must be 0 to 9; with y - 1 it would be 1",
        ),
        (lambda y: y.astype(np.uint8) + 1, r"off by one\?.*with y - 1"),
        (lambda y: (y + 1.0).tolist(), r"off by one\?.*with y - 1"),
        (lambda y: (3 * y + 2) % 10, r"do the labels \(0 to 9, the positions"),
        (lambda y: y[::-1].copy(), r"do the labels \(0 to 9"),
    ],
)
def test_how_many_images_are_left_is_said_with_a_hint(
    model, data, monkeypatch, relabelled, hint
):
    for method in ("fit", "transform"):  # nothing is measured
        monkeypatch.setattr(CurvatureFeaturizer, method, None)
    X, y = data[0][:150], relabelled(data[1][:150])
    n_right = (model.predict(X) == np.asarray(y)).sum()
    assert 0 < n_right < 50
    step = CurvatureFeaturizer(n_boundaries=1, n_directions=1, step=0.4, random_state=0)
    with (
        pytest.warns(UserWarning, match=f"only {n_right} of the 150.*{hint}") as caught,
        pytest.raises(ValueError, match="needs at least 99") as refused,
    ):
        GuardedClassifier(
            model,
            featurizer=step,
            detector=CurvatureThresholdDetector(target_fpr=0.01),
        ).fit(X, y)
    assert re.search(f"got {n_right} of the 150 given: .*{hint}", str(refused.value))
    assert [w.filename for w in caught] == [__file__]
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=f"only {n_right} of the 150") as caught:
        CurvatureGuard(
            GuardedClassifier(model, featurizer=step, target_fpr=0.5)
        ).calibrate(X, y)
    assert [w.filename for w in caught] == [__file__]


def test_labels_of_which_none_is_right_are_doubted_too(model, data):
    X, y = data[0][:150], data[1][:150] - 1
    assert not (model.predict(X) == y).any()
    parts = CurvatureFeaturizer(n_boundaries=1, n_directions=1, step=0.4)
    guard = GuardedClassifier(model, featurizer=parts, target_fpr=0.2)
    message = r"none of these images right, of 150, .* with y \+ 1 it would be 1\d\d"
    with pytest.warns(UserWarning, match=message):
        guard.fit(X, y)


def test_no_images_are_missed_where_all_are_right(model, data):
    X = data[0][:30]
    with pytest.raises(ValueError, match="at least 99 clean images to fit; got 30$"):
        GuardedClassifier(model, detector="threshold").fit(X, model.predict(X))
    with pytest.raises(ValueError, match="got 30$"):
        GuardedClassifier(model, detector="threshold").fit(X)


def test_labels_that_are_too_few_are_missed_before_images_are_measured(guard, data):
    X, y = data
    guard.featurizer_.transform = guard.featurizer_._measured = None
    with pytest.raises(ValueError, match=r"y must hold one number for each of the 20"):
        guard.score(X[:20], y[:19])


def test_labels_in_another_container_are_counted_alike(model, data):
    X, y = data[0][:30], data[1][:30]
    n_right = (model.predict(X) == y).sum()
    assert n_right < 30
    for labels in (y.tolist(), torch.from_numpy(y), pd.Series(y), list(y)):
        with pytest.raises(ValueError, match=f"got {n_right} of the 30 given"):
            GuardedClassifier(model, detector="threshold").fit(X, labels)


# Parts --------------------------------------------------------------


def test_a_featurizer_needs_no_network_of_its_own(model, data):
    parts = CurvatureFeaturizer(n_boundaries=2, random_state=0)
    guard = GuardedClassifier(model, featurizer=parts, target_fpr=0.2)
    guard.fit(data[0][:20])
    assert guard.featurizer_.model is model
    with pytest.raises(TypeError, match="got NoneType. Only as a part of a guard"):
        parts.fit(data[0][:20])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"detector": CurvatureThresholdDetector(), "target_fpr": 0.01},
            "target_fpr must be left out where detector is given.*got target_fpr=0.01",
        ),
        (
            {"featurizer": CurvatureFeaturizer(), "random_state": 0},
            "random_state must be left out where featurizer is given.*random_state=0",
        ),
        (
            {"featurizer": CurvatureFeaturizer(LeNet().eval())},
            "featurizer must be for the guard's model, or have none",
        ),
        (
            {"featurizer": CurvatureFeaturizer(features=["curvature", "logits"])},
            "must measure curvature alone, at one step, where no detector is given",
        ),
        (
            {"featurizer": CurvatureFeaturizer(step=(0.1, 0.2))},
            "must measure curvature alone, at one step, where no detector is given",
        ),
        (
            {
                "featurizer": CurvatureFeaturizer(features=["logits"]),
                "detector": LogisticRegression(),
            },
            'must have "curvature" among its features for on_flag="relabel"',
        ),
    ],
)
def test_parts_that_contradict_each_other(model, data, settings, message):
    with pytest.raises(ValueError, match=message):
        GuardedClassifier(model, **settings).fit(data[0][:20])


def test_the_same_network_in_two_wrappers_is_the_same(lenet, data):
    own = TorchModel(lenet, input_shape=(1, 28, 28))
    featurizer = CurvatureFeaturizer(lenet, n_boundaries=1, random_state=0)
    guard = GuardedClassifier(own, featurizer=featurizer, target_fpr=0.2)
    assert guard.fit(data[0][:20]).featurizer_.model is own


def test_the_defaults_are_one_per_cent_and_the_seed_0(model):
    parts = GuardedClassifier(model, detector="threshold")._parts()
    assert parts["featurizer_"].random_state == 0
    assert parts["detector_"].target_fpr == 0.01


def test_a_guard_measures_each_image_once(model, data):
    """Logits come with the features: no pass is taken for labels alone."""
    parts = CurvatureFeaturizer(n_boundaries=2, n_directions=2, random_state=0)
    guard = GuardedClassifier(model, featurizer=parts, target_fpr=0.2)
    guard.fit(data[0][:20])
    X = data[0][20:30]
    with count_passes(model.module) as of_features:
        guard.featurizer_.transform(X)
    with count_passes(model.module) as of_guard:
        guard.predict_proba(X)
    assert of_guard.forward_equivalents == of_features.forward_equivalents


@pytest.mark.parametrize("n_classes", [12, 1000])
def test_few_boundaries_of_many_classes(n_classes):
    """Labels are recovered by the classes of the k columns."""
    weight = torch.randn(n_classes, 4, generator=torch.Generator().manual_seed(0))
    module = Returns(lambda x: (x @ weight.T.to(x)).sin())
    model = TorchModel(module, input_shape=(4,), bounds=None)
    X = np.random.default_rng(0).normal(size=(40, 4))
    parts = CurvatureFeaturizer(n_boundaries=3, step=0.1, random_state=0)
    guard = GuardedClassifier(model, featurizer=parts, target_fpr=0.2).fit(X)
    found = guard.assess(X)
    by_class = CurvatureFeaturizer(
        model, n_boundaries=3, step=0.1, random_state=0, layout="class"
    ).fit_transform(X)
    empty = np.isnan(by_class).all(axis=1)
    expected = np.where(np.isnan(by_class), -np.inf, by_class).argmax(axis=1)
    expected[empty] = found.model_label[empty]
    np.testing.assert_array_equal(found.recovered_label, expected)
    assert guard.featurizer_.transform(X).shape[1] == (12 if n_classes == 12 else 3)


@pytest.mark.parametrize("labels", [("clean", "adversarial"), (1, -1), (0, 1)])
def test_a_detector_whose_adversarial_label_comes_first(data, model, labels):
    """Its sign is turned: a guard's score is positive where an image is flagged."""

    class Fixed(CurvatureThresholdDetector):
        def fit(self, X, y=None):
            rows = np.concatenate([X, X + 10])  # as if attacked
            return super().fit(rows, np.repeat(labels, len(X)))

    parts = CurvatureFeaturizer(n_boundaries=1, n_directions=1, step=0.4)
    guard = GuardedClassifier(
        model, featurizer=parts, detector=Fixed(pos_label=labels[1]), on_flag="label"
    ).fit(data[0][:20])
    guard.detector_.threshold_ = float(np.median(guard.detector_.clean_scores_))
    found = guard.assess(data[0][:20])
    assert found.flagged.sum() == 10
    np.testing.assert_array_equal(found.score > 0, found.flagged)


def outlier_detectors():
    yield IsolationForest(contamination=0.2, random_state=0)
    yield OneClassSVM(nu=0.2)
    try:
        from pyod.models.knn import KNN
    except ImportError:
        return
    yield KNN(contamination=0.2)


@pytest.mark.parametrize(
    "outliers", list(outlier_detectors()), ids=lambda d: str(d)[:12]
)
def test_an_outlier_detector_flags_outliers(data, model, outliers):
    """As many clean images as it says, and more of attacked ones."""
    features = CurvatureFeaturizer(
        n_boundaries=3, n_directions=2, step=0.4, layout="nearest", random_state=0
    )
    X, y = data[0][:80], data[1][:80]
    guard = GuardedClassifier(
        model, featurizer=features, detector=outliers, on_flag="reject"
    ).fit(X, y)
    attacked = make_adversarial_set(model, MinimalNormAttack(model), X, y)
    clean, found = (guard.assess(x) for x in (attacked.clean, attacked.adversarial))
    assert 0.05 < clean.flagged.mean() < 0.35
    assert found.flagged.mean() > clean.flagged.mean() + 0.3
    for each in (clean, found):
        np.testing.assert_array_equal(each.score > 0, each.flagged)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.classifier[-1].bias.data.add_(0.1),
        lambda net: net.load_state_dict(load_lenet("mnist").state_dict()),
        lambda net: net.features[0].weight.data.mul_(0.999),
    ],
)
def test_another_network_than_it_was_fitted_on_is_refused(lenet, data, change):
    parts = CurvatureFeaturizer(n_boundaries=1, random_state=0)
    guard = GuardedClassifier(lenet, featurizer=parts, target_fpr=0.2)
    guard.fit(data[0][:20])
    X, before = data[0][20:24], copy.deepcopy(lenet.state_dict())
    expected = guard.predict(X)
    change(lenet)
    for use in (guard.assess, guard.predict, guard.anomaly_score, guard.p_values):
        with pytest.raises(ValueError, match="weights that the guard was calibrated"):
            use(X)
    lenet.load_state_dict(before)
    np.testing.assert_array_equal(guard.predict(X), expected)
    change(lenet)
    again = guard.fit(data[0][:20]).predict(X)
    np.testing.assert_array_equal(again, clone(guard).fit(data[0][:20]).predict(X))


def test_a_compiled_guard_is_the_guard(lenet, data):
    parts = CurvatureFeaturizer(n_boundaries=1, random_state=0)
    guard = GuardedClassifier(lenet, featurizer=parts, target_fpr=0.2)
    served = CurvatureGuard(guard.fit(data[0][:20]))
    x = torch.from_numpy(data[0][20:24])
    compiled = torch.compile(served, backend="eager")(x)
    for values, expected in zip(compiled, served(x), strict=True):
        torch.testing.assert_close(values, expected)
