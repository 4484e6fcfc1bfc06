"""The shortest way past a guard, with its companion."""

import numpy as np
import pytest
import torch

from curvdetect import CurvatureThresholdDetector, LearnedDetector
from curvdetect.evasion import JointAttack, JointModule, StandIn
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import trained_model


@pytest.fixture(scope="module")
def setting():
    from modules import second_lenet

    X, y = load_fashion_mnist_sample()
    detector = LearnedDetector(
        trained_model("fashion-mnist"),
        companion=second_lenet(),
        target_fpr=0.1,
        self_test=False,
        random_state=0,
    ).fit(X[:120], y[:120])
    found = detector.examine(X[120:180])
    kept = (found.logits.argmax(axis=1) == y[120:180]) & ~found.flagged
    x, label = (torch.from_numpy(part[120:180][kept][:10]) for part in (X, y))
    own = torch.from_numpy(X[180:230])
    noisy = (own + 0.1 * torch.randn_like(own)).clamp(0, 1)
    stand_in = StandIn(detector, torch.cat([own, noisy]), steps=300)
    return detector, stand_in, x, label


def test_it_evades_and_says_so_truly(setting):
    detector, stand_in, x, label = setting
    state = torch.get_rng_state()
    found = JointAttack(detector, stand_in=stand_in, n_targets=1, n_steps=80)(x, label)
    assert torch.equal(torch.get_rng_state(), state)
    moved = (found != x).flatten(1).any(dim=1)
    assert moved.float().mean() > 0.5
    seen = detector.examine(found[moved])
    assert not seen.flagged.any()
    assert (seen.logits.argmax(axis=1) != label[moved].numpy()).all()
    assert found.min() >= 0
    assert found.max() <= 1
    companion = detector.companion_.model.predict(found[moved])
    assert np.mean(companion == seen.logits.argmax(axis=1)) > 0.5  # it had to agree


def test_evading_costs_more_than_fooling(setting):
    from curvdetect.attacks import MinimalNormAttack

    detector, stand_in, x, label = setting
    found = JointAttack(detector, stand_in=stand_in, n_targets=1, n_steps=80)(x, label)
    least = MinimalNormAttack(detector.model_)(x, label)
    moved = (found != x).flatten(1).any(dim=1)
    norms, smallest = ((z - x).flatten(1).norm(dim=1) for z in (found, least))
    assert norms[moved].median() > smallest[moved].median()


def test_a_start_of_another_class_is_never_worse(setting):
    detector, stand_in, x, label = setting
    settings = {"stand_in": stand_in, "n_targets": 1, "n_steps": 30}
    starts = torch.from_numpy(load_fashion_mnist_sample()[0][180:260])
    starts = starts[~torch.from_numpy(detector.examine(starts).flagged)]
    without = JointAttack(detector, **settings)(x, label)
    among = JointAttack(detector, starts=starts, **settings)(x, label)

    def norms(found):
        length = (found - x).flatten(1).norm(dim=1)
        return length.where(length > 0, torch.inf)

    assert (norms(among) <= norms(without) + 1e-5).all()
    assert torch.isfinite(norms(among)).all()  # the start itself evades


def test_conditions_are_what_they_say(setting):
    detector, stand_in, x, label = setting
    joint = JointModule(detector, stand_in=stand_in)
    with torch.no_grad():
        found, logits = joint.conditions(x), joint(x)
    own = detector.model_.predict_logits(x)
    for c in range(10):
        others = np.delete(own, c, axis=1).max(axis=1)
        np.testing.assert_allclose(found[:, 0, c], own[:, c] - others, atol=1e-4)
    own = torch.from_numpy(detector.companion_.model.predict_logits(x))
    q = own.double().softmax(dim=1)
    left = detector._cascade().odds_at(detector.threshold_) - torch.log((1 - q) / q)
    known = left < 10  # beyond, single precision ends
    np.testing.assert_allclose(found[:, 1][known], left[known], rtol=1e-3, atol=1e-2)
    with detector.model_.evaluating(), torch.no_grad():
        below = detector.threshold_ - stand_in(x)
    np.testing.assert_allclose(found[:, 2], below[:, None].expand(-1, 10), atol=1e-4)
    assert torch.equal(logits[:, :10], found.amin(dim=1))
    assert (logits[:, 10] == 0).all()
    assert ((logits[:, :10] > 0).sum(dim=1) <= 1).all()


def test_its_gradient_is_that_of_its_value(setting):
    detector, stand_in, x, _ = setting
    joint = JointModule(detector, stand_in=stand_in)
    x = 0.1 + 0.8 * x[:3] + 0.05 * torch.rand_like(x[:3])  # no ties where it pools
    x.requires_grad_()
    value = joint.conditions(x)[:, :2, 1].sum()  # two levels jump: not the stand-in
    (way,) = torch.autograd.grad(value, x)
    step = 1e-4 * way / way.flatten(1).norm()
    with torch.no_grad():
        ahead, behind = (
            joint.conditions(x + sign * step)[:, :2, 1].sum() for sign in (1, -1)
        )
    assert float(ahead - behind) / 2 == pytest.approx(
        1e-4 * float(way.flatten().norm()), rel=0.1
    )


def test_what_it_refuses(setting):
    detector, *_ = setting
    with pytest.raises(ValueError, match="n_targets must be a positive integer"):
        JointAttack(detector, n_targets=0)
    with pytest.raises(ValueError, match="n_steps must be a positive integer"):
        JointAttack(detector, n_steps=0)
    for made in (JointAttack, JointModule):
        with pytest.raises(TypeError, match="learned detector"):
            made(CurvatureThresholdDetector())
