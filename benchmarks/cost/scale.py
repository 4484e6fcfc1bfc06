r"""Memory against the number of images, and speed against the number of workers.

    python -m benchmarks scale
    python -m benchmarks scale learned

Of the features of the threshold, and of the scores of the learned guard. Peak memory is
that of a process that works through a memory-mapped array in shards, above that before.
The workers are processes of one machine, with one thread each; images a second of their
own CPU time do not depend on what else the machine does. Needs the extra dask.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import joblib
import numpy as np
import torch
from distributed import Client, LocalCluster

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.processes import peak_mib, run_alone, timed
from benchmarks.common.results import write
from curvdetect import CurvatureFeaturizer, LearnedDetector
from curvdetect.integrations.dask import score_samples, transform
from curvdetect.storage import score_in_shards, transform_in_shards
from curvdetect.study.datasets import load_dataset
from curvdetect.study.networks import trained_model

#: How many images, for memory; a cheap feature, because what is measured makes no
#: difference to how memory grows. The learned guard has none.
SIZES = {"features": (10_000, 100_000), "learned": (1_000, 10_000)}
CHEAP = {"features": ("laplacian",), "n_directions": 1}
N_LEARNED = 300
#: Images of a block.
BLOCK = 200
#: Dask's workers start with a setting of malloc that makes each large tensor cost a
#: call of the kernel; the guide says so too.
MALLOC = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**28,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
}


def parser() -> argparse.ArgumentParser:
    parser = command_parser("scale", __doc__)
    parser.add_argument(
        "what", nargs="*", help="features, learned: what is measured anew (all)"
    )
    add_data_dir(parser)
    add_out(parser, "scale.json")
    alone = "what it runs for each, in a process of its own, of an estimator in a file"
    parser.add_argument(
        "--memory", nargs=3, metavar=("ESTIMATOR", "ARRAY", "FOLDER"), help=alone
    )
    parser.add_argument(
        "--workers", nargs=3, metavar=("ESTIMATOR", "NUMBER", "MALLOC"), help=alone
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    if args.data_dir:
        os.environ["CURVDETECT_DATA"] = args.data_dir  # for the processes too
    X, y = load_dataset("fashion-mnist")
    if args.memory:
        print(peak(X, *args.memory))
        return
    if args.workers:
        estimator, number, malloc = args.workers
        print(json.dumps(speed(X, estimator, int(number), malloc)))
        return
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for what in args.what or SIZES:
        results[what] = measured(X, y, what)
        write(args.out, results)
    print(json.dumps(results, indent=1))


def measured(X: np.ndarray, y: np.ndarray, what: str) -> dict:
    """Fit an estimator, and measure it in other processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        usual, cheap = folder / "usual", folder / "cheap"
        joblib.dump(fitted(X, y, what), usual)
        if what == "features":
            joblib.dump(fitted(X, y, what, **CHEAP), cheap)
        else:
            cheap = usual
        return {
            "memory": [memory(X, cheap, n, folder) for n in SIZES[what]],
            "workers": workers(usual),
        }


def fitted(X: np.ndarray, y: np.ndarray, what: str, **features: Any) -> Any:
    """Return a fitted featurizer, or the learned detector with its defaults."""
    model = trained_model("fashion-mnist")
    if what == "features":
        featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0, **features)
        return featurizer.fit(X[:100])
    learned = LearnedDetector(model, self_test=False, random_state=0)
    return learned.fit(X[:N_LEARNED], y[:N_LEARNED])


class Way(NamedTuple):
    """How a kind of estimator measures an array, one in shards, one of dask."""

    method: str
    in_shards: Callable[..., np.ndarray]
    by_blocks: Callable[..., Any]
    n_images: int


WAYS = {
    CurvatureFeaturizer: Way("transform", transform_in_shards, transform, 4000),
    LearnedDetector: Way("score_samples", score_in_shards, score_samples, 4000),
}


def memory(X: np.ndarray, estimator: Path, n_images: int, folder: Path) -> dict:
    """Return the peak of a process that measures so many images."""
    array = folder / f"{n_images}.npy"
    images = np.lib.format.open_memmap(
        array, mode="w+", dtype=np.float32, shape=(n_images, *X.shape[1:])
    )
    for start in range(0, n_images, len(X)):
        images[start : start + len(X)] = X[: n_images - start]
    images.flush()
    shards = folder / f"{n_images} shards"
    found = run_alone("scale", "--memory", str(estimator), str(array), str(shards))
    return {"n_images": n_images, "peak_mib": float(found)}


def peak(X: np.ndarray, file: str, array: str, folder: str) -> float:
    """Return how much memory shards take, above what a block took before."""
    estimator = joblib.load(file)
    way = WAYS[type(estimator)]
    getattr(estimator, way.method)(X[-2000:])
    before = peak_mib()
    way.in_shards(estimator, np.load(array, mmap_mode="r"), folder, verbose=0)
    return round(peak_mib() - before, 1)


def workers(estimator: Path) -> list[dict]:
    """Return the speed without dask, of one worker and of two."""
    results = []
    for n_workers, malloc in ((0, ""), (1, "dask"), (1, "ours"), (2, "ours")):
        # In a process of its own: dask hands the first settings to all its clusters.
        case = {"n_workers": n_workers, "malloc": malloc}
        found = run_alone("scale", "--workers", str(estimator), str(n_workers), malloc)
        results.append(case | json.loads(found))
    return results


def speed(X: np.ndarray, file: str, n_workers: int, malloc: str) -> dict:
    """Return the speed of so many workers; of this process, without dask, for none.

    Block by block in either: an estimator that is given all at once has less to do.
    """
    estimator = joblib.load(file)
    way = WAYS[type(estimator)]
    X = X[-way.n_images :]
    starts = range(0, len(X), BLOCK)
    if not n_workers:
        measure = getattr(estimator, way.method)
        measure(X[:400])
        cpu = time.process_time()
        seconds, _ = timed(lambda: [measure(X[i : i + BLOCK]) for i in starts])
        return rates(len(X), seconds, time.process_time() - cpu)
    with (
        dask.config.set(MALLOC if malloc == "ours" else {}),
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(torch.set_num_threads, 1)
        images = da.from_array(X, chunks=(BLOCK, -1, -1, -1))
        way.by_blocks(estimator, images[:400]).compute()  # ships the network
        cpu = sum(client.run(time.process_time).values())
        seconds, _ = timed(way.by_blocks(estimator, images).compute)
        cpu = sum(client.run(time.process_time).values()) - cpu
    return rates(len(X), seconds, cpu)


def rates(n_images: int, seconds: float, cpu_seconds: float) -> dict:
    return {
        "images_per_second": round(n_images / seconds, 1),
        "images_per_cpu_second": round(n_images / cpu_seconds, 1),
    }
