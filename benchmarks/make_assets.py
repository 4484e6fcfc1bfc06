"""Make the files that are shipped with the package: two LeNets and a sample.

    python benchmarks/make_assets.py                  # all of curvdetect/assets
    python benchmarks/make_assets.py --seed 1 --out-dir lenets   # others, to compare

The last 5,000 training images are left out of training: they are the development
set, on which anything may be chosen. The test set is for reporting alone. About a
minute a network on two cores; the same seed on the same machine and torch gives the
same weights. The shipped LeNets were trained by a loop that visited the images in
another order: seed 0 now gives other weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from curvdetect.study.datasets import load_dataset
from curvdetect.study.networks import train_lenet

ASSETS = Path(__file__).parents[1] / "curvdetect" / "assets"
N_DEVELOPMENT = 5_000
N_SAMPLE = 800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir")
    parser.add_argument("--out-dir", type=Path, default=ASSETS)
    args = parser.parse_args()

    args.out_dir.mkdir(parents=True, exist_ok=True)
    for dataset in ("fashion-mnist", "mnist"):
        x, y = load_dataset(dataset, data_dir=args.data_dir, train=True)
        module = train_lenet(x[:-N_DEVELOPMENT], y[:-N_DEVELOPMENT], seed=args.seed)
        module.half().float()  # rounded, as it will be loaded
        development = accuracy(module, x[-N_DEVELOPMENT:], y[-N_DEVELOPMENT:])
        test = accuracy(module, *load_dataset(dataset, data_dir=args.data_dir))
        print(f"{dataset}: development accuracy {development:.4f}, test {test:.4f}")
        # Half precision halves the wheel; the accuracies are those of the file.
        name = f"lenet_{dataset.replace('-', '_')}.pt"
        torch.save(module.half().state_dict(), args.out_dir / name)

    pixels, labels = load_dataset("fashion-mnist", data_dir=args.data_dir)
    np.savez_compressed(
        args.out_dir / "fashion_mnist_sample.npz",
        x=np.rint(255 * pixels[:N_SAMPLE, 0]).astype(np.uint8),
        y=labels[:N_SAMPLE].astype(np.uint8),
    )


@torch.no_grad()
def accuracy(module: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Share of images classified right."""
    batches = torch.from_numpy(x).split(1000)
    predicted = torch.cat([module(batch).argmax(1) for batch in batches])
    return float((predicted.numpy() == y).mean())


if __name__ == "__main__":
    main()
