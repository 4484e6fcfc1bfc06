"""Memory against the number of images, and speed against the number of workers.

    python benchmarks/scale.py --out benchmarks/results/scale.json

Peak memory is that of a process which transforms a memory-mapped array in shards, above
that before. The workers are processes of one machine, with one thread each.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask.array as da
import numpy as np
import torch
from distributed import Client, LocalCluster

from curvdetect import CurvatureFeaturizer
from curvdetect.datasets import load_dataset
from curvdetect.integrations.dask import transform
from curvdetect.networks import trained_model
from curvdetect.shards import transform_in_shards

SIZES = (10_000, 100_000)
#: A cheap feature: what is measured makes no difference to how memory grows.
CHEAP = {"features": ("laplacian",), "n_directions": 1}
N_IMAGES = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("ARRAY", "FOLDER"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    X, _ = load_dataset("fashion-mnist", data_dir=args.data_dir)
    if args.one:
        print(peak(X, *args.one))
        return
    results = {"memory": [memory(X, n) for n in SIZES], "workers": workers(X)}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def memory(X: np.ndarray, n_images: int) -> dict:
    """Return the peak of a process that transforms so many images."""
    with tempfile.TemporaryDirectory() as folder:
        array = Path(folder) / "X.npy"
        images = np.lib.format.open_memmap(
            array, mode="w+", dtype=np.float32, shape=(n_images, *X.shape[1:])
        )
        for start in range(0, n_images, len(X)):
            images[start : start + len(X)] = X[: n_images - start]
        images.flush()
        command = [sys.executable, __file__, "--one", str(array), f"{folder}/features"]
        out = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {"n_images": n_images, "peak_mib": float(out.stdout.splitlines()[-1])}


def peak(X: np.ndarray, array: str, folder: str) -> float:
    model = trained_model("fashion-mnist")
    featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0, **CHEAP)
    featurizer.fit(X[:100]).transform(X[:2000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    transform_in_shards(featurizer, np.load(array, mmap_mode="r"), folder, verbose=0)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round((after - before) / 1024, 1)


def workers(X: np.ndarray) -> list[dict]:
    """Return the images a second of one worker and of two."""
    model = trained_model("fashion-mnist")
    featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0).fit(X[:100])
    images = da.from_array(X[:N_IMAGES], chunks=(200, -1, -1, -1))
    results = []
    for n_workers in (1, 2):
        with (
            LocalCluster(
                n_workers=n_workers, threads_per_worker=1, dashboard_address=":0"
            ) as cluster,
            Client(cluster) as client,
        ):
            client.run(torch.set_num_threads, 1)
            transform(featurizer, images[:400]).compute()  # ships the network
            started = time.perf_counter()
            transform(featurizer, images).compute()
            seconds = time.perf_counter() - started
        results.append(
            {"n_workers": n_workers, "images_per_second": round(N_IMAGES / seconds, 1)}
        )
    return results


if __name__ == "__main__":
    main()
