import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvdetect.attacks import same_norm_noise


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


def test_noise_that_does_not_fit_is_told():
    """From a black image no further than to the white corner."""
    X = np.zeros((3, 4), np.float32)
    with pytest.warns(UserWarning, match="1 of 3 images cannot be moved as far"):
        noisy = same_norm_noise(X, np.array([0.5, 1.0, 5.0]), random_state=0)
    norms = np.linalg.norm(noisy, axis=1)
    np.testing.assert_allclose(norms[:2], [0.5, 1.0], rtol=1e-5)
    assert norms[2] <= 2
    np.testing.assert_array_equal(X, 0)
