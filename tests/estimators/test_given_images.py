"""Adversarial images that a user has: learned from, or tried; never both."""

import numpy as np
import pytest
import torch

from curvdetect import LearnedDetector, TorchModel
from curvdetect.estimators import _learning
from curvdetect.estimators._given import given_images

pytestmark = pytest.mark.filterwarnings("ignore:.*self-test", "ignore:mean AUROC")
D = 12


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(D, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)
    )
    return TorchModel(network.eval(), input_shape=(D,))


@pytest.fixture
def points():
    return np.random.default_rng(0).random((160, D), np.float32)


def made_of(X):
    """Others near to each."""
    noise = np.random.default_rng(1).normal(size=X.shape)
    return (X + 0.01 * noise).clip(0, 1).astype(np.float32)


def test_each_is_near_to_what_it_was_made_of(model, points):
    order = np.random.default_rng(2).permutation(len(points))[:50]
    given = given_images(model, made_of(points)[order], torch.from_numpy(points))
    np.testing.assert_array_equal(given.near, order)
    some = given.of(order[:7])
    np.testing.assert_array_equal(some.near, order[:7])
    assert len(some.images) == 7


def test_its_lesson_exchanges_the_images_that_something_was_made_of(model, points):
    clean = torch.from_numpy(points)
    given = given_images(model, made_of(points)[:3], clean)
    attacked = given.lesson(clean).attack(clean[1:6], torch.zeros(5))
    np.testing.assert_array_equal(attacked[:2], given.images[1:])
    np.testing.assert_array_equal(attacked[2:], clean[3:6])


def test_what_sets_the_threshold_is_not_learned_from(model, points, quick, monkeypatch):
    """What was made of it would make it an image that the forests have seen."""
    taught, tested = [], []
    measure, run = _learning.given_material, _learning.Learning.run

    def measured(evidence, given, source, number):
        taught.append(given.near)
        return measure(evidence, given, source, number)

    def ran(self, images, labels, learn, rest, given):
        tested.append((learn, rest))
        return run(self, images, labels, learn, rest, given)

    monkeypatch.setattr(_learning, "given_material", measured)
    monkeypatch.setattr(_learning.Learning, "run", ran)
    detector = LearnedDetector(model, target_fpr=0.1, random_state=0)
    detector.fit(points, adversarial=made_of(points))
    ((learn, rest),) = tested
    np.testing.assert_array_equal(np.sort(taught[0]), np.sort(learn))
    assert not set(taught[0]) & set(rest)
    # Of the others, those that fool the network are tried, if they are ten.
    changed = model.predict(points[rest]) != model.predict(made_of(points)[rest])
    names = [row.attack for row in detector.self_test_]
    assert ("given images" in names) == (changed.sum() >= 10)


def test_it_learns_what_is_said_to_be_adversarial(model, points, quick):
    """Points whose network is surer than it is of any others."""
    x = torch.from_numpy(points).requires_grad_()
    model.module(x).amax(dim=1).sum().backward()
    surer = (points + 0.3 * x.grad.sign().numpy()).clip(0, 1)
    settings = {"target_fpr": 0.1, "self_test": False, "random_state": 0}
    ranks = []
    for given in (None, surer[:110]):
        detector = LearnedDetector(model, **settings)
        detector.fit(points[:110], adversarial=given)
        of_given, of_clean = map(detector.score_samples, (surer[110:], points[110:]))
        ranks.append(np.mean(of_given[:, None] > of_clean))
    assert ranks[1] > ranks[0] + 0.1
    assert ranks[1] > 0.7


def test_what_they_must_be(model, points, quick):
    detector = LearnedDetector(model, target_fpr=0.1, self_test=False, random_state=0)
    with pytest.raises(ValueError, match="adversarial images: X must have shape"):
        detector.fit(points, adversarial=points[:, :5])
    with pytest.raises(ValueError, match="adversarial images: X must lie within"):
        detector.fit(points, adversarial=points + 2)
    with pytest.raises(ValueError, match="adversarial must hold at least one"):
        detector.fit(points, adversarial=points[:0])
