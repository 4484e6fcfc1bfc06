"""Detectors after papers: formulas in closed form or computed anew, and batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from scipy.spatial.distance import cdist, mahalanobis
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from torch import nn

from benchmarks.common.splits import Split
from benchmarks.evidence.case import CLEAN, Case, Files, Network, Sizes, Training
from benchmarks.evidence.detectors import images as of_images
from benchmarks.evidence.detectors import layers as of_layers
from benchmarks.evidence.detectors import second_models, sensitivity
from benchmarks.evidence.detectors._given import GivenToLayers, channel_means
from benchmarks.evidence.detectors._learned import OnFeatures, logistic
from curvdetect import TorchModel
from curvdetect.attacks import AdversarialSet
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from modules import second_lenet

DETECTORS = {
    detector.name: detector
    for family in (of_images, of_layers, second_models, sensitivity)
    for detector in family.DETECTORS
}


@pytest.fixture(scope="module")
def case():
    """LeNet with a few images, and a companion."""
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    X, y = load_fashion_mnist_sample()
    network = Network("LeNet", "fashion-mnist", (16,), lambda _: model, lambda _: model)
    splits = [
        Split(X[part], y[part]) for part in np.split(np.arange(100), [60, 80, 90])
    ]
    made = Case("lenet", network, Files(), Sizes(), model, *splits)
    vars(made)["companion"] = TorchModel(second_lenet(), input_shape=(1, 28, 28))
    return made


@pytest.fixture(scope="module")
def training(case):
    """What is called attacked is noisy: what is learned must not matter here."""
    X, y = case.fit
    noise = 0.3 * np.random.default_rng(0).normal(size=X.shape)
    noisy = np.clip(X + noise, 0, 1).astype(np.float32)
    rows = np.arange(len(X))
    attacked = AdversarialSet(X, y, noisy, y, case.model.predict(noisy), rows)
    return Training(case.reference, case.fit, {"noise": attacked}, {"noise": "moved"})


# All of them ----------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
def test_the_score_of_an_image_depends_on_no_other(name, case, training):
    X = case.test.X
    detector = DETECTORS[name].make(case).fit(training)
    together = detector.score(X)
    assert together.shape == (len(X),)
    assert np.isfinite(together).all()
    apart = np.concatenate([detector.score(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(apart, together, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        detector.score(X[::-1].copy()), together[::-1], 1e-3, 1e-4
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_learned_twice_is_the_same(name, case, training):
    once, again = (
        DETECTORS[name].make(case).fit(training).score(case.test.X) for _ in range(2)
    )
    np.testing.assert_array_equal(once, again)


def test_names_are_told_apart():
    families = (of_images, of_layers, second_models, sensitivity)
    assert len(DETECTORS) == sum(len(family.DETECTORS) for family in families)


# What layers are given ----------------------------------------------------------------


class Residual(nn.Module):
    """Sums between layers, which belong to no layer."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.flat = nn.Flatten()
        self.last = nn.Linear(4 * 36, 3)

    def forward(self, x):
        x = self.one(x).relu()
        x = x + self.two(x)
        return self.last(self.flat(x))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return TorchModel(Residual().eval(), input_shape=(1, 6, 6))


def test_activations_are_what_layers_are_given(residual):
    x, module = torch.rand(5, 1, 6, 6), residual.module
    with residual.evaluating(), torch.no_grad():
        given = GivenToLayers(residual)(x)
        one = module.one(x).relu()
        summed = (one + module.two(one)).flatten(1)
        expected = [one, summed, module.last(summed)]
        assert [g.shape for g in given] == [e.shape for e in expected]
        for own, other in zip(given, expected, strict=True):
            torch.testing.assert_close(own, other)
        torch.testing.assert_close(GivenToLayers(residual).penultimate(x), summed)
        (only,) = GivenToLayers(residual, maps=True)(x)
        torch.testing.assert_close(only, one)
        first, last = GivenToLayers(residual, most=2)(x)
        assert first.shape == one.shape
        assert last.shape == (5, 3)


def test_no_hook_is_left(residual):
    layers = GivenToLayers(residual)
    with residual.evaluating():
        layers(torch.rand(2, 1, 6, 6))
    assert not any(m._forward_hooks for m in residual.module.modules())


def test_channel_means():
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert channel_means(maps).tolist() == [[5.5, 17.5]]
    assert channel_means(maps.flatten(2).transpose(1, 2)).tolist() == [[5.5, 17.5]]
    assert channel_means(maps.flatten(1)).shape == (1, 24)


def test_a_network_without_maps_has_no_spectra_of_layers(case):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.ReLU(), nn.Linear(5, 10))
    other = replace(case, model=TorchModel(flat.eval(), input_shape=(1, 28, 28)))
    vars(other)["companion"] = case.companion
    assert [name for name, d in DETECTORS.items() if not d.applies(other)] == [
        "LayerMFS, logistic regression",
        "LayerMFS, random forest",
    ]
    assert all(d.applies(case) for d in DETECTORS.values())


# Layers ---------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 7])
def test_the_dimension_of_neighbours_that_fill_a_ball(m):
    # i of n points lie within (i / n)^(1/m) of the centre of a ball in m dimensions.
    k = 4000
    distances = (torch.arange(1, 10001).double() / 10000) ** (1 / m)
    shuffled = distances[torch.randperm(10000)][None]
    rates = of_layers.growth_rates(shuffled, k)
    assert rates.shape == (1, k)
    torch.testing.assert_close(
        rates[0, 0], torch.tensor(k).double().log() / m, rtol=1e-9, atol=0
    )
    assert float(of_layers.dimension(rates)) == pytest.approx(m, rel=0.01)


def test_growth_rates_of_layers_against_scipy(case):
    X = case.test.X
    layers = GivenToLayers(case.model, most=of_layers.MOST_LAYERS)
    with case.model.evaluating(), torch.no_grad():
        references = layers(torch.from_numpy(case.reference.X))
        own = layers(torch.from_numpy(X))
    expected = []
    for a, b in zip(own, references, strict=True):
        near = np.sort(cdist(a.flatten(1), b.flatten(1)), axis=1)[:, :20]
        expected.append(-np.log(near / near[:, -1:]))
    for folded in (False, True):
        features = of_layers.GrowthRates(case.model, folded=folded)
        features.learn(case.reference)
        wanted = (
            [20 / e.sum(1, keepdims=True) for e in expected] if folded else expected
        )
        np.testing.assert_allclose(features(X), np.hstack(wanted), 1e-3, 1e-3)


def test_distances_to_classes_against_scipy(case):
    features = of_layers.ClassDistances(case.model)
    features.learn(case.reference)
    layers = GivenToLayers(case.model, most=of_layers.MOST_LAYERS)
    X, y = case.reference
    with case.model.evaluating(), torch.no_grad():
        known = channel_means(layers(torch.from_numpy(X))[0]).double().numpy()
        own = channel_means(layers(torch.from_numpy(case.test.X))[0]).double().numpy()
    means = np.stack([known[y == c].mean(0) for c in np.unique(y)])
    apart = known - means[np.searchsorted(np.unique(y), y)]
    inverse = np.linalg.inv(apart.T @ apart / len(apart))
    expected = [min(mahalanobis(f, m, inverse) ** 2 for m in means) for f in own]
    np.testing.assert_allclose(features(case.test.X)[:, 0], expected, rtol=1e-5)


def test_density_against_its_formula(case, training):
    density = of_layers.Density(case.model).fit(training)
    h = density.all.bandwidth
    known, own = (density._features(s.X) for s in (case.reference, case.test))
    labels, predicted = (case.model.predict(s.X) for s in (case.reference, case.test))
    expected = []
    for f, c in zip(own, predicted, strict=True):
        squares = ((known[labels == c] - f) ** 2).sum(1)
        mean = logsumexp(-squares / (2 * h**2)) - np.log(len(squares))
        expected.append(len(f) / 2 * np.log(2 * np.pi * h**2) - mean)
    np.testing.assert_allclose(density.score(case.test.X), expected, rtol=1e-9)


# Learning -------------------------------------------------------------------


class Brightness:
    """The mean of an image."""

    def learn(self, reference):
        self.seen = len(reference.X)

    def __call__(self, X):
        return X.reshape(len(X), -1).mean(1, keepdims=True)


def test_what_learns_from_features_tells_attacked_from_clean(case, training):
    X, labels, _ = training.labelled()
    bright = replace(training.attacked["noise"], adversarial=0 * case.fit.X + 1)
    told = Training(case.reference, case.fit, {"white": bright}, {"white": "moved"})
    detector = OnFeatures(Brightness(), logistic).fit(told)
    assert detector.features.seen == len(case.reference.X)
    scores = detector.score(told.labelled()[0])
    assert (scores[labels == CLEAN].max() < 0 < scores[labels != CLEAN]).all()


# Images ---------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_against_loops(channels):
    x = torch.rand(
        1, channels, 9, 9, generator=torch.manual_seed(0), dtype=torch.double
    )
    given = of_images.non_local_means(x, search=5, patch=3, strength=60)
    image = x[0].numpy()
    around = np.pad(image, [(0, 0), (2, 2), (2, 2)], mode="reflect")
    squares = np.zeros((9, 9, 5, 5))
    for i, j in np.ndindex(squares.shape[2:]):
        moved = around[:, i : i + 9, j : j + 9]
        squares[:, :, i, j] = ((moved - image) ** 2).mean(0)
    padded = np.pad(squares, [(1, 1), (1, 1), (0, 0), (0, 0)], mode="reflect")
    expected = np.zeros_like(image)
    for row, column in np.ndindex(9, 9):
        patch = padded[row : row + 3, column : column + 3].mean((0, 1))
        weight = np.exp(-patch / (60 / 255) ** 2)
        window = around[:, row : row + 5, column : column + 5]
        expected[:, row, column] = (weight * window).sum((1, 2)) / weight.sum()
    np.testing.assert_allclose(given[0], expected, rtol=1e-9)


def test_non_local_means_keep_what_is_even_and_smooth_what_is_noisy():
    even = torch.full((1, 3, 16, 16), 0.4)
    torch.testing.assert_close(of_images.non_local_means(even), even)
    noisy = even + 1e-3 * torch.randn(even.shape, generator=torch.manual_seed(0))
    assert of_images.non_local_means(noisy).std() < noisy.std() / 3


def test_squeezing_is_nothing_for_what_is_squeezed_already(case, training):
    detector = of_images.Squeezing(case.model, "mnist").fit(training)
    assert detector.score(np.zeros((2, 1, 28, 28), np.float32)).max() < 1e-6
    X = case.test.X
    one_bit = (X > 0.5).astype(np.float32)
    probabilities = [
        softmax(case.model.predict_logits(Z), axis=1) for Z in (X, one_bit)
    ]
    moved = np.abs(probabilities[0] - probabilities[1]).sum(1)
    assert (detector.score(X) >= moved - 1e-5).all()
    assert len(detector.squeezers) == 2


def test_spectra_against_numpy(case):
    X = case.test.X
    features = of_images.Spectra(case.model, layers=False)
    features.learn(case.reference)
    whole = np.abs(np.fft.fft2(X))
    np.testing.assert_allclose(
        features(X), whole[..., :15].reshape(len(X), -1), rtol=1e-4, atol=1e-3
    )
    features = of_images.Spectra(case.model, layers=True)
    features.learn(case.reference)
    with case.model.evaluating(), torch.no_grad():
        maps = GivenToLayers(case.model, most=6, maps=True)(torch.from_numpy(X))
    expected = [np.abs(np.fft.rfft2(m)).mean(1).reshape(len(X), -1) for m in maps]
    np.testing.assert_allclose(features(X), np.hstack(expected), rtol=1e-4, atol=1e-3)


def test_haar_against_the_matrix_of_hadamard():
    x = torch.rand(2, 3, 8, 6)
    bands = of_images.Haar()(x).reshape(2, 4, 3, 4, 3)
    blocks = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    expected = torch.einsum(
        "bk,nchwk->nbchw", torch.tensor(hadamard(4) / 2).float(), blocks
    )
    torch.testing.assert_close(bands, expected)
    assert float(bands.square().sum()) == pytest.approx(float(x.square().sum()), 1e-5)


def test_sid_tells_by_both_networks(case, training):
    detector = of_images.SensitivityInconsistency(case.model).fit(training)
    X = case.test.X
    with torch.no_grad():
        dual = detector.dual(torch.from_numpy(X)).numpy()
        pairs = np.hstack([case.model.predict_logits(X), dual])
        scaled = ((pairs - detector.mean) / detector.std).astype(np.float32)
        out = detector.detector(torch.from_numpy(scaled)).numpy()
    expected = out[:, 2] - np.maximum(out[:, 0], out[:, 1])
    np.testing.assert_allclose(detector.score(X), expected, rtol=1e-4, atol=1e-5)
    right = detector.dual(torch.from_numpy(case.fit.X)).argmax(1).numpy() == case.fit.y
    assert detector.dual_accuracy == right.mean()


def test_the_dual_classifier_learns(case):
    X, y = load_fashion_mnist_sample()
    detector = of_images.SensitivityInconsistency(case.model)
    torch.manual_seed(0)
    detector._fit_dual(Split(X[:2], np.array([0, 9])))
    known = Split(np.repeat(X[:2], 60, 0), np.repeat([0, 9], 60))
    detector._fit_dual(known)
    assert not detector.dual.training
    assert detector.dual(torch.from_numpy(X[:2])).argmax(1).tolist() == [0, 9]


# Second networks ------------------------------------------------------------


def test_what_second_networks_say_against_scipy(case, training):
    X = case.test.X
    own, other = (m.predict_logits(X) for m in (case.model, case.companion))
    f, g = softmax(own, axis=1), softmax(other, axis=1)
    label = own.argmax(1)
    expected = {
        "companion, 1 - probability": 1 - g[np.arange(len(X)), label],
        "companion, L1 of probabilities": np.abs(f - g).sum(1),
        "companion, labels differ": label != other.argmax(1),
    }
    for name, wanted in expected.items():
        given = DETECTORS[name].make(case).fit(training).score(X)
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-6)


def test_doubt_is_not_rounded_away(case):
    own = torch.tensor([[5.0, 0, 0]]).double()
    doubt = second_models.Doubt(case.model, case.companion)
    sure = doubt.compared(own, torch.tensor([[100.0, 0, 0]]).double())
    assert float(sure) == pytest.approx(2 * np.exp(-100))


def test_a_companion_is_needed_and_counted(case):
    alone = replace(case)
    vars(alone)["companion"] = None
    for detector in second_models.DETECTORS:
        assert not detector.applies(alone)
        assert detector.networks(case) == (case.model.module, case.companion.module)
        with pytest.raises(
            ValueError, match="lenet has no companion for fashion-mnist"
        ):
            detector.make(alone)


# Sensitivity ----------------------------------------------------------------


def test_recovery_in_closed_form():
    # Of alike errors e each share is 1 / n: n (log n - log(n) / n) log e.
    n, e = 4, 0.3
    even = sensitivity.recovery(torch.full((1, n), e).double())
    assert float(even) == pytest.approx((n - 1) * np.log(n) * np.log(e), rel=1e-6)
    # Of one error that is far larger all is its: n log(n) log(e / n).
    one = torch.zeros(1, n).double()
    one[0, 0] = 100
    expected = n * np.log(n) * np.log(100 / n)
    assert float(sensitivity.recovery(one)) == pytest.approx(expected, rel=1e-6)


def test_the_logit_test_against_scipy():
    generator = torch.manual_seed(0)
    logits, moved = torch.randn(2, 6, 10, generator=generator).double()
    shifts = torch.rand(6, 3, generator=generator).double()
    p, q = (softmax(z.numpy(), axis=1) for z in (logits, moved))
    label = np.eye(10)[p.argmax(1)]
    moves = np.log(((q - label) ** 2).mean(1) * entropy(p, axis=1) + 1e-8)
    expected = moves - np.log(shifts.numpy() + 1e-8).mean(1)
    given = sensitivity.logit_shift(logits, moved, shifts)
    np.testing.assert_allclose(given, expected, rtol=1e-9)


def test_shifts_are_normal_on_what_they_learned_from(case, training):
    both = sensitivity.LargeShifts(case.model, "recovery", "logits").fit(training)
    z = both.normal.transform(both._tested(case.fit.X))
    expected = ((z - z.mean(0)) ** 2 / z.std(0, ddof=1)).sum(1)
    np.testing.assert_allclose(both.score(case.fit.X), expected, rtol=1e-3, atol=1e-3)
    alone = sensitivity.LargeShifts(case.model, "logits").fit(training)
    assert (alone.score(case.fit.X) >= 0).all()
    middle = np.median(alone._tested(case.fit.X), axis=0)
    assert abs(alone.normal.transform([middle])[0, 0]) < 0.2


def test_the_mask_learns_and_stays_near_one(case, training):
    detector = sensitivity.LargeShifts(case.model, "logits").fit(training)
    moved = (detector.mask - 1).abs().max()
    assert 0 < float(moved) < 0.05
    assert not detector.mask.requires_grad


def linear_model(weight):
    module = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight)))
    with torch.no_grad():
        module[1].weight.copy_(weight)
    return TorchModel(module.eval(), input_shape=(1, 2, 2))


def test_odds_of_a_linear_network(training):
    # Noise moves f_z - f_y by (w_z - w_y) e wherever the image is: by nothing more than
    # on clean images.
    generator = torch.manual_seed(0)
    weight = torch.randn(3, 4, generator=generator)
    X = torch.rand(200, 1, 2, 2, generator=generator).numpy()
    linear = Training(Split(X, np.zeros(200)), Split(X, np.zeros(200)), {}, {})
    model = linear_model(weight)
    odds = sensitivity.Odds(model, n_draws=6).fit(linear)
    noise = odds.noise.flatten(1).numpy()
    label = model.predict(X)
    for y in np.unique(label):
        g = noise @ (weight - weight[y]).numpy().T
        np.testing.assert_allclose(odds.mean[y], g.mean(0), atol=1e-5)
        np.testing.assert_allclose(odds.std[y], g.std(0), atol=1e-5)
    assert np.abs(odds.score(X)).max() < 1e-3


@pytest.mark.parametrize(("scale", "sigma"), [(1, 0.003), (3, 0.01), (1e4, 0.3)])
def test_noise_is_as_strong_as_labels_bear(scale, sigma):
    # Of two classes with logits 0 and scale * x the label is kept by noise that is
    # small beside x = +-0.01.
    module = nn.Linear(1, 2, bias=False)
    module.weight.data[:] = torch.tensor([[0.0], [1.0]])
    model = TorchModel(module.eval(), input_shape=(1,), bounds=None)
    X = np.float32([[-0.01], [0.01]] * 500) * scale
    odds = sensitivity.Odds(model, n_images=1000)
    unit = torch.randn(1000, 1, generator=torch.manual_seed(0))
    assert odds._strength(X, unit) == sigma


def test_odds_against_their_formula(case, training):
    odds = sensitivity.Odds(case.model).fit(training)
    X = case.test.X
    with case.model.evaluating(), torch.no_grad():
        own, *moved = (
            case.model.logits(torch.from_numpy(X) + noise).numpy()
            for noise in (0, *odds.noise)
        )
    rows, y = np.arange(len(X)), own.argmax(1)
    g = np.mean(moved, axis=0) - own
    z = (g - g[rows, y][:, None] - odds.mean[y]) / odds.std[y]
    z[rows, y] = -np.inf
    np.testing.assert_allclose(odds.score(X), z.max(1), rtol=1e-3, atol=1e-3)
