"""Memory against the number of images, and speed against the number of workers.

    python benchmarks/scale.py --out benchmarks/results/scale.json

Peak memory is that of a process which transforms a memory-mapped array in shards, above
that before. The workers are processes of one machine, with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import torch
from distributed import Client, LocalCluster

from curvdetect import CurvatureFeaturizer
from curvdetect.integrations.dask import transform
from curvdetect.storage import transform_in_shards
from curvdetect.study.datasets import load_dataset
from curvdetect.study.networks import trained_model

SIZES = (10_000, 100_000)
#: A cheap feature: what is measured makes no difference to how memory grows.
CHEAP = {"features": ("laplacian",), "n_directions": 1}
N_IMAGES = 4000
#: Dask's workers start with a setting of malloc that makes each large tensor cost a
#: call of the kernel; the guide says so too.
MALLOC = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**28,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", nargs=2, metavar=("ARRAY", "FOLDER"))
    parser.add_argument("--workers", nargs=2, metavar=("NUMBER", "MALLOC"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.data_dir:
        os.environ["CURVDETECT_DATA"] = args.data_dir  # for the processes too
    X, _ = load_dataset("fashion-mnist")
    if args.memory:
        print(peak(X, *args.memory))
        return
    if args.workers:
        print(images_per_second(X, int(args.workers[0]), args.workers[1]))
        return
    results = {"memory": [memory(X, n) for n in SIZES], "workers": workers()}
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
        found = in_process("--memory", str(array), f"{folder}/features")
    return {"n_images": n_images, "peak_mib": found}


def peak(X: np.ndarray, array: str, folder: str) -> float:
    model = trained_model("fashion-mnist")
    featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0, **CHEAP)
    featurizer.fit(X[:100]).transform(X[:2000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    transform_in_shards(featurizer, np.load(array, mmap_mode="r"), folder, verbose=0)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round((after - before) / 1024, 1)


def workers() -> list[dict]:
    """Return the images a second without dask, of one worker and of two."""
    results = []
    for n_workers, malloc in ((0, ""), (1, "dask"), (1, "ours"), (2, "ours")):
        # In a process of its own: dask hands the first settings to all its clusters.
        case = {"n_workers": n_workers, "malloc": malloc}
        speed = in_process("--workers", str(n_workers), malloc)
        results.append(case | {"images_per_second": speed})
    return results


def images_per_second(X: np.ndarray, n_workers: int, malloc: str) -> float:
    """Return the speed of so many workers; of this process, without dask, for none."""
    model = trained_model("fashion-mnist")
    featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0).fit(X[:100])
    X = X[:N_IMAGES]
    if not n_workers:
        featurizer.transform(X[:400])
        return round(N_IMAGES / timed(lambda: featurizer.transform(X)), 1)
    with (
        dask.config.set(MALLOC if malloc == "ours" else {}),
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(torch.set_num_threads, 1)
        images = da.from_array(X, chunks=(200, -1, -1, -1))
        transform(featurizer, images[:400]).compute()  # ships the network
        return round(N_IMAGES / timed(transform(featurizer, images).compute), 1)


def in_process(*arguments: str) -> float:
    """Return the number that this script prints, called with other arguments."""
    command = [sys.executable, __file__, *arguments]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return float(out.stdout.splitlines()[-1])


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
