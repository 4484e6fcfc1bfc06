import math

import numpy as np
import pytest
import torch
from scipy import stats

from curvdetect.geometry import profile_statistics


def test_against_scipy(rng):
    curvatures = rng.standard_t(df=3, size=(4, 500))
    found = profile_statistics(torch.from_numpy(curvatures), tol=0.1)
    for row, values in enumerate(curvatures):
        small = np.abs(values) <= 0.1 * np.abs(values).max()
        assert float(found.near_zero[row]) == pytest.approx(small.mean())
        assert float(found.negative[row]) == pytest.approx((values[~small] < 0).mean())
        assert float(found.skewness[row]) == pytest.approx(stats.skew(values))
        entropy = stats.entropy(np.abs(values))  # normalises
        assert float(found.effective_rank[row]) == pytest.approx(math.exp(entropy))


@pytest.mark.parametrize(("n_equal", "n_zero"), [(1, 9), (4, 6), (10, 0)])
def test_equal_curvatures_count_as_many(n_equal, n_zero):
    values = torch.cat([torch.full((n_equal,), -2.0), torch.zeros(n_zero)]).double()
    found = profile_statistics(values)
    assert float(found.effective_rank) == pytest.approx(n_equal)
    assert float(found.near_zero) == pytest.approx(n_zero / 10)
    assert float(found.negative) == 1


def test_scale_and_order_do_not_matter_and_sign_mirrors():
    values = torch.randn(50, dtype=torch.float64)
    one = profile_statistics(values)
    other = profile_statistics(-3 * values.flip(0))
    assert float(other.near_zero) == pytest.approx(float(one.near_zero))
    assert float(other.effective_rank) == pytest.approx(float(one.effective_rank))
    assert float(other.negative) == pytest.approx(1 - float(one.negative))
    assert float(other.skewness) == pytest.approx(-float(one.skewness))


def test_what_is_undefined_is_nan():
    values = torch.stack([torch.zeros(3), torch.full((3,), math.nan), torch.ones(3)])
    found = profile_statistics(values)
    assert found.near_zero.isnan().tolist() == [True, True, False]
    assert found.effective_rank.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_curvatures_have_no_skewness(dtype):
    """Of a ball, computed: equal up to rounding."""
    values = torch.full((7,), 1 / 3, dtype=dtype) * (1 + torch.finfo(dtype).eps)
    assert profile_statistics(values).skewness.isnan()
    assert profile_statistics(values).negative.dtype == dtype


def test_bad_profiles():
    with pytest.raises(ValueError, match="at least one value a profile"):
        profile_statistics(torch.ones(2, 0))
    assert float(profile_statistics(torch.tensor([1, -1])).negative) == 0.5


def test_bad_tolerance():
    with pytest.raises(ValueError, match="tol must be a positive finite number; got 0"):
        profile_statistics(torch.ones(3), tol=0)
