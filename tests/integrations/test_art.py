"""Against the Adversarial Robustness Toolbox itself."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureThresholdDetector,
    LearnedDetector,
    TorchModel,
    VotingDetector,
)
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
    detector = CurvatureEvasionDetector(
        classifier,
        detector=LearnedDetector(target_fpr=0.1, self_test=False, random_state=0),
    )
    detector.fit(data[0][:100])
    return detector


def test_it_is_an_evasion_detector(fitted):
    assert isinstance(fitted, EvasionDetector)
    params = fitted.get_params()
    assert set(params) == set(fitted.defence_params)
    assert params["target_fpr"] == 0.01
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


def test_by_default_it_learns_from_the_clean_images(fitted, classifier, data):
    """The learned detector alone, and the same whether attacked images come too."""
    default = CurvatureEvasionDetector(classifier, target_fpr=0.1)
    default.fit(data[0][:80])
    (learned,) = (step for _, step in default.pipeline.steps)
    assert isinstance(learned, LearnedDetector)
    assert learned.target_fpr_ == 0.1
    X, y = data[0][:100], data[1][:100]
    both = np.concatenate([X, FastGradientMethod(classifier, eps=0.1).generate(X, y=y)])
    other = CurvatureEvasionDetector(classifier, detector=fitted.detector)
    other.fit(both, np.repeat([0, 1], 100))
    expected = fitted.detect(X[:20])[0]["scores"]
    np.testing.assert_allclose(other.detect(X[:20])[0]["scores"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="y must be 0 for clean and 1 for adversarial"):
        other.fit(X, y)  # labels of classes


def test_votes_of_a_companion(classifier, data):
    voting = VotingDetector(
        companion=load_lenet("fashion-mnist"), sigma=0.05, n_votes=10, random_state=0
    )
    detector = CurvatureEvasionDetector(classifier, detector=voting)
    detector.fit(data[0][:40])
    report, flagged = detector.detect(data[0][40:50])
    np.testing.assert_array_equal(flagged, report["scores"] > 0)
    assert detector.pipeline[-1].certify(data[0][40:42], n_samples=50).share.max() > 0.5


def test_which_detector_it_has(classifier, data):
    X = data[0][:40]
    threshold = CurvatureEvasionDetector(
        classifier, detector="threshold", target_fpr=0.2
    )
    threshold.fit(X)
    assert isinstance(threshold.pipeline[-1], CurvatureThresholdDetector)
    with pytest.raises(ValueError, match="detector must be one of"):
        CurvatureEvasionDetector(classifier, detector="best")
    both = CurvatureEvasionDetector(
        classifier, detector="learned", featurizer=CurvatureFeaturizer()
    )
    with pytest.raises(ValueError, match="featurizer must be left out"):
        both.fit(X)


def test_a_detector_that_learns_from_features_and_one_hot_labels(classifier, data):
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


# Classifiers that do more than call their network ---------------------------


class Sharpened(PyTorchClassifier):
    def predict(self, x, **kwargs):
        return 10 * super().predict(x, **kwargs)


class Noisy(PyTorchClassifier):
    def predict(self, x, **kwargs):
        noise = np.random.normal(size=x.shape)
        return super().predict((x + noise).astype(np.float32), **kwargs)


class Verbose(PyTorchClassifier):
    """Says more, and predicts the same."""

    def predict(self, x, **kwargs):
        self.n_asked = len(x)
        return super().predict(x, **kwargs)


def small_network():
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 3),
    )


def small(kind, module, **settings):
    return kind(
        model=module,
        loss=torch.nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        nb_classes=3,
        input_shape=(1, 4, 4),
        clip_values=(0.0, 1.0),
        device_type="cpu",
        **settings,
    )


def smoothed(name):
    from art.estimators.certification import randomized_smoothing

    return getattr(randomized_smoothing, name)


@pytest.mark.parametrize(
    "kind",
    [
        "PyTorchRandomizedSmoothing",
        "PyTorchSmoothMix",
        "PyTorchSmoothAdv",
        "PyTorchMACER",
        Sharpened,
        Noisy,
    ],
)
def test_what_does_not_predict_by_its_network_is_refused(kind):
    name = kind if isinstance(kind, str) else kind.__name__
    settings = {"sample_size": 8, "scale": 0.5} if isinstance(kind, str) else {}
    kind = smoothed(kind) if isinstance(kind, str) else kind
    module = small_network()
    classifier = small(kind, module, **settings)
    module.train()
    np.random.seed(7)
    torch.manual_seed(7)
    expected = np.random.normal(), torch.rand(1)
    np.random.seed(7)
    torch.manual_seed(7)
    with pytest.raises(ValueError, match=f"network alone; {name} predicts something"):
        model_from_art(classifier)
    assert module.training
    assert all(part.training for part in module.modules())
    assert np.random.normal() == expected[0]
    assert torch.equal(torch.rand(1), expected[1])


def test_a_subclass_that_predicts_the_same_is_taken():
    module = small_network().eval()
    classifier = small(Verbose, module)
    model = model_from_art(classifier)
    x = np.random.default_rng(0).random((5, 1, 4, 4), np.float32)
    np.testing.assert_allclose(
        model.predict_logits(x), classifier.predict(x), rtol=1e-5
    )
    assert classifier.n_asked == 5


def test_defences_after_the_network_are_refused():
    from art.defences.postprocessor import ReverseSigmoid

    classifier = small(
        PyTorchClassifier,
        small_network().eval(),
        postprocessing_defences=ReverseSigmoid(apply_predict=True),
    )
    with pytest.raises(ValueError, match="must not have postprocessing defences"):
        model_from_art(classifier)


def test_a_classifier_that_cannot_predict_is_refused():
    classifier = small(PyTorchClassifier, small_network().eval())
    classifier._input_shape = (1, 5, 5)
    message = r"of its input_shape, .1, 5, 5.; PyTorchClassifier.predict raises Runtime"
    with pytest.raises(ValueError, match=message):
        model_from_art(classifier)


@pytest.mark.filterwarnings("ignore:the scores rank")
def test_a_detector_whose_adversarial_label_is_the_smaller_one(classifier, images):
    """scikit-learn's positive class is the other one then; ART's flags are not."""
    X = images[0][:30]
    detector = CurvatureEvasionDetector(
        classifier, detector=CurvatureThresholdDetector(target_fpr=0.2, pos_label=0)
    )
    detector.fit(X, np.repeat([1, 0], [20, 10]))  # 1 clean, 0 adversarial
    report, flagged = detector.detect(X)
    of_curvature = detector.pipeline[-1].score_samples(
        detector.pipeline[:-1].transform(X)
    )
    above = of_curvature - detector.pipeline[-1].threshold_
    np.testing.assert_allclose(report["scores"], above, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(flagged, above > 0)
    assert flagged[:20].mean() <= 0.2
