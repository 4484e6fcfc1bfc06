"""A process of `learned-speed`, which times as many images as it is told.

    python benchmarks/cost/speed_server.py now|then NETWORK [DATA_DIR]

The numbers come on standard input, a line each, and the seconds go to standard output.
This file is run by itself, with `curvdetect` of this checkout or of 0.1 in
`PYTHONPATH`: so it imports neither at the top.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

import numpy as np

#: What 0.1 has not: the file of the network, its class, and its weights.
NEWER = {
    "fashion-mnist-vit": ("vit.py", "SmallViT", "vit_fashion_mnist.pt"),
    "fashion-mnist-convnet": ("convnet.py", "ConvNet", "convnet_fashion_mnist.pt"),
}


def serve(which: str, network: str, data_dir: str | None) -> None:
    """Fit, then time what is asked for on standard input."""
    import torch

    torch.set_num_threads(1)
    score, X = now(network, data_dir) if which == "now" else then(network, data_dir)
    score(X[:64])
    for line in sys.stdin:
        images = X[: int(line)]
        start = time.perf_counter()
        score(images)
        print(time.perf_counter() - start, flush=True)


def now(network: str, data_dir: str | None):
    """Fit the guard of this checkout."""
    from benchmarks.common.networks import load_images
    from curvdetect import LearnedDetector
    from curvdetect.study.networks import trained_model

    model = trained_model(network, data_dir=data_dir)
    X, y = load_images(network, data_dir)
    detector = LearnedDetector(model, target_fpr=0.01, self_test=False, random_state=0)
    return detector.fit(X[:500], y[:500]).predict, clean(model, X[500:], y[500:])


def then(network: str, data_dir: str | None):
    """Fit what 0.1 had, whose modules had other names."""
    from curvdetect import CurvatureFeaturizer, CurvatureThresholdDetector, TorchModel
    from curvdetect.datasets import load_dataset
    from curvdetect.networks import trained_model

    if network in NEWER:
        model = TorchModel(newer(*NEWER[network]), input_shape=(1, 28, 28))
        X, y = load_dataset("fashion-mnist", data_dir=data_dir)
    else:
        model = trained_model(network, data_dir=data_dir)
        X, y = load_dataset(network, data_dir=data_dir)
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(X[:256])
    detector = CurvatureThresholdDetector(target_fpr=0.05)
    detector.fit(featurizer.transform(X[:40]))
    return lambda images: detector.predict(featurizer.transform(images)), clean(
        model, X[500:], y[500:]
    )


def newer(file: str, name: str, weights: str):
    """Return a network of this checkout where `curvdetect` is that of 0.1."""
    import torch

    ours = Path(__file__).parents[2] / "curvdetect"
    module = runpy.run_path(str(ours / "study" / "networks" / file))[name]()
    module.load_state_dict(torch.load(ours / "assets" / weights, weights_only=True))
    return module.eval()


def clean(model, X, y):
    """Return the images that the network gets right."""
    return np.ascontiguousarray(X[model.predict(X) == y])


if __name__ == "__main__":
    serve(*sys.argv[1:3], sys.argv[3] if len(sys.argv) > 3 else None)
