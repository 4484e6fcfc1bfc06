"""The network of an ART classifier, with what ART does before it is called."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from art.estimators.classification.classifier import ClassifierMixin
from torch import Tensor, nn

from curvdetect._base.seeding import generators_kept
from curvdetect.network import TorchModel
from curvdetect.network.modules import device_of

__all__ = ["Standardised", "check_classifier", "companion_from", "model_from_art"]

#: Images on which the wrapped network must answer as the classifier does, and how
#: nearly, in parts of the largest logit: kernels may differ.
_N_COMPARED, _PRECISION = 4, 1e-3


def model_from_art(classifier: Any) -> TorchModel:
    """Wrap the network of an ART classifier, with its bounds and normalisation.

    The classifier predicts a few random images, and so does what is returned: if they
    do not agree, the classifier does more than to call its network.

    Parameters
    ----------
    classifier : art.estimators.classification.PyTorchClassifier
        The classifier. Defences with ``apply_predict=False`` are for its training:
        nothing of them is taken over.

    Returns
    -------
    TorchModel
        The same network, for images of the classifier's `input_shape`: channels may
        come last. A mean and a standard deviation that are neither one number nor one
        for each channel that comes first are part of its module.

    Raises
    ------
    ValueError
        If it is no classifier with a torch module, preprocesses images in another way
        than by a mean and a standard deviation, has postprocessing defences, or
        predicts otherwise than its network does: a smoothed classifier of ART, say.
    """
    check_classifier(classifier)
    model = _wrapped(classifier, classifier.model)
    _check_predictions(classifier, model)
    return model


def companion_from(held: Any, classifier: Any) -> Any:
    """Return a companion for the network of a classifier, in the place of a parameter.

    Parameters
    ----------
    held : ART classifier, torch.nn.Module, or anything else
        A bare module is given images as the network of the classifier is.
    classifier : art.estimators.classification.PyTorchClassifier
        The classifier that is guarded.

    Returns
    -------
    TorchModel, or `held` itself
        The latter for what is neither.

    Raises
    ------
    ValueError
        If it is an ART classifier that :func:`model_from_art` does not take.
    """
    if isinstance(held, ClassifierMixin):
        try:
            return model_from_art(held)
        except ValueError as error:
            raise ValueError(f"companion is refused: {error}") from error
    return _wrapped(classifier, held) if isinstance(held, nn.Module) else held


def check_classifier(classifier: Any) -> None:
    """Refuse by name what cannot be a classifier that predicts by its network.

    Raises
    ------
    ValueError
        As :func:`model_from_art` does, before anything is predicted.
    """
    name = type(classifier).__name__
    module = getattr(classifier, "model", None)
    if not (isinstance(classifier, ClassifierMixin) and isinstance(module, nn.Module)):
        raise ValueError(f"classifier must be a PyTorchClassifier of ART; got {name}")
    for kind, remedy in (
        ("preprocessing", "put them into the network, or leave them out"),
        ("postprocessing", "which hide its logits; leave them out"),
    ):
        defences = _at_prediction(getattr(classifier, f"{kind}_defences", None))
        if defences:
            found = ", ".join(type(defence).__name__ for defence in defences)
            raise ValueError(
                f"classifier must not have {kind} defences when it predicts: {remedy}, "
                f"or give them apply_predict=False; got {found}"
            )
    (standard,) = _at_prediction(getattr(classifier, "preprocessing", None)) or [None]
    if standard is not None and not (
        hasattr(standard, "mean") and hasattr(standard, "std")
    ):
        raise ValueError(
            "classifier must preprocess images by a mean and a standard deviation, or "
            f"not at all; got {type(standard).__name__}"
        )


def _at_prediction(steps: Any) -> list[Any]:
    """Return the steps that ART takes when it predicts."""
    if steps is None:
        return []
    every = steps if isinstance(steps, list) else [steps]
    return [step for step in every if step.apply_predict]


def _wrapped(classifier: Any, module: nn.Module) -> TorchModel:
    """Return a network that is given images as that of the classifier is."""
    mean, std = _statistics(classifier)
    channels = _per_channel(classifier, mean, std)
    if channels is None:
        module = Standardised(module, mean, std)
    mean_of_channel, std_of_channel = channels or (None, None)
    clip: Any = classifier.clip_values
    bounds = None if clip is None else (float(np.min(clip[0])), float(np.max(clip[1])))
    with warnings.catch_warnings():
        # ART leaves the mode to its methods; so does TorchModel.
        warnings.filterwarnings("ignore", message="module is in training mode")
        return TorchModel(
            module,
            input_shape=tuple(classifier.input_shape),
            bounds=bounds,
            mean=mean_of_channel,
            std=std_of_channel,
        )


def _statistics(
    classifier: Any,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the mean and standard deviation that an ART classifier applies."""
    (step,) = _at_prediction(getattr(classifier, "preprocessing", None)) or [None]
    mean, std = (0.0, 1.0) if step is None else (step.mean, step.std)
    return np.asarray(mean, dtype=np.float32), np.asarray(std, dtype=np.float32)


def _per_channel(
    classifier: Any, mean: npt.NDArray[Any], std: npt.NDArray[Any]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None] | None:
    """Return both for a TorchModel, one number a channel; None if it has no such."""
    if not (np.any(mean != 0) or np.any(std != 1)):
        return None, None
    n_channels = classifier.input_shape[0]
    sizes = {mean.size, std.size}
    if sizes == {1}:
        mean, std = (np.full(n_channels, value) for value in (mean.item(), std.item()))
    # Where the last axis is as long, ART takes that.
    elif (
        sizes != {n_channels}
        or not classifier.channels_first
        or n_channels == classifier.input_shape[-1]
    ):
        return None
    return tuple(map(float, mean.ravel())), tuple(map(float, std.ravel()))


class Standardised(nn.Module):
    """A network after ART's standardisation, by arrays of any shape that ART takes.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    mean, std : ndarray
        As ART has them: for the last axis of a batch; a vector of another length than
        that has is one for the first axis of an image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, module: nn.Module, mean: npt.NDArray[Any], std: npt.NDArray[Any]
    ) -> None:
        super().__init__()
        self.module = module
        self.train(module.training)
        for name, values in (("mean", mean), ("std", std)):
            held = torch.tensor(values, dtype=torch.float32, device=device_of(module))
            self.register_buffer(name, held)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network makes of standardised images."""
        mean, std = self.mean.to(x), self.std.to(x)
        if mean.ndim == 1 and len(mean) not in (1, x.shape[-1]):
            shape = (-1, *[1] * (x.ndim - 2))
            mean, std = mean.reshape(shape), std.reshape(shape)
        logits: Tensor = self.module((x - mean) / std)
        return logits


def _check_predictions(classifier: Any, model: TorchModel) -> None:
    """Refuse a classifier that predicts otherwise than by calling its network."""
    low, high = model.bounds or (0.0, 1.0)
    rng = np.random.default_rng(0)
    shape = (_N_COMPARED, *tuple(classifier.input_shape))
    images = rng.uniform(low, high, shape).astype(np.float32).clip(low, high)
    name = type(classifier).__name__
    with _undisturbed(model.module):
        try:
            expected = np.asarray(classifier.predict(images.copy()))
        except Exception as error:
            raise ValueError(
                f"classifier must predict images of its input_shape, {shape[1:]}; "
                f"{name}.predict raises {type(error).__name__}: {error}"
            ) from error
    logits = model.predict_logits(images)
    tolerance = _PRECISION * np.abs(logits).max()
    if expected.shape == logits.shape and np.allclose(
        expected, logits, rtol=0, atol=tolerance
    ):
        return
    raise ValueError(
        f"classifier must predict by its network alone; {name} predicts something else "
        "on random images (does it smooth, vote, or defend itself?). Give a "
        "PyTorchClassifier of the network, or put what it does into the network"
    )


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Put back what predicting may change: training modes, random number generators."""
    modes = [(part, part.training) for part in module.modules()]
    device = device_of(module)
    devices = [device] if device.type == "cuda" else []
    try:
        with generators_kept(), torch.random.fork_rng(devices):
            yield
    finally:
        for part, training in modes:
            part.training = training
