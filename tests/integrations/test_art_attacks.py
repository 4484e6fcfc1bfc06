"""Attacks of ART, before a detector and behind our own interface."""

import numpy as np
import pytest

from curvdetect.attacks import from_art, make_adversarial_set
from curvdetect.study.networks import load_lenet

pytest.importorskip("art")

from art.attacks import evasion
from art_hosts import art_classifier

from curvdetect.integrations.art import CurvatureEvasionDetector, model_from_art

QUIET = {"verbose": False}
LINF = {"eps": 0.1, "eps_step": 0.03, "max_iter": 4}
#: Each made so small that it takes a moment: it need not succeed.
ATTACKS = {
    "FastGradientMethod": {"eps": 0.1},
    "BasicIterativeMethod": {**LINF, **QUIET},
    "ProjectedGradientDescent": {**LINF, **QUIET},
    "MomentumIterativeMethod": {**LINF, **QUIET},
    "AutoProjectedGradientDescent": {**LINF, "nb_random_init": 1, **QUIET},
    "DeepFool": {"max_iter": 8, **QUIET},
    "CarliniL2Method": {"max_iter": 3, "binary_search_steps": 2, **QUIET},
    "CarliniLInfMethod": {"max_iter": 1, "decrease_factor": 0.3, **QUIET},
    "ElasticNet": {"max_iter": 3, "binary_search_steps": 2, **QUIET},
    "NewtonFool": {"max_iter": 5, **QUIET},
    "SaliencyMapMethod": {"theta": 0.5, "gamma": 0.02, **QUIET},
    "SquareAttack": {"eps": 0.1, "max_iter": 10, **QUIET},
    "AutoConjugateGradient": {**LINF, "nb_random_init": 1, **QUIET},
    "UniversalPerturbation": {"attacker": "deepfool", "max_iter": 1, **QUIET},
    "SpatialTransformation": {"max_translation": 10, "num_translations": 3, **QUIET},
    "PixelAttack": {"th": 3, "es": 1, "max_iter": 1, **QUIET},
}


@pytest.fixture(scope="module")
def classifier():
    return art_classifier(load_lenet("fashion-mnist"))


@pytest.fixture(scope="module")
def detector(classifier, request):
    X, _ = request.getfixturevalue("images")
    found = CurvatureEvasionDetector(classifier, detector="threshold", target_fpr=0.2)
    found.fit(X[:20])
    return found


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.filterwarnings("ignore:.*lie outside clip_values")
def test_an_attack_before_the_detector_and_behind_ours(
    name, classifier, detector, images
):
    """What it makes is looked at; as one of our attacks it makes as much."""
    X, y = images[0][20:24], images[1][20:24]
    attack = getattr(evasion, name)(classifier, **ATTACKS[name])
    made = attack.generate(X, y=y)
    report, flagged = detector.detect(made)
    np.testing.assert_array_equal(flagged, report["predictions"].argmax(axis=1))
    for i in np.flatnonzero(_decided(classifier, made)):
        alone = detector.detect(made[i : i + 1])[0]["scores"]
        np.testing.assert_allclose(report["scores"][i], alone, rtol=1e-3, atol=1e-3)
    model = model_from_art(classifier)
    found = make_adversarial_set(model, from_art(attack), X, y)
    np.testing.assert_array_equal(found.clean, X[model.predict(X) == y])
    if len(found.adversarial):
        sure = _decided(classifier, found.adversarial)
        fooled = model.predict(found.adversarial)
        np.testing.assert_array_equal(fooled[sure], found.predicted_label[sure])
    assert (found.predicted_label != found.original_label).all()


def _decided(classifier, X):
    """Whether more than rounding parts the two largest logits, (n_images,).

    Some attacks stop on the boundary itself: there the label depends on the batch.
    """
    second, first = np.sort(classifier.predict(X), axis=1)[:, -2:].T
    return first - second > 1e-4
