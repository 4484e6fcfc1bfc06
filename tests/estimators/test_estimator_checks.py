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
    VotingDetector,
)
from modules import AnyWidth

MODEL, OTHER = (
    TorchModel(AnyWidth().eval(), input_shape=None, bounds=None) for _ in range(2)
)
ESTIMATORS = [
    CurvatureThresholdDetector(),
    CurvatureThresholdDetector(target_fpr=0.2, statistic="sum"),
    CurvatureRelabeler(),
    CurvatureFeaturizer(MODEL, random_state=0),
    CurvatureFeaturizer(MODEL, random_state=0, layout="nearest", at="input"),
    GuardedClassifier(MODEL, detector="threshold", target_fpr=0.5),
    LearnedDetector(MODEL),
    LearnedDetector(MODEL, companion=OTHER),
    GuardedClassifier(MODEL),  # with its defaults: a rate that the images allow
    VotingDetector(MODEL, OTHER, n_votes=5, target_fpr=0.5, random_state=0),
    CurvatureFeaturizer(MODEL.module, random_state=0),
    LearnedDetector(MODEL.module, companion=OTHER.module),
    GuardedClassifier(MODEL.module),
    GuardedClassifier(MODEL.module, detector="threshold", target_fpr=0.5),
    VotingDetector(
        MODEL.module, OTHER.module, n_votes=5, target_fpr=0.5, random_state=0
    ),
]


def _named(estimator):
    return f"{type(estimator).__name__}-{type(getattr(estimator, 'model', 0)).__name__}"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=_named)
def test_check_estimator(estimator):
    with warnings.catch_warnings():
        # The checks feed data that is no curvature, and read-only or tiny images.
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    not_passed = [r for r in results if r["status"] != "passed"]
    assert not not_passed
    assert len(results) >= 41  # not switched off by a tag
