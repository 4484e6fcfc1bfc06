"""What is known of the points on boundaries, besides where they are."""

import torch

from curvdetect.geometry import margin_value, mean_curvature
from curvdetect.network import find_nearest_boundaries


def test_the_record_saves_the_passes_that_found_it(model, images):
    found = find_nearest_boundaries(model, images[0][:5], n_boundaries=2)
    assert found.points is found.boundary.points
    assert found.distances is found.boundary.distances
    assert found.found is found.boundary.found
    with model.evaluating():
        value = margin_value(found.margin, found.points)
        torch.testing.assert_close(found.boundary.value, value, rtol=0, atol=1e-4)
        directions = torch.randn(5, 1, 28, 28)
        curvature, known = (
            mean_curvature(
                found.margin, found.points, directions=directions, evaluated=evaluated
            )
            for evaluated in (None, (found.boundary.value, found.boundary.gradient))
        )
    # The last gradient was taken next to the point.
    close = (curvature - known).abs() <= 0.2 * curvature.abs()
    assert close[found.found].double().mean() > 0.7
