"""Against the Adversarial Robustness Toolbox itself."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression

from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.attacks import from_art, make_adversarial_set
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

pytest.importorskip("art")

from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.defences.detector.evasion import EvasionDetector
from art.estimators.classification import PyTorchClassifier

from curvdetect.integrations.art import (
    CurvatureEvasionDetector,
    model_from_art,
)


def art_classifier(module, **settings):
    return PyTorchClassifier(
        model=module,
        loss=torch.nn.CrossEntropyLoss(),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
        **{"input_shape": (1, 28, 28), **settings},
    )


@pytest.fixture(scope="module")
def classifier():
    return art_classifier(load_lenet("fashion-mnist"))


@pytest.fixture(scope="module")
def data():
    return load_fashion_mnist_sample()


@pytest.fixture(scope="module")
def fitted(classifier, data):
    detector = CurvatureEvasionDetector(classifier, target_fpr=0.1)
    detector.fit(data[0][:100])
    return detector


def test_it_is_an_evasion_detector(fitted):
    assert isinstance(fitted, EvasionDetector)
    params = fitted.get_params()
    assert set(params) == set(fitted.defence_params)
    assert params["target_fpr"] == 0.1
    for name in fitted.defence_params:
        assert hasattr(fitted, name)


def test_set_params_is_checked(classifier):
    detector = CurvatureEvasionDetector(classifier)
    detector.set_params(target_fpr=0.2)
    assert detector.target_fpr == 0.2
    with pytest.raises(ValueError, match="target_fpr must be strictly between 0 and 1"):
        detector.set_params(target_fpr=2)
    with pytest.raises(ValueError, match="target_fpr must be strictly between 0 and 1"):
        CurvatureEvasionDetector(classifier, target_fpr=0)


def test_it_detects_an_attack_of_art(fitted, classifier, data):
    """What ART asserts of its own detectors, and the form of the report."""
    X, y = data[0][200:260], data[1][200:260]
    attack = ProjectedGradientDescent(
        classifier, eps=16 / 255, eps_step=2 / 255, max_iter=20, verbose=False
    )
    adversarial = attack.generate(X, y=y)
    report, flagged = fitted.detect(adversarial)
    assert set(report) == {"scores", "predictions"}
    assert flagged.dtype == bool
    assert flagged.shape == report["scores"].shape == (60,)
    np.testing.assert_array_equal(report["predictions"], flagged.astype(int))
    _, clean = fitted.detect(X)
    n_true_positives = len(np.where(flagged == 1)[0])
    n_true_negatives = len(np.where(clean == 0)[0])
    assert n_true_positives > 20
    assert n_true_negatives > 45


def test_a_learned_detector_and_one_hot_labels(classifier, data):
    X, y = data[0][200:240], data[1][200:240]
    adversarial = FastGradientMethod(classifier, eps=0.1).generate(X, y=y)
    both, labels = np.concatenate([X, adversarial]), np.repeat([0, 1], 40)
    detector = CurvatureEvasionDetector(
        classifier,
        featurizer=CurvatureFeaturizer(
            None, features=("curvature", "distance"), layout="nearest", n_boundaries=3
        ),
        detector=LogisticRegression(),
    )
    detector.fit(both, np.eye(2)[labels])
    _, flagged = detector.detect(both)
    assert np.mean(flagged == labels) > 0.6


def test_attacks_of_art_make_adversarial_sets(classifier, data):
    model = model_from_art(classifier)
    attack = FastGradientMethod(classifier, eps=0.1)
    found = make_adversarial_set(model, from_art(attack), data[0][:30], data[1][:30])
    assert 0 < len(found.adversarial) <= len(found.clean)
    assert np.abs(found.adversarial - found.clean[found.source]).max() <= 0.1 + 1e-6


def test_the_model_is_the_same(classifier, data):
    model = model_from_art(classifier)
    assert isinstance(model, TorchModel)
    assert model.bounds == (0.0, 1.0)
    expected = classifier.predict(data[0][:9])
    np.testing.assert_allclose(model.predict_logits(data[0][:9]), expected, rtol=1e-5)


def test_normalisation_is_taken_over(data):
    classifier = art_classifier(
        load_lenet("fashion-mnist"), preprocessing=(np.array([0.3]), np.array([0.5]))
    )
    model = model_from_art(classifier)
    assert model.mean == pytest.approx([0.3])
    assert model.std == pytest.approx([0.5])
    expected = classifier.predict(data[0][:9])
    np.testing.assert_allclose(model.predict_logits(data[0][:9]), expected, rtol=1e-5)


class Wrapper(torch.nn.Module):
    """A network of the user's own with an attribute that ART's wrapper has too."""

    def __init__(self, module):
        super().__init__()
        self._model = module

    def forward(self, x):
        return self._model((x - 0.3) / 0.5)


def test_a_wrapper_of_the_users_own_is_kept(data):
    module = Wrapper(load_lenet("fashion-mnist")).train()
    classifier = art_classifier(module)
    module.train()
    model = model_from_art(classifier)
    assert module.training
    expected = classifier.predict(data[0][:9])
    np.testing.assert_allclose(model.predict_logits(data[0][:9]), expected, rtol=1e-5)


def test_statistics_that_do_not_fit_are_refused():
    classifier = art_classifier(
        load_lenet("fashion-mnist"),
        preprocessing=(np.full((28, 28), 0.3), np.full((28, 28), 0.5)),
    )
    with pytest.raises(ValueError, match="classifier.preprocessing must have one mean"):
        model_from_art(classifier)


def test_a_detector_without_scores_is_refused(classifier, data):
    detector = CurvatureEvasionDetector(classifier, detector=IsolationForest())
    with pytest.raises(ValueError, match="IsolationForest has no classes_"):
        detector.fit(data[0][:20])


def test_what_is_no_torch_classifier_is_refused(classifier):
    with pytest.raises(ValueError, match="must be a PyTorchClassifier of ART; got obj"):
        model_from_art(object())
    with pytest.raises(ValueError, match=r"call fit\(x\) first"):
        CurvatureEvasionDetector(classifier).detect(np.zeros((1, 1, 28, 28)))
