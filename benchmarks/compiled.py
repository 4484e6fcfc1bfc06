"""What torch.compile does to the time of the features.

    python benchmarks/compiled.py --out benchmarks/results/compiled.json

The same images through the same network, as it is and compiled for batches of any size,
by turns; the time is the median of five, the first call apart, which compiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch._functorch.config

from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.datasets import load_dataset
from curvdetect.networks import trained_model

#: Name, data set and number of images.
NETWORKS = (("LeNet", "fashion-mnist", 512), ("ResNet-20", "cifar10", 48))
N_TURNS = 5
# The gradients of all margins come from one forward pass: its buffers stay in use.
torch._functorch.config.donated_buffer = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for name, dataset, n_images in NETWORKS:
        X, _ = load_dataset(dataset, data_dir=args.data_dir)
        plain = trained_model(dataset, data_dir=args.data_dir)
        compiled = TorchModel(
            torch.compile(plain.module, dynamic=True),
            input_shape=plain.input_shape,
            mean=plain.mean,
            std=plain.std,
        )
        cell = {"network": name, "n_images": n_images}
        results.append({**cell, **compare(plain, compiled, X[:n_images])})
        print(json.dumps(results[-1]), flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


def compare(plain: TorchModel, compiled: TorchModel, X: np.ndarray) -> dict:
    """Return seconds of the first call and images a second of the later ones."""
    featurizers = [
        CurvatureFeaturizer(model, step=0.4, random_state=0).fit(X[:2])
        for model in (plain, compiled)
    ]
    start = time.perf_counter()
    featurizers[1].transform(X)
    first = time.perf_counter() - start
    seconds: list[list[float]] = [[], []]
    for _ in range(N_TURNS):
        for featurizer, taken in zip(featurizers, seconds, strict=True):
            start = time.perf_counter()
            features = featurizer.transform(X)
            taken.append(time.perf_counter() - start)
    expected = featurizers[0].transform(X)
    apart = np.abs(features - expected)[np.isfinite(expected)]
    speeds = [len(X) / statistics.median(taken) for taken in seconds]
    return {
        "first_call_seconds": round(first, 1),
        "images_per_second": round(speeds[0], 1),
        "images_per_second_compiled": round(speeds[1], 1),
        "median_difference": float(np.median(apart)),
        "share_above_0.01": float((apart > 0.01).mean()),
    }


if __name__ == "__main__":
    main()
