import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import TorchModel
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set, pgd


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


def test_minimal_norm_without_bounds():
    """The same plane, for a model that takes any number."""
    model = TorchModel(nn.Identity().eval(), input_shape=(2,), bounds=None)
    made = make_adversarial_set(
        model, MinimalNormAttack(model), np.array([[4.0, 2.0]], np.float32), [0]
    )
    assert made.norms == pytest.approx([1.02 * np.sqrt(2)], rel=1e-3)


def test_minimal_norm_succeeds_within_the_bounds(model, images):
    made = make_adversarial_set(model, MinimalNormAttack(model), *images)
    assert made.success_rate > 0.95
    pgd_set = make_adversarial_set(model, pgd(model, eps=16 / 255), *images)
    assert np.median(made.norms) < np.median(pgd_set.norms)
    assert made.adversarial.min() >= 0
    assert made.adversarial.max() <= 1


def test_a_negative_factor_is_refused(model):
    with pytest.raises(ValueError, match="factor must be a positive finite number"):
        MinimalNormAttack(model, factor=-1)
