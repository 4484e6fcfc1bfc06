"""Votes and their certificate, where everything is known: linear networks."""

import io
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone
from torch import nn

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
    VotingDetector,
    assess_guard,
)
from curvdetect.attacks import GradientStepsAttack
from curvdetect.estimators.learned import learned_detector
from curvdetect.estimators.voting import Certified
from curvdetect.signals import Companion, Votes
from curvdetect.storage import load, save
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import LeNet, load_lenet

D, SIGMA, OFFSET = 6, 0.2, 0.15


def linear(offset):
    """Two classes by the sign of x_0 - offset."""
    module = nn.Linear(D, 2, bias=True)
    with torch.no_grad():
        module.weight.zero_()
        module.weight[1, 0] = 1.0
        module.bias.copy_(torch.tensor([offset, 0.0]))
    return TorchModel(module.eval(), input_shape=(D,), bounds=None)


@pytest.fixture(scope="module")
def network():
    return linear(0.0)


@pytest.fixture(scope="module")
def companion():
    """Its boundary is another: what fools the network need not fool it."""
    return linear(-OFFSET)


def points(n, seed):
    """Return images of class 1, at all distances from the boundary."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D))
    X[:, 0] = rng.uniform(0.05, 0.6, size=n)
    return X


def ideal_share(x):
    """Return the probability of a vote for class 1."""
    return norm.cdf((x[:, 0] + OFFSET) / SIGMA)


def detector(network, companion, **settings):
    settings = {"sigma": SIGMA, "n_votes": 60, "level": 0.05, **settings}
    return VotingDetector(network, companion, random_state=0, **settings)


@pytest.fixture(scope="module")
def fitted(network, companion):
    return detector(network, companion).fit(points(200, seed=1))


def test_the_share_is_bounded_with_the_stated_confidence(fitted):
    X = points(400, seed=2)
    X[:, 0] /= 4  # a share of 1 - 1e-9 cannot be overrated
    found = fitted.certify(X, n_samples=200, confidence=0.9)
    wrong = np.mean(found.share > ideal_share(X))
    assert 0.05 < wrong < 0.1 + 3 * np.sqrt(0.09 / 400)  # near it, and not above


def test_no_radius_is_larger_than_the_true_one(fitted):
    """p_1(x') > 1 - t as long as x'_0 > sigma Phi^-1(1 - t) - offset, exactly."""
    X = points(300, seed=3)
    found = fitted.certify(X, n_samples=2000, confidence=1 - 1e-6)
    true = X[:, 0] + OFFSET - SIGMA * norm.ppf(1 - fitted.limit_)
    assert (found.radius > 0).mean() > 0.5
    assert (found.radius <= true.clip(0) + 1e-9).all()
    close = fitted.certify(X, n_samples=2000, confidence=0.9)
    near = close.share < 0.99  # farther, the number of samples is the limit
    assert (close.radius[near] > true[near] - 0.12).all()


@pytest.mark.parametrize("inside", [True, False])
def test_what_is_certified_is_flagged(network, companion, fitted, inside):
    """Against the shortest change, as far as the radius, over many keys."""
    X = points(30, seed=4)
    X[:, 0] = np.linspace(0.05, 0.2, 30)
    radius = fitted.certify(X, n_samples=2000).radius
    moved = X.copy()
    moved[:, 0] -= 0.999 * radius if inside else radius + 0.6
    changed = network.predict(moved) != network.predict(X)
    assert changed.sum() > 10
    flagged = []
    for seed in range(40):
        other = clone(fitted).set_params(key=bytes([seed + 1]) * 8)
        other.fit(points(100, seed=1))
        other.least_votes_, other.limit_ = fitted.least_votes_, fitted.limit_
        flagged.append(other.predict(moved[changed]))
    passed = 1 - np.mean(flagged)
    if inside:
        error = 3 * np.sqrt(0.05 * 0.95 / np.size(flagged))
        assert passed < 0.05 + error
    else:
        assert passed > 0.5  # where nothing is certified, it can pass


def test_the_rate_is_kept(network, companion):
    """Many calibrations; ties of votes only help."""
    rates = []
    for seed in range(30):
        key = bytes([seed + 1]) * 4
        other = detector(network, companion, target_fpr=0.1, key=key)
        other.fit(points(60, seed=10 + seed))
        rates.append(other.predict(points(60, seed=100 + seed)).mean())
    assert 0.02 < np.mean(rates) < 0.1 + 3 * np.std(rates) / np.sqrt(30)


def test_the_limit_is_the_level(fitted):
    """A share of just t has k votes with probability b: by the binomial itself."""
    from scipy.stats import binom

    k, n = fitted.least_votes_, fitted.n_votes
    assert binom.sf(k - 1, n, fitted.limit_) == pytest.approx(fitted.level)
    X = points(50, seed=5)
    score = fitted.score_samples(X)
    np.testing.assert_array_equal(fitted.predict(X), score > 0)
    np.testing.assert_allclose(score * n, np.round(score * n), atol=1e-9)


def test_the_certificate_in_words():
    def words(*radius):
        none = np.zeros(len(radius))
        return str(
            Certified(np.array(radius), none, none.astype(int), 0.9, 0.05, 0.99, SIGMA)
        )

    assert "each of 4 images" in words(0.0, 0.1, 0.0, 2.0)
    assert "positive for 50% of them" in words(0.0, 0.1, 0.0, 2.0)
    assert "positive for 0% of them" in words()


# Noise ---------------------------------------------------------------------------


def test_votes_are_gaussian_and_of_the_image_alone(network, companion):
    x = torch.from_numpy(points(20, seed=6)).float()
    votes = Votes(Companion(companion), sigma=SIGMA, n_votes=3000, key=b"k")
    together = votes.counts(x, network, 2)
    assert (together.sum(1) == 3000).all()
    share = together[:, 1].numpy() / 3000
    np.testing.assert_allclose(share, ideal_share(x.numpy()), atol=0.035)
    alone = torch.cat([votes.counts(row[None], network, 2) for row in x])
    assert torch.equal(together, alone)
    other = Votes(Companion(companion), sigma=SIGMA, n_votes=3000, key=b"l")
    assert not torch.equal(other.counts(x, network, 2), together)
    assert votes.counts(x[:0], network, 2).shape == (0, 2)


def test_votes_are_a_signal(network, companion):
    """The share of the network's label, then that of each class."""
    X = points(20, seed=6).astype(np.float32)
    votes = Votes(Companion(companion), sigma=SIGMA, n_votes=40, key=b"k")
    featurizer = CurvatureFeaturizer(network, features=[votes]).fit(X)
    share = votes.counts(torch.from_numpy(X), network, 2).numpy() / 40
    label = network.predict(X)
    expected = np.column_stack([share[np.arange(20), label], share])
    np.testing.assert_allclose(featurizer.transform(X), expected)
    assert featurizer.get_feature_names_out().tolist() == [
        "votes_label",
        "votes_class0",
        "votes_class1",
    ]
    assert featurizer.cost() == 1 + 40


def test_the_key_is_secret_unless_asked_for(network, companion):
    X = points(40, seed=7)
    keys = [
        VotingDetector(network, companion, sigma=SIGMA, random_state=s).fit(X).key_
        for s in (None, None, 0, 0)
    ]
    assert len(set(keys[:3])) == 3
    assert keys[2] == keys[3]
    given = VotingDetector(network, companion, sigma=SIGMA, key=b"mine").fit(X)
    assert bytes.fromhex(given.key_) == b"mine"
    assert (
        b"mine" not in repr(Votes(Companion(companion), sigma=1, key=b"mine")).encode()
    )


# As other detectors ----------------------------------------------------------------


def test_copies_say_the_same(fitted):
    X = points(20, seed=8)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    cloned = clone(fitted).fit(points(200, seed=1))
    np.testing.assert_array_equal(cloned.score_samples(X), fitted.score_samples(X))


@pytest.fixture
def guard():
    X, y = load_fashion_mnist_sample()
    noisy = load_lenet("fashion-mnist")
    voting = VotingDetector(companion=noisy, sigma=0.05, n_votes=30, random_state=0)
    guard = GuardedClassifier(load_lenet("fashion-mnist"), detector=voting)
    return guard.fit(X[:60], y[:60])


def test_in_a_guard(guard, tmp_path):
    X, _ = load_fashion_mnist_sample()
    x = X[60:70]
    found, certified = guard.assess(x), guard.certify(x, n_samples=100)
    np.testing.assert_array_equal(certified.label, found.model_label)
    assert "flagged with probability at least 0.999" in str(certified)
    own = found.recovered_label[~found.flagged]
    assert (own != found.model_label[~found.flagged]).all()
    save(guard, tmp_path / "guard.skops")
    loaded = load(tmp_path / "guard.skops", LeNet(), companion=LeNet())
    np.testing.assert_array_equal(loaded.assess(x).score, found.score)
    state = io.BytesIO()
    torch.save(CurvatureGuard(guard).state_dict(), state)
    state.seek(0)
    served = clone(guard)
    CurvatureGuard(served).load_state_dict(torch.load(state, weights_only=True))
    np.testing.assert_array_equal(served.assess(x).score, found.score)


def test_only_votes_certify(quick):
    X, y = load_fashion_mnist_sample()
    learned = LearnedDetector(target_fpr=0.1, self_test=False)
    guard = GuardedClassifier(load_lenet("fashion-mnist"), detector=learned)
    with pytest.raises(ValueError, match="must be a VotingDetector to certify"):
        guard.fit(X[:90], y[:90]).certify(X[:2])


def test_beside_another_detector(quick):
    """Either flags; each has half of the rate, and the certificate is the votes'."""
    X, y = load_fashion_mnist_sample()
    both = VotingDetector(
        load_lenet("fashion-mnist"),
        load_lenet("fashion-mnist"),
        sigma=0.05,
        n_votes=30,
        target_fpr=0.2,
        detector=LearnedDetector(self_test=False),
        random_state=0,
    ).fit(X[:100], y[:100])
    assert both.detector_.target_fpr_ == 0.1
    found = both.examine(X[100:130])
    own = both.detector_.examine(X[100:130])
    votes = both._voted(
        torch.from_numpy(X[100:130]), torch.from_numpy(found.logits).argmax(1)
    )[1]
    np.testing.assert_array_equal(found.flagged, own.flagged | (votes > 0))
    alone = clone(both).set_params(
        detector=None, target_fpr=0.1, key=bytes.fromhex(both.key_)
    )
    assert alone.fit(X[:100], y[:100]).least_votes_ == both.least_votes_
    assert both.cost() == pytest.approx(31 + both.detector_.cost())
    assert ((both.p_values(X[100:110]) > 0) & (both.p_values(X[100:110]) <= 1)).all()


def test_a_guard_that_votes_is_assessed_as_by_hand(network, companion):
    """One step moves x_0 alone, by the budget: who is fooled is known, and flagged."""
    X, fresh = points(200, seed=1), points(81, seed=2).astype(np.float32)
    X[:, 0] /= 5
    fresh[:, 0] /= 5
    guard = GuardedClassifier(network, detector=detector(network, companion))
    test = assess_guard(guard.fit(X), fresh, np.ones(81, int), random_state=0)
    kinds = {row.attack.rpartition(" ")[0] for row in test}
    assert kinds >= {"one step, linf", "one step, l2", "PGD, linf", "PGD, l2"}
    clean, detected = guard.anomaly_score(fresh), []
    for kind in ("linf", "l2"):
        rows = [row for row in test if row.attack.startswith(f"one step, {kind}")]
        assert rows[0].budget == pytest.approx(np.median(fresh[:, 0]), rel=1e-3)
        for row in rows:
            attack = GradientStepsAttack(network, budget=row.budget, norm=kind)
            moved = attack(torch.from_numpy(fresh), torch.ones(81, dtype=int)).numpy()
            np.testing.assert_allclose(moved[:, 0], fresh[:, 0] - row.budget, atol=1e-6)
            fooled = moved[:, 0] <= 0  # of equal logits the first counts
            assert (row.n_attacked, row.n_fooled) == (81, fooled.sum())
            found = guard.assess(moved[fooled])
            assert row.detected == found.flagged.mean()
            assert row.relabelled == (found.recovered_label == 1).mean()
            above = found.score[:, None] - clean
            share = (above > 0).mean() + (above == 0).mean() / 2
            assert row.auroc == pytest.approx(share)
            detected.append(row.detected)
    assert len({*detected}) > 2  # else little was counted
    assert "detected at 0.05" in str(test)


def test_one_with_a_learned_detector_has_the_attacks_of_its_self_test(quick):
    """Also those that the user gave; the guard as a whole judges what they make."""
    X, y = load_fashion_mnist_sample()
    network = load_lenet("fashion-mnist")

    def negative(images, labels):
        return 1 - images

    learned = LearnedDetector(
        self_test=False, kinds=("minimal norm",), attacks={"negative": negative}
    )
    guard = GuardedClassifier(
        network,
        detector=VotingDetector(
            companion=load_lenet("fashion-mnist"),
            sigma=0.05,
            n_votes=10,
            target_fpr=0.2,
            detector=learned,
            random_state=0,
        ),
    ).fit(X[:100], y[:100])
    X, y = X[100:150], y[100:150]
    test = {row.attack: row for row in assess_guard(guard, X, y, random_state=0)}
    lessons = {f"minimal norm x {factor:g}" for factor in (1.02, 1.5, 2, 3)}
    assert set(test) == {*lessons, "negative"}
    x = X[guard.detector_.model_.predict(X) == y]
    seen = guard.assess(1 - x)
    fooled = seen.model_label != guard.assess(x).model_label
    row = test["negative"]
    assert (row.n_attacked, row.n_fooled) == (len(x), fooled.sum())
    assert row.detected == seen.flagged[fooled].mean()


def test_what_it_refuses(network, companion):
    X = points(40, seed=9)
    for kind, name, value, match in (
        (TypeError, "companion", None, "companion must be a network that votes"),
        (ValueError, "sigma", 0, "sigma must be a positive"),
        (ValueError, "n_votes", 0, "n_votes must be a positive integer"),
        (ValueError, "target_fpr", 0.001, "needs at least 999 clean"),
        (ValueError, "level", 1, "level must be strictly between"),
        (ValueError, "key", "text", "key must be 1 to 32 bytes"),
        (TypeError, "detector", "learned", "detector must be a LearnedDetector"),
    ):
        settings = {"target_fpr": 0.1, "random_state": 0, name: value}
        with pytest.raises(kind, match=match):
            VotingDetector(network, companion).set_params(**settings).fit(X)
    with pytest.raises(ValueError, match="confidence must be strictly between"):
        detector(network, companion).fit(X).certify(X, confidence=1)


@pytest.mark.filterwarnings("ignore:the companion agrees")
def test_a_companion_whose_votes_say_nothing(network):
    with pytest.warns(UserWarning, match="nothing of use can be certified"):
        VotingDetector(network, linear(5.0), sigma=0.01, target_fpr=0.1).fit(
            points(40, seed=1)
        )


def test_a_detector_of_its_own_keeps_its_seed(quick):
    X, y = load_fashion_mnist_sample()
    noisy = load_lenet("fashion-mnist")
    voting = VotingDetector(
        load_lenet("fashion-mnist"), noisy, sigma=0.05, n_votes=5, target_fpr=0.2
    )
    inner = LearnedDetector(self_test=False, random_state=7)
    fitted = voting.set_params(detector=inner, random_state=0).fit(X[:100], y[:100])
    assert fitted.detector_.random_state == 7
    with pytest.raises(TypeError, match="must have a learned detector"):
        learned_detector(fitted)  # which is not what it decides by
    guard = GuardedClassifier(load_lenet("fashion-mnist"), detector=voting)
    with pytest.raises(ValueError, match="without another one in it"):
        CurvatureGuard(guard)


def test_the_sign_of_zero_is_no_other_image(network, companion):
    votes = Votes(Companion(companion), sigma=SIGMA, n_votes=50)
    x = torch.zeros(1, D)
    assert torch.equal(votes.counts(x, network, 2), votes.counts(-x, network, 2))
