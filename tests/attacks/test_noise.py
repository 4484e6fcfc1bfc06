import numpy as np
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
