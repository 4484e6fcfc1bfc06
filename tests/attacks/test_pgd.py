import numpy as np
import pytest
import torch

from curvdetect import TorchModel
from curvdetect.attacks import make_adversarial_set, pgd


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


def test_pgd_needs_the_unit_range(lenet):
    model = TorchModel(lenet, input_shape=(1, 28, 28), bounds=(0, 255))
    with pytest.raises(ValueError, match=r"bounds \(0.0, 1.0\); got \(0.0, 255.0\)"):
        pgd(model, eps=1)
