"""`model_from_art`: the network that an ART classifier predicts with."""

import numpy as np
import pytest
import torch

from curvdetect import TorchModel
from curvdetect.study.networks import load_lenet

pytest.importorskip("art")

from art.estimators.classification import PyTorchClassifier
from art_hosts import ManyChannels, art_classifier, small, small_network

from curvdetect.integrations.art import model_from_art


@pytest.fixture(scope="module")
def classifier():
    return art_classifier(load_lenet("fashion-mnist"))


@pytest.fixture
def data(images):
    return images


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


COLOURS = (
    np.array([0.2, 0.3, 0.4], np.float32),
    np.array([0.5, 0.6, 0.7], np.float32),
)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("preprocessing", [None, (0.3, 0.5), COLOURS])
def test_channels_first_and_last(last, preprocessing, data):
    shape = (28, 28, 3) if last else (3, 28, 28)
    network = ManyChannels(load_lenet("fashion-mnist"), last).eval()
    classifier = art_classifier(
        network,
        input_shape=shape,
        channels_first=not last,
        preprocessing=preprocessing or (0.0, 1.0),
    )
    model = model_from_art(classifier)
    assert model.input_shape == shape
    x = np.random.default_rng(0).random((5, *shape), np.float32)
    np.testing.assert_allclose(
        model.predict_logits(x), classifier.predict(x), rtol=1e-4, atol=1e-4
    )


def test_standardised_by_the_pixel(data):
    """ART broadcasts whatever numpy broadcasts; so does what is wrapped."""
    mean = np.linspace(0.1, 0.4, 28 * 28, dtype=np.float32).reshape(28, 28)
    classifier = art_classifier(
        load_lenet("fashion-mnist"), preprocessing=(mean, 0.5 + mean)
    )
    model = model_from_art(classifier)
    np.testing.assert_allclose(
        model.predict_logits(data[0][:9]),
        classifier.predict(data[0][:9]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_statistics_that_do_not_fit_are_refused():
    classifier = art_classifier(
        load_lenet("fashion-mnist"), preprocessing=(np.zeros(5), np.full(5, 2.0))
    )
    with pytest.raises(ValueError, match="must predict images of its input_shape"):
        model_from_art(classifier)


# Steps before and after the network -----------------------------------------


def test_steps_of_training_alone_are_left_alone(data):
    from art.defences.postprocessor import Rounded
    from art.defences.preprocessor import GaussianAugmentation
    from art.preprocessing.standardisation_mean_std.pytorch import (
        StandardisationMeanStdPyTorch,
    )

    classifier = art_classifier(
        load_lenet("fashion-mnist"),
        preprocessing_defences=GaussianAugmentation(
            augmentation=False, apply_fit=True, apply_predict=False
        ),
        postprocessing_defences=Rounded(apply_fit=True, apply_predict=False),
        preprocessing=StandardisationMeanStdPyTorch(
            0.3, 0.5, apply_predict=False, device_type="cpu"
        ),
    )
    model = model_from_art(classifier)
    assert model.mean is None
    expected = classifier.predict(data[0][:9])
    np.testing.assert_allclose(model.predict_logits(data[0][:9]), expected, rtol=1e-5)


def test_defences_before_the_network_are_refused_by_name():
    from art.defences.preprocessor import FeatureSqueezing, SpatialSmoothing

    classifier = art_classifier(
        load_lenet("fashion-mnist"),
        preprocessing_defences=[
            SpatialSmoothing(channels_first=True),
            FeatureSqueezing(clip_values=(0, 1)),
        ],
    )
    message = "not have preprocessing defences .* got SpatialSmoothing, FeatureSqu"
    with pytest.raises(ValueError, match=message):
        model_from_art(classifier)


def test_other_preprocessing_than_a_mean_is_refused_by_name():
    from art.defences.preprocessor import SpatialSmoothing

    smoothing = SpatialSmoothing(channels_first=True)
    classifier = art_classifier(load_lenet("fashion-mnist"), preprocessing=smoothing)
    with pytest.raises(ValueError, match="by a mean and .* got SpatialSmoothing"):
        model_from_art(classifier)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_regressor_is_refused_by_name(n_outputs):
    from art.estimators.regression import PyTorchRegressor

    regressor = PyTorchRegressor(
        model=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, n_outputs)),
        loss=torch.nn.MSELoss(),
        input_shape=(1, 4, 4),
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    with pytest.raises(ValueError, match="PyTorchClassifier of ART; got PyTorchReg"):
        model_from_art(regressor)


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
    message = "must not have postprocessing defences .* got ReverseSigmoid"
    with pytest.raises(ValueError, match=message):
        model_from_art(classifier)


def test_a_classifier_of_transformers():
    transformers = pytest.importorskip("transformers")
    from art.estimators.classification import HuggingFaceClassifierPyTorch

    settings = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    classifier = HuggingFaceClassifierPyTorch(
        model=transformers.ViTForImageClassification(settings).eval(),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(3, 8, 8),
        nb_classes=3,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    x = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    np.testing.assert_allclose(
        model_from_art(classifier).predict_logits(x),
        classifier.predict(x),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_classifier_that_cannot_predict_is_refused():
    classifier = small(PyTorchClassifier, small_network().eval())
    classifier._input_shape = (1, 5, 5)
    message = r"of its input_shape, .1, 5, 5.; PyTorchClassifier.predict raises Runtime"
    with pytest.raises(ValueError, match=message):
        model_from_art(classifier)
