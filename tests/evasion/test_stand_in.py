"""A smooth network in place of a learned detector: like it, and good to attack."""

import numpy as np
import pytest
import torch

from curvdetect import CurvatureThresholdDetector, LearnedDetector
from curvdetect.attacks import GradientStepsAttack
from curvdetect.evasion import AgreementAttack, StandIn
from curvdetect.evasion.stand_in import neighbours_of
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import trained_model


@pytest.fixture(scope="module")
def setting():
    """A detector, clean images with their labels, and attacks on others."""
    X, y = load_fashion_mnist_sample()
    detector = LearnedDetector(
        trained_model("fashion-mnist"), target_fpr=0.1, self_test=False, random_state=0
    ).fit(X[:120], y[:120])
    x, label = torch.from_numpy(X[120:270]), torch.from_numpy(y[120:270])
    sets = [x]
    for budget in (0.5, 1.0, 2.0):
        attack = GradientStepsAttack(
            detector.model_, budget=budget, norm="l2", steps=10
        )
        sets += [attack(x, label)]
        sets += [AgreementAttack(detector, eps=budget, steps=10)(x, label)]
    return detector, torch.cat(sets), torch.from_numpy(X[270:300])


@pytest.fixture(scope="module")
def stand_in(setting):
    return StandIn(setting[0], setting[1], steps=600)


def test_it_scores_as_the_detector_does(setting, stand_in):
    detector, _, fresh = setting
    attack = GradientStepsAttack(detector.model_, budget=1.5, norm="l2", steps=10)
    label = torch.from_numpy(detector.model_.predict(fresh))
    both = torch.cat([fresh, attack(fresh, label)])
    with detector.model_.evaluating():
        found = stand_in(both)
    expected = detector.score_samples(both)
    assert np.corrcoef(found, expected)[0, 1] > 0.85
    assert stand_in.correlation > 0.9
    assert stand_in.threshold == detector.threshold_


def test_it_can_be_differentiated(setting, stand_in):
    detector, _, fresh = setting
    with detector.model_.evaluating():
        x = (0.1 + 0.8 * fresh[:4]).requires_grad_()
        (way,) = torch.autograd.grad(stand_in(x).sum(), x)
        unit = way / way.flatten(1).norm(dim=1)[:, None, None, None]
        ahead = stand_in(x.detach() + 0.02 * unit)
    assert way.isfinite().all()
    assert (ahead > stand_in(x)).float().mean() > 0.7


def test_its_place_in_an_attack(setting, stand_in):
    """The detector itself is less sure than without it."""
    detector, _, fresh = setting
    label = torch.from_numpy(detector.model_.predict(fresh))
    above = []
    for each in (None, stand_in):
        attack = AgreementAttack(detector, eps=1.0, evenness=0, steps=25, stand_in=each)
        above.append(detector.decision_function(attack(fresh, label)).clip(0).mean())
    assert above[1] < 0.9 * above[0]


def test_the_same_seed_is_the_same_network(setting):
    detector, images, fresh = setting
    state = torch.get_rng_state()
    a, b = (StandIn(detector, images[:200], steps=20, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    with detector.model_.evaluating():
        assert torch.equal(a(fresh), b(fresh))


def test_neighbours_have_gradients_just_if_the_images_do(setting):
    detector, _, fresh = setting
    evidence = detector._evidence()
    for wanted in (False, True):
        asked = neighbours_of(evidence, fresh[:2].clone().requires_grad_(wanted))
        assert {each.requires_grad for each in asked} == {wanted}


def test_what_it_refuses(setting):
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        StandIn(setting[0], setting[1], steps=0)
    with pytest.raises(TypeError, match="learned detector"):
        StandIn(CurvatureThresholdDetector(), setting[1])
