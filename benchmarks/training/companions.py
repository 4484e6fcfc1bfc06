r"""Train companions, and say what they reached, by the number of images.

    python -m benchmarks companions fashion-mnist mnist cifar10

A copy of each network, trained on its training images, without the last 5,000 of a data
set, which other benchmarks are developed on: with CURE of two strengths, or, where
there are but 5,085 images and CURE made a network that was right on 0.74 of others,
noise of two. A tenth is held back, chooses, and says what was reached. Weights go to
the folder; those of most images are NETWORK.pt, for what takes `--companions`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from benchmarks.common.arguments import (
    add_cache,
    add_data_dir,
    add_out,
    command_parser,
)
from benchmarks.common.networks import NETWORKS, training_images
from benchmarks.common.results import known, rounded, write
from curvdetect.study.networks import trained_model
from curvdetect.study.training import CURE, GaussianNoise, train_companion

N_IMAGES = (500, 5_000, 50_000)
FLAT = [CURE(strength=0.03), CURE(strength=0.1)]
NOISE = [GaussianNoise(sigma=0.03), GaussianNoise(sigma=0.06)]
#: The fewer images, the more often each is seen.
N_EPOCHS = {500: 40, 5_000: 12, 50_000: 4}


def parser() -> argparse.ArgumentParser:
    parser = command_parser("companions", __doc__)
    parser.add_argument("networks", nargs="+", choices=list(NETWORKS))
    parser.add_argument("--n-images", type=int, nargs="+", default=N_IMAGES)
    add_data_dir(parser)
    add_cache(parser, "companions", "of weights", "--folder")
    add_out(parser, "companions.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    results = known(args.out, {})
    for network in args.networks:
        X, y = training_images(network, args.data_dir)
        sizes = sorted({min(n, len(X)) for n in args.n_images})
        for n in sizes:
            start = time.perf_counter()
            trained = train_companion(
                trained_model(network, data_dir=args.data_dir),
                X[:n],
                y[:n],
                loss=NOISE if network == "cifar10" else FLAT,
                n_epochs=N_EPOCHS[min(k for k in N_EPOCHS if n <= 1.1 * k)],
                checkpoint=args.folder / f"{network}-{n}.checkpoint",
                verbose=False,
            )
            seconds = time.perf_counter() - start
            weights = trained.model.module.state_dict()
            torch.save(weights, args.folder / f"{network}-{n}.pt")
            if n == sizes[-1]:
                torch.save(weights, args.folder / f"{network}.pt")
            results.setdefault(network, {})[str(n)] = figures(trained, seconds)
            write(args.out, results)
            print(network, n, f"{seconds:.0f} s:", trained, flush=True)


def figures(trained, seconds: float) -> dict:
    """Return what is kept of a training."""
    return {
        "loss": trained.loss,
        "n_validation": trained.n_validation,
        "accuracy": rounded(trained.accuracy),
        "agreement": round(trained.agreement, 4),
        "n_attacked": trained.n_attacked,
        "norm": rounded(trained.norm),
        "joint_norm": round(trained.joint_norm, 4),
        "seconds": round(seconds),
    }
