"""The three estimators where their users live: pipelines, searches, caches."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.estimators import _features
from curvdetect.evasion import SignalScore
from curvdetect.storage import transform_in_shards
from curvdetect.study.networks import load_lenet


@pytest.fixture(scope="module")
def attacked(images):
    """Clean and minimally perturbed images, 0/1 labels, original labels."""
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    made = make_adversarial_set(model, MinimalNormAttack(model), *images)
    X = np.concatenate([made.clean, made.adversarial])
    y = np.repeat([0, 1], [len(made.clean), len(made.adversarial)])
    return X, y, made


def test_cross_validation(model, attacked):
    X, y, _ = attacked
    pipeline = make_pipeline(
        CurvatureFeaturizer(model, random_state=0, step=0.4),
        CurvatureThresholdDetector(),
    )
    scores = cross_val_score(pipeline, X, y, scoring="roc_auc", cv=3)
    assert scores.mean() > 0.9


def test_relabelling_in_a_pipeline(model, attacked):
    _, _, made = attacked
    pipeline = make_pipeline(
        CurvatureFeaturizer(model, random_state=0, step=0.4), CurvatureRelabeler()
    )
    pipeline.fit(made.clean, made.clean_label)
    assert pipeline.score(made.adversarial, made.original_label) > 0.9


def test_a_learned_detector(model, attacked):
    X, y, _ = attacked
    pipeline = make_pipeline(
        CurvatureFeaturizer(
            model,
            layout="nearest",
            features=("curvature", "distance"),
            random_state=0,
        ),
        StandardScaler(),
        LogisticRegression(),
    )
    assert cross_val_score(pipeline, X, y, scoring="roc_auc", cv=3).mean() > 0.95


@pytest.mark.parametrize("bare", [True, False])
def test_a_cached_grid_search_measures_once(
    lenet, attacked, tmp_path, monkeypatch, bare
):
    X, y, _ = attacked
    fits = []
    fit = CurvatureFeaturizer.fit

    def counted(self, X, y=None):
        fits.append(self.n_boundaries)
        return fit(self, X, y)

    monkeypatch.setattr(CurvatureFeaturizer, "fit", counted)
    model = lenet if bare else TorchModel(lenet, input_shape=(1, 28, 28))
    pipeline = Pipeline(
        [
            ("featurizer", CurvatureFeaturizer(model, random_state=0, step=0.4)),
            ("detector", CurvatureThresholdDetector()),
        ],
        memory=str(tmp_path),
    )
    grid = {
        "featurizer__n_boundaries": [2, 3],
        "detector__statistic": ["max", "sum", "mean"],
    }
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=2)
    search.fit(X, y)
    # One fit per value and fold, one more to refit on everything.
    assert len(fits) == 2 * 2 + 1
    search.fit(X, y)
    assert len(fits) == 2 * 2 + 1  # all of it was there already


@pytest.mark.parametrize("bare", [True, False])
def test_the_featurizers_own_cache_measures_each_image_once(
    lenet, attacked, tmp_path, monkeypatch, bare
):
    """Test folds too: 2 settings x (every image in 2 folds), then the refit."""
    X, y, _ = attacked
    measured = []
    measure = _features.measure_signals

    def counted(around, signals, **options):
        measured.append(len(around))
        return measure(around, signals, **options)

    monkeypatch.setattr(_features, "measure_signals", counted)
    model = lenet if bare else TorchModel(lenet, input_shape=(1, 28, 28))
    featurizer = CurvatureFeaturizer(
        model, random_state=0, step=0.4, memory=str(tmp_path)
    )
    pipeline = Pipeline(
        [("featurizer", featurizer), ("detector", CurvatureThresholdDetector())]
    )
    grid = {
        "featurizer__n_boundaries": [2, 3],
        "detector__statistic": ["max", "sum", "mean"],
    }
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=2)
    search.fit(X, y)
    # Both folds are the training part once and the test part once: the features are
    # the same, and so is the entry in the cache.
    assert sum(measured) == 2 * len(X) + len(X)
    search.fit(X, y)
    assert sum(measured) == 2 * len(X) + len(X)
    with torch.no_grad():
        lenet.classifier[-1].bias[0] += 0.1
    search.fit(X, y)
    assert sum(measured) == 2 * 3 * len(X)  # another network


def test_grid_search_in_several_processes(model, attacked):
    X, y, _ = attacked
    pipeline = make_pipeline(
        CurvatureFeaturizer(model, random_state=0, step=0.4, n_boundaries=2),
        CurvatureThresholdDetector(),
    )
    scores = [
        cross_val_score(pipeline, X, y, scoring="roc_auc", cv=2, n_jobs=n_jobs)
        for n_jobs in (None, 2)
    ]
    np.testing.assert_allclose(*scores, rtol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        (CurvatureFeaturizer(step=-1.0), "transform"),
        (CurvatureFeaturizer(n_boundaries=10), "transform"),  # refused late
        (CurvatureThresholdDetector(target_fpr=0.001), "predict"),
        (CurvatureRelabeler(), "predict"),
        (
            GuardedClassifier(model=None, detector="threshold", target_fpr=0.001),
            "predict",
        ),
    ],
    ids=["featurizer", "featurizer, late", "detector", "relabeler", "guard"],
)
def test_a_fit_that_failed_leaves_nothing_that_is_fitted(estimator, method, model):
    """scikit-learn's validation sets n_features_in_ before the rest is checked."""
    X = np.random.default_rng(0).random((12, 784), dtype=np.float32)
    if "model" in estimator.get_params():
        estimator = clone(estimator).set_params(model=model)
    values = X[:, :1] if isinstance(estimator, CurvatureRelabeler) else X
    with pytest.raises(ValueError, match="got"):
        estimator.fit(values)
    with pytest.raises(NotFittedError):
        getattr(estimator, method)(values)


def test_others_do_not_take_it_for_fitted_either(model, tmp_path):
    X = np.random.default_rng(0).random((12, 784), dtype=np.float32)
    featurizer = CurvatureFeaturizer(model, n_boundaries=10)
    with pytest.raises(ValueError, match="number of classes"):
        featurizer.fit(X)
    with pytest.raises(NotFittedError):
        SignalScore(featurizer)
    with pytest.raises(NotFittedError):
        transform_in_shards(featurizer, X, tmp_path)
