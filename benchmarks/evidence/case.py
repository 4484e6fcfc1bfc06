"""A network of the benchmark, the images for each purpose, and what others add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.common.networks import development_images, load_images
from benchmarks.common.splits import Split, load_companion
from benchmarks.detection.corrupted import SEVERITIES, corrupted
from curvdetect import TorchModel
from curvdetect.attacks import AdversarialSet

__all__ = ["CLEAN", "FEW", "Case", "Files", "Network", "Sizes", "Training", "load_case"]

#: The label of images that nobody attacked.
CLEAN = -1
#: Images that are corrupted, of each kind and severity.
N_CORRUPTED = 100


class Files(NamedTuple):
    """Where things are: data sets, networks of others, companions, what is kept."""

    data_dir: str | None = None
    strangers: Path | None = None
    companions: Path | None = None
    cache: Path | None = None


class Corrupted(NamedTuple):
    """Corrupted images, and which of them the network still gets right."""

    severity: int
    X: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]


class Sizes(NamedTuple):
    """How many images serve each purpose; of those to fit, how many are attacked."""

    reference: int = 5000
    fit: int = 500
    attacked: int = 250
    calibration: int = 200
    test: int = 300


#: To try things out: thresholds at 1 % need 99 clean images.
FEW = Sizes(reference=1000, fit=300, attacked=60, calibration=150, test=45)


@dataclass(frozen=True)
class Network:
    """A network to be judged by: one file of `networks/` holds one, as `NETWORK`.

    `data` is "mnist", "fashion-mnist" or "cifar10"; `budgets` are L-infinity ones,
    times 255. `load(files)` gives the network, ready to be measured; `other(files)` a
    second one of other hands or another seed, from which attacks are transferred.
    `trained_here`: training images were left out of its training. `met_later`: nobody
    had looked at it when the detectors were made.
    """

    title: str
    data: str
    budgets: tuple[int, ...]
    load: Callable[[Files], TorchModel]
    other: Callable[[Files], TorchModel]
    trained_here: bool = False
    met_later: bool = False


@dataclass(frozen=True)
class Training:
    """What a detector may learn from.

    `reference` are images that the network was trained on, clean alone; `clean` are
    others, which the network gets right, and `attacked` what attacks made of these, by
    the name of the attack; `kinds` are the kinds of these attacks. `left_out` is the
    kind that was taken away.
    """

    reference: Split
    clean: Split
    attacked: dict[str, AdversarialSet]
    kinds: dict[str, str]
    left_out: str = ""

    def without(self, kind: str) -> Training:
        """Return the same without a whole kind of attacks."""
        kept = {n: s for n, s in self.attacked.items() if self.kinds[n] != kind}
        return Training(self.reference, self.clean, kept, self.kinds, kind)

    def labelled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all images in one, with labels and sources.

        The label is that before the attack, or `CLEAN`; the source is the row of
        `clean` that an image was made from.
        """
        sets = list(self.attacked.values())
        n = len(self.clean.X)
        return (
            np.concatenate([self.clean.X, *[s.adversarial for s in sets]]),
            np.concatenate([np.full(n, CLEAN), *[s.original_label for s in sets]]),
            np.concatenate([np.arange(n), *[s.source for s in sets]]),
        )


@dataclass(frozen=True)
class Case:
    """A network with its images; no image serves two purposes.

    `fit` is what detectors learn from, `calibration` sets the thresholds of those that
    have none of their own, clean alone; `test` gives the figures and nothing else.
    """

    name: str
    network: Network
    files: Files
    sizes: Sizes
    model: TorchModel
    reference: Split
    fit: Split
    calibration: Split
    test: Split

    @cached_property
    def right(self) -> npt.NDArray[np.float32]:
        """The test images that the network gets right."""
        return _right(self.model, self.test)

    @cached_property
    def calibrating(self) -> npt.NDArray[np.float32]:
        """The images that it gets right of those that set thresholds."""
        return _right(self.model, self.calibration)

    @cached_property
    def corrupted(self) -> dict[str, Corrupted]:
        """The first test images, corrupted, by "KIND SEVERITY": once for all."""
        first = Split(*(values[:N_CORRUPTED] for values in self.test))
        found = {}
        for kind, strengths in SEVERITIES.items():
            for severity in range(1, len(strengths) + 1):
                X = corrupted(first.X, kind, severity)
                right = self.model.predict(X) == first.y
                found[f"{kind} {severity}"] = Corrupted(severity, X, right)
        return found

    @cached_property
    def companion(self) -> TorchModel | None:
        """The second network that the command `companions` trained for the data."""
        folder = self.files.companions
        if folder is None or not (folder / f"{self.network.data}.pt").exists():
            return None
        return load_companion(self.network.data, folder, self.files.data_dir)

    @cached_property
    def other(self) -> TorchModel:
        """The network that attacks are transferred from."""
        return self.network.other(self.files)


def _right(model: TorchModel, images: Split) -> npt.NDArray[np.float32]:
    return images.X[model.predict(images.X) == images.y]


def load_case(
    name: str, network: Network, files: Files, sizes: Sizes | None = None
) -> Case:
    """Load a network and its images.

    Ours learn from images that were left out of their training, and are judged by test
    images; a stranger's MNIST network has test images for both, and so have networks
    for CIFAR-10, of whose test images 1,017 are at hand. The first 1,000 MNIST and
    Fashion-MNIST test images served other benchmarks.
    """
    data = network.data
    X, y = load_images(data, files.data_dir)
    sizes = sizes or Sizes()
    known = Split(*load_images(data, files.data_dir, train=True))
    small = data != "cifar10"
    starts = (2000, 1300, 1000) if small else (0, 500, 700)
    own = Split(X, y)
    fit = own
    if small and network.trained_here:
        fit = Split(*development_images(data, files.data_dir))
        starts = (0, *starts[1:])

    def part(of: Split, start: int, size: int) -> Split:
        return Split(of.X[start : start + size], of.y[start : start + size])

    return Case(
        name,
        network,
        files,
        sizes,
        network.load(files),
        part(known, 0, sizes.reference),
        part(fit, starts[0], sizes.fit),
        part(own, starts[1], sizes.calibration),
        part(own, starts[2], sizes.test),
    )
