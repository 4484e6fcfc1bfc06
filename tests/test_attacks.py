import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from curvdetect import TorchModel
from curvdetect.attacks import (
    MinimalNormAttack,
    from_foolbox,
    make_adversarial_set,
    pgd,
    same_norm_noise,
)


def test_pgd_keeps_its_budget_and_fools(model, images):
    X, y = images
    made = make_adversarial_set(model, pgd(model, eps=16 / 255, steps=10), X, y)
    right = model.predict(X) == y
    np.testing.assert_array_equal(made.clean, X[right])
    assert made.success_rate > 0.5
    assert made.success_rate == made.fooled.mean()
    np.testing.assert_array_equal(np.flatnonzero(made.fooled), made.source)
    assert (made.predicted_label != made.original_label).all()
    np.testing.assert_array_equal(model.predict(made.adversarial), made.predicted_label)
    np.testing.assert_array_equal(made.clean_label[made.source], made.original_label)
    change = made.adversarial - made.clean[made.source]
    assert np.abs(change).max() <= 16 / 255 + 1e-6
    assert made.adversarial.min() >= 0
    assert made.adversarial.max() <= 1
    assert np.all(made.norms <= 28 * 16 / 255 + 1e-4)
    np.testing.assert_array_equal(made.control_norms[made.fooled], made.norms)
    np.testing.assert_allclose(made.control_norms[~made.fooled], made.norms.mean())


def test_pgd_is_reproducible_and_leaves_no_trace(model, lenet, images):
    state = torch.get_rng_state()
    runs = [
        make_adversarial_set(model, pgd(model, eps=0.1, steps=3), *images, seed=seed)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0].adversarial, runs[1].adversarial)
    assert runs[0].adversarial.shape != runs[2].adversarial.shape or not np.allclose(
        runs[0].adversarial, runs[2].adversarial
    )
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in lenet.parameters())
    assert not any(m.training for m in lenet.modules())


def test_minimal_norm_of_a_linear_network_is_the_distance_to_its_planes():
    module = nn.Linear(4, 3).eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0]]))
        module.bias.zero_()
    model = TorchModel(module, input_shape=(4,))
    X = np.array([[0.8, 0.1, 0.5, 0.5]], dtype=np.float32)
    made = make_adversarial_set(model, MinimalNormAttack(model), X, np.array([0]))
    # F_02 = x0 - x2 = 0.3 with slope sqrt 2; F_01 = 0.6 with slope sqrt 5
    nearest = min(0.3 / 2**0.5, 0.6 / 5**0.5)
    assert made.norms == pytest.approx([1.02 * nearest], rel=1e-3)


def test_minimal_norm_succeeds_within_the_bounds(model, images):
    made = make_adversarial_set(model, MinimalNormAttack(model), *images)
    assert made.success_rate > 0.95
    pgd_set = make_adversarial_set(model, pgd(model, eps=16 / 255), *images)
    assert np.median(made.norms) < np.median(pgd_set.norms)
    assert made.adversarial.min() >= 0
    assert made.adversarial.max() <= 1


@given(
    norm=st.floats(0.01, 10),
    level=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 100),
)
def test_noise_has_its_norm_in_spite_of_the_bounds(norm, level, seed):
    X = np.full((2, 1, 20, 20), level, dtype=np.float32)
    noisy = same_norm_noise(X, norm, random_state=seed)
    lengths = np.linalg.norm((noisy - X).reshape(2, -1), axis=1)
    reachable = 10.0 if level == 0.5 else 14.0
    np.testing.assert_allclose(lengths, min(norm, reachable), rtol=0.02)
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_an_attack_that_does_nothing(model, images):
    made = make_adversarial_set(model, lambda x, y: x, *images)
    assert made.success_rate == 0
    assert made.norms.shape == (0,)


# Errors -------------------------------------------------------------


def test_a_model_that_is_never_right(model, images):
    X, y = images
    wrong = (model.predict(X) + 1) % 10
    with pytest.raises(ValueError, match="classifies none of these images right"):
        make_adversarial_set(model, pgd(model, eps=0.1), X, wrong)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda x, y: x[:1], "attack must keep the shape"),
        (lambda x, y: x + 2, "bounds"),
        (lambda x, y: x * float("nan"), "finite"),
    ],
)
def test_attacks_that_return_nonsense(model, images, attack, message):
    with pytest.raises(ValueError, match=message):
        make_adversarial_set(model, attack, *images)


def test_pgd_needs_the_unit_range(lenet):
    model = TorchModel(lenet, input_shape=(1, 28, 28), bounds=(0, 255))
    with pytest.raises(ValueError, match=r"bounds \(0.0, 1.0\); got \(0.0, 255.0\)"):
        pgd(model, eps=1)


# One set for cross-validation; attacks of other packages ------------


def test_one_set_with_groups(model, images):
    from sklearn.model_selection import GroupKFold

    found = make_adversarial_set(model, MinimalNormAttack(model), *images)
    labelled = found.labelled()
    n_clean = len(found.clean)
    assert labelled.X.shape == (n_clean + len(found.adversarial), 1, 28, 28)
    assert labelled.y.tolist() == [0] * n_clean + [1] * len(found.adversarial)
    np.testing.assert_array_equal(model.predict(labelled.X), labelled.predicted_label)
    same = labelled.original_label == labelled.predicted_label
    np.testing.assert_array_equal(same, labelled.y == 0)
    for train, test in GroupKFold(4).split(*labelled[:3]):
        assert not set(labelled.groups[train]) & set(labelled.groups[test])


@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_attacks_of_foolbox(model, images, epsilon):
    foolbox = pytest.importorskip("foolbox")
    attack = (
        foolbox.attacks.L2DeepFoolAttack()
        if epsilon is None
        else foolbox.attacks.LinfPGD(steps=10)
    )
    X, y = images[0][:20], images[1][:20]
    attack = from_foolbox(model, attack, epsilon=epsilon)
    found = make_adversarial_set(model, attack, X, y)
    assert found.success_rate > 0.6
    if epsilon is not None:
        change = np.abs(found.adversarial - found.clean[found.source])
        assert change.max() <= epsilon + 1e-6


def test_foolbox_needs_bounds(lenet):
    pytest.importorskip("foolbox")
    unbounded = TorchModel(lenet, input_shape=(1, 28, 28), bounds=None)
    with pytest.raises(ValueError, match="foolbox needs a model with bounds"):
        from_foolbox(unbounded, None)


def test_budgets_of_foolbox_attacks(model, images):
    foolbox = pytest.importorskip("foolbox")
    x, y = torch.from_numpy(images[0][:4]), torch.from_numpy(images[1][:4])
    cut = from_foolbox(model, foolbox.attacks.L2DeepFoolAttack(), epsilon=0.1)(x, y)
    assert float((cut - x).flatten(1).norm(dim=1).max()) <= 0.1 + 1e-5
    with pytest.raises(ValueError, match="epsilon must be a budget for Linf"):
        from_foolbox(model, foolbox.attacks.LinfPGD())(x, y)


def test_attacks_that_draw_from_numpy_are_seeded(model, images):
    def noisy(x, labels):
        noise = torch.from_numpy(np.random.uniform(size=tuple(x.shape)))
        return noise.to(x)

    before = np.random.get_state()[1].copy()
    one, other = (make_adversarial_set(model, noisy, *images) for _ in range(2))
    np.testing.assert_array_equal(one.adversarial, other.adversarial)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_negative_factor_is_refused(model):
    with pytest.raises(ValueError, match="factor must be a positive finite number"):
        MinimalNormAttack(model, factor=-1)


def test_minimal_norm_without_bounds():
    """The same plane, for a model that takes any number."""
    model = TorchModel(nn.Identity().eval(), input_shape=(2,), bounds=None)
    made = make_adversarial_set(
        model, MinimalNormAttack(model), np.array([[4.0, 2.0]], np.float32), [0]
    )
    assert made.norms == pytest.approx([1.02 * np.sqrt(2)], rel=1e-3)
