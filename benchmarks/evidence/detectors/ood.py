"""The detectors of pytorch-ood that need nothing but a classifier, as they are shipped.

They were made for images of other kinds than those of the training, and their papers
are named in the `info` of each class of `pytorch_ood.detector`. All are used with their
defaults, and get what they ask for: logits, what the last affine layer is given
(features), several layers, or images. They learn from the reference images, with their
true labels.

What had to be decided here:

- ViM keeps half of the dimensions of the features, and DICE leaves out 0.9 of the
  weights, as its paper does for CIFAR-10; neither has a default.
- ASH, ReAct, SCALE and VRA change the features, as a map of one pixel; RankFeat takes
  the largest singular value from the last map of several channels at several places.
- GradNorm and GradUncertainty take gradients of the last layer's weights, as GradNorm's
  paper does.
- Gram and MultiMahalanobis look at up to six layers, evenly spaced; Gram at powers up
  to three. NACUE looks at the same layers.
- Mahalanobis, MahalanobisODIN, MultiMahalanobis and RMD compute in 64 bits: they invert
  covariances to which they add no more than 1e-6, which 32 bits do not hold where
  features vary little (distances become negative).
- KNN asks for fewer than its 50 neighbours where there are fewer images.
- OpenMax is asked about an image of each class in every call: what it says of an image
  depends on which classes others of the call are taken for (pytorch-ood 0.4.0).
- A score that is not a number, as where all features are 0, counts as the largest.

Left out: MCD, which needs dropout and is random; MCM, which needs embeddings of texts;
WeightedEBO, which needs weights learned with the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_ood import detector as ood
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.batches import in_batches
from benchmarks.evidence.case import Case, Training
from benchmarks.evidence.detectors._layers import (
    Activations,
    Parts,
    RestOfNetwork,
    last_map,
    parts,
    stages,
)
from benchmarks.evidence.detectors.base import Detector, every
from curvdetect import TorchModel

__all__ = ["DETECTORS", "OfPytorchOOD", "OpenMaxOfEveryClass"]

logging.getLogger("pytorch_ood").setLevel(logging.ERROR)  # it says that the CPU is used

BATCH_SIZE = 200
N_NEIGHBOURS = 50
#: Powers of Gram: the paper's are up to 10, which a float32 does not hold for all.
POWERS = (1, 2, 3)

Make = Callable[[TorchModel, int], Any]
Given = Callable[[Tensor], list[Tensor]]


class Kind(NamedTuple):
    """What detectors of one interface are given.

    `given(model)` maps images to that, and `change` what comes of it; `fit` and
    `predict` are the methods that take it. `structured` ones take all layers as a list.
    `dtype` is torch's default while it learns.
    """

    given: Callable[[TorchModel], Given]
    fit: str
    predict: str
    change: Callable[[Tensor], Tensor] = lambda z: z
    structured: bool = False
    dtype: torch.dtype = torch.float32


class OfPytorchOOD:
    """A detector of pytorch-ood; `make(model, n)` makes it for n reference images."""

    def __init__(self, model: TorchModel, kind: Kind, make: Make) -> None:
        self.model, self.kind, self.make = model, kind, make

    def fit(self, training: Training) -> OfPytorchOOD:
        """Learn from the reference images, if there is something to learn."""
        X, y = training.reference
        self.detector = self.make(self.model, len(X))
        self.given = self.kind.given(self.model)
        if not self.detector.requires_fit:
            return self
        labels = torch.as_tensor(y)
        with self.model.evaluating(), _default(self.kind.dtype):
            torch.manual_seed(0)  # Gram leaves out some images at random
            if self.kind.fit == "fit":
                data = TensorDataset(torch.as_tensor(X), labels)
                self.detector.fit(DataLoader(data, batch_size=BATCH_SIZE))
            else:
                self._fit_given(X, labels)
        return self

    def _fit_given(self, X: np.ndarray, labels: Tensor) -> None:
        given = [self.kind.change(z) for z in _once(self.model, self.kind.given, X)]
        fit = getattr(self.detector, self.kind.fit)
        if self.kind.structured:
            fit(given, labels)
        else:
            fit(*given, labels)

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return the detector's scores, all of them numbers."""
        predict = getattr(self.detector, self.kind.predict)

        def of_batch(x: Tensor) -> Tensor:
            with torch.no_grad():
                given = [self.kind.change(z) for z in self.given(x)]
            return predict(given) if self.kind.structured else predict(*given)

        with self.model.evaluating():
            scores = in_batches(of_batch, X, BATCH_SIZE).astype(np.float64)
        largest = np.finfo(np.float32).max
        return np.nan_to_num(scores, nan=largest, posinf=largest, neginf=-largest)


_KEPT: dict[Any, tuple[np.ndarray, list[Tensor]]] = {}


def _once(
    model: TorchModel, given: Callable[[TorchModel], Given], X: np.ndarray
) -> list[Tensor]:
    """Return what all of some images give, or what the same images gave before.

    Most detectors learn from the same features, and to compute them is most of it.
    """
    key = (model, given, id(X))
    if key not in _KEPT:
        if len(_KEPT) == 3:
            _KEPT.clear()
        of_batch = given(model)
        with torch.no_grad():
            batches = [of_batch(x) for x in torch.as_tensor(X).split(BATCH_SIZE)]
        found = [torch.cat(tensors) for tensors in zip(*batches, strict=True)]
        _KEPT[key] = X, found  # with the images, whose `id` must remain theirs
    return _KEPT[key][1]


class OpenMaxOfEveryClass(ood.OpenMax):
    """OpenMax, whose score of an image depends on no other image of the call.

    As shipped, distances to the centre of a class are computed where an image of the
    call is taken for that class, and are 0 otherwise. A row for each class is added.
    """

    def predict_logits(self, logits: Tensor) -> Tensor:
        """Return the probability of the unknown class, shape (n,)."""
        n, n_classes = logits.shape
        scores: Tensor = super().predict_logits(
            torch.cat([logits, torch.eye(n_classes, dtype=logits.dtype)])
        )
        return scores[:n]


class GramOfStages(ood.Gram):
    """Gram matrices of layers that need not be a chain.

    It calls the layers one after another: the first one runs the network, and all
    others give what was caught on the way.
    """

    def __init__(self, model: TorchModel) -> None:
        self.network = Activations(model.as_module(), stages(model))
        n = len(self.network.layers)
        super().__init__(
            head=lambda _: self.logits,
            feature_layers=[lambda x, i=i: self._layer(x, i) for i in range(n)],
            num_classes=model.n_classes,
            num_poles_list=list(POWERS),
        )

    def _layer(self, x: Tensor, i: int) -> Tensor:
        if i == 0:
            found, self.logits = self.network.with_logits(x)
            self.caught = [_channels_first(tensor) for tensor in found]
        return self.caught[i]


class Differentiable(nn.Module):
    """A network whose layers have gradients, though its weights are frozen."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.network(x.detach().requires_grad_())

    def train(self, mode: bool = True) -> Differentiable:
        """Change nothing: the mode is the guarded network's own."""
        return self


def _of_logits(model: TorchModel) -> Given:
    network = model.as_module()
    return lambda x: [network(x)]


def _of_features(model: TorchModel) -> Given:
    features = _parts(model).features
    return lambda x: [features(x)]


def _of_layers(model: TorchModel) -> Given:
    network = Activations(model.as_module(), stages(model))

    def mean_of(z: Tensor) -> Tensor:
        return _channels_first(z).flatten(2).mean(2) if z.ndim > 2 else z

    return lambda x: [mean_of(z) for z in network(x)]


def _of_images(model: TorchModel) -> Given:
    return lambda x: [x]


def _double(z: Tensor) -> Tensor:
    return z.double()


def _as_pixel(z: Tensor) -> Tensor:
    return z[..., None, None]


LOGITS = Kind(_of_logits, "fit_logits", "predict_logits")
FEATURES = Kind(_of_features, "fit_features", "predict_features")
PIXELS = Kind(_of_features, "fit_feature_maps", "predict_feature_maps", _as_pixel)
IMAGES = Kind(_of_images, "fit", "predict")
#: Of those that invert a covariance.
DOUBLE_FEATURES = FEATURES._replace(change=_double, dtype=torch.float64)
DOUBLE_IMAGES = IMAGES._replace(dtype=torch.float64)
LAYERS = Kind(
    _of_layers, "fit_structured", "predict_structured", _double, True, torch.float64
)
#: Of those that take gradients themselves, and learn nothing.
GRADIENTS = Kind(_of_features, "fit", "predict")


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _channels_first(z: Tensor) -> Tensor:
    return z.transpose(1, 2) if z.ndim == 3 else z


def _parts(model: TorchModel) -> Parts:
    found = parts(model)
    assert found is not None, "`applies` says so"
    return found


def _head(model: TorchModel) -> nn.Linear:
    return _parts(model).head


def _of_pixel(model: TorchModel) -> Callable[[Tensor], Tensor]:
    head = _head(model)
    return lambda z: head(z.flatten(1))


def _with_head(made: Callable[..., Any], **settings: Any) -> Make:
    return lambda model, n: made(None, head=_head(model), **settings)


def _with_pixel(made: Callable[..., Any]) -> Make:
    return lambda model, n: made(None, _of_pixel(model))


def _with_weights(made: Callable[..., Any]) -> Make:
    return lambda model, n: made(_head(model), param_filter=lambda n: n == "weight")


def _vim(model: TorchModel, n: int) -> ood.ViM:
    head = _head(model)
    return ood.ViM(None, head.in_features // 2, head.weight, head.bias)


def _dice(model: TorchModel, n: int) -> ood.DICE:
    head = _head(model)
    return ood.DICE(None, head.weight, head.bias, p=0.9)


def _rank_feat(model: TorchModel, n: int) -> ood.RankFeat:
    layer = last_map(model)
    assert layer is not None, "`applies` says so"
    cut = RestOfNetwork(model.as_module(), layer)
    return ood.RankFeat(lambda x: cut.before(x).contiguous(), cut.after)


def _nacue(model: TorchModel, n: int) -> ood.NACUE:
    return ood.NACUE(Differentiable(model.as_module()), stages(model))


#: By name: what it is given, how it is made, and whether it learns.
_TABLE: dict[str, tuple[Kind, Make, bool]] = {
    "MaxSoftmax": (LOGITS, lambda m, n: ood.MaxSoftmax(None), False),
    "MaxLogit": (LOGITS, lambda m, n: ood.MaxLogit(None), False),
    "EnergyBased": (LOGITS, lambda m, n: ood.EnergyBased(None), False),
    "Entropy": (LOGITS, lambda m, n: ood.Entropy(None), False),
    "GEN": (LOGITS, lambda m, n: ood.GEN(None), False),
    "TemperatureScaling": (LOGITS, lambda m, n: ood.TemperatureScaling(None), True),
    "KLMatching": (LOGITS, lambda m, n: ood.KLMatching(None), True),
    "OpenMax": (LOGITS, lambda m, n: OpenMaxOfEveryClass(None), True),
    "ODIN": (IMAGES, lambda m, n: ood.ODIN(m.as_module()), False),
    "GradNorm": (GRADIENTS, _with_weights(ood.GradNorm), False),
    "GradUncertainty": (GRADIENTS, _with_weights(ood.GradUncertainty), False),
    "Mahalanobis": (DOUBLE_FEATURES, lambda m, n: ood.Mahalanobis(None), True),
    "MahalanobisODIN": (
        DOUBLE_IMAGES,
        lambda m, n: ood.MahalanobisODIN(lambda x: _parts(m).features(x).double()),
        True,
    ),
    "MultiMahalanobis": (LAYERS, lambda m, n: ood.MultiMahalanobis(stages(m)), True),
    "RMD": (DOUBLE_FEATURES, lambda m, n: ood.RMD(None), True),
    "GMM": (FEATURES, lambda m, n: ood.GMM(None), True),
    "KNN": (FEATURES, lambda m, n: ood.KNN(None, k=min(N_NEIGHBOURS, n)), True),
    "NNGuide": (FEATURES, _with_head(ood.NNGuide), True),
    "ViM": (FEATURES, _vim, True),
    "SHE": (FEATURES, _with_head(ood.SHE), True),
    "DICE": (FEATURES, _dice, True),
    "fDBD": (FEATURES, _with_head(ood.fDBD), True),
    "NCI": (FEATURES, _with_head(ood.NCI), True),
    "PNML": (FEATURES, _with_head(ood.PNML), True),
    "LTS": (FEATURES, _with_head(ood.LTS), False),
    "ASH": (PIXELS, _with_pixel(ood.ASH), False),
    "SCALE": (PIXELS, _with_pixel(ood.SCALE), False),
    "ReAct": (PIXELS, _with_pixel(ood.ReAct), True),
    "VRA": (PIXELS, _with_pixel(ood.VRA), True),
    "RankFeat": (IMAGES, _rank_feat, False),
    "Gram": (IMAGES, lambda m, n: GramOfStages(m), True),
    "NACUE": (IMAGES, _nacue, True),
}


def _has_parts(case: Case) -> bool:
    """Say whether the last layer is affine, so that there are features and a head."""
    return parts(case.model) is not None


def _has_map(case: Case) -> bool:
    """Say whether a layer gives several channels at several places: images or tokens.

    Fully connected networks have none.
    """
    return last_map(case.model) is not None


def _applies(name: str, kind: Kind) -> Callable[[Case], bool]:
    if name == "RankFeat":
        return _has_map
    if kind is LOGITS or name in ("ODIN", "Gram", "MultiMahalanobis", "NACUE"):
        return every
    return _has_parts


def _detector(name: str, kind: Kind, make: Make, learns: bool) -> Detector:
    return Detector(
        f"pytorch-ood {name}",
        lambda case: OfPytorchOOD(case.model, kind, make),
        "clean images" if learns else "nothing",
        f"pytorch-ood {version('pytorch-ood')}",
        applies=_applies(name, kind),
    )


DETECTORS = tuple(_detector(name, *row) for name, row in _TABLE.items())
