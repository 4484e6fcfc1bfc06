"""The attacks of the benchmark: what each returns, and what it leaves alone."""

from functools import cache
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.common.splits import Split
from benchmarks.evidence.attacks import KINDS, attacks_on
from benchmarks.evidence.case import Case, Files, Network, Sizes
from curvdetect import TorchModel
from curvdetect.attacks import make_adversarial_set
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

for package in ("adv_lib", "art", "foolbox", "torchattacks"):
    pytest.importorskip(package)
calling, black_box, few_pixels = (
    import_module(f"benchmarks.evidence.attacks.{name}")
    for name in ("_calling", "black_box", "few_pixels")
)


def case_of(module, budgets=(16,)):
    X, y = load_fashion_mnist_sample()
    images = Split(X[:8], y[:8])
    network = Network(
        title="LeNet",
        data="fashion-mnist",
        budgets=budgets,
        load=lambda files: TorchModel(module.eval(), input_shape=(1, 28, 28)),
        other=lambda files: TorchModel(
            load_lenet("fashion-mnist"), input_shape=(1, 28, 28)
        ),
    )
    model = network.load(Files())
    return Case("lenet", network, Files(), Sizes(), model, *[images] * 4)


@cache
def lenet_case():
    return case_of(load_lenet("fashion-mnist"))


ATTACKS = {attack.name: attack for attack in attacks_on(lenet_case())}


@cache
def attacked(name):
    case, attack = lenet_case(), ATTACKS[name]
    return make_adversarial_set(case.model, attack.run, *case.test)


def changes(name):
    found = attacked(name)
    return found.adversarial - found.clean[found.source]


def batch(n=3):
    images, labels = lenet_case().test
    return torch.from_numpy(images[:n]), torch.from_numpy(labels[:n])


class Sturdy(nn.Module):
    """Says class 0 whatever it is given, although its logits depend on that."""

    def forward(self, x):
        sums = x.flatten(1).mean(dim=1)
        return torch.stack([9 + sums, sums / 2, sums / 3, sums / 4], dim=1)


class Constant(nn.Module):
    """Has no gradient anywhere."""

    def forward(self, x):
        return 0 * x.flatten(1)[:, :4] + torch.tensor([1.0, 0.5, 0.3, 0.1])


class Grey(nn.Module):
    """Says 1 of images whose mean is within 0.1 of a half, 0 of others."""

    def forward(self, x):
        away = (x.flatten(1).mean(dim=1) - 0.5).abs()
        return torch.stack([away, 0.2 - away], dim=1)


# All of them -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_succeeds(name, capfd):
    assert attacked(name).success_rate > 0.2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_repeats_itself_within_bounds_and_leaves_the_rest_alone(name):
    images, labels = batch()
    before = images.clone()
    torch.manual_seed(0), np.random.seed(0)
    found = ATTACKS[name].run(images, labels)
    torch.manual_seed(0), np.random.seed(0)
    torch.testing.assert_close(ATTACKS[name].run(images, labels), found, rtol=0, atol=0)
    modules = [lenet_case().model.module, lenet_case().other.module]
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert not found.requires_grad
    assert found.isfinite().all()
    assert 0 <= found.min() <= found.max() <= 1
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    for module in modules:
        assert not module.training
        assert all(p.grad is None and p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_takes_a_single_image(name):
    images, labels = batch(1)
    assert ATTACKS[name].run(images, labels).shape == images.shape


@pytest.mark.parametrize("module", [Sturdy(), Constant()], ids=["sturdy", "constant"])
def test_what_cannot_be_fooled_is_not(module):
    case = case_of(module)
    images, labels = batch(2)[0], torch.zeros(2, dtype=torch.int64)
    for attack in attacks_on(case):
        found = attack.run(images, labels)
        assert found.isfinite().all(), attack.name
        assert found.flatten(1).any(dim=1).all(), attack.name  # not black
        assert (case.model.predict(found) == 0).all(), attack.name


def test_names_and_kinds():
    attacks = attacks_on(case_of(load_lenet("fashion-mnist"), budgets=(8, 16)))
    assert len({attack.name for attack in attacks}) == len(attacks)
    kinds = [attack.kind for attack in attacks]
    assert list(dict.fromkeys(kinds)) == list(KINDS)
    learned = [attack for attack in attacks if attack.learned_from]
    assert len(learned) <= 10
    assert {attack.kind for attack in learned} == set(KINDS) - {"transferred"}


# Budgets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in ATTACKS if "/255" in name], ids=lambda name: name
)
def test_the_budget_in_the_name_is_kept_and_used(name):
    budget = int(name.partition("/")[0].split()[-1]) / 255
    largest = np.abs(changes(name)).max(axis=(1, 2, 3))
    assert np.all(largest <= budget + 1e-6)
    assert largest.max() == pytest.approx(budget, abs=1e-6)


def test_the_budget_in_l2():
    (name,) = [name for name in ATTACKS if name.startswith("L2 PGD")]
    budget = 28 * 16 / 255 / 2
    assert name == f"L2 PGD {budget:.2f}"
    assert 0.99 * budget < attacked(name).norms.max() < budget * (1 + 1e-5)


@pytest.mark.parametrize("name", ["DeepFool", "DDN", "ALMA", "FMN L2", "CW"])
def test_what_minimises_the_norm_needs_less_than_a_budget(name):
    assert attacked(name).norms.mean() < attacked("FGSM 16/255").norms.mean()


def test_twice_as_far():
    short, far = attacked("minimal norm x 1.02"), attacked("minimal norm x 2")
    at = np.isin(short.source, far.source)
    assert np.median(far.norms / short.norms[at]) == pytest.approx(2 / 1.02, rel=0.05)


# Few pixels --------------------------------------------------------------------------


def test_a_patch_is_a_square_within_each_image():
    images = torch.zeros(50, 3, 32, 28)
    torch.manual_seed(0)
    inside = few_pixels.squares(images)
    assert (inside == inside[:, :1]).all()
    rows, columns = inside[:, 0].amax(dim=2), inside[:, 0].amax(dim=1)
    for lines in (rows, columns):
        assert (lines.sum(dim=1) == 7).all()
        assert (lines.diff(dim=1).abs().sum(dim=1) <= 2).all()  # all together
    assert len({tuple(row.tolist()) for row in rows}) > 10
    torch.testing.assert_close(inside[:, 0], rows[:, :, None] * columns[:, None])


def test_a_patch_changes_its_square_alone():
    for change in changes("patch")[:, 0] != 0:
        rows, columns = (
            np.flatnonzero(change.any(axis=1)),
            np.flatnonzero(change.any(0)),
        )
        assert rows.max() - rows.min() < 7
        assert columns.max() - columns.min() < 7


@pytest.mark.parametrize(("name", "most"), [("sigma-zero", 0.05), ("EAD", 0.4)])
def test_few_values_change(name, most):
    assert (changes(name) != 0).mean() < most


# Moved, black box, transferred -------------------------------------------------------


def test_what_is_moved_keeps_its_brightness_within_what_leaves_the_image():
    moved = attacked("turned and shifted")
    before = moved.clean[moved.source].mean(axis=(1, 2, 3))
    after = moved.adversarial.mean(axis=(1, 2, 3))
    assert np.all(after < before * 1.05)  # bilinear, black beyond the edges
    assert np.median(after / before) > 0.8


def test_hop_skip_jump_begins_at_what_fools():
    """Of a network for which all noise is of class 1, as are images near grey."""
    model = TorchModel(Grey().eval(), input_shape=(1, 28, 28))
    images = torch.tensor([0.5, 0.1, 0.9])[:, None, None, None].expand(3, 1, 28, 28)
    fools, begin = black_box.beginnings(model, images, torch.tensor([1, 0, 0]))
    assert fools.all()
    torch.testing.assert_close(begin[0], images[1])  # no noise would do
    assert begin[1].std() > 0.2  # noise comes first
    np.testing.assert_array_equal(model.predict(begin), [0, 1, 1])
    alone, _ = black_box.beginnings(model, images[:1], torch.tensor([1]))
    assert not alone.any()


def test_what_is_transferred_knows_nothing_of_the_network():
    images, labels = batch()
    sturdy = {attack.name: attack for attack in attacks_on(case_of(Sturdy()))}
    for name, attack in ATTACKS.items():
        if attack.kind == "transferred":
            torch.manual_seed(0)
            here = attack.run(images, labels)
            torch.manual_seed(0)
            torch.testing.assert_close(sturdy[name].run(images, labels), here)
            assert not torch.equal(here, images)


# How they are called -----------------------------------------------------------------


def test_what_is_not_finite_stays_and_the_rest_is_clamped():
    images, labels = batch(2)
    broken = images.clone()
    broken[0, 0, 3, 3], broken[1, 0, 3, 3] = torch.nan, 1.5
    found = calling.held(lenet_case().model, lambda x, y: broken)(images, labels)
    torch.testing.assert_close(found[0], images[0], rtol=0, atol=0)
    assert found[1, 0, 3, 3] == 1
