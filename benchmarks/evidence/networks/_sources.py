"""Where the networks come from: shipped here, trained anew, or of others."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.common.results import CACHE
from benchmarks.common.strangers import load_stranger
from benchmarks.evidence.case import Files
from curvdetect import TorchModel
from curvdetect.study.networks import trained_model

__all__ = ["of_others", "shipped", "trained_anew"]

Load = Callable[[Files], TorchModel]


def shipped(name: str) -> Load:
    """Return what loads a network of :mod:`curvdetect.study.networks`."""
    return lambda files: trained_model(name, data_dir=files.data_dir)


def trained_anew(name: str, seed: int) -> Load:
    """Return what loads a LeNet that `assets --seed` trained."""
    file = f"lenet_{name.replace('-', '_')}.pt"

    def load(files: Files) -> TorchModel:
        path = CACHE / "lenets" / str(seed) / file
        if not path.exists():
            raise SystemExit(
                f"{path} is missing; `python -m benchmarks assets --only {name} --seed "
                f"{seed}` trains it in a minute"
            )
        return trained_model(name, weights=str(path), data_dir=files.data_dir)

    return load


def of_others(name: str) -> Load:
    """Return what loads a network of VNN-COMP 2021, from a folder of ONNX files."""

    def load(files: Files) -> TorchModel:
        if files.strangers is None:
            raise SystemExit(f"{name} is a network of others: give --strangers FOLDER")
        return load_stranger(name, files.strangers)

    return load
