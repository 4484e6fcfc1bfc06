"""scikit-learn's own checks, all of them, with no expected failure."""

import warnings

import pytest
from sklearn.utils.estimator_checks import check_estimator

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
)
from curvdetect.estimators import _forest, _learning
from modules import AnyWidth

MODEL = TorchModel(AnyWidth().eval(), input_shape=None, bounds=None)
ESTIMATORS = [
    CurvatureThresholdDetector(),
    CurvatureThresholdDetector(target_fpr=0.2, statistic="sum"),
    CurvatureRelabeler(),
    CurvatureFeaturizer(MODEL, random_state=0),
    CurvatureFeaturizer(MODEL, random_state=0, layout="nearest", at="input"),
    GuardedClassifier(MODEL, detector="threshold", target_fpr=0.5),
    LearnedDetector(MODEL),
    GuardedClassifier(MODEL),
]  # the last two with their defaults: a rate that the images allow


@pytest.fixture
def _few_trees(monkeypatch):
    """How much is learned does not matter here."""
    grow = _forest.HistGradientBoostingClassifier
    monkeypatch.setattr(
        _forest,
        "HistGradientBoostingClassifier",
        lambda **settings: grow(**{**settings, "max_iter": 3}),
    )
    monkeypatch.setattr(_learning, "_N_ATTACKED", 100)
    monkeypatch.setattr(_learning, "_N_DEEP", 50)


@pytest.mark.usefixtures("_few_trees")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: repr(e)[:60])
def test_check_estimator(estimator):
    with warnings.catch_warnings():
        # The checks feed data that is no curvature, and read-only or tiny images.
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    not_passed = [r for r in results if r["status"] != "passed"]
    assert not not_passed
    assert len(results) >= 41  # not switched off by a tag
