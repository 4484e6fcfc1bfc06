"""Detectors after papers that look at the layers of the network."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from torch import Tensor

from benchmarks.common.batches import in_batches
from benchmarks.common.splits import Split
from benchmarks.evidence.case import Training
from benchmarks.evidence.detectors._given import GivenToLayers, channel_means
from benchmarks.evidence.detectors._learned import OnFeatures, forest, logistic
from benchmarks.evidence.detectors.base import Detector
from curvdetect import TorchModel

__all__ = ["DETECTORS"]

BATCH_SIZE = 100
#: How many layers are looked at: of a deep network, evenly spaced ones.
MOST_LAYERS = 10


class GrowthRates:
    """How fast neighbours become more, layer by layer.

    Of the distances d_1 <= ... <= d_k of an image to its k nearest of `n_references`
    clean images, in one layer, these are r_i = -log(d_i / d_k). MultiLID (Lorenz,
    Keuper and Keuper, "Unfolding Local Growth Rate Estimates for (Almost) Perfect
    Adversarial Detection", arXiv:2212.06776) learns from all r_i of all layers;
    `folded`, from the local intrinsic dimensionality k / (r_1 + ... + r_k) of each
    layer (Ma et al., "Characterizing Adversarial Subspaces Using Local Intrinsic
    Dimensionality", ICLR 2018).

    There, the references of an image are the clean images of its batch. Here they are
    one fixed batch of what the network was trained on: scores depend on no other image,
    and no attacked image is near to the clean one that it was made from. Layers are at
    most `MOST_LAYERS`.
    """

    def __init__(
        self, model: TorchModel, *, folded: bool, k: int = 20, n_references: int = 300
    ) -> None:
        self.model, self.folded = model, folded
        self.k, self.n_references = k, n_references

    def learn(self, reference: Split) -> None:
        self.layers = GivenToLayers(self.model, most=MOST_LAYERS)
        with self.model.evaluating(), torch.no_grad():
            parts = [
                self.layers(x)
                for x in torch.from_numpy(reference.X[: self.n_references]).split(
                    BATCH_SIZE
                )
            ]
        layers = [torch.cat(layer).flatten(1) for layer in zip(*parts, strict=True)]
        # Without the mean, less is lost where squares are taken of each other.
        self.means = [layer.mean(0) for layer in layers]
        centred = zip(layers, self.means, strict=True)
        self.references = [layer - mean for layer, mean in centred]

    def __call__(self, X: np.ndarray) -> np.ndarray:
        with self.model.evaluating(), torch.no_grad():
            return in_batches(self._of_batch, X, BATCH_SIZE)

    def _of_batch(self, x: Tensor) -> Tensor:
        of_layers = []
        layers = zip(self.layers(x), self.means, self.references, strict=True)
        for own, mean, references in layers:
            distances = torch.cdist(own.flatten(1) - mean, references)
            rates = growth_rates(distances, self.k)
            of_layers.append(dimension(rates)[:, None] if self.folded else rates)
        return torch.cat(of_layers, dim=1)


def growth_rates(distances: Tensor, k: int) -> Tensor:
    """Return -log(d_i / d_k) of the k smallest of each row, (n, k)."""
    k = min(k, distances.shape[1])
    near = distances.topk(k, largest=False).values.clamp(min=1e-12)
    return -(near / near[:, -1:]).log()


def dimension(rates: Tensor) -> Tensor:
    """Return the local intrinsic dimensionality: 1 by the mean growth rate."""
    return 1 / rates.mean(1).clamp(min=1e-6)


class ClassDistances:
    """Mahalanobis distance to the nearest class mean, layer by layer.

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples
    and Adversarial Attacks" (NeurIPS 2018): with f the means of a layer's channels, m_c
    their mean in class c, and S the covariance within classes,
    min_c (f - m_c)^T S^-1 (f - m_c); a logistic regression weighs the layers. The step
    along the gradient that they take before, for each layer, is left out.
    """

    def __init__(self, model: TorchModel) -> None:
        self.model = model

    def learn(self, reference: Split) -> None:
        self.layers = GivenToLayers(self.model, most=MOST_LAYERS)
        labels = np.unique(reference.y, return_inverse=True)[1]
        self.of_layers = []
        for values in self._channels(reference.X):
            means = np.stack(
                [values[labels == c].mean(0) for c in range(labels.max() + 1)]
            )
            within = EmpiricalCovariance(assume_centered=True)
            within.fit(values - means[labels])
            self.of_layers.append((means, within.get_precision()))

    def _channels(self, X: np.ndarray) -> list[np.ndarray]:
        with self.model.evaluating(), torch.no_grad():
            parts = [
                [channel_means(given) for given in self.layers(x)]
                for x in torch.from_numpy(X).split(BATCH_SIZE)
            ]
        return [torch.cat(layer).double().numpy() for layer in zip(*parts, strict=True)]

    def __call__(self, X: np.ndarray) -> np.ndarray:
        columns = []
        layers = zip(self._channels(X), self.of_layers, strict=True)
        for values, (means, precision) in layers:
            apart = values[:, None] - means
            squares = ((apart @ precision) * apart).sum(2)
            columns.append(squares.min(1))
        return np.stack(columns, axis=1)


class Density:
    """Kernel density of the penultimate layer, of the predicted class.

    Feinman et al., "Detecting Adversarial Samples from Artifacts" (arXiv:1703.00410):
    minus the logarithm of the mean over training images t of the class of
    exp(-|f(x) - f(t)|^2 / (2 h^2)). The bandwidth h is what makes images likeliest that
    it was not fitted to; the authors' second number, the spread under dropout, is left
    out, because most networks have none.
    """

    def __init__(self, model: TorchModel) -> None:
        self.model = model

    def fit(self, training: Training) -> Density:
        self.layers = GivenToLayers(self.model)
        features = self._features(training.reference.X)
        grid = {"bandwidth": np.logspace(-1, 1, 9) * _spread(features)}
        search = GridSearchCV(KernelDensity(), grid, cv=3).fit(features[:600])
        predicted = self.model.predict(training.reference.X)
        self.of_class = {
            c: KernelDensity(**search.best_params_).fit(features[predicted == c])
            for c in np.unique(predicted)
        }
        self.all = KernelDensity(**search.best_params_).fit(features)
        return self

    def _features(self, X: np.ndarray) -> np.ndarray:
        with self.model.evaluating(), torch.no_grad():
            return in_batches(self.layers.penultimate, X, BATCH_SIZE).astype(float)

    def score(self, X: np.ndarray) -> np.ndarray:
        features, predicted = self._features(X), self.model.predict(X)
        scores = np.zeros(len(X))
        for c in np.unique(predicted):
            rows = predicted == c
            density = self.of_class.get(c, self.all)
            scores[rows] = -density.score_samples(features[rows])
        return scores


def _spread(features: np.ndarray) -> float:
    """Return the standard deviation of features: the unit of bandwidths."""
    return float(np.sqrt(features.var(0).mean())) or 1.0


DETECTORS = (
    Detector(
        "LID",
        lambda case: OnFeatures(GrowthRates(case.model, folded=True), logistic),
        "attacks",
        "after Ma et al., ICLR 2018",
    ),
    Detector(
        "MultiLID",
        lambda case: OnFeatures(GrowthRates(case.model, folded=False), forest),
        "attacks",
        "after Lorenz et al., arXiv:2212.06776",
    ),
    Detector(
        "Mahalanobis, layers",
        lambda case: OnFeatures(ClassDistances(case.model), logistic),
        "attacks",
        "after Lee et al., NeurIPS 2018",
    ),
    Detector(
        "kernel density",
        lambda case: Density(case.model),
        "clean images",
        "after Feinman et al., arXiv:1703.00410",
    ),
)
