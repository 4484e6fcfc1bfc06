r"""Memory against the number of images, and speed against the number of workers.

    python -m benchmarks scale

Peak memory is that of a process which transforms a memory-mapped array in shards, above
that before. The workers are processes of one machine, with one thread each. Needs the
extra dask.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import torch
from distributed import Client, LocalCluster

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.processes import peak_mib, run_alone, timed
from benchmarks.common.results import write
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


def parser() -> argparse.ArgumentParser:
    parser = command_parser("scale", __doc__)
    add_data_dir(parser)
    add_out(parser, "scale.json")
    alone = "what it runs for each, in a process of its own"
    parser.add_argument("--memory", nargs=2, metavar=("ARRAY", "FOLDER"), help=alone)
    parser.add_argument("--workers", nargs=2, metavar=("NUMBER", "MALLOC"), help=alone)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
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
    write(args.out, results)
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
        found = run_alone("scale", "--memory", str(array), f"{folder}/features")
    return {"n_images": n_images, "peak_mib": float(found)}


def peak(X: np.ndarray, array: str, folder: str) -> float:
    model = trained_model("fashion-mnist")
    featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0, **CHEAP)
    featurizer.fit(X[:100]).transform(X[:2000])
    before = peak_mib()
    transform_in_shards(featurizer, np.load(array, mmap_mode="r"), folder, verbose=0)
    return round(peak_mib() - before, 1)


def workers() -> list[dict]:
    """Return the images a second without dask, of one worker and of two."""
    results = []
    for n_workers, malloc in ((0, ""), (1, "dask"), (1, "ours"), (2, "ours")):
        # In a process of its own: dask hands the first settings to all its clusters.
        case = {"n_workers": n_workers, "malloc": malloc}
        speed = run_alone("scale", "--workers", str(n_workers), malloc)
        results.append(case | {"images_per_second": float(speed)})
    return results


def images_per_second(X: np.ndarray, n_workers: int, malloc: str) -> float:
    """Return the speed of so many workers; of this process, without dask, for none."""
    model = trained_model("fashion-mnist")
    featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0).fit(X[:100])
    X = X[:N_IMAGES]
    if not n_workers:
        featurizer.transform(X[:400])
        return round(N_IMAGES / timed(featurizer.transform, X)[0], 1)
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
        return round(N_IMAGES / timed(transform(featurizer, images).compute)[0], 1)
