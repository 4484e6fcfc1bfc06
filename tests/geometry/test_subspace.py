import pytest
import torch

from curvdetect.geometry import (
    curvature_in_subspace,
    label_changes,
    principal_curvatures,
    random_subspace,
    shared_subspace,
)
from surfaces import SURFACES


def bumpy(shared, n, seed):
    """Margins whose level sets curve along the rows of `shared` only, at n points."""
    generator = torch.Generator().manual_seed(seed)
    d = shared.shape[1]
    normal = torch.randn(d, dtype=torch.float64, generator=generator)
    normal = normal - shared.T @ (shared @ normal)
    bend = 1 + torch.rand(len(shared), dtype=torch.float64, generator=generator)
    margin = lambda x: x @ normal + (bend * torch.sin(x @ shared.T)).sum(1)
    return margin, torch.randn(n, d, dtype=torch.float64, generator=generator)


@pytest.fixture
def shared():
    generator = torch.Generator().manual_seed(0)
    return random_subspace(3, (40,), generator=generator, dtype=torch.float64)


def test_the_subspace_that_points_share_is_found(shared):
    margin, z = bumpy(shared, 30, seed=1)
    found = principal_curvatures(margin, z, k=2, method="autodiff")
    S = shared_subspace(found.directions.flatten(0, 1), dimension=3)
    # Cosines of the principal angles between the two subspaces; the tangent planes
    # are tilted against the shared directions, so they are not exactly 1.
    cosines = torch.linalg.svdvals(S.basis @ shared.T)
    assert bool((cosines > 0.9).all())
    assert float(S.energy[2]) > 0.9
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(S.basis @ S.basis.T, eye)


def test_other_points_curve_along_it_and_not_along_a_random_one(shared):
    margin, z = bumpy(shared, 30, seed=1)
    found = principal_curvatures(margin, z, k=3, method="autodiff")
    S = shared_subspace(found.directions.flatten(0, 1), dimension=3)
    margin, z = bumpy(shared, 20, seed=2)
    random = random_subspace(3, (40,), dtype=torch.float64)
    within = curvature_in_subspace(margin, z, S.basis, method="autodiff")
    elsewhere = curvature_in_subspace(margin, z, random, method="autodiff")
    assert float(within.mean()) > 3 * float(elsewhere.mean())


@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_curvature_in_the_subspace_of_the_principal_directions(surface):
    z = surface.point[None]
    V = principal_curvatures(surface.margin, z, method="autodiff").directions[0]
    found = curvature_in_subspace(surface.margin, z, V, method="autodiff")
    expected = sum(map(abs, surface.curvatures)) / len(surface.curvatures)
    assert float(found) == pytest.approx(expected, abs=1e-9)


def test_a_share_asks_for_as_many_vectors_as_hold_it():
    directions = torch.diag(torch.tensor([3.0, 2.0, 1.0]))  # energies 9, 4, 1 of 14
    assert len(shared_subspace(directions, dimension=0.6).basis) == 1
    assert len(shared_subspace(directions, dimension=0.7).basis) == 2
    assert len(shared_subspace(directions, dimension=0.95).basis) == 3
    energy = shared_subspace(directions).energy
    torch.testing.assert_close(energy, torch.tensor([9.0, 13.0, 14.0]) / 14)


def test_the_shape_of_images_is_kept():
    directions = torch.randn(12, 1, 4, 4)
    flat = shared_subspace(directions.flatten(1), dimension=5).basis
    shaped = shared_subspace(directions, dimension=5).basis
    assert torch.equal(shaped, flat.reshape(5, 1, 4, 4))
    draw = lambda shape: random_subspace(
        5, shape, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(draw((1, 4, 4)), draw((16,)).reshape(5, 1, 4, 4))


@pytest.mark.parametrize("dimension", [0, 4, 1.0, -0.5, 2.5])
def test_bad_dimension(dimension):
    with pytest.raises(ValueError, match="dimension must be a positive integer of at"):
        shared_subspace(torch.eye(3), dimension=dimension)


def test_random_subspaces_fit_into_the_space():
    with pytest.raises(ValueError, match="dimension must be .* at most 3; got 4"):
        random_subspace(4, (3,))


def test_a_basis_vector_along_the_normal_is_left_out():
    ball = lambda x: 2 - x.norm(dim=1)
    z, basis = torch.tensor([[0.0, 0, 2]]).double(), torch.eye(3).double()
    found = curvature_in_subspace(ball, z, basis, method="autodiff")
    assert float(found) == pytest.approx(0.5)


def test_undefined_directions_are_refused():
    with pytest.raises(ValueError, match="finite and not all zero.*got 2, 1 of them"):
        shared_subspace(torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]))
    with pytest.raises(ValueError, match="at least one vector; got 0"):
        shared_subspace(torch.ones(0, 3))


# Noise --------------------------------------------------------------


def along_first(x):
    return torch.stack([x[:, 0], -x[:, 0]], dim=1)


def test_noise_matters_in_the_subspace_that_the_classifier_looks_at():
    x = torch.tensor([[0.1, 0.0, 0.0], [5.0, 0.0, 0.0]])
    axis = torch.tensor([[1.0, 0.0, 0.0]])
    within = label_changes(along_first, x, axis, norm=1.0, n_draws=400)
    assert float(within[0]) == pytest.approx(0.5, abs=0.1)  # one of the two signs
    assert float(within[1]) == 0  # too far from the boundary
    beside = label_changes(along_first, x, axis, norm=1.0, complement=True)
    assert not beside.any()


def test_noise_has_the_norm_asked_for_and_lies_in_the_subspace():
    seen = []

    def logits(x):
        seen.append(x)
        return along_first(x)

    basis = random_subspace(2, (5,), dtype=torch.float64)
    x = torch.zeros(1, 5, dtype=torch.float64)
    for complement in (False, True):
        seen.clear()
        label_changes(
            logits, x, basis, norm=0.7, complement=complement, n_draws=8, batch_size=3
        )
        noise = torch.cat(seen[1:])
        assert len(noise) == 8
        torch.testing.assert_close(noise.norm(dim=1), torch.full((8,), 0.7).double())
        within = (noise @ basis.T).norm(dim=1)
        expected = torch.zeros(8) if complement else torch.full((8,), 0.7)
        torch.testing.assert_close(within, expected.double())


def test_label_changes_do_not_depend_on_the_batch_size_or_on_other_rows():
    logits = torch.nn.Linear(6, 3)
    x, basis = torch.randn(4, 6), random_subspace(2, (6,))
    measure = lambda x, batch_size: label_changes(
        logits,
        x,
        basis,
        norm=2.0,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(0),
    )
    together = measure(x, None)
    assert 0 < float(together.mean()) < 1
    torch.testing.assert_close(measure(x, 5), together)
    torch.testing.assert_close(measure(x[2:3], 5), together[2:3])


def test_bad_noise():
    x, basis = torch.zeros(1, 3), torch.eye(3)
    with pytest.raises(ValueError, match="norm must be a positive finite number"):
        label_changes(along_first, x, basis, norm=0)
    with pytest.raises(ValueError, match="n_draws must be a positive integer"):
        label_changes(along_first, x, basis, norm=1, n_draws=0)
    with pytest.raises(ValueError, match="basis must hold at least one vector"):
        label_changes(along_first, x, basis[:0], norm=1)
    with pytest.raises(ValueError, match="fewer vectors than the 3 input values"):
        label_changes(along_first, x, basis, norm=1, complement=True)
