"""What pytorch-ood asks of its own detectors, asked of ours.

After its public tests of detectors: that they run, say what they are, can be searched,
benchmarked and moved, and belong to one family.
"""

import pickle
import warnings
import weakref

import numpy as np
import pytest
import torch
from elsewhere import NAME, Device, move
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from curvdetect import LearnedDetector, TorchModel
from curvdetect.attacks import KINDS, GradientStepsAttack, make_adversarial_set
from curvdetect.signals import Companion
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.metrics import auroc
from curvdetect.study.networks import load_lenet

pytest.importorskip("pytorch_ood")

from pytorch_ood.api import (
    DetectorInfo,
    FeatureMapsDetector,
    FeaturesDetector,
    GradientDetector,
    LogitsDetector,
    ModelNotSetException,
    RequiresFittingException,
    StructuredDetector,
    Task,
)
from pytorch_ood.benchmark import Benchmark
from pytorch_ood.detector import EnergyBased
from pytorch_ood.utils import GridSearch

from curvdetect.attacks import effort
from curvdetect.integrations import pytorch_ood as adapter
from curvdetect.integrations._batches import Sample
from curvdetect.integrations.pytorch_ood import CurvatureDetector
from modules import AnyWidth

KIND = pytest.mark.parametrize("kind", ["learned", "threshold"])


class Small(nn.Module):
    """Three logits of an image or a vector, by features that are a method too."""

    def __init__(self, first):
        super().__init__()
        self.first, self.last = first, nn.Linear(12, 3)
        self.eval()

    def features(self, x):
        return self.first(x).tanh()

    def logits(self, x):
        return self.last(self.features(x))

    def forward(self, x):
        return self.logits(x)


def of_vectors():
    torch.manual_seed(0)
    return Small(nn.Linear(10, 12))


def of_images():
    torch.manual_seed(0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return Small(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), pool))


SHAPES = {"vectors": (of_vectors, (10,)), "images": (of_images, (3, 8, 8))}


def drawn(n, shape, seed):
    """Draw inputs as they are after a normalisation, around 0."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def loader_of(x, y=None, size=6):
    y = torch.arange(len(x)) % 3 if y is None else y
    return DataLoader(TensorDataset(x, y), batch_size=size)


def fitted(kind, module=None, **parameters):
    detector = CurvatureDetector(module or of_vectors(), detector=kind, **parameters)
    return detector.fit(loader_of(drawn(24, (10,), 1)))


# They run ---------------------------------------------------------------------


@KIND
@pytest.mark.parametrize("of", SHAPES)
def test_a_bare_network_of_normalised_inputs(of, kind):
    """With no word of what values its inputs may have."""
    make, shape = SHAPES[of]
    module = make()
    detector = CurvatureDetector(module, detector=kind)
    assert detector.fit(loader_of(drawn(24, shape, 1))) is detector
    x = drawn(8, shape, 2)
    before = x.clone()
    scores = detector(x)
    assert scores.shape == (8,)
    assert bool(torch.isfinite(scores).all())
    assert len(scores.unique()) > 1
    assert torch.equal(x, before)
    alone = torch.cat([detector(row) for row in x.split(1)])
    torch.testing.assert_close(alone, scores, rtol=1e-4, atol=1e-4)
    assert all(weight.grad is None for weight in module.parameters())


@KIND
@pytest.mark.parametrize("name", ["forward", "logits"])
def test_a_bound_method_is_a_network(name, kind):
    module = of_vectors()
    detector = fitted(kind, module)
    other = CurvatureDetector(getattr(module, name), detector=kind)
    other.fit(loader_of(drawn(24, (10,), 1)))
    x = drawn(8, (10,), 2)
    torch.testing.assert_close(other(x), detector(x))
    copy = pickle.loads(pickle.dumps(other))
    torch.testing.assert_close(copy(x), detector(x))


def test_what_is_no_network_is_refused_at_once():
    for wrong in ("lenet", lambda x: x, TorchModel):
        with pytest.raises(TypeError, match=r"bound method of one; got (str|fun|type)"):
            CurvatureDetector(wrong)


@KIND
def test_without_a_network_or_a_fit(kind):
    x = drawn(4, (10,), 1)
    missing = CurvatureDetector(None, detector=kind)
    assert missing.device is None
    with pytest.raises(ModelNotSetException, match="must be a network; got None"):
        missing.fit(loader_of(x))
    with pytest.raises(ModelNotSetException):
        missing(x)
    with pytest.raises(RequiresFittingException):
        CurvatureDetector(of_vectors(), detector=kind)(x)


@KIND
def test_empty_batches(kind):
    x = drawn(24, (10,), 1)
    expected = fitted(kind)
    detector = CurvatureDetector(of_vectors(), detector=kind)
    detector.fit([(x[:0], torch.zeros(0)), x, x[:0]])
    torch.testing.assert_close(detector(x[:5]), expected(x[:5]))
    nothing = detector(x[:0])
    assert nothing.shape == (0,)
    assert nothing.dtype == torch.float32
    with pytest.raises(ValueError, match="got 0 images, none of them"):
        detector.fit([x[:0]])


@KIND
def test_bounds_are_those_of_the_images(kind):
    x = drawn(24, (10,), 1)
    detector = fitted(kind)
    low, high = float(x.min()), float(x.max())
    assert detector.estimator.model_.bounds == (low, high)
    near = torch.full((1, 10), high + 0.1)
    assert torch.equal(detector(near), detector(torch.full((1, 10), high)))
    with pytest.warns(UserWarning, match=r"x has values from .* far outside .* moved"):
        far = detector(near + high - low)
    assert torch.equal(far, detector(near))
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"must be finite|contains (NaN|inf)"):
            detector(near * wrong)
    plain = CurvatureDetector(of_vectors(), detector="threshold", step=0.1)
    plain.fit([x.sigmoid()])
    assert plain.estimator.model_.bounds == (0, 1)
    said = TorchModel(of_vectors(), input_shape=(10,), bounds=(-9, 9))
    told = CurvatureDetector(said, detector=kind).fit([x])
    assert told.estimator.model_.bounds == (-9, 9)
    with pytest.raises(ValueError, match="must lie within the model's bounds"):
        told(near + 20)


def test_normalised_photographs_are_scored_as_well_as_plain_ones():
    """Of a bare network that takes them so, beside a model that normalises."""
    X, y = load_fashion_mnist_sample()
    lenet = load_lenet("fashion-mnist")
    mean, std = 0.286, 0.353

    class Unnormalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.lenet = lenet
            self.eval()

        def forward(self, x):
            return self.lenet(x * std + mean)

    model = TorchModel(lenet, input_shape=(1, 28, 28))
    attack = GradientStepsAttack(model, budget=8 / 255, steps=10)
    attacked = make_adversarial_set(model, attack, X[200:240], y[200:240])
    parts = X[:60], attacked.clean, attacked.adversarial
    learned, clean, adversarial = ((torch.from_numpy(p) - mean) / std for p in parts)
    detector = CurvatureDetector(Unnormalised()).fit([learned])
    assert auroc(detector(clean), detector(adversarial)).value > 0.9


# They say what they are ---------------------------------------------------------


def test_info_is_its_own():
    assert isinstance(vars(CurvatureDetector)["info"], DetectorInfo)
    assert CurvatureDetector.info.tasks == {Task.CLASSIFICATION}


def test_it_takes_gradients_and_is_of_no_other_family():
    """Otherwise their loops would hand it logits or features."""
    assert issubclass(CurvatureDetector, GradientDetector)
    assert CurvatureDetector.requires_fit
    families = (
        LogitsDetector,
        FeaturesDetector,
        FeatureMapsDetector,
        StructuredDetector,
    )
    assert not issubclass(CurvatureDetector, families)
    for of in ("logits", "features", "feature_maps", "structured"):
        assert not hasattr(CurvatureDetector, f"predict_{of}")
        assert not hasattr(CurvatureDetector, f"fit_{of}")


# They can be searched ------------------------------------------------------------


@pytest.fixture
def validation():
    """Inputs in and out of distribution."""
    x = torch.cat([drawn(20, (10,), 3), 2 * drawn(20, (10,), 4)]).clamp(-2, 2)
    return loader_of(x, torch.tensor([0] * 20 + [-1] * 20), size=16)


@KIND
def test_hyperparameters_are_those_of_what_is_fitted(kind):
    detector = fitted(kind)
    space = detector.hyperparameter_space
    assert len(space) == 2
    assert all(len(values) > 1 for values in space.values())
    chosen = {name: values[-1] for name, values in space.items()}
    assert detector.set_hyperparameters(**chosen) is detector
    assert detector.get_hyperparameters() == chosen
    for name, value in chosen.items():
        assert getattr(detector.estimator, name) == value
    x = drawn(24, (10,), 1)
    with pytest.raises(RequiresFittingException):  # as it was fitted with others
        detector(x)
    expected = fitted(kind, **chosen)
    assert torch.equal(detector.fit(loader_of(x))(x), expected(x))


def test_the_space_of_the_class_is_that_of_the_default():
    space = CurvatureDetector.hyperparameter_space
    assert space == CurvatureDetector(of_vectors()).hyperparameter_space
    assert set(space) == {"budget", "kinds"}


@KIND
def test_unknown_hyperparameters(kind):
    detector = fitted(kind)
    for name in ("depth", "model", "verbose"):
        with pytest.raises(ValueError, match=rf"hyperparameters must be .*'{name}'"):
            detector.set_hyperparameters(**{name: 1})
    detector.hyperparameter_space = {"depth": [1, 2]}  # as a search puts it there
    with pytest.raises(ValueError, match="hyperparameters must be"):
        detector.set_hyperparameters(depth=1)
    assert detector(drawn(3, (10,), 1)).shape == (3,)  # it is as it was


def test_features_other_than_curvature_are_no_hyperparameter():
    detector = CurvatureDetector(of_vectors(), detector="threshold")
    detector.hyperparameter_space = {"features": [("distance",)]}
    with pytest.raises(ValueError, match="features must be curvature alone"):
        detector.set_hyperparameters(features=("distance",))
    assert detector.estimator.features == ("curvature",)


SEARCHED = {
    "learned": {"kinds": [(kind,) for kind in KINDS]},
    "threshold": {"step": [0.1, 3.0]},
}


@KIND
@pytest.mark.parametrize("higher", [True, False])
def test_a_search_measures_different_detectors(kind, higher, validation):
    x = drawn(24, (10,), 1)
    detector = CurvatureDetector(of_vectors(), detector=kind)
    search = GridSearch(
        detector,
        loader_of(x),
        validation,
        hyperparameter_space=SEARCHED[kind],
        higher_is_better=higher,
    )
    best = search.run()
    first, second = search.results_
    assert first["score"] != second["score"]
    pick = max if higher else min
    assert best == pick(search.results_, key=lambda found: found["score"])["params"]
    assert detector.get_hyperparameters() == best
    assert torch.equal(detector(x), fitted(kind, **best)(x))


def test_a_search_of_its_own_space(validation):
    detector = CurvatureDetector(of_vectors(), detector="threshold")
    search = GridSearch(detector, loader_of(drawn(24, (10,), 1)), validation)
    best = search.run()
    assert set(best) == {"at", "n_boundaries"}
    assert len({found["score"] for found in search.results_}) > 2
    assert len(search.results_) == 4


def test_a_search_needs_images_to_fit(validation):
    detector = CurvatureDetector(of_vectors(), detector="threshold")
    with pytest.raises(ValueError, match="fit_loader"):
        GridSearch(detector, None, validation).run()


# They can be benchmarked ---------------------------------------------------------


class FewPoints(Benchmark):
    """Four points to fit on, two in and two out of distribution, as theirs has."""

    ood_names = ("far",)

    def train_set(self):
        x = torch.tensor([[1.0, 0.2], [0.1, 1.0], [1.2, 1.0], [2.0, 0.0]])
        return TensorDataset(x, torch.tensor([0, 1, 0, 0]))

    def test_sets(self, known=True, unknown=True):
        near = TensorDataset(torch.tensor([[1.0, 0.1], [0.0, 1.2]]), torch.arange(2))
        far = torch.tensor([[3.0, 3.0], [-2.0, 4.0]])
        return [near + TensorDataset(far, torch.tensor([-1, -1]))]


@KIND
@pytest.mark.filterwarnings("ignore:x has values from:UserWarning")
@pytest.mark.filterwarnings("ignore:AUTC is undefined for constant:UserWarning")
def test_a_benchmark(kind):
    """Alone and beside one of theirs, which takes logits out of a cache."""
    benchmark, module = FewPoints(), AnyWidth().eval()
    detector = CurvatureDetector(module, detector=kind)
    detector.fit(DataLoader(benchmark.train_set(), batch_size=2))
    (alone,) = benchmark.evaluate(detector)
    assert alone["Dataset"] == "far"
    assert 0 <= alone["AUROC"] <= 1
    both = benchmark.evaluate(
        [detector, EnergyBased(module)], loader_kwargs={"batch_size": 2}, cache=True
    )
    names = [result.pop("Detector") for result in both]
    assert names == ["CurvatureDetector", "EnergyBased"]
    np.testing.assert_equal(both[0], alone)  # AUTC may be NaN


@KIND
def test_a_benchmark_asks_the_network_anew(kind):
    """As of all that take gradients: nothing is looked up in a cache."""
    module, calls = AnyWidth().eval(), []
    benchmark = FewPoints()
    detector = CurvatureDetector(module, detector=kind)
    detector.fit(DataLoader(benchmark.train_set(), batch_size=2))
    module.register_forward_hook(lambda *_: calls.append(1))
    counts = [0]
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            benchmark.evaluate(detector, cache=True)
        counts.append(len(calls))
    assert counts[0] < counts[1] < counts[2]


# They can be moved ---------------------------------------------------------------


@KIND
def test_where_it_is_before_it_was_moved(kind):
    cpu = torch.device("cpu")
    module = of_vectors()
    for model in (module, module.logits, TorchModel(module, input_shape=(10,))):
        assert CurvatureDetector(model, detector=kind).device == cpu
    nowhere = CurvatureDetector(AnyWidth().eval(), detector=kind)
    assert nowhere.device is None
    assert nowhere.to("cpu").device == cpu


def test_all_that_it_holds_moves():
    """Also what `fit` made of models that say where they are."""
    model = TorchModel(of_vectors(), input_shape=(10,), bounds=(-5, 5), device="cpu")
    other = TorchModel(of_images(), input_shape=(3, 8, 8), device="cpu")
    beside = Companion(TorchModel(of_vectors(), input_shape=(10,), bounds=(-5, 5)))
    detector = fitted("learned", model, companion=beside)
    assert detector.to("meta") is detector
    estimator = detector.estimator
    assert detector.device == torch.device("meta")
    for held in (model, estimator.model_):
        assert held.device == torch.device("meta")
        assert next(held.module.parameters()).is_meta
    assert next(beside.model.module.parameters()).is_meta
    for companion in (other, other.module):
        detector = CurvatureDetector(of_vectors(), companion=companion).to("meta")
        assert next(other.module.parameters()).is_meta
        other.module.to_empty(device="cpu")


@KIND
def test_images_of_the_cpu_for_a_network_elsewhere(kind):
    """As their detectors do it, scores are where the network is."""
    model = TorchModel(of_vectors(), input_shape=(10,), bounds=None, batch_size=64)
    detector = fitted(kind, model)
    x = drawn(6, (10,), 2)
    expected = detector(x)
    with Device():
        move(model.module)
        scores = detector(x)
        assert scores.device.type == detector.device.type == NAME
        torch.testing.assert_close(scores.cpu(), expected, rtol=1e-4, atol=1e-4)
        assert detector(x[:0]).device.type == NAME


@KIND
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu(kind):
    x = drawn(6, (10,), 2)
    expected = fitted(kind)(x)
    detector = fitted(kind).to("cuda")
    scores = detector(x)
    assert scores.device.type == detector.device.type == "cuda"
    torch.testing.assert_close(detector(x.cuda()), scores)
    torch.testing.assert_close(scores.cpu(), expected, rtol=1e-2, atol=1e-2)


def test_a_companion():
    x = drawn(24, (10,), 1)
    torch.manual_seed(5)
    other = of_vectors()
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    detector = fitted("learned", companion=other)
    assert detector.estimator.companion_.model.bounds == (x.min(), x.max())
    assert not torch.equal(detector(x), fitted("learned")(x))


# Loaders of many images ----------------------------------------------------------


def test_a_sample_holds_no_more_than_it_must():
    """Each image is as likely as any other to be in it."""
    images = torch.arange(200.0).reshape(200, 1, 1)
    share = torch.zeros(200)
    for seed in range(300):
        sample = Sample(lambda n_values: 20 * n_values, seed)
        sample.extend([images[:7], images[:0], images[7:150], images[150:]])
        kept = sample.images()
        assert kept.shape == (20, 1, 1)
        assert len(kept.unique()) == 20
        share[kept.flatten().long()] += 1 / 300
    assert (sample.low, sample.high, sample.n_seen) == (0, 199, 200)
    # Means of 50 shares of 0.1 have a standard deviation of 0.0025.
    for part in share.split(50):
        assert float(part.mean()) == pytest.approx(0.1, abs=0.01)


def test_few_images_are_all_kept_in_their_order():
    images = torch.rand(20, 3, dtype=torch.float64)
    sample = Sample(lambda n_values: 20, 0).extend(images.split(6))
    assert torch.equal(sample.images(), images)
    images = images[:15]
    sample = Sample(lambda n_values: 20, 0).extend(images.split(6))
    assert torch.equal(sample.images(), images)


def test_images_of_different_shapes():
    with pytest.raises(ValueError, match=r"of one shape; got \(10,\) and \(5,\)"):
        CurvatureDetector(of_vectors()).fit([torch.zeros(3, 10), torch.zeros(3, 5)])


def test_a_loader_is_gone_through_once_and_not_held(monkeypatch):
    few = effort.SMALL._replace(n_learned=10)
    monkeypatch.setattr(adapter, "effort_for", lambda n_values: few)
    fitted_to = []
    monkeypatch.setattr(LearnedDetector, "fit", lambda _, X: fitted_to.append(X))
    held = []

    def batches():
        for seed in range(40):
            batch = drawn(25, (10,), seed)
            held.append(weakref.ref(batch))
            assert sum(ref() is not None for ref in held) <= 2
            yield batch, torch.zeros(25)

    for seed in (0, 0, 1):
        CurvatureDetector(of_vectors(), random_state=seed).fit(batches())
    assert len(held) == 3 * 40
    first, again, other = fitted_to
    # Ten to learn from, and those that a threshold at a rate of 0.01 takes.
    assert first.shape == (210, 10)
    assert len(np.unique(first, axis=0)) == 210
    assert np.array_equal(again, first)
    assert not np.array_equal(other, first)
    CurvatureDetector(of_vectors(), target_fpr=0.005).fit(batches())
    assert len(fitted_to[-1]) == 410
    with pytest.raises(ValueError, match="target_fpr must be"):
        CurvatureDetector(of_vectors(), target_fpr=0).fit(batches())
