"""Detectors after papers: images squeezed, in frequencies, and in wavelets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from art.defences.preprocessor import FeatureSqueezing, SpatialSmoothing
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, pad

from benchmarks.common.batches import in_batches
from benchmarks.common.splits import Split
from benchmarks.evidence.case import CLEAN, Case, Training
from benchmarks.evidence.detectors._given import GivenToLayers
from benchmarks.evidence.detectors._learned import OnFeatures, forest, logistic
from benchmarks.evidence.detectors.base import Detector
from curvdetect import TorchModel

__all__ = ["DETECTORS"]

BATCH_SIZE = 100


class Squeezing:
    """How far the probabilities move when an image is squeezed.

    Xu, Evans and Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural
    Networks" (NDSS 2018): max_s |f(x) - f(s(x))|_1 over squeezers s, f the softmax. The
    squeezers are those of the authors' joint detectors: for MNIST 1 bit and a 2 x 2
    median; for colours 5 bits, a 2 x 2 median and non-local means 13-3-2.
    Fashion-MNIST, which the paper has not, gets 5 bits and the median. Bits and median
    are ART's.
    """

    def __init__(self, model: TorchModel, data: str) -> None:
        self.model, self.data = model, data

    def fit(self, training: Training) -> Squeezing:
        bits = FeatureSqueezing(
            clip_values=(0, 1), bit_depth=1 if self.data == "mnist" else 5
        )
        median = SpatialSmoothing(
            window_size=2, channels_first=True, clip_values=(0, 1)
        )
        self.squeezers: list[Callable[[np.ndarray], np.ndarray]] = [
            lambda X: bits(X)[0],
            lambda X: median(X)[0],
        ]
        if training.clean.X.shape[1] == 3:
            self.squeezers.append(
                lambda X: in_batches(non_local_means, X, BATCH_SIZE),
            )
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        own = self._probabilities(X)
        moved = [
            np.abs(self._probabilities(squeeze(X)) - own).sum(1)
            for squeeze in self.squeezers
        ]
        return np.max(moved, axis=0)

    def _probabilities(self, X: np.ndarray) -> np.ndarray:
        logits = self.model.predict_logits(X.astype(np.float32))
        return torch.from_numpy(logits).double().softmax(1).numpy()


def non_local_means(
    x: Tensor, *, search: int = 13, patch: int = 3, strength: float = 2
) -> Tensor:
    """Average each pixel with those around it whose patches look alike.

    Buades, Coll and Morel (CVPR 2005): over q in the search window, weights are
    exp(-D(p, q) / h^2), D the mean square of the difference of two patches over places
    and channels, h the strength in units of 1/255. OpenCV, which the authors of feature
    squeezing use, does it in the colours of CIELAB, with integers.
    """
    h, reach = strength / 255, search // 2
    rows, columns = x.shape[2:]
    around = pad(x, (reach,) * 4, mode="reflect")
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for i in range(search):
        for j in range(search):
            moved = around[:, :, i : i + rows, j : j + columns]
            squares = (moved - x).square().mean(1, keepdim=True)
            padded = pad(squares, (patch // 2,) * 4, mode="reflect")
            weight = (-avg_pool2d(padded, patch, stride=1) / h**2).exp()
            total += weight * moved
            weights += weight
    return total / weights


class Spectra:
    """Magnitudes of the Fourier coefficients of images, or of the maps of layers.

    Lorenz, Harder et al., "Detecting AutoAttack Perturbations in the Frequency Domain"
    (arXiv:2111.08785), and Harder et al., "SpectralDefense" (arXiv:2103.03000):
    |FFT2(x)| of each channel of the image (InputMFS, black-box) or of activations
    (LayerMFS, white-box), with a logistic regression or a random forest. Of two
    coefficients that are each other's conjugate one is kept. Layers are at most six, as
    many as the authors take of a VGG-16; their magnitudes are averaged over channels,
    which the authors' are not, so that columns are as many as the places of a map.
    """

    def __init__(self, model: TorchModel, *, layers: bool) -> None:
        self.model, self.layers = model, layers

    def learn(self, reference: Split) -> None:
        self.maps = (
            GivenToLayers(self.model, most=6, maps=True) if self.layers else None
        )

    def __call__(self, X: np.ndarray) -> np.ndarray:
        with self.model.evaluating(), torch.no_grad():
            return in_batches(self._of_batch, X, BATCH_SIZE)

    def _of_batch(self, x: Tensor) -> Tensor:
        if self.maps is None:
            return magnitudes(x).flatten(1)
        return torch.cat([magnitudes(m).mean(1).flatten(1) for m in self.maps(x)], 1)


def magnitudes(maps: Tensor) -> Tensor:
    """Return |FFT2| of real maps (n, C, H, W), the half that says it all."""
    return torch.fft.rfft2(maps).abs()


def has_maps(case: Case) -> bool:
    """Say whether a layer is given a map: a fully connected network has none."""
    return bool(GivenToLayers(case.model, maps=True).kept)


class SensitivityInconsistency:
    """What a network on the wavelets of an image says, beside what the network says.

    Tian, Zhou, Li and Duan, "Detecting Adversarial Examples from Sensitivity
    Inconsistency of Spatial-Transform Domain" (SID, AAAI 2021, arXiv:2103.04302). A
    dual classifier g is trained on one level of wavelet bands; a small network,
    2K -> 2K -> 3, sees the logits (f(x), g(x)) and tells clean images on which both
    agree, clean ones on which they differ, and attacked ones. The score is the logit of
    the last less the larger of the others.

    The dual classifier is frugal where theirs is not. It is a small convolutional
    network instead of a second one like the guarded; it is trained a few epochs, on the
    reference images alone; and the wavelets are Haar's instead of sym17.
    `dual_accuracy` is the share of `training.clean` that it gets right: judge the
    detector by it.
    """

    def __init__(self, model: TorchModel) -> None:
        self.model = model

    def fit(self, training: Training) -> SensitivityInconsistency:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self._fit_dual(training.reference)
            X, labels, _ = training.labelled()
            own, other = self._both(X)
            kind = np.where(labels != CLEAN, 2, own.argmax(1) != other.argmax(1))
            self._fit_detector(np.hstack([own, other]), kind)
        right = other[: len(training.clean.X)].argmax(1) == training.clean.y
        self.dual_accuracy = float(right.mean())
        return self

    def _fit_dual(self, reference: Split) -> None:
        x, y = torch.from_numpy(reference.X), torch.from_numpy(reference.y).long()
        self.dual = dual_classifier(x.shape[1], self.model.n_classes)
        mirrored = x.shape[1] == 3  # digits and clothes are not
        n_epochs = 12 if mirrored else 6

        def loss(rows: Tensor) -> Tensor:
            batch = x[rows]
            if mirrored:
                flip = torch.rand(len(rows), 1, 1, 1) < 0.5
                batch = torch.where(flip, batch.flip(3), batch)
            return cross_entropy(self.dual(batch), y[rows])

        steps = [
            rows
            for _ in range(n_epochs)
            for rows in torch.randperm(len(x)).split(BATCH_SIZE)
        ]
        train(self.dual, loss, steps, rate=3e-3)

    def _fit_detector(self, pairs: np.ndarray, kind: np.ndarray) -> None:
        self.mean, self.std = pairs.mean(0), pairs.std(0) + 1e-6
        x, y = torch.from_numpy(self._scaled(pairs)), torch.from_numpy(kind).long()
        width = x.shape[1]
        self.detector = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
        )
        # As if there were as many clean images as attacked ones.
        attacked = float((y == 2).float().mean())
        weight = torch.tensor([1 - attacked, 1 - attacked, attacked]).clamp(min=1e-3)

        def loss(rows: Tensor) -> Tensor:
            return cross_entropy(self.detector(x[rows]), y[rows], weight=1 / weight)

        steps = torch.randint(len(x), (600, 100)).unbind()
        train(self.detector, loss, steps, rate=3e-3)

    def _scaled(self, pairs: np.ndarray) -> np.ndarray:
        return ((pairs - self.mean) / self.std).astype(np.float32)

    def _both(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            other = in_batches(self.dual, X, BATCH_SIZE)
        return self.model.predict_logits(X), other

    def score(self, X: np.ndarray) -> np.ndarray:
        pairs = np.hstack(self._both(X))
        with torch.no_grad():
            out = self.detector(torch.from_numpy(self._scaled(pairs)))
        return (out[:, 2] - out[:, :2].max(1).values).numpy()


class Haar(nn.Module):
    """One level of Haar's wavelets: four bands a channel, of half the size."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, :, ::2, ::2], x[:, :, ::2, 1::2]
        c, d = x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
        bands = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
        return torch.cat(bands, dim=1) / 2


def dual_classifier(n_channels: int, n_classes: int) -> nn.Module:
    """Return an untrained network on wavelets, small enough for a few seconds."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    width = 16 if n_channels == 1 else 32
    return nn.Sequential(
        Haar(),
        *block(4 * n_channels, width),
        nn.MaxPool2d(2),
        *block(width, 2 * width),
        *block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(18 * width, n_classes),
    )


def train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    steps: Sequence[Tensor],
    *,
    rate: float,
) -> None:
    """Take a step of AdamW for the rows of each step, at a rate that rises and falls.

    The network is left in eval mode.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=rate, total_steps=len(steps)
    )
    network.train()
    for rows in steps:
        optimiser.zero_grad()
        loss(rows).backward()
        optimiser.step()
        plan.step()
    network.eval()


FREQUENCIES = "after Lorenz, Harder et al., arXiv:2111.08785"


DETECTORS = (
    Detector(
        "feature squeezing",
        lambda case: Squeezing(case.model, case.network.data),
        "nothing",
        "after Xu et al., NDSS 2018",
    ),
    Detector(
        "InputMFS, logistic regression",
        lambda case: OnFeatures(Spectra(case.model, layers=False), logistic),
        "attacks",
        FREQUENCIES,
    ),
    Detector(
        "InputMFS, random forest",
        lambda case: OnFeatures(Spectra(case.model, layers=False), forest),
        "attacks",
        FREQUENCIES,
    ),
    Detector(
        "LayerMFS, logistic regression",
        lambda case: OnFeatures(Spectra(case.model, layers=True), logistic),
        "attacks",
        FREQUENCIES,
        applies=has_maps,
    ),
    Detector(
        "LayerMFS, random forest",
        lambda case: OnFeatures(Spectra(case.model, layers=True), forest),
        "attacks",
        FREQUENCIES,
        applies=has_maps,
    ),
    Detector(
        "SID",
        lambda case: SensitivityInconsistency(case.model),
        "attacks",
        "after Tian et al., AAAI 2021",
    ),
)
