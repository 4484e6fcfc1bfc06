"""Detectors of other packages; LID, kernel density and squeezing after their papers."""

from __future__ import annotations

import numpy as np
import torch
from art.defences.detector.evasion import (
    BinaryActivationDetector,
    BinaryInputDetector,
)
from art.defences.preprocessor import FeatureSqueezing, SpatialSmoothing
from art.estimators.classification import PyTorchClassifier
from pytorch_ood import detector as ood
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.batches import in_batches
from curvdetect import TorchModel
from curvdetect.study.networks import LeNet, ResNet20

N_EPOCHS = 20
BATCH_SIZE = 200


class Hooked(nn.Module):
    """Return what layers of a network give, or are given, instead of its logits."""

    def __init__(self, model: TorchModel, kinds: tuple[type, ...], inputs: bool):
        super().__init__()
        self.network = model.as_module()
        self.layers = [m for m in self.network.modules() if isinstance(m, kinds)]
        self.inputs = inputs

    def all(self, x: Tensor) -> list[Tensor]:
        """Return flat activations, a tensor a layer."""
        caught: list[Tensor] = []
        handles = [
            layer.register_forward_hook(
                lambda _, given, out: caught.append(
                    (given[0] if self.inputs else out).flatten(1)
                )
            )
            for layer in self.layers
        ]
        try:
            self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        return caught

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of the last layer."""
        return self.all(x)[-1]


def penultimate(model: TorchModel) -> Hooked:
    """Return what the last linear layer is given."""
    return Hooked(model, (nn.Linear,), inputs=True)


class OfPytorchOOD:
    """A detector of pytorch-ood."""

    def __init__(self, model: TorchModel, make) -> None:
        self.model, self.make = model, make

    def fit(self, training):
        self.detector = self.make(self.model, penultimate(self.model))
        data = TensorDataset(
            torch.from_numpy(training.reference.X),
            torch.from_numpy(training.reference.y),
        )
        with self.model.evaluating():
            self.detector.fit(DataLoader(data, batch_size=BATCH_SIZE))
        return self

    def score(self, X):
        with self.model.evaluating():
            return in_batches(self.detector.predict, X, BATCH_SIZE)


def _vim(model: TorchModel, encoder: Hooked) -> ood.ViM:
    last = encoder.layers[-1]
    return ood.ViM(encoder, last.in_features // 2, last.weight, last.bias)


class OfART:
    """A detector of the Adversarial Robustness Toolbox: a network, trained on attacks.

    It sees the images, or the activations of the penultimate layer.
    """

    def __init__(self, model: TorchModel, activations: bool) -> None:
        self.model, self.activations = model, activations

    def fit(self, training):
        X, y = training.labelled()
        y = (y >= 0).astype(np.int64)
        torch.manual_seed(0)
        shape = tuple(X.shape[1:])
        if self.activations:
            encoder = penultimate(self.model)
            last = encoder.layers[-1]
            split = nn.Sequential(encoder, last).eval()
            classifier = self._classifier(split, shape, last.out_features)
            network = nn.Sequential(
                nn.Linear(last.in_features, 128), nn.ReLU(), nn.Linear(128, 2)
            )
            of_layer = self._classifier(network, (last.in_features,), 2)
            self.detector = BinaryActivationDetector(classifier, of_layer, layer=0)
        else:
            network = LeNet(n_classes=2) if shape[0] == 1 else ResNet20(n_classes=2)
            self.detector = BinaryInputDetector(self._classifier(network, shape, 2))
        self.detector.fit(X, np.eye(2)[y], batch_size=128, nb_epochs=N_EPOCHS)
        return self

    @staticmethod
    def _classifier(network, shape, n_classes):
        return PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.Adam(network.parameters()),
            input_shape=shape,
            nb_classes=n_classes,
            device_type="cpu",
        )

    def score(self, X):
        report, _ = self.detector.detect(X, batch_size=BATCH_SIZE)
        logits = report["predictions"]
        return logits[:, 1] - logits[:, 0]


class LID:
    """Local intrinsic dimensionality of every layer (Ma et al., ICLR 2018).

    Distances are to one fixed batch of clean images, so that a score depends on no
    other image; a logistic regression weighs the layers.
    """

    def __init__(self, model: TorchModel, k: int = 20, n_references: int = 300) -> None:
        self.model, self.k, self.n_references = model, k, n_references

    def fit(self, training):
        self.layers = Hooked(self.model, (nn.Conv2d, nn.Linear), inputs=False)
        n_references = min(self.n_references, len(training.clean.X) // 2)
        with self.model.evaluating(), torch.no_grad():
            self.references = self.layers.all(
                torch.from_numpy(training.clean.X[:n_references])
            )
        X, y = training.labelled()
        # References, and what was made of them, are too near to themselves.
        keep = training.sources() >= n_references
        self.classifier = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced")
        ).fit(self._lid(X[keep]), y[keep] >= 0)
        return self

    def _lid(self, X):
        def of_batch(x: Tensor) -> Tensor:
            columns = []
            of_layers = zip(self.layers.all(x), self.references, strict=True)
            for own, references in of_layers:
                near = torch.cdist(own, references).topk(self.k, largest=False).values
                ratio = (near / near[:, -1:]).clamp(min=1e-12).log()
                columns.append(-1 / ratio.mean(1).clamp(max=-1e-6))
            return torch.stack(columns, dim=1)

        with self.model.evaluating(), torch.no_grad():
            return in_batches(of_batch, X, BATCH_SIZE)

    def score(self, X):
        return self.classifier.decision_function(self._lid(X))


class Density:
    """Kernel density of the penultimate layer, by predicted class (Feinman 2017)."""

    def __init__(self, model: TorchModel) -> None:
        self.model = model

    def fit(self, training):
        features = self._features(training.reference.X)
        search = GridSearchCV(KernelDensity(), {"bandwidth": np.logspace(-1, 1, 9)})
        bandwidth = search.fit(features[:1000]).best_params_["bandwidth"]
        predicted = self.model.predict(training.reference.X)
        self.of_class = {
            k: KernelDensity(bandwidth=bandwidth).fit(features[predicted == k])
            for k in np.unique(predicted)
        }
        return self

    def _features(self, X):
        with self.model.evaluating(), torch.no_grad():
            return in_batches(penultimate(self.model), X, BATCH_SIZE)

    def score(self, X):
        features, predicted = self._features(X), self.model.predict(X)
        scores = np.zeros(len(X))
        for k in np.unique(predicted):
            rows = predicted == k
            scores[rows] = -self.of_class[k].score_samples(features[rows])
        return scores


class Squeezing:
    """How far the probabilities move when an image is squeezed (Xu et al. 2018).

    The largest L1 distance over fewer bits and a median filter (both ART's).
    """

    def __init__(self, model: TorchModel, network: str) -> None:
        self.model = model
        self.bit_depth = 1 if network == "mnist" else 5

    def fit(self, training):
        self.squeezers = [
            FeatureSqueezing(clip_values=(0, 1), bit_depth=self.bit_depth),
            SpatialSmoothing(window_size=2, channels_first=True, clip_values=(0, 1)),
        ]
        return self

    def score(self, X):
        own = self._proba(X)
        moved = [
            np.abs(self._proba(squeeze(X)[0].astype(np.float32)) - own).sum(1)
            for squeeze in self.squeezers
        ]
        return np.max(moved, axis=0)

    def _proba(self, X):
        return torch.from_numpy(self.model.predict_logits(X)).softmax(1).numpy()


def _of_ood(make):
    return lambda model, _: OfPytorchOOD(model, make)


PEERS = {
    "pytorch-ood MaxSoftmax": _of_ood(lambda m, _: ood.MaxSoftmax(m.as_module())),
    "pytorch-ood EnergyBased": _of_ood(lambda m, _: ood.EnergyBased(m.as_module())),
    "pytorch-ood GEN": _of_ood(lambda m, _: ood.GEN(m.as_module())),
    "pytorch-ood ODIN": _of_ood(lambda m, _: ood.ODIN(m.as_module())),
    "pytorch-ood Mahalanobis": _of_ood(lambda _, e: ood.Mahalanobis(e)),
    "pytorch-ood RMD": _of_ood(lambda _, e: ood.RMD(e)),
    "pytorch-ood KNN": _of_ood(lambda _, e: ood.KNN(e)),
    "pytorch-ood ViM": _of_ood(_vim),
    "ART binary, images": lambda model, _: OfART(model, activations=False),
    "ART binary, activations": lambda model, _: OfART(model, activations=True),
    "LID": lambda model, _: LID(model),
    "kernel density": lambda model, _: Density(model),
    "feature squeezing": Squeezing,
}
