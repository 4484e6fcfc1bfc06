"""The evasion detectors of ART (the Adversarial Robustness Toolbox), and BEYOND.

`art.defences.detector.evasion` has four. Each is given what it asks for:

- BinaryInputDetector and BinaryActivationDetector train a network on attacked images,
  or on the features of the guarded network. Both are small here, and take a fixed
  number of steps, with clean and attacked images of equal weight.
- SubsetScanningDetector compares the features of an image with those of the reference
  images and scores images one at a time: Berk-Jones, its default.
- BeyondDetectorPyTorch compares an image with augmented neighbours. As ART 1.20.1 ships
  it, it never asks the guarded network: labels and representations, of the image too,
  come from the second network that it is given. `Beyond` is what its paper says.

The second network of both is the companion, trained with labels on the same data, or
the guarded network where there is no companion: no network trained without labels is at
hand, as the paper has it.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import torch
from art.defences.detector.evasion import (
    BeyondDetectorPyTorch,
    BinaryActivationDetector,
    BinaryInputDetector,
    SubsetScanningDetector,
)
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cosine_similarity, grid_sample

from benchmarks.common.batches import in_batches
from benchmarks.evidence.case import Case, Training
from benchmarks.evidence.detectors._layers import Parts, parts
from benchmarks.evidence.detectors.base import Detector
from curvdetect import TorchModel

__all__ = [
    "DETECTORS",
    "ARTBeyond",
    "ARTBinary",
    "ARTSubsetScanning",
    "Beyond",
    "Neighbours",
]

BATCH_SIZE = 128
#: Steps of the networks that learn from attacks: some seconds for small grey images.
N_STEPS = 400
#: Neighbours of a grey image and of a colour one, whose passes are dearer; 50 in the
#: paper. Each is a pass of the second network.
N_NEIGHBOURS, N_NEIGHBOURS_COLOUR = 20, 10
N_OF_THRESHOLD = 100


class ARTBinary:
    """A network that tells attacked from clean images, or from their features."""

    def __init__(self, model: TorchModel, *, activations: bool) -> None:
        self.model, self.activations = model, activations

    def fit(self, training: Training) -> ARTBinary:
        """Train the network on clean and attacked images."""
        X, labels, _ = training.labelled()
        attacked = labels >= 0
        share = attacked.mean()
        weight = torch.tensor([share, 1 - share], dtype=torch.float32)
        n_epochs = max(round(N_STEPS * BATCH_SIZE / len(X)), 1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            with self.model.evaluating():
                self.detector = (
                    self._of_features(weight, X)
                    if self.activations
                    else self._of_images(weight)
                )
                self.detector.fit(
                    X,
                    np.eye(2, dtype=np.float32)[attacked.astype(int)],
                    batch_size=BATCH_SIZE,
                    nb_epochs=n_epochs,
                )
        return self

    def _of_images(self, weight: Tensor) -> BinaryInputDetector:
        shape = self.model.input_shape
        return BinaryInputDetector(_classifier(_small_network(shape), shape, 2, weight))

    def _of_features(self, weight: Tensor, X: np.ndarray) -> BinaryActivationDetector:
        features = torch.as_tensor(_features(self.model, X))
        n_features = features.shape[1]
        network = nn.Sequential(
            _Scaled(features), nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, 2)
        )
        of_features = _classifier(network, (n_features,), 2, weight)
        return BinaryActivationDetector(_in_layers(self.model), of_features, layer=0)

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return the logit of "attacked" less that of "clean"."""
        with self.model.evaluating():
            report, _ = self.detector.detect(X, batch_size=BATCH_SIZE)
        logits = report["predictions"].astype(np.float64)
        return logits[:, 1] - logits[:, 0]


class _Scaled(nn.Module):
    """Features of mean 0 and standard deviation 1, by those it was made with."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0).clamp(min=1e-6))

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.mean) / self.std


class ARTSubsetScanning:
    r"""How unusual the most unusual subset of an image's features is.

    The p-value of a feature is the share of reference images where it is as large or
    larger; the score is that of the best subset, :math:`\max_\alpha N_\alpha \log(1 /
    \alpha)` for the :math:`N_\alpha` p-values of at most :math:`\alpha \le 1/2`: where
    all of a subset are below :math:`\alpha`, this is what Berk and Jones' statistic is.

    ART fails on an image that has no p-value below 1/2, with an empty `argmax`; that
    image is given the score of the empty subset, 0.
    """

    def __init__(self, model: TorchModel) -> None:
        self.model = model

    def fit(self, training: Training) -> ARTSubsetScanning:
        """Learn the features of the reference images."""
        X = training.reference.X
        with self.model.evaluating():
            self.detector = SubsetScanningDetector(
                _in_layers(self.model), self._usable(X), layer=0, verbose=False
            )
        return self

    def _usable(self, X: np.ndarray) -> np.ndarray:
        """Leave out images on which ART fails: no feature is above the median."""
        features = _features(self.model, X)
        while True:  # the median moves with what is left out
            usable = (features > np.sort(features, axis=0)[len(X) // 2]).any(1)
            if usable.all():
                return X
            X, features = X[usable], features[usable]

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return the scores of images, each scanned by itself."""
        with self.model.evaluating():
            try:
                return self._detect(X)
            except ValueError:
                return np.concatenate([self._detect_one(x[None]) for x in X])

    def _detect(self, X: np.ndarray) -> np.ndarray:
        report, _ = self.detector.detect(X, batch_size=BATCH_SIZE)
        return report["scores"]

    def _detect_one(self, x: np.ndarray) -> np.ndarray:
        try:
            return self._detect(x)
        except ValueError:
            return np.zeros(1)


class Neighbours:
    """Augmented neighbours of images: shifted, turned, scaled, brighter or darker.

    The same changes are made to all images, so that what is made of an image depends on
    no other. A call makes the next change; after `n` calls they begin anew.
    """

    def __init__(self, shape: tuple[int, ...], n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.n, self.calls = n, 0
        angle = np.deg2rad(rng.uniform(-10, 10, n))
        scale = rng.uniform(0.8, 1, n)  # of what is seen: the image becomes larger
        flip = np.where(rng.random(n) < 0.5, -1, 1) if shape[0] == 3 else np.ones(n)
        shift = rng.uniform(-0.1, 0.1, (n, 2))
        self.matrices = torch.tensor(
            [
                [
                    [scale[i] * flip[i] * np.cos(angle[i]), -np.sin(angle[i]), dx],
                    [flip[i] * np.sin(angle[i]), scale[i] * np.cos(angle[i]), dy],
                ]
                for i, (dx, dy) in enumerate(shift)
            ],
            dtype=torch.float32,
        )
        self.contrast = torch.tensor(rng.uniform(0.8, 1.2, n), dtype=torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        """Return one neighbour of each image, within [0, 1]."""
        i = self.calls % self.n
        self.calls += 1
        grid = affine_grid(
            self.matrices[i].expand(len(x), -1, -1), list(x.shape), align_corners=False
        )
        moved = grid_sample(x, grid, padding_mode="border", align_corners=False)
        return (moved * self.contrast[i]).clamp(0, 1)


class _SSL(nn.Module):
    """A network as ART's BEYOND wants it: backbone, classifier, projector."""

    def __init__(self, found: Parts) -> None:
        super().__init__()
        self.backbone = found.features
        self.classifier = found.head
        self.projector = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.classifier(self.backbone(x))


class ARTBeyond:
    """BEYOND as ART ships it; its similarity, the other way round.

    Of each neighbour it takes 0.8 times the cosine of the image's label (one-hot) and
    the neighbour's logits, plus 0.2 times that of their representations, all of the
    second network, and of these the one in place 20 of 50; of fewer neighbours here, as
    in `Beyond`, the one in the same place in proportion.
    """

    def __init__(self, model: TorchModel, second: TorchModel) -> None:
        self.model, self.second = model, second

    def fit(self, training: Training) -> ARTBeyond:
        """Set the threshold that ART wants; scores do not depend on it."""
        shape = self.model.input_shape
        n = _n_neighbours(self.model)
        target = _classifier(self.model.as_module(), shape, self.model.n_classes)
        second = _classifier(_SSL(_parts(self.second)), shape, self.second.n_classes)
        self.detector = BeyondDetectorPyTorch(
            target,
            second,
            augmentations=Neighbours(shape, n),
            aug_num=n,
            var_K=max(round(0.4 * n), 1),
        )
        with self.second.evaluating():
            self.detector.fit(training.clean.X[:N_OF_THRESHOLD], None)
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return similarities, the other way round."""
        with self.second.evaluating():
            report, _ = self.detector.detect(X, batch_size=BATCH_SIZE)
        return -report.astype(np.float64)


class Beyond:
    r"""BEYOND after its paper, with the companion in the place of the SSL network.

    He, Yang, Chen, Xu and Ho, "Be Your Own Neighborhood: Detecting Adversarial Examples
    by the Neighborhood Relations Built on Self-Supervised Learning" (ICML 2024,
    arXiv:2209.00005). For neighbours :math:`x_1 \dots x_k` of an image,

    .. math:: s_{label} = \frac1k \sum_i [\ell(x_i) = c(x)], \quad
       s_{rep} = \frac1k \sum_i \cos(r(x_i), r(x)),

    where :math:`c` is the label by the guarded network, and :math:`\ell` and :math:`r`
    are labels and representations by the second network. An image is refused where
    either is below its threshold; both thresholds are moved together here: the score is
    the larger of both, from the mean of clean images in their standard deviations.

    Simplified: the second network is not self-supervised, representations are what its
    last layer is given, augmentations are weaker than the paper's (no colours), and
    there are 20 neighbours of grey and 10 of colour images instead of 50.
    """

    def __init__(self, model: TorchModel, second: TorchModel) -> None:
        self.model, self.second = model, second

    def fit(self, training: Training) -> Beyond:
        """Learn means and standard deviations of clean images."""
        similar = self.similarities(training.clean.X)
        self.mean = similar.mean(0)
        # One neighbour is the least step of the labels.
        self.std = np.maximum(similar.std(0), [1 / _n_neighbours(self.model), 1e-6])
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return how far the less similar of both is below that of clean images."""
        return ((self.mean - self.similarities(X)) / self.std).max(1)

    def similarities(self, X: np.ndarray) -> np.ndarray:
        """Return similarities of labels and of representations, shape (n, 2)."""
        own = self.model.predict_logits(X).argmax(1)
        n = _n_neighbours(self.model)
        neighbour = Neighbours(self.model.input_shape, n)
        found = _parts(self.second)

        def representations(x: Tensor) -> Tensor:
            r = found.features(x)
            moved = [found.features(neighbour(x)) for _ in range(n)]
            cosines = torch.stack([cosine_similarity(r, m) for m in moved])
            labels = torch.stack([found.head(m).argmax(1) for m in moved])
            return torch.cat([cosines.mean(0)[:, None], labels.T], dim=1)

        with self.second.evaluating(), torch.no_grad():
            both = in_batches(representations, X, BATCH_SIZE)
        of_labels = (both[:, 1:] == own[:, None]).mean(1)
        return np.stack([of_labels, both[:, 0]], axis=1)


def _parts(model: TorchModel) -> Parts:
    found = parts(model)
    assert found is not None, "`applies` says so"
    return found


def _features(model: TorchModel, X: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return in_batches(_parts(model).features, X, BATCH_SIZE)


def _n_neighbours(model: TorchModel) -> int:
    return N_NEIGHBOURS if model.input_shape[0] == 1 else N_NEIGHBOURS_COLOUR


def _small_network(shape: tuple[int, ...]) -> nn.Module:
    """Return a network of two convolutions, wider for colours."""
    width = 8 if shape[0] == 1 else 16
    network = nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(64),
        nn.ReLU(),
        nn.Linear(64, 2),
    )
    network(torch.zeros(1, *shape))
    return network


def _classifier(
    network: nn.Module,
    shape: tuple[int, ...],
    n_classes: int,
    weight: Tensor | None = None,
) -> PyTorchClassifier:
    trained = weight is not None
    return PyTorchClassifier(
        network,
        loss=nn.CrossEntropyLoss(weight=weight),
        optimizer=torch.optim.Adam(network.parameters()) if trained else None,
        input_shape=shape,
        nb_classes=n_classes,
        device_type="cpu",
    )


def _in_layers(model: TorchModel) -> PyTorchClassifier:
    """Return the network as ART's detectors want it: layer 0 gives the features."""
    found = _parts(model)
    network = nn.Sequential(found.features, found.head)
    return _classifier(network, model.input_shape, model.n_classes)


def _second(case: Case) -> TorchModel:
    """Return the companion, or the guarded network where there is none."""
    return case.companion or case.model


def _guarded_has_parts(case: Case) -> bool:
    """Say whether the last layer is affine, so that there are features and a head."""
    return parts(case.model) is not None


def _second_has_parts(case: Case) -> bool:
    return parts(_second(case)) is not None


def _second_alone(case: Case) -> tuple[nn.Module, ...]:
    return (_second(case).module,)


def _both(case: Case) -> tuple[nn.Module, ...]:
    if _second(case) is case.model:
        return (case.model.module,)
    return case.model.module, _second(case).module


def _no_network(case: Case) -> tuple[nn.Module, ...]:
    return ()


_ART = f"ART {version('adversarial-robustness-toolbox')}"
DETECTORS = (
    Detector(
        "ART binary, images",
        lambda case: ARTBinary(case.model, activations=False),
        "attacks",
        _ART,
        networks=_no_network,
    ),
    Detector(
        "ART binary, activations",
        lambda case: ARTBinary(case.model, activations=True),
        "attacks",
        _ART,
        applies=_guarded_has_parts,
    ),
    Detector(
        "ART subset scanning",
        lambda case: ARTSubsetScanning(case.model),
        "clean images",
        _ART,
        applies=_guarded_has_parts,
    ),
    Detector(
        "ART BEYOND, as shipped",
        lambda case: ARTBeyond(case.model, _second(case)),
        "nothing",
        _ART,
        applies=_second_has_parts,
        networks=_second_alone,
        n_images=100,  # of each, and ten or twenty neighbours of an image
    ),
    Detector(
        "BEYOND, as its paper says",
        lambda case: Beyond(case.model, _second(case)),
        "clean images",
        "He et al., ICML 2024",
        applies=_second_has_parts,
        networks=_both,
        n_images=100,
    ),
)
