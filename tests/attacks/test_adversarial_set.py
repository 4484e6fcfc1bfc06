import random

import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold

from curvdetect import TorchModel
from curvdetect.attacks import Lesson, MinimalNormAttack, make_adversarial_set, pgd
from curvdetect.estimators._lessons import attacked


def test_an_attack_that_does_nothing(model, images):
    made = make_adversarial_set(model, lambda x, y: x, *images)
    assert made.success_rate == 0
    assert made.norms.shape == (0,)


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


def test_one_set_with_groups(model, images):
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


GENERATORS = {
    "Python's": (random.random, random.getstate),
    "NumPy's": (np.random.uniform, lambda: np.random.get_state()[1].tolist()),
    "torch's": (lambda: float(torch.rand(())), lambda: torch.get_rng_state().tolist()),
}


@pytest.mark.parametrize("whose", GENERATORS)
def test_attacks_that_draw_from_a_global_generator(whose, model, images):
    """They are seeded, and what others draw next is as it would have been."""
    draw, state = GENERATORS[whose]

    def noisy(x, labels):
        return (x + draw()) % 1

    before = state()
    one, other = (make_adversarial_set(model, noisy, *images) for _ in range(2))
    assert len(one.adversarial)
    np.testing.assert_array_equal(one.adversarial, other.adversarial)
    assert state() == before
    draw()
    lesson = Lesson("noisy", "noise", 0.1, noisy)
    x, y = map(torch.from_numpy, images)
    one, other = (attacked(model, lesson, x, y, x, 0) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, attacked(model, lesson, x, y, x, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:1], r"one label for each of the 3 images; got shape .1,."),
        (lambda y: y[:, None], r"one label for each of the 3 images; got shape .3, 1."),
        (lambda y: y + 0.5, "y must hold whole numbers"),
        (lambda y: ["cat", "dog", "cow"], "y must hold whole numbers.*got dtype <U3"),
        (lambda y: y - 5, "classifies none of these images right"),
    ],
)
def test_labels_that_do_not_belong_to_the_images(change, message):
    model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    X = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        make_adversarial_set(model, lambda x, y: x, X, change(np.arange(3)))


def test_few_images_that_are_right_are_told():
    model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    X = np.eye(3, dtype=np.float32)
    with pytest.warns(UserWarning, match="only 1 of the 3 images right") as caught:
        found = make_adversarial_set(model, lambda x, y: x, X, [0, 0, 0])
    assert caught[0].filename == __file__
    assert len(found.clean) == 1


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_that_are_off_by_one_are_told(model, images, shift):
    """As a guard tells them; two are right by chance, and the rest is not."""
    X, y = images
    wrong = model.predict(X) - shift
    wrong[:2] += shift
    hint = rf"off by one\?.* with y [{'+' if shift > 0 else '-'}] 1 it would be 38"
    with pytest.warns(UserWarning, match=hint):
        make_adversarial_set(model, MinimalNormAttack(model), X, wrong)
    with pytest.raises(ValueError, match=r"none of these images right.*off by one\?"):
        make_adversarial_set(
            model, MinimalNormAttack(model), X, model.predict(X) - shift
        )
