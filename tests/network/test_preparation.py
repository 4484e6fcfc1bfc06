"""Pictures become inputs exactly as the libraries make them, whatever their size."""

import pickle

import numpy as np
import pytest
from PIL import Image

from curvdetect.network import Preparation
from mixed_sizes import levels, pictures

# Exactly as the libraries do it --------------------------------------------


TIMM = [
    {"input_size": (3, 160, 160), "crop_pct": 0.875},
    {"input_size": (3, 160, 160), "crop_pct": 0.95, "interpolation": "bilinear"},
    {"input_size": (3, 97, 97), "crop_pct": 0.9, "interpolation": "lanczos"},
    {"input_size": (3, 97, 97), "crop_pct": 0.9, "interpolation": "nearest"},
    # (timm 1.0.15 forgets the interpolation here, and is bilinear.)
    {"input_size": (3, 97, 64), "crop_pct": 0.875, "interpolation": "bilinear"},
    {"input_size": (3, 64, 97), "crop_pct": 1.0, "crop_mode": "squash"},
    {"input_size": (3, 97, 97), "crop_pct": 0.8, "crop_mode": "squash"},
    {"input_size": (3, 97, 97), "crop_pct": 1.0, "crop_mode": "border"},
    {"input_size": (3, 64, 97), "crop_pct": 0.9, "crop_mode": "border"},
    {"input_size": (3, 64, 64), "crop_pct": 1.1},  # black around it
]


@pytest.mark.parametrize("config", TIMM, ids=str)
def test_as_timm(config):
    data = pytest.importorskip("timm.data")
    from curvdetect.network.sources.timm import settings_of_config

    full = data.resolve_data_config(config, pretrained_cfg={})
    transform = data.create_transform(**full, is_training=False)
    settings = settings_of_config(full)
    for picture in pictures():
        expected = levels(transform(picture), settings["mean"], settings["std"])
        found = np.asarray(settings["preparation"].apply(picture))
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "SqueezeNet1_1_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",  # 232
        "EfficientNet_B0_Weights.IMAGENET1K_V1",  # bicubic
        "EfficientNet_V2_L_Weights.IMAGENET1K_V1",  # 480 from 480
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1",  # 384
    ],
)
def test_as_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    from curvdetect.network.sources.torchvision import settings_of_weights

    weights = models.get_weight(name)
    settings = settings_of_weights(weights)
    transform = weights.transforms()
    for picture in pictures():
        expected = levels(transform(picture), settings["mean"], settings["std"])
        found = np.asarray(settings["preparation"].apply(picture))
        np.testing.assert_allclose(found, expected, atol=1e-3)


# (That of transformers is in test_transformers_models.py.)


# In itself -----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_modes_and_sizes(mode):
    prepare = Preparation(size=(30, 50), resize=(60, 60), crop="border", fill=128)
    for picture in pictures(mode):
        made = prepare.apply(picture)
        assert made.mode == mode
        assert made.size == (50, 30)


def test_what_is_added_has_its_colour():
    prepare = Preparation(size=(8, 8), resize=(8, 8), crop="border", fill=(10, 20, 30))
    made = np.asarray(prepare.apply(Image.new("RGB", (16, 4), "white")))
    assert made[0, 0].tolist() == made[-1, -1].tolist() == [10, 20, 30]
    assert (made[3:5] == 255).all()
    with pytest.raises(ValueError, match="for each of the 1 channels"):
        prepare.apply(Image.new("L", (16, 4)))


def test_nothing_is_resized_unless_asked():
    picture = next(pictures())
    made = Preparation(size=(100, 200)).apply(picture)
    top, left = round((173 - 100) / 2), round((301 - 200) / 2)
    np.testing.assert_array_equal(
        np.asarray(made), np.asarray(picture)[top : top + 100, left : left + 200]
    )


def test_an_odd_rest_is_rounded_as_asked():
    picture = Image.fromarray(np.arange(7, dtype=np.uint8)[None])
    starts = [
        int(np.asarray(Preparation(size=(1, 4), rounding=how).apply(picture))[0, 0])
        for how in ("even", "down")
    ]
    assert starts == [2, 1]


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
@pytest.mark.parametrize("resize", [256, (256, 256)])
def test_what_is_too_long_for_its_width_is_refused(size, resize):
    """A file of 300 bytes would take 12 GB."""
    prepare = Preparation((224, 224), resize)
    with pytest.raises(ValueError, match=r"would have (15360000 x 256|256 x 15360000)"):
        prepare.apply(Image.new("L", size))
    squash = Preparation((224, 224), (224, 224), crop="squash")
    assert squash.apply(Image.new("L", size)).size == (224, 224)


def test_numbers_of_numpy():
    given = Preparation(np.array([4, 4]), np.int64(5), fill=np.uint8(3))
    assert given == Preparation((4, 4), 5, fill=3)


def test_for_another_size():
    of_224 = Preparation(size=(224, 224), resize=256)
    assert of_224.for_size(224, 224) == of_224
    assert of_224.for_size(112, 112) == Preparation(size=(112, 112), resize=128)
    squashed = Preparation(size=(64, 32), resize=(64, 32), crop="squash")
    assert squashed.for_size(32, 32).resize == (32, 32)
    assert Preparation(size=(2, 2)).for_size(3, 4) == Preparation(size=(3, 4))


def test_equal_ones_are_one():
    prepare = Preparation(size=[32, 32], resize=[40, 40], crop="squash", fill=[1, 2, 3])
    again = pickle.loads(pickle.dumps(prepare))
    assert again == prepare
    assert hash(again) == hash(prepare)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"size": 224},
            "size must be .height, width., two positive integers, .*; got 224",
        ),
        ({"size": (1, 0)}, "size must be"),
        ({"size": (np.inf, 1)}, "size must be .height, width., two positive integers"),
        ({"size": (10**400, 1)}, "size must be .*each at most 67108864"),
        ({"resize": 0}, "resize must be positive, and at most 67108864; got 0"),
        ({"resize": 10**400}, "resize must be positive, and at most"),
        ({"resize": (1, 2, 3)}, "resize must be .height, width."),
        ({"resize": 9, "crop": "squash"}, 'crop="squash" needs resize=.height'),
        ({"crop": "border"}, 'crop="border" needs'),
        ({"crop": "random"}, "crop must be one of"),
        ({"interpolation": "area"}, "interpolation must be one of .'nearest'"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"fill": 300}, "fill must be a number in 0..255.*got 300"),
        ({"fill": "black"}, "fill must be"),
        ({"fill": [np.inf]}, "fill must be"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**{"size": (4, 4), **settings})
