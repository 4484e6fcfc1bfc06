import numpy as np
import pytest
import torch

from curvdetect import TorchModel
from curvdetect.attacks import from_foolbox, make_adversarial_set

foolbox = pytest.importorskip("foolbox")


@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_attacks_of_foolbox(model, images, epsilon):
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
    unbounded = TorchModel(lenet, input_shape=(1, 28, 28), bounds=None)
    with pytest.raises(ValueError, match="foolbox needs a model with bounds"):
        from_foolbox(unbounded, None)


def test_budgets_of_foolbox_attacks(model, images):
    x, y = torch.from_numpy(images[0][:4]), torch.from_numpy(images[1][:4])
    cut = from_foolbox(model, foolbox.attacks.L2DeepFoolAttack(), epsilon=0.1)(x, y)
    assert float((cut - x).flatten(1).norm(dim=1).max()) <= 0.1 + 1e-5
    with pytest.raises(ValueError, match="epsilon must be a budget for Linf"):
        from_foolbox(model, foolbox.attacks.LinfPGD())(x, y)
