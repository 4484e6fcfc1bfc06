"""Changes that no attacker made, which the learned guard takes for clean."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from curvdetect.estimators import _corruptions
from curvdetect.estimators._corruptions import corrupted
from curvdetect.estimators._probes import blurred

N = 400


def drawn(images, bounds=(0.0, 1.0), seed=0):
    return corrupted(images, bounds, torch.Generator().manual_seed(seed))


@pytest.fixture
def only(monkeypatch):
    """Leave one kind of change; of the others, nothing."""

    def leave(name):
        for other, harmless in {
            "_CONTRAST": 1.0,
            "_LIGHT": 0.0,
            "_BLUR": 0.0,
            "_TURN": 0.0,
        }.items():
            if other != name:
                monkeypatch.setattr(_corruptions, other, harmless)

    return leave


@pytest.fixture
def picture():
    """A smooth one, in colours, not square."""
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.random((3, 20, 26)), (0, 3, 3))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(0.25 + 0.5 * smooth).float().expand(N, -1, -1, -1)


def test_contrast_is_less_about_the_same_mean(only, picture):
    only("_CONTRAST")
    found = drawn(picture)
    left = found.std(dim=(1, 2, 3)) / picture.std(dim=(1, 2, 3))
    assert left.min() == pytest.approx(0.25, abs=0.04)
    assert 0.2 < (left < 0.999).float().mean() < 0.3  # of four kinds
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), picture.mean(dim=(1, 2, 3)))


def test_light_is_the_same_everywhere(only, picture):
    only("_LIGHT")
    way = (drawn(picture) - picture).flatten(1)
    assert (way.amax(1) - way.amin(1)).max() < 1e-6
    assert way.max() == pytest.approx(0.25, abs=0.02)
    assert way.min() == pytest.approx(-0.25, abs=0.02)


def test_blur_goes_from_none_to_two_blurs(only, picture):
    only("_BLUR")
    found = drawn(picture)
    twice = blurred(blurred(picture, (2, 3)), (2, 3))
    most = (twice - picture).flatten(1).norm(dim=1)
    way = (found - picture).flatten(1).norm(dim=1) / most
    assert way.max() == pytest.approx(1, abs=0.02)
    nearest = int(way.argmax())
    torch.testing.assert_close(found[nearest], twice[nearest], atol=2e-3, rtol=0)


def test_turned_as_scipy_turns(only, picture, monkeypatch):
    only("_TURN")
    monkeypatch.setattr(_corruptions, "_TURN", 10.0)
    found = drawn(picture)
    image = picture[0].numpy()
    expected = {
        angle: ndimage.rotate(
            image, angle, axes=(2, 1), reshape=False, order=1, mode="nearest"
        )
        for angle in (-10, 10)
    }
    for turned in expected.values():
        error = (found - torch.from_numpy(turned)).flatten(1).abs().amax(dim=1)
        assert error.min() < 0.01  # one is turned by nearly as much
        assert np.abs(turned - image).max() > 0.05


def test_the_bounds_are_kept_and_nothing_is_written(picture):
    images = picture.clone()
    found = drawn(2 * images - 0.5)
    assert found.min() == 0
    assert found.max() == 1
    own = drawn(images, bounds=None)
    assert own.min() >= images.min()
    assert own.max() <= images.max()
    assert torch.equal(images, picture)


@pytest.mark.parametrize("shape", [(6,), (12, 1), (9, 12), (8, 10, 3), (1, 28, 28)])
def test_all_layouts(shape):
    images = torch.rand(40, *shape, generator=torch.Generator().manual_seed(1))
    found = drawn(images)
    assert found.shape == images.shape
    assert torch.equal(found, drawn(images))
    assert not torch.equal(found, drawn(images, seed=1))


def test_channels_last_are_turned_as_channels_first(picture):
    last = drawn(picture.movedim(1, -1))
    torch.testing.assert_close(last.movedim(-1, 1), drawn(picture))
