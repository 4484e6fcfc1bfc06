"""Neighbours of images, against SciPy's filters and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from curvdetect.estimators._probes import (
    blurred,
    in_two_levels,
    mirrored,
    moved,
    pixel_axes,
)

SHAPES = [(1, 28, 28), (3, 6, 8), (6, 8, 3), (9, 7), (784, 1), (1, 784), (12,), (2, 2)]


@pytest.fixture(params=SHAPES, ids=str)
def images(request):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, *request.param, generator=generator)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 28, 28), (2, 3)),
        ((3, 224, 224), (2, 3)),
        ((224, 224, 3), (1, 2)),
        ((64, 8, 8), (2, 3)),
        ((28, 28), (1, 2)),
        ((3, 16, 112, 112), (3, 4)),
        ((784, 1), (1,)),
        ((1, 784), (2,)),
        ((784,), (1,)),
        ((3,), (1,)),
        ((2, 2), (1, 2)),
    ],
)
def test_where_pixels_are(shape, axes):
    assert pixel_axes(shape) == axes


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_every_shape_has_pixels(shape):
    axes = pixel_axes(tuple(shape))
    assert axes
    assert all(1 <= axis <= len(shape) for axis in axes)


def test_moved_as_scipy_shifts(images):
    axes = pixel_axes(tuple(images.shape[1:]))
    shift = [float(axis in axes) for axis in range(images.ndim)]
    for by in (1, -1):
        expected = ndimage.shift(
            images.numpy(), by * np.array(shift), order=0, mode="nearest"
        )
        np.testing.assert_array_equal(moved(images, axes, by), expected)


def test_blurred_as_scipy_convolves(images):
    axes = pixel_axes(tuple(images.shape[1:]))
    expected = images.double().numpy()
    for axis in axes:
        expected = ndimage.convolve1d(expected, [0.25, 0.5, 0.25], axis, mode="nearest")
    np.testing.assert_allclose(blurred(images.double(), axes), expected, atol=1e-12)


def test_mirrored_twice_is_the_image(images):
    axes = pixel_axes(tuple(images.shape[1:]))
    assert torch.equal(mirrored(mirrored(images, axes), axes), images)
    assert not torch.equal(mirrored(images, axes), images)


def test_two_levels(images):
    found = in_two_levels(images)
    for image, levels in zip(images, found, strict=True):
        low, high = image.min(), image.max()
        expected = torch.where(image - low > high - image, high, low)
        assert torch.equal(levels, expected)
        assert torch.equal(in_two_levels(image[None])[0], levels)  # alone


def test_two_levels_of_a_pale_image_are_those_of_the_image(images):
    pale = 0.25 * images + 0.125  # exact, of float32 in steps of 1/8
    torch.testing.assert_close(
        in_two_levels(pale), 0.25 * in_two_levels(images) + 0.125
    )


def test_an_image_of_one_value_stays():
    grey = torch.full((1, 1, 6, 6), 0.3)
    assert torch.equal(in_two_levels(grey), grey)
    assert torch.equal(blurred(grey, (2, 3)), grey)


def test_nothing_is_written_to_the_images(images):
    axes, before = pixel_axes(tuple(images.shape[1:])), images.clone()
    for change in (moved(images, axes, 1), mirrored(images, axes)):
        change.zero_()
    in_two_levels(images).zero_()
    blurred(images, axes).zero_()
    assert torch.equal(images, before)
