"""A bare module as `model`: what its images lie within is taken from those of `fit`."""

import warnings

import numpy as np
import pytest

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
)
from curvdetect.storage import load, save
from curvdetect.study.networks import LeNet

SHAPE = (1, 28, 28)
QUIET = "ignore:X has values outside"


@pytest.fixture(scope="module")
def normalised(images):
    return ((images[0] - 0.286) / 0.353).astype(np.float32)


def threshold(model):
    return GuardedClassifier(model, detector="threshold", target_fpr=0.3)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("new", [CurvatureFeaturizer, LearnedDetector, threshold])
def test_normalised_images_have_no_bounds_and_it_is_said(lenet, normalised, new):
    def fitted(model):
        """And how often it was warned of no bounds."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")  # other things are said of few images
            estimator = new(model).set_params(random_state=0).fit(normalised)
        return estimator, sum("model is a bare module" in str(w.message) for w in said)

    bare, n_warned = fitted(lenet)
    assert n_warned == 1
    assert bare.model_.bounds is None
    told, n_warned = fitted(TorchModel(lenet, input_shape=SHAPE, bounds=None))
    assert n_warned == 0
    ask = "transform" if new is CurvatureFeaturizer else "decision_function"
    np.testing.assert_array_equal(
        getattr(bare, ask)(normalised), getattr(told, ask)(normalised)
    )


@pytest.mark.parametrize("new", [CurvatureFeaturizer, LearnedDetector, threshold])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_bytes_are_still_refused(lenet, images, new, kind):
    with pytest.raises(ValueError, match="Are these bytes"):
        new(lenet).fit((255 * images[0]).astype(np.uint8).astype(kind))


@pytest.mark.filterwarnings(QUIET)
def test_what_was_learned_is_kept_in_files_and_state_dicts(lenet, normalised, tmp_path):
    guard = threshold(lenet).fit(normalised)
    expected = guard.decision_function(normalised)
    other = threshold(LeNet().eval())
    served = CurvatureGuard(other)
    served.load_state_dict(CurvatureGuard(guard).state_dict())
    np.testing.assert_array_equal(served.guard.decision_function(normalised), expected)
    save(guard, tmp_path / "guard.skops")
    loaded = load(tmp_path / "guard.skops", LeNet())
    np.testing.assert_array_equal(loaded.decision_function(normalised), expected)
