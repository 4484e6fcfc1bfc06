r"""Make the files that are shipped with the package: four networks and a sample.

    python -m benchmarks assets                       # all of curvdetect/assets
    python -m benchmarks assets --only fashion-mnist-vit fashion-mnist-convnet
    python -m benchmarks assets --only fashion-mnist mnist --seed 1  # to compare

The last 5,000 training images are left out of training: they are the development
set, on which anything may be chosen. The test set is for reporting alone. About a
minute a LeNet on two cores, and some seven on one for the vision transformer and for
the ConvNet; the same seed on the same machine and torch gives the same weights. The
shipped LeNets were trained by a loop that visited the images in another order: seed 0
now gives other weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.common.arguments import add_data_dir, command_parser
from benchmarks.common.networks import (
    development_images,
    load_images,
    training_images,
)
from benchmarks.common.results import CACHE
from curvdetect.study.networks import train_convnet, train_lenet, train_vit

ASSETS = Path(__file__).parents[2] / "curvdetect" / "assets"
#: Networks, the file of each and what trains it.
MADE = {
    "fashion-mnist": ("lenet_fashion_mnist.pt", train_lenet),
    "fashion-mnist-vit": ("vit_fashion_mnist.pt", train_vit),
    "fashion-mnist-convnet": ("convnet_fashion_mnist.pt", train_convnet),
    "mnist": ("lenet_mnist.pt", train_lenet),
}
N_SAMPLE = 800


def parser() -> argparse.ArgumentParser:
    parser = command_parser("assets", __doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(MADE), help="networks")
    parser.add_argument("--seed", type=int, default=0)
    add_data_dir(parser)
    parser.add_argument(
        "--out-dir",
        type=Path,
        help="curvdetect/assets for seed 0, benchmarks/cache/lenets/SEED for others",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    shipped = args.seed == 0
    folder = args.out_dir or (ASSETS if shipped else CACHE / "lenets" / str(args.seed))
    folder.mkdir(parents=True, exist_ok=True)
    for network in args.only or MADE:
        make(network, folder, args.data_dir, args.seed)
    if args.only is None:
        make_sample(folder / "fashion_mnist_sample.npz", args.data_dir)


def make(network: str, folder: Path, data_dir: str | None, seed: int) -> None:
    """Train a network, write its file, and say how often it is right."""
    file, train = MADE[network]
    start = time.perf_counter()
    module = train(*training_images(network, data_dir), seed=seed)
    seconds = time.perf_counter() - start
    module.half().float()  # rounded, as it will be loaded
    development = accuracy(module, *development_images(network, data_dir))
    test = accuracy(module, *load_images(network, data_dir))
    print(
        f"{network}: development accuracy {development:.4f}, test {test:.4f}, "
        f"trained in {seconds:.0f} s with {torch.get_num_threads()} threads",
        flush=True,
    )
    # Half precision halves the wheel; the accuracies are those of the file.
    torch.save(module.half().state_dict(), folder / file)


def make_sample(path: Path, data_dir: str | None) -> None:
    """Write the first test images of Fashion-MNIST."""
    pixels, labels = load_images("fashion-mnist", data_dir)
    np.savez_compressed(
        path,
        x=np.rint(255 * pixels[:N_SAMPLE, 0]).astype(np.uint8),
        y=labels[:N_SAMPLE].astype(np.uint8),
    )


@torch.no_grad()
def accuracy(module: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Share of images classified right."""
    batches = torch.from_numpy(x).split(1000)
    predicted = torch.cat([module(batch).argmax(1) for batch in batches])
    return float((predicted.numpy() == y).mean())
