import numpy as np
import pytest
import torch

from curvdetect import TorchModel
from curvdetect.geometry import find_boundary, margin_value
from curvdetect.network import find_nearest_boundaries
from modules import Returns


def balls(x):
    """Boundaries of class 0 at radius 1, 2, 3; the nearest has the lowest logit."""
    squares = x.square().sum(1)
    steepness, radius = x.new_tensor([10.0, 1.0, 0.1]), x.new_tensor([1.0, 2.0, 3.0])
    others = -steepness * (radius**2 - squares[:, None])
    return torch.cat([0 * squares[:, None], others], dim=1)


@pytest.fixture
def spheres():
    return TorchModel(Returns(balls), input_shape=(4,), bounds=None)


def test_distances_to_spheres(spheres):
    x = np.array([[0.5, 0, 0, 0], [0, 0.3, 0.4, 0]], dtype=np.float64)
    found = find_nearest_boundaries(spheres, x, n_boundaries=None)
    assert found.margin.predicted.tolist() == [0] * 6
    assert found.margin.other.reshape(2, 3).tolist() == [[1, 2, 3]] * 2
    assert bool(found.found.all())
    expected = torch.tensor([[0.5, 1.5, 2.5]] * 2, dtype=torch.float64)
    torch.testing.assert_close(
        found.distances.reshape(2, 3), expected, rtol=1e-3, atol=0
    )
    radius = found.points.norm(dim=1).reshape(2, 3)
    torch.testing.assert_close(radius, expected + 0.5, rtol=1e-3, atol=0)


def test_points_lie_on_the_boundaries_of_a_network(model, images):
    found = find_nearest_boundaries(model, images[0][:12], n_boundaries=3)
    assert found.points.shape == (36, 1, 28, 28)
    z, x = found.points[found.found], found.images[found.found]
    margin = found.margin.take(found.found.nonzero().squeeze(1))
    at_z, at_x = margin_value(margin, z).abs(), margin_value(margin, x)
    assert len(z) > 30
    assert bool((at_z <= 1e-3 * at_x).all())
    torch.testing.assert_close(
        (z - x).flatten(1).norm(dim=1), found.distances[found.found]
    )


def test_the_same_as_by_hand(model, images):
    X = torch.from_numpy(images[0][:5])
    found = find_nearest_boundaries(model, X, n_boundaries=2)
    by_hand = find_boundary(found.margin, X.repeat_interleave(2, dim=0))
    torch.testing.assert_close(found.points, by_hand.points, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        found.margin.predicted[::2], model.predict(images[0][:5])
    )


def test_images_do_not_depend_on_each_other(model, images):
    together = find_nearest_boundaries(model, images[0][:6], n_boundaries=2)
    alone = find_nearest_boundaries(model, images[0][4:5], n_boundaries=2)
    torch.testing.assert_close(
        together.points[8:10], alone.points, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("n_boundaries", [0, 10, 2.5, "all"])
def test_bad_number_of_boundaries(model, images, n_boundaries):
    with pytest.raises(ValueError, match="n_boundaries must be an integer from 1 to 9"):
        find_nearest_boundaries(model, images[0][:2], n_boundaries=n_boundaries)


def test_no_images(model, images):
    with pytest.raises(ValueError, match="X must hold at least one image"):
        find_nearest_boundaries(model, images[0][:0])
