"""What every experiment begins and ends with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curvdetect import __version__
from curvdetect._base.extras import require
from curvdetect._base.files import written_text
from curvdetect.attacks import AdversarialSet, make_adversarial_set, pgd
from curvdetect.network import TorchModel
from curvdetect.study import datasets

__all__ = [
    "EPS",
    "attack_record",
    "attacked",
    "held_out_images",
    "prepared_folder",
    "write_results",
]

#: L-infinity budgets of PGD, times 255; the first two are the report's.
EPS = {"fashion-mnist": 16, "mnist": 50, "digits": 50, "cifar10": 2}


def prepared_folder(out: str | Path, *, n_images: int, least: int) -> Path:
    """Refuse, before any long work, what would fail after it; make the folder."""
    if n_images < least:
        raise ValueError(f"n_images must be at least {least}; got {n_images}")
    for module in ("matplotlib", "torchattacks"):
        require(module, extra="demo")  # which brings both
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def held_out_images(
    dataset: str, data_dir: str | Path | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Load images that the shipped networks were not trained on."""
    if dataset == "fashion-mnist" and data_dir is None:
        return datasets.load_fashion_mnist_sample()
    return datasets.load_dataset(dataset, data_dir=data_dir)


def attacked(
    model: TorchModel,
    dataset: str,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    *,
    seed: int,
) -> AdversarialSet:
    """Attack images with PGD, with the budget of their data set."""
    attack = pgd(model, eps=EPS[dataset] / 255)
    return make_adversarial_set(model, attack, X, y, seed=seed, verbose=1)


def attack_record(dataset: str) -> dict[str, Any]:
    """Return how `attacked` attacks, for the results."""
    return {"name": "PGD", "norm": "Linf", "eps": EPS[dataset] / 255, "steps": 40}


def write_results(results: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Write results.json; return the results with the versions that made them."""
    versions = {"curvdetect": __version__, "torch": torch.__version__}
    written = {**results, "versions": versions}
    written_text(out / "results.json", json.dumps(written, indent=2) + "\n")
    return written
