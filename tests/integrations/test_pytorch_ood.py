"""Against pytorch-ood itself."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.utils.estimator_checks import check_estimator
from torch.utils.data import DataLoader, TensorDataset

from curvdetect import CurvatureFeaturizer, LearnedDetector, TorchModel

pytest.importorskip("pytorch_ood")

from pytorch_ood.api import (
    Detector,
    DetectorInfo,
    GradientDetector,
    RequiresFittingException,
    Task,
)
from pytorch_ood.detector import EnergyBased
from pytorch_ood.metrics import OODMetrics
from pytorch_ood.metrics.functional import autc

from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.integrations.pytorch_ood import (
    CurvatureDetector,
    DetectorScores,
    _drawn_in,
)
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from modules import AnyWidth, Returns


@pytest.fixture(scope="module")
def setting():
    """A model, a fitted detector, clean images and adversarial ones."""
    X, y = load_fashion_mnist_sample()
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    clean = TensorDataset(torch.from_numpy(X[:80]), torch.from_numpy(y[:80]))
    detector = CurvatureDetector(model, detector="threshold")
    detector.fit(DataLoader(clean, batch_size=32))
    found = make_adversarial_set(
        model, MinimalNormAttack(model), X[200:240], y[200:240]
    )
    return model, detector, X, found


def test_it_is_a_detector_that_must_be_fitted(setting):
    model, detector, _, _ = setting
    assert isinstance(detector, Detector)
    with pytest.raises(RequiresFittingException):
        CurvatureDetector(model).predict(torch.zeros(1, 1, 28, 28))


def test_larger_is_more_anomalous_in_their_metrics(setting):
    _, detector, _, found = setting
    metrics = OODMetrics()
    scores = detector(torch.from_numpy(found.clean))
    assert scores.shape == (len(found.clean),)
    assert scores.dtype == torch.float32
    metrics.update(scores, torch.zeros(len(found.clean)))
    adversarial = torch.from_numpy(found.adversarial)
    metrics.update(detector(adversarial), -torch.ones(len(adversarial)))
    assert float(metrics.compute()["AUROC"]) > 0.9


def test_the_score_is_the_largest_curvature(setting):
    model, detector, X, _ = setting
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(X[:80])
    expected = np.nanmax(featurizer.transform(X[100:106]), axis=1)
    found = detector(torch.from_numpy(X[100:106]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_by_default_it_learns_the_network(setting):
    """In their metrics, against what scikit-learn's interface says."""
    model, _, X, found = setting
    detector = CurvatureDetector(model, target_fpr=0.1)
    loader = DataLoader(torch.from_numpy(X[:100]), batch_size=32)
    assert detector.fit(loader) is detector
    metrics = OODMetrics()
    clean, adversarial = map(torch.from_numpy, (found.clean, found.adversarial))
    metrics.update(detector(clean), torch.zeros(len(clean)))
    metrics.update(detector(adversarial), -torch.ones(len(adversarial)))
    assert float(metrics.compute()["AUROC"]) > 0.9
    same = LearnedDetector(model, target_fpr=0.1, self_test=False, random_state=0)
    expected = same.fit(X[:100]).score_samples(found.clean)
    np.testing.assert_allclose(detector(clean), expected, rtol=1e-6)


def test_parameters_of_the_other_kind_are_named(setting):
    with pytest.raises(
        TypeError, match=r"must be those of LearnedDetector; got .'step"
    ):
        CurvatureDetector(setting[0], step=0.4)
    with pytest.raises(TypeError, match="must be those of CurvatureFeaturizer"):
        CurvatureDetector(setting[0], detector="threshold", target_fpr=0.1)
    with pytest.raises(ValueError, match="detector must be one of"):
        CurvatureDetector(setting[0], detector="best")


def test_it_moves(setting):
    model, _, X, _ = setting
    detector = CurvatureDetector(model, detector="threshold", step=0.4)
    assert detector.to("cpu") is detector
    detector.fit(DataLoader(torch.from_numpy(X[:40]), batch_size=16))
    assert detector(torch.from_numpy(X[:2])).device == torch.device("cpu")


def test_other_features_are_refused(setting):
    with pytest.raises(ValueError, match="features must be curvature alone"):
        CurvatureDetector(setting[0], detector="threshold", features=("distance",))
    assert CurvatureDetector(setting[0], detector="threshold", features=["curvature"])


def test_outliers_among_the_calibration_images_are_left_out(setting):
    model, detector, X, _ = setting
    both = np.concatenate([X[:80], 1 - X[:80]])
    label = torch.from_numpy(np.repeat([0, -1], 80))
    loader = DataLoader(TensorDataset(torch.from_numpy(both), label), batch_size=32)
    other = CurvatureDetector(model, detector="threshold").fit(loader)
    assert other.estimator.step_ == pytest.approx(detector.estimator.step_)
    with pytest.raises(ValueError, match="data_loader must hold at least one batch"):
        CurvatureDetector(model).fit([])


def disc_in_a_plain(x):
    """Logits of a disc of radius 1; beyond a radius of 2 they do not change at all."""
    height = x.square().sum(dim=1).clamp(max=4) - 1
    return torch.stack([height, 0 * height], dim=1)


@pytest.fixture
def on_a_plain():
    """A detector, images around whose disc there is a boundary, and far ones."""
    model = TorchModel(Returns(disc_in_a_plain), input_shape=(2,), bounds=None)
    generator = torch.Generator().manual_seed(0)
    near = 0.5 + torch.rand(30, 2, generator=generator) / 3
    detector = CurvatureDetector(model, detector="threshold", step=0.1).fit([near])
    return detector, near, 3 + torch.rand(5, 2, generator=generator)


@pytest.mark.filterwarnings("ignore:no boundary was found")
def test_an_image_without_boundaries_has_the_largest_score(on_a_plain):
    """Larger than all others, and not so large that nothing else counts."""
    detector, near, far = on_a_plain
    usual, largest = detector(near), detector(far)
    assert usual.max() < largest.min()
    assert largest.min() == largest.max()
    # The disc is convex, what is around it is not: curvatures of 1 and -1.
    labels = -(usual > 0).long()
    assert 5 < -labels.sum() < 25
    assert autc(usual, labels) < 0.01
    scores, labels = (
        torch.cat([usual, largest[:1]]),
        torch.cat([labels, labels.min()[None]]),
    )
    assert autc(scores, labels) < 0.26  # it was 0.475 where that image had a million


def test_scores_above_the_usual_ones_keep_their_order():
    curvature = np.array([-3.0, 0.0, 2.0, 2.5, 40.0, 4e6, np.inf])
    scores = _drawn_in(curvature, top=2.0, room=5.0)
    assert scores[:3].tolist() == [-3.0, 0.0, 2.0]
    assert (np.diff(scores) > 0).all()
    assert scores[-1] == 7.0
    assert scores[3] == pytest.approx(2.5, abs=0.06)


@pytest.mark.filterwarnings("ignore:no boundary was found")
def test_a_network_without_boundaries():
    module = Returns(lambda x: torch.stack([0 * x[:, 0] + 7, 0 * x[:, 0]], dim=1))
    model = TorchModel(module, input_shape=(3,), bounds=None)
    X = torch.rand(20, 3)
    detector = CurvatureDetector(model, detector="threshold", step=0.1).fit([X])
    assert detector(X).tolist() == [1.0] * 20


def test_their_scores_beside_our_features(setting):
    """One pipeline learns from both, and clones share the network."""
    model, _, X, found = setting
    energy = EnergyBased(model.as_module())
    features = make_union(
        CurvatureFeaturizer(model, layout="nearest", n_boundaries=1, random_state=0),
        DetectorScores(energy),
    )
    data = found.labelled()
    F = clone(features).fit(data.X).transform(data.X)
    np.testing.assert_allclose(
        F[:, 1], energy.predict(torch.from_numpy(data.X)).detach(), rtol=1e-5
    )
    names = features.fit(data.X).get_feature_names_out()
    assert names.tolist()[1] == "detectorscores__energybased_score"
    learned = make_pipeline(features, LogisticRegression())
    scores = cross_val_score(
        learned, data.X, data.y, groups=data.groups, cv=GroupKFold(3), scoring="roc_auc"
    )
    assert scores.mean() > 0.9
    assert clone(features).transformer_list[1][1].detector is energy
    scores = DetectorScores(energy).set_output(transform="pandas")
    frame = clone(scores).fit_transform(data.X)
    assert list(frame.columns) == ["energybased_score"]


def test_scores_pass_the_checks_of_scikit_learn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(
            DetectorScores(EnergyBased(AnyWidth().eval())), on_fail=None, on_skip=None
        )
    assert not [r for r in results if r["status"] != "passed"]
    assert len(results) >= 41


def test_scores_of_flat_images(setting):
    model, _, X, _ = setting
    scores = DetectorScores(EnergyBased(model.as_module()), batch_size=7)
    expected = scores.fit(X[:20]).transform(X[:20])
    scores = DetectorScores(EnergyBased(model.as_module()), input_shape=(1, 28, 28))
    flat = X[:20].reshape(20, -1)
    np.testing.assert_allclose(scores.fit(flat).transform(flat), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="X must have shape"):
        scores.fit(X[:20]).transform(np.zeros((2, 784, 1, 1)))
    with pytest.raises(TypeError, match="must be one of pytorch-ood; got str"):
        DetectorScores("energy").fit(X)


# What loaders give ----------------------------------------------------------


BATCHES = {
    "pairs": lambda x, y: (x, y),
    "lists": lambda x, y: [x, y.tolist()],
    "arrays": lambda x, y: (x, y.numpy()),
    "columns": lambda x, y: (x, y[:, None]),
    "dict": lambda x, y: {"image": x, "label": y},
    "names of transformers": lambda x, y: {"pixel_values": x, "labels": y.tolist()},
    "more than labels": lambda x, y: (x, y, ["a name"] * len(x)),
    "float16 labels": lambda x, y: (x, y.half()),
}


@pytest.fixture(scope="module")
def small_model():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.Softplus(), torch.nn.Linear(16, 3)
    )
    return TorchModel(module.eval(), input_shape=(6,))


@pytest.fixture(scope="module")
def small_images():
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(40) % 4 - 1  # every fourth is out of distribution


def scores(model, batches, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CurvatureDetector(model, detector="threshold").fit(batches)(x)


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_of_all_kinds(small_model, small_images, kind):
    x, y = small_images
    before = x.clone()
    batches = [BATCHES[kind](x[part], y[part]) for part in (slice(15), slice(15, 40))]
    expected = scores(small_model, [x[y >= 0]], x)
    torch.testing.assert_close(scores(small_model, batches, x), expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_of_other_precision(small_model, small_images, dtype):
    x = small_images[0].to(dtype)
    found = scores(small_model, [x], x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, scores(small_model, [x.float()], x.float()))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (lambda x, y: (x, -1 - y.abs()), ValueError, "got 40 images, none of them"),
        (lambda x, y: {"image": x, "label": y * 0 - 1}, ValueError, "none of them"),
        (lambda x, y: (x, y[:-1]), ValueError, r"one label for each image; .*\(39,\)"),
        (lambda x, y: (x, y[:, None] == y), ValueError, r"\(40, 40\) for 40 images"),
        (lambda x, y: (x, ["cat"] * 40), TypeError, "labels that are numbers"),
        (lambda x, y: {"fine_label": y, "image": x}, TypeError, "got .'fine_label'."),
        (lambda x, y: {"picture": x}, TypeError, "dict with the keys .'picture'."),
        (lambda x, y: "images", TypeError, "got str"),
        (lambda x, y: (x.numpy(), y), TypeError, "in which x is a tensor; got tuple"),
    ],
)
def test_batches_that_mean_nothing(small_model, small_images, batch, error, message):
    detector = CurvatureDetector(small_model, detector="threshold")
    with pytest.raises(error, match=message):
        detector.fit([batch(*small_images)])
    with pytest.raises(RequiresFittingException):
        detector.predict(small_images[0])


def test_it_says_what_it_is_as_their_detectors_do(small_model, small_images):
    """Their benchmark and searches look at the class, and at `info`."""
    detector = CurvatureDetector(small_model, detector="threshold")
    assert isinstance(detector, GradientDetector)
    assert isinstance(detector.info, DetectorInfo)
    assert detector.info.tasks == {Task.CLASSIFICATION}
    x = small_images[0]
    expected = scores(small_model, [x], x)
    detector.fit([x])
    with torch.no_grad():  # their loops for other detectors
        torch.testing.assert_close(detector(x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(detector(x), expected)


def test_scores_are_not_fitted_after_a_fit_that_failed(setting):
    model = setting[0]
    scores = DetectorScores(EnergyBased(model.as_module()), input_shape=(1, 28, 28))
    with pytest.raises(ValueError, match=r"got \(2, 783\)"):
        scores.fit(np.zeros((2, 783)))
    with pytest.raises(NotFittedError):
        scores.transform(np.zeros((2, 784)))
