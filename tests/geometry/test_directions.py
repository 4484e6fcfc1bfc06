import torch
from hypothesis import given
from hypothesis import strategies as st

from curvdetect.geometry import mean_decrease, random_directions, tangent_basis


@given(st.integers(0, 10**6), st.integers(2, 12))
def test_tangent_basis_is_orthonormal_and_tangent(seed, d):
    normal = random_directions(
        3, (d,), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    basis = tangent_basis(normal)
    gram = basis @ basis.transpose(1, 2)
    identity = torch.eye(d - 1, dtype=torch.float64).expand_as(gram)
    torch.testing.assert_close(gram, identity, rtol=0, atol=1e-12)
    along_normal = (basis @ normal[:, :, None]).abs().max()
    assert along_normal < 1e-12


def test_tangent_basis_of_a_coordinate_axis():
    normal = -torch.eye(3, dtype=torch.float64)
    basis = tangent_basis(normal)
    whole = torch.cat([basis, normal[:, None]], dim=1)
    identity = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    torch.testing.assert_close(whole @ whole.mT, identity)


def test_same_seed_gives_the_same_directions_in_every_dtype():
    draw = lambda dtype: random_directions(
        2, (3, 4), generator=torch.Generator().manual_seed(1), dtype=dtype
    )
    torch.testing.assert_close(draw(torch.float32), draw(torch.float64).float())


def test_random_directions_are_isotropic():
    v = random_directions(20_000, (3,), generator=torch.Generator().manual_seed(0))
    covariance = v.T @ v / len(v)
    torch.testing.assert_close(covariance, torch.eye(3) / 3, rtol=0, atol=0.01)


def test_mean_decrease_is_the_trace_of_the_hessian():
    """Over a whole basis: -h^2 / (2 d) times the trace, exactly for a quadric."""
    A = torch.randn(4, 4, dtype=torch.float64)
    A = A + A.T
    f = lambda x: torch.stack([((x @ A) * x).sum(1) / 2 + x.sum(1)], dim=1)
    x = torch.randn(3, 4, dtype=torch.float64)
    for batch_size in (None, 1, 5):
        fall = mean_decrease(
            f, x, torch.eye(4, dtype=torch.float64), step=0.3, batch_size=batch_size
        )
        expected = torch.full((3, 1), float(-(0.3**2) / 8 * A.trace())).double()
        torch.testing.assert_close(fall, expected)
