"""Trained networks: how they are called, loaded, hashed, and their boundaries found.

`TorchModel` is the one place that touches a torch module: bounds, normalisation,
device, batches, and checks with a message for each thing that can be wrong.
"""

from curvdetect.network.boundaries import Boundaries, find_nearest_boundaries
from curvdetect.network.loading import load_exported, load_module
from curvdetect.network.model import TorchModel
from curvdetect.network.preparation import Preparation

__all__ = [
    "Boundaries",
    "Preparation",
    "TorchModel",
    "find_nearest_boundaries",
    "load_exported",
    "load_module",
]
