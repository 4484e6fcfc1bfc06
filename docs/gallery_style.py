"""How the pictures of the gallery look; conf.py names it."""

import matplotlib as mpl
from cycler import cycler

from curvdetect.plotting._axes import COLOURS


def reset(gallery_conf, fname):
    """Set matplotlib's defaults before each example."""
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "font.size": 11,
            "image.cmap": "cividis",
        }
    )
