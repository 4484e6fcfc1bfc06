"""Images a second of the learned guard, and of 0.1's default, side by side.

    git worktree add OLD COMMIT_OF_0.1
    python benchmarks/learned_speed.py fashion-mnist cifar10 --old OLD --out FILE

0.1's default is its featurizer and its threshold; it runs in a process of its own, from
its own commit, and the two take turns. One torch thread. Clean test images, which is
what most served images are; the time of 1 and of 256 images too.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

N_IMAGES = {
    "fashion-mnist": 1000,
    "fashion-mnist-vit": 400,
    "fashion-mnist-convnet": 400,
    "mnist": 1000,
    "cifar10": 200,
}
#: What 0.1 has not: the file of the network, its class, and its weights.
NEWER = {
    "fashion-mnist-vit": ("vit.py", "SmallViT", "vit_fashion_mnist.pt"),
    "fashion-mnist-convnet": ("convnet.py", "ConvNet", "convnet_fashion_mnist.pt"),
}
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", choices=sorted(N_IMAGES))
    parser.add_argument("--old", required=True, help="a checkout of 0.1")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--serve", choices=("now", "then"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.networks[0], args.data_dir)
        return
    results = {}
    for network in args.networks:
        servers = {
            "now": started("now", network, args),
            "then": started("then", network, args),
        }
        rounds = [
            {name: asked(server, n) for name, server in servers.items() for n in [size]}
            for size in (N_IMAGES[network],)
            for _ in range(ROUNDS)
        ]
        single, batch = (
            {
                name: min(asked(server, n) for _ in range(5))
                for name, server in servers.items()
            }
            for n in (1, 256 if N_IMAGES[network] >= 256 else 128)
        )
        for server in servers.values():
            server.stdin.close()
            server.wait()
        rates = {
            name: [round(N_IMAGES[network] / pair[name], 1) for pair in rounds]
            for name in servers
        }
        results[network] = {
            "images": N_IMAGES[network],
            "images_per_second": rates,
            "times_as_many": [round(pair["then"] / pair["now"], 1) for pair in rounds],
            "one_image_ms": {k: round(1e3 * v, 2) for k, v in single.items()},
            "batch_ms": {k: round(1e3 * v, 1) for k, v in batch.items()},
        }
        print(network, json.dumps(results[network]), flush=True)
        args.out.write_text(json.dumps(results, indent=1))


def started(which: str, network: str, args: argparse.Namespace) -> subprocess.Popen:
    """Start a process that scores as many images as it is told, and says how long."""
    here = Path(__file__).parents[1]
    root = here if which == "now" else Path(args.old).resolve()
    command = [
        sys.executable,
        __file__,
        network,
        "--old",
        args.old,
        "--out",
        os.devnull,
    ]
    command += ["--serve", which]
    command += ["--data-dir", args.data_dir] if args.data_dir else []
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )


def asked(server: subprocess.Popen, n: int) -> float:
    server.stdin.write(f"{n}\n")
    server.stdin.flush()
    return float(server.stdout.readline())


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
    from networks import load_images

    from curvdetect import LearnedDetector
    from curvdetect.study.networks import trained_model

    model = trained_model(network, data_dir=data_dir)
    X, y = load_images(network, data_dir)
    detector = LearnedDetector(model, target_fpr=0.01, self_test=False, random_state=0)
    return detector.fit(X[:500], y[:500]).predict, clean(model, X[500:], y[500:])


def then(network: str, data_dir: str | None):
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

    ours = Path(__file__).parents[1] / "curvdetect"
    module = runpy.run_path(str(ours / "study" / "networks" / file))[name]()
    module.load_state_dict(torch.load(ours / "assets" / weights, weights_only=True))
    return module.eval()


def clean(model, X, y):
    return np.ascontiguousarray(X[model.predict(X) == y])


if __name__ == "__main__":
    main()
