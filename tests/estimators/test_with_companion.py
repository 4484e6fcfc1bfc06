"""A guard that asks a second network: what it promises beside what it did without."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from curvdetect import CurvatureGuard, GuardedClassifier, LearnedDetector, TorchModel
from curvdetect.estimators._evidence import Evidence
from curvdetect.signals import Companion
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import LeNet, load_lenet
from modules import Returns


@pytest.fixture
def guard(with_companion):
    return with_companion()[0]


@pytest.fixture(scope="module")
def x():
    return load_fashion_mnist_sample()[0][90:120]


def against(guard, x):
    """Return the companion's log-odds against the network's labels, by hand."""
    companion = guard.detector_.companion_.model
    log_q = torch.from_numpy(companion.predict_logits(x)).double().log_softmax(1)
    q = log_q.exp()[np.arange(len(x)), guard.model_.predict(x)]
    return torch.log((1 - q) / q).numpy()


# The candidates -------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [10, 40])
def test_of_many_classes_the_companion_names_some(n_classes):
    """Logits are the image itself; the companion's are the same turned round."""
    turned = Returns(lambda x: x.flip(1))
    model, other = (
        TorchModel(module, input_shape=(n_classes,), bounds=None)
        for module in (nn.Identity().eval(), turned)
    )
    x = torch.arange(float(n_classes))[None]
    evidence = Evidence(model, n_classes, 1.0, np.ones(n_classes), Companion(other), 1)
    alone = Evidence(model, n_classes, 1.0, np.ones(n_classes))
    found = evidence.measured(0, x, x, None)
    last = n_classes - 1
    own = list(range(last - 1, last - 10, -1))
    named = [*own[:5], 0, 1, 2, 3] if n_classes > 10 else own
    assert found.classes[0].tolist() == named
    assert found.candidate[0, :, 0].tolist() == [last - c - 1 for c in named]  # ranks
    assert alone.measured(0, x, x, None).classes[0].tolist() == own


# The veto ------------------------------------------------------------------------


def test_no_forest_outvotes_the_companion(guard, x):
    detector = guard.detector_
    odds = against(guard, x)
    at, least = detector.veto_.T
    worth = np.where(odds < at[0], -np.inf, np.interp(odds, at, least))
    score = detector.score_samples(x)
    assert (score >= worth - 1e-4).all()
    assert np.isclose(score, worth, atol=1e-4).any()  # and somewhere it decides


def test_odds_at_a_score_are_those_that_are_worth_it(guard):
    cascade = guard.detector_._cascade()
    at, least = guard.detector_.veto_.T
    for score in (*least[1:], (least[2] + least[3]) / 2):
        assert cascade.odds_at(score) == pytest.approx(np.interp(score, least, at))
    slope = (at[-1] - at[-2]) / (least[-1] - least[-2])
    beyond = cascade.odds_at(least[-1] + 2)
    assert beyond == pytest.approx(at[-1] + 2 * slope)  # straight on
    assert (np.diff(guard.detector_.veto_, axis=0) > 0).all()


def test_without_a_companion_there_is_no_veto(quick, lenet):
    X, y = load_fashion_mnist_sample()
    detector = LearnedDetector(lenet, target_fpr=0.1, self_test=False)
    detector.fit(X[:90], y[:90])
    assert detector.companion_ is None
    assert detector.veto_ is None
    assert detector._cascade().odds_at(0.0) == np.inf
    assert detector.cost(X[:5]) >= 1


def test_its_price_is_added_once(guard, x):
    detector = guard.detector_
    assert detector.passes_ == 1  # as large as the network
    assert detector._evidence().costs() == (2.0, 3.0, 4.0)
    stage = detector.examine(x).stage
    assert detector.cost(x) == pytest.approx(np.array([2, 5, 9])[stage].mean())


def test_an_image_does_not_depend_on_its_batch(guard, x):
    together = guard.assess(x).score
    alone = [guard.assess(x[row : row + 1]).score[0] for row in range(8)]
    np.testing.assert_allclose(together[:8], alone, rtol=1e-5, atol=1e-4)


def test_the_rate_of_false_positives_is_kept(quick, lenet):
    """On average over calibrations: images come from one pool, split anew each time."""
    from modules import second_lenet

    X, y = load_fashion_mnist_sample()
    right = TorchModel(lenet, input_shape=(1, 28, 28)).predict(X) == y
    X, y = X[right], y[right]
    rates = []
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(len(X))
        detector = LearnedDetector(
            lenet, companion=second_lenet(), target_fpr=0.2, self_test=False
        ).set_params(random_state=seed)
        detector.fit(X[order[:70]], y[order[:70]])
        rates.append(detector.predict(X[order[70:]]).mean())
    # 8 calibrations with 23 images each: a rate of 0.2 within three standard errors.
    assert np.mean(rates) < 0.2 + 3 * np.std(rates) / np.sqrt(8) + 0.02


# As a parameter ------------------------------------------------------------------


def test_copies(guard, x):
    expected = guard.assess(x).score
    for other in (copy.deepcopy(guard), pickle.loads(pickle.dumps(guard))):
        np.testing.assert_array_equal(other.assess(x).score, expected)
        assert joblib.hash(other) == joblib.hash(guard)
    cloned = clone(guard)
    assert cloned.companion is guard.companion
    assert clone(guard.detector_).companion is guard.detector_.companion


def test_other_weights_of_the_companion_are_another_hash_and_refused(guard, x):
    before = joblib.hash(guard)
    with torch.no_grad():
        next(guard.companion.parameters()).mul_(1.5)
    assert joblib.hash(guard) != before
    with pytest.raises(ValueError, match="companion must have the weights"):
        guard.assess(x)


@pytest.mark.filterwarnings("ignore:module is in training mode")
@pytest.mark.parametrize("raises", [False, True])
def test_the_state_of_the_companion_is_left_alone(with_companion, x, raises):
    guard, _ = with_companion(fit=False)
    companion = guard.companion.train()
    companion.features[0].weight.requires_grad_(False)
    X, y = load_fashion_mnist_sample()
    if raises:
        X = X.copy()
        companion.classifier[-1].weight.data.fill_(torch.nan)
        with pytest.raises(ValueError, match="finite"):
            guard.fit(X[:90], y[:90])
    else:
        guard.fit(X[:90], y[:90]).assess(x)
    assert companion.training
    assert not companion.features[0].weight.requires_grad
    assert companion.classifier[-1].weight.requires_grad
    assert all(weight.grad is None for weight in companion.parameters())


def test_what_is_refused(lenet, with_companion):
    X, y = load_fashion_mnist_sample()
    guard, _ = with_companion(fit=False)
    with pytest.raises(TypeError, match="companion must be a Companion.*got str"):
        clone(guard).set_params(companion="LeNet").fit(X[:90], y[:90])
    with pytest.raises(ValueError, match="companion must be another network than"):
        clone(guard).set_params(companion=guard.model).fit(X[:90], y[:90])
    with pytest.raises(ValueError, match="the network's 10 classes.*got 3"):
        clone(guard).set_params(companion=LeNet(n_classes=3).eval()).fit(X[:90], y[:90])
    with pytest.raises(ValueError, match="companion must be left out where the det"):
        clone(guard).set_params(detector="threshold").fit(X[:90], y[:90])
    both = LearnedDetector(companion=LeNet().eval())
    with pytest.raises(ValueError, match="where detector has one; got both"):
        clone(guard).set_params(detector=both).fit(X[:90], y[:90])


def test_classes_in_another_order_are_told(with_companion):
    X, y = load_fashion_mnist_sample()
    guard, _ = with_companion(fit=False)
    guard.companion = Companion(
        TorchModel(guard.companion, input_shape=(1, 28, 28)), classes=range(9, -1, -1)
    )
    with pytest.warns(UserWarning, match="agrees with the network on .* same classes"):
        guard.fit(X[:90], y[:90])


# As a torch module -----------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_holds_both_networks(with_companion, wrapped):
    guard, x = with_companion(wrapped)
    expected = guard.assess(x)
    state = CurvatureGuard(guard).state_dict()
    assert {"module.features.0.weight", "companion.features.0.weight"} <= state.keys()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    empty, _ = with_companion(wrapped, fit=False)
    for network in (empty.model, empty.companion):
        for weight in getattr(network, "module", network).parameters():
            nn.init.zeros_(weight)
    served = CurvatureGuard(empty)
    served.load_state_dict(torch.load(file, weights_only=True))
    found = served(torch.from_numpy(x))
    np.testing.assert_array_equal(found.score.numpy(), expected.score)
    again = pickle.loads(pickle.dumps(served))
    assert again.companion is getattr(again.guard.companion, "module", again.companion)


def test_a_state_without_a_companion_is_another_s(with_companion):
    guard, _ = with_companion()
    state = CurvatureGuard(guard).state_dict()
    alone = GuardedClassifier(load_lenet("fashion-mnist"), detector=guard.detector)
    with pytest.raises(ValueError, match="other parameters.*companion"):
        CurvatureGuard(alone).load_state_dict(state)


def test_it_moves_with_its_guard(with_companion):
    guard, _ = with_companion()
    moved = CurvatureGuard(guard).double()
    assert moved.companion.features[0].weight.dtype == torch.float64
    assert guard.companion is moved.companion  # as modules move


def test_a_bare_companion_is_normalised_as_the_network_is(with_companion):
    guard, x = with_companion(wrapped=True, fit=False)
    guard.model = TorchModel(
        guard.model.module, input_shape=(1, 28, 28), mean=0.1, std=0.9
    )
    guard.companion = guard.companion.module
    X, y = load_fashion_mnist_sample()
    own = guard.fit(X[:90], y[:90]).detector_.companion_.model
    assert (own.mean, own.std) == (guard.model.mean, guard.model.std)


def test_a_large_companion_leaves_the_other_stages(quick):
    torch.manual_seed(0)
    large = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 6000), nn.ReLU(), nn.Linear(6000, 10)
    ).eval()
    X, y = load_fashion_mnist_sample()
    with pytest.warns(UserWarning, match="agrees with the network on"):
        detector = LearnedDetector(
            load_lenet("fashion-mnist"),
            companion=large,
            target_fpr=0.1,
            self_test=False,
            random_state=0,
        ).fit(X[:90], y[:90])
    assert detector.passes_ > 6
    assert (detector.examine(X[90:150]).stage > 0).mean() > 0.3
