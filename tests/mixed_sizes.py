"""Pictures of mixed sizes, and what a library made of one in 0..255."""

import numpy as np
from PIL import Image

#: Width and height: landscape, portrait, square, smaller than the input, long, equal.
SIZES = [(301, 173), (120, 333), (200, 200), (40, 31), (17, 90), (640, 64), (160, 160)]


def pictures(mode="RGB"):
    rng = np.random.default_rng(0)
    for width, height in SIZES:
        coarse = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        fine = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height))
        yield Image.blend(picture, Image.fromarray(fine), 0.3).convert(mode)


def levels(normalised, mean, std):
    """Undo a normalisation: what a library gave the network, in 0..255."""
    shape = (-1, 1, 1)
    values = np.asarray(normalised) * np.reshape(std, shape) + np.reshape(mean, shape)
    return 255 * values.transpose(1, 2, 0)
