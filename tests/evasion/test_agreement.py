"""The attack on all that a learned detector looks at."""

import numpy as np
import pytest
import torch

from curvdetect import CurvatureThresholdDetector, LearnedDetector
from curvdetect.evasion import AgreementAttack, find_minimal_evasion
from curvdetect.study.datasets import load_fashion_mnist_sample


@pytest.fixture(scope="module")
def setting():
    from curvdetect.study.networks import trained_model

    X, y = load_fashion_mnist_sample()
    detector = LearnedDetector(
        trained_model("fashion-mnist"),
        target_fpr=0.1,
        self_test=False,
        random_state=0,
    ).fit(X[:150], y[:150])
    found = detector.examine(X[150:220])
    kept = (found.logits.argmax(axis=1) == y[150:220]) & ~found.flagged
    return detector, *(torch.from_numpy(part[150:220][kept][:16]) for part in (X, y))


def evades(detector):
    def says(images, labels):
        found = detector.examine(images)
        wrong = found.logits.argmax(axis=1) != labels.numpy()
        return torch.from_numpy(wrong & ~found.flagged)

    return says


def test_it_evades_where_an_attack_on_the_network_does_not(setting):
    """Within a budget of 3: PGD fools the network and is flagged."""
    from curvdetect.attacks import GradientStepsAttack

    detector, x, y = setting
    naive = GradientStepsAttack(detector.model_, budget=3.0, norm="l2", steps=20)
    found = AgreementAttack(detector, eps=3.0, steps=40)(x, y)
    assert (found - x).flatten(1).norm(dim=1).max() < 3.0001
    assert found.min() >= 0
    assert found.max() <= 1
    check = evades(detector)
    assert check(naive(x, y), y).float().mean() < 0.3
    assert check(found, y).float().mean() > 0.6


def test_evasion_costs_more_than_fooling(setting):
    """And it is found: neither impossible nor free."""
    detector, x, y = setting

    def fools(images, labels):
        return torch.from_numpy(detector.model_.predict(images) != labels.numpy())

    def attack(eps):
        return AgreementAttack(detector, eps=eps, steps=25)

    budgets = [0.5, 1.0, 2.0, 4.0]
    evading = find_minimal_evasion(
        attack, evades(detector), x, y, budgets=budgets
    ).norms
    fooling = find_minimal_evasion(attack, fools, x, y, budgets=budgets).norms
    assert torch.isfinite(fooling).all()
    assert torch.isfinite(evading).float().mean() > 0.8
    assert (evading >= fooling - 1e-6).all()
    # Half of the images that are fooled are not flagged anyhow: not the median.
    assert (evading > 1.05 * fooling).float().mean() > 0.25


def smooth_ones(neighbours):
    """Leave out the two levels, of which the value jumps: the third."""

    def others(x):
        asked = neighbours(x)
        return asked[:2] + asked[3:]

    return others


def test_its_gradient_is_that_of_its_value(setting):
    """Against finite differences, inside the bounds, where clamping has none."""
    detector, x, y = setting
    attack = AgreementAttack(detector, eps=1.0)
    x = 0.1 + 0.8 * x[:4]
    with detector.model_.evaluating():
        objective = attack._objective(x, y[:4])
        attack._neighbours = smooth_ones(attack._neighbours)
        slope = objective(x.clone().requires_grad_())
        step = 1e-3 * slope.way / slope.way.flatten(1).norm(dim=1)[:, None, None, None]
        ahead = objective((x + step).requires_grad_()).value
        behind = objective((x - step).requires_grad_()).value
    expected = 1e-3 * slope.way.flatten(1).norm(dim=1)
    np.testing.assert_allclose((ahead - behind) / 2, expected, rtol=0.08)  # kinks


def test_every_stage_is_attacked(setting):
    detector, x, _ = setting
    asked = AgreementAttack(detector, eps=1.0)._neighbours(x[:2].requires_grad_())
    assert len(asked) == sum(detector._evidence().costs()) - 1
    assert all(each.requires_grad for each in asked)


def test_another_class(setting):
    detector, x, y = setting
    nearest, second = (
        detector.model_.predict(AgreementAttack(detector, eps=6.0, rank=rank)(x, y))
        for rank in (1, 2)
    )
    order = detector.model_.predict_logits(x).argsort(axis=1)
    assert np.mean(nearest == order[:, -2]) > 0.7
    assert np.mean(second == order[:, -3]) > 0.7


def test_what_it_refuses(setting):
    detector, *_ = setting
    with pytest.raises(ValueError, match="rank must be at most 9"):
        AgreementAttack(detector, eps=1.0, rank=10)
    with pytest.raises(ValueError, match="eps must be a positive"):
        AgreementAttack(detector, eps=0)
    with pytest.raises(ValueError, match="evenness must be at least 0"):
        AgreementAttack(detector, eps=1.0, evenness=-1)
    with pytest.raises(TypeError, match="learned detector"):
        AgreementAttack(CurvatureThresholdDetector(), eps=1.0)
