"""Detectors after papers: how layers and logits move. They need no attack."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from sklearn.preprocessing import QuantileTransformer
from torch import Tensor, nn
from torch.nn.functional import one_hot

from benchmarks.common.batches import in_batches
from benchmarks.evidence.case import Training
from benchmarks.evidence.detectors._given import GivenToLayers, channel_means
from benchmarks.evidence.detectors.base import Detector
from curvdetect import TorchModel

__all__ = ["DETECTORS"]

BATCH_SIZE = 100
Test = Literal["recovery", "logits"]


class LargeShifts:
    """A few large shifts: layers that do not fit each other, or the logits.

    Yun et al., "A Few Large Shifts: Layer-Inconsistency Based Minimal Overhead
    Adversarial Example Detection" (arXiv:2505.12586), as the authors' code has it. h_l
    are the means of layer l's channels, h_L the deepest.

    Recovery testing: regressors, learned from clean images, tell each h_l from h_L;
    with e_l the squared error of l, summed over channels, and s the softmax of e over
    layers, sum_l (log(L - 1) + s_l log s_l) log(mean_l e_l).

    Logit-layer testing: the image is multiplied by a learned mask near 1, pixel by
    pixel; with p' the probabilities after that, d_l the mean square by which h_l moves,
    and H(p) the entropy of the probabilities before, the mean over l of
    log(|p' - onehot|^2 / K * H(p)) - log(d_l).

    Each is made normally distributed on clean images by its quantiles; the score is the
    square, or of both tests the sum of (z - mean)^2 / std.

    Simplified: four masks that begin alike stay alike, so one is learned; the
    regressors see each reference image 12 times, at ten times the authors' rate,
    instead of 100 times; at most ten layers are asked. Nothing is chosen by attacks:
    the authors' evaluation takes the best of all epochs for each attack. It also hands
    masked adversarial images to the network normalised, but masked clean ones, and
    those that masks are learned from, as they are; here all are normalised.
    """

    def __init__(self, model: TorchModel, *tests: Test) -> None:
        self.model, self.tests = model, tests

    def fit(self, training: Training) -> LargeShifts:
        self.layers = GivenToLayers(self.model, most=11)
        x = torch.from_numpy(training.reference.X)
        with torch.random.fork_rng(), self.model.evaluating():
            torch.manual_seed(0)
            if "recovery" in self.tests:
                self._fit_regressors(x)
            if "logits" in self.tests:
                self._fit_mask(x)
        values = self._tested(training.clean.X)
        self.normal = QuantileTransformer(
            n_quantiles=min(1000, len(values)), output_distribution="normal"
        ).fit(values)
        z = self.normal.transform(values)
        self.mean, self.std = z.mean(0), z.std(0, ddof=1)
        return self

    def _pass(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        *given, logits = self.layers(x)
        return [channel_means(g) for g in given], logits

    def _fit_regressors(self, x: Tensor) -> None:
        with torch.no_grad():
            parts = [self._pass(batch)[0] for batch in x.split(BATCH_SIZE)]
        *shallow, deepest = [torch.cat(layer) for layer in zip(*parts, strict=True)]
        width = deepest.shape[1]
        self.regressors = nn.ModuleList(regressor(width, h.shape[1]) for h in shallow)
        optimiser = torch.optim.AdamW(self.regressors.parameters(), lr=1e-3)
        for _ in range(12):
            for rows in torch.randperm(len(x)).split(64):
                if len(rows) < 2:
                    continue
                optimiser.zero_grad()
                guesses = [guess(deepest[rows]) for guess in self.regressors]
                loss = sum(
                    (h[rows] - g).square().mean()
                    for h, g in zip(shallow, guesses, strict=True)
                )
                loss.backward()
                optimiser.step()
        self.regressors.eval()

    def _fit_mask(self, x: Tensor) -> None:
        self.mask = torch.ones(x.shape[1:], requires_grad=True)
        optimiser = torch.optim.AdamW([self.mask], lr=5e-4)
        for rows in torch.randperm(len(x))[:2000].split(50):
            optimiser.zero_grad()
            self._logit_test(x[rows]).mean().backward()
            optimiser.step()
        self.mask.requires_grad_(False)

    def _recovery_test(self, x: Tensor) -> Tensor:
        *shallow, deepest = self._pass(x)[0]
        guesses = [guess(deepest) for guess in self.regressors]
        errors = [
            (h - g).square().sum(1) for h, g in zip(shallow, guesses, strict=True)
        ]
        return recovery(torch.stack(errors, dim=1))

    def _logit_test(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            before, logits = self._pass(x)
        after, moved = self._pass(x * self.mask)
        shifts = [(a - b).square().mean(1) for a, b in zip(after, before, strict=True)]
        return logit_shift(logits, moved, torch.stack(shifts, dim=1))

    def _tested(self, X: np.ndarray) -> np.ndarray:
        test = {"recovery": self._recovery_test, "logits": self._logit_test}
        with self.model.evaluating(), torch.no_grad():
            columns = [in_batches(test[name], X, BATCH_SIZE) for name in self.tests]
        return np.stack(columns, axis=1).astype(float)

    def score(self, X: np.ndarray) -> np.ndarray:
        z = self.normal.transform(self._tested(X))
        if len(self.tests) == 1:
            return z[:, 0] ** 2
        return ((z - self.mean) ** 2 / self.std).sum(1)


def recovery(errors: Tensor) -> Tensor:
    """Return recovery testing's number from squared errors, a column a layer."""
    share = errors.softmax(1)
    evenness = math.log(errors.shape[1]) + share * (share + 1e-8).log()
    return (evenness * (errors.mean(1, keepdim=True) + 1e-8).log()).sum(1)


def logit_shift(logits: Tensor, moved: Tensor, shifts: Tensor) -> Tensor:
    """Return logit-layer testing's number, from logits before and after the mask.

    `shifts` are the mean squares by which layers moved, a column a layer.
    """
    probability = logits.softmax(1)
    entropy = -(probability * logits.log_softmax(1)).sum(1)
    label = one_hot(logits.argmax(1), logits.shape[1])
    moves = (moved.softmax(1) - label).square().mean(1) * entropy
    return ((moves + 1e-8).log()[:, None] - (shifts + 1e-8).log()).mean(1)


def regressor(inputs: int, outputs: int, width: int = 128) -> nn.Module:
    """Return an untrained one: four layers, as the authors'."""

    def hidden(n: int) -> list[nn.Module]:
        return [nn.Linear(n, width), nn.BatchNorm1d(width), nn.ReLU()]

    layers = [*hidden(inputs), *hidden(width), *hidden(width)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Odds:
    """How far noise moves the log-odds of other classes, more than of clean images.

    Roth, Kilcher and Hofmann, "The Odds are Odd: A Statistical Test for Detecting
    Adversarial Examples" (ICML 2019, arXiv:1902.04818). With y the network's label,
    f_yz = f_z - f_y and g_yz(x, e) = f_yz(x + e) - f_yz(x), the score is
    max_z (mean_e g_yz(x, e) - m_yz) / s_yz, where m and s are the mean and the standard
    deviation of g over noise and clean images of label y.

    In its simplest form: Gaussian noise of one strength, the same few draws for every
    image, and the largest score instead of a threshold for each pair of classes. The
    strength is the largest of `SIGMAS` at which the network keeps 95 % of the labels of
    clean images; the authors search theirs too, over many kinds of noise.
    """

    SIGMAS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)

    def __init__(
        self, model: TorchModel, *, n_draws: int = 8, n_images: int = 1000
    ) -> None:
        self.model, self.n_draws, self.n_images = model, n_draws, n_images

    def fit(self, training: Training) -> Odds:
        X = training.reference.X[: self.n_images]
        generator = torch.Generator().manual_seed(0)
        unit = torch.randn((self.n_draws, *X.shape[1:]), generator=generator)
        self.sigma = self._strength(X[: max(self.n_images // 3, 1)], unit[0])
        self.noise = self.sigma * unit
        label, moves = self._moves(X)
        of_all = moves.mean((0, 1)), moves.std((0, 1))
        rows = [label == y for y in range(moves.shape[-1])]
        stats = [
            (moves[r].mean((0, 1)), moves[r].std((0, 1))) if r.sum() > 1 else of_all
            for r in rows
        ]
        self.mean = np.stack([mean for mean, _ in stats])
        self.std = np.stack([std for _, std in stats]) + 1e-12
        return self

    def _strength(self, X: np.ndarray, unit: Tensor) -> float:
        x = torch.from_numpy(X)
        label = self._logits(x).argmax(1)
        for sigma in self.SIGMAS[:-1]:
            kept = self._logits(x + sigma * unit).argmax(1) == label
            if kept.float().mean() >= 0.95:
                return sigma
        return self.SIGMAS[-1]

    def _logits(self, x: Tensor) -> Tensor:
        """Return logits, of images that noise moved out of their bounds too."""
        with self.model.evaluating(), torch.no_grad():
            logits = in_batches(self.model.logits, x, BATCH_SIZE)
        return torch.from_numpy(logits).double()

    def _moves(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return labels, (n,), and g, (n, draws, K)."""
        x = torch.from_numpy(X)
        own = self._logits(x)
        moved = torch.stack([self._logits(x + one) for one in self.noise], dim=1)
        label = own.argmax(1)
        g = moved - own[:, None]
        g = g - g.gather(2, label[:, None, None].expand(-1, g.shape[1], 1))
        return label.numpy(), g.numpy()

    def score(self, X: np.ndarray) -> np.ndarray:
        label, moves = self._moves(X)
        z = (moves.mean(1) - self.mean[label]) / self.std[label]
        z[np.arange(len(X)), label] = -np.inf
        return z.max(1)


def _shifts(name: str, *tests: Test) -> Detector:
    return Detector(
        name,
        lambda case: LargeShifts(case.model, *tests),
        "clean images",
        "after Yun et al., arXiv:2505.12586",
    )


DETECTORS = (
    _shifts("few large shifts, recovery", "recovery"),
    _shifts("few large shifts, logits", "logits"),
    _shifts("few large shifts, both", "recovery", "logits"),
    Detector(
        "odds under noise",
        lambda case: Odds(case.model),
        "clean images",
        "after Roth et al., ICML 2019",
    ),
)
