"""`CurvatureGuard`: a guarded network as a torch module, for serving."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from curvdetect.estimators._companions import as_companion
from curvdetect.estimators._image_detector import ImageDetector
from curvdetect.estimators.guard import GuardedClassifier
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.estimators.state import learned, module_of
from curvdetect.network import TorchModel
from curvdetect.signals import Companion, Signal

__all__ = ["CurvatureGuard", "Guarded"]

#: Of what a state dict holds; one of another version is refused.
_FORMAT = 2
_INCOMPLETE = "the state lacks some of what a CurvatureGuard keeps"
#: Parameters that change no result, or whose result is in the state.
_NOT_COMPARED = (
    "attacks",
    "companion",
    "key",
    "memory",
    "model",
    "random_state",
    "self_test",
    "verbose",
)
#: Of a network, what is.
_OF_A_NETWORK = ("input_shape", "bounds", "mean", "std", "clamp")


class Guarded(NamedTuple):
    """What :class:`CurvatureGuard` returns for n images, on the device of the images.

    Attributes
    ----------
    logits : Tensor of shape (n, n_classes)
        Logits of the network.
    label : Tensor of shape (n,), int64
        The label that the guard gives; for flagged images the one that `on_flag`
        chooses.
    recovered_label : Tensor of shape (n,), int64
        The label before the attack, on the assumption that there was one.
    flagged : Tensor of shape (n,), bool
        Whether the image looks adversarial.
    score : Tensor of shape (n,), float64
        The larger, the more likely adversarial; positive where flagged.
    """

    logits: Tensor
    label: Tensor
    recovered_label: Tensor
    flagged: Tensor
    score: Tensor


class CurvatureGuard(nn.Module):
    """A guarded network as a torch module, for serving.

    It is a :class:`curvdetect.GuardedClassifier` that moves with ``.to``, and whose
    state dict holds the calibration together with the weights. It returns tensors
    without gradients, and always works in eval mode.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted, or to be fitted by :meth:`calibrate` or ``load_state_dict``. It is not
        copied. Its network must not be bound to a device.

    Attributes
    ----------
    module : torch.nn.Module
        The network. Do not replace it.
    companion : torch.nn.Module or None
        The companion, if the guard has one. Do not replace it either.
    guard : GuardedClassifier
        The guard.

    Raises
    ------
    TypeError
        If `guard` is no GuardedClassifier, or holds no network.
    ValueError
        If a network of it is bound to a device, or its detector holds another.

    Notes
    -----
    ``torch.load(path, weights_only=True)`` reads the state dict: it holds tensors and
    numbers alone. Only a guard with the same parameters accepts it; `on_flag` and
    `reject_label` may differ. New weights need a new calibration.

    An image costs what the guard's detector costs. Threads take turns.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import CurvatureGuard, GuardedClassifier
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import LeNet, load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> network = load_lenet("fashion-mnist")
    >>> inner = GuardedClassifier(network, detector="threshold", target_fpr=0.05)
    >>> guard = CurvatureGuard(inner).calibrate(X[:120], y[:120])
    >>> state = guard.state_dict()

    On the server:

    >>> network = LeNet().eval()
    >>> inner = GuardedClassifier(network, detector="threshold", target_fpr=0.05)
    >>> served = CurvatureGuard(inner)
    >>> _ = served.load_state_dict(state)
    >>> found = served(torch.from_numpy(X[120:124]))
    >>> found.logits.shape, found.flagged.shape
    (torch.Size([4, 10]), torch.Size([4]))
    """

    module: nn.Module
    companion: nn.Module | None

    def __init__(self, guard: GuardedClassifier) -> None:
        super().__init__()
        if not isinstance(guard, GuardedClassifier):
            raise TypeError(
                f"guard must be a GuardedClassifier; got {type(guard).__name__}"
            )
        if getattr(guard.detector, "detector", None) is not None:
            raise ValueError(
                "guard must have a detector without another one in it, which no state "
                "dict holds; use curvdetect.storage.save, or leave out the detector of "
                f"its {type(guard.detector).__name__}"
            )
        for held in _networks(guard):
            if isinstance(held, TorchModel) and held.device is not None:
                raise ValueError(
                    "the guard's network must not be bound to a device; leave device "
                    f"out of TorchModel and move the guard: .to({str(held.device)!r})"
                )
        self.guard = guard
        self._take_networks()

    def __getstate__(self) -> dict[str, Any]:
        # The networks are in the guard; one copy, not two, is pickled.
        ours = ("module", "companion")
        others = {k: v for k, v in self._modules.items() if k not in ours}
        return {**vars(self), "_modules": others}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._take_networks()

    def _take_networks(self) -> None:
        """Hold the guard's networks as torch does: they move, and are in the state."""
        network, companion = _networks(self.guard)
        self.module = module_of(network)
        self.companion = None if companion is None else module_of(companion)

    def calibrate(
        self, images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | None = None
    ) -> CurvatureGuard:
        """Calibrate on clean images.

        Parameters
        ----------
        images : array, Tensor or list of shape (n, *input_shape)
            Clean images that the network was not trained on.
        labels : array or Tensor of shape (n,), optional
            Their labels: images that the network gets wrong are then left out.

        Returns
        -------
        CurvatureGuard
            Itself.

        Raises
        ------
        ValueError
            As :meth:`GuardedClassifier.fit` does.
        """
        self.guard.fit(images, labels)
        return self

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it would go wrong
    def forward(self, x: Tensor) -> Guarded:
        """Classify images, and say which look adversarial.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images within the network's bounds, on any device.

        Returns
        -------
        Guarded
            Logits, labels, flags and scores.

        Raises
        ------
        RuntimeError
            If the guard was not calibrated.
        TypeError
            If `x` is no Tensor.
        ValueError
            If the images are not what they must be, or the network was cast to another
            precision since the guard was calibrated.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a Tensor; got {type(x).__name__}")
        if not hasattr(self.guard, "detector_"):
            raise RuntimeError(
                "the guard is not calibrated; call calibrate(images, labels) or "
                "load_state_dict(state) first"
            )
        logits, found = self.guard._logits_and_assessment(x)
        return Guarded(
            *(
                torch.from_numpy(values).to(x.device)
                for values in (
                    logits,
                    found.label,
                    found.recovered_label,
                    found.flagged,
                    found.score,
                )
            )
        )

    # State -----------------------------------------------------------------

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights and calibration, or neither: as torch does, but for that.

        Parameters
        ----------
        *args, **kwargs
            As ``torch.nn.Module.load_state_dict`` takes them.

        Returns
        -------
        NamedTuple
            What was missing and what was not expected.
        """
        before = dict(vars(self.guard))
        try:
            return super().load_state_dict(*args, **kwargs)
        except Exception:
            self.guard.__dict__ = before
            raise

    def get_extra_state(self) -> dict[str, Any]:
        """Return the calibration; torch puts it into the state dict.

        Returns
        -------
        dict
            Tensors and numbers; nothing learned if the guard was not calibrated.
        """
        known: dict[str, Any] = {}
        if hasattr(self.guard, "detector_"):
            known = {
                name: _plain_learned(getattr(self.guard, name))
                for name in self.guard._parts()
            }
            known["weights_"] = self.guard.weights_
        return {"format": _FORMAT, "settings": self._settings(), "learned": known}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take a calibration over; torch calls it with that of a state dict.

        Parameters
        ----------
        state : dict
            As :meth:`get_extra_state` returns it.

        Raises
        ------
        ValueError
            If it is not one, of a later version, or of a guard with other parameters.
        """
        version = state.get("format") if isinstance(state, dict) else None
        if not isinstance(version, int):
            raise ValueError("the state is not one of a CurvatureGuard")
        if version > _FORMAT:
            raise ValueError(
                f"the state has format {version}; this curvdetect reads up to "
                f"{_FORMAT}. Install a newer one"
            )
        if version < _FORMAT:
            raise ValueError(
                f"the state has format {version}, of an earlier curvdetect: what "
                f"guards hold is another now, in format {_FORMAT}. Calibrate again"
            )
        known, others = state.get("learned"), state.get("settings")
        if not (isinstance(known, dict) and isinstance(others, dict)):
            raise ValueError(_INCOMPLETE)
        own = self._settings()
        differing = {
            name: (own.get(name), others.get(name))
            for name in sorted(own.keys() | others.keys())
            if own.get(name) != others.get(name)
        }
        if differing:
            raise ValueError(
                "the state is of a guard with other parameters; as (this guard's, the "
                f"state's): {differing}"
            )
        parts = self.guard._parts()
        if known.keys() not in (set(), {*parts, "weights_"}):
            raise ValueError(_INCOMPLETE)
        if not known:
            return
        for name, part in parts.items():
            _with(part, known[name])
        looks = parts.get("featurizer_", parts["detector_"])
        looks.model_ = looks._wrapped(looks.input_shape_, looks.bounds_)
        if isinstance(looks, ImageDetector):
            looks.companion_ = as_companion(
                looks.companion, looks.model_, looks.input_shape_
            )
        if isinstance(looks, LearnedDetector):
            looks.check_learned()
        self.guard._adopt(parts, str(known["weights_"]))
        self.guard.n_features_in_ = looks.n_features_in_

    def _settings(self) -> dict[str, Any]:
        """Return all parameters that the calibration depends on."""
        settings: dict[str, Any] = {}
        for name, part in self.guard._parts().items():
            settings[f"{name}_class"] = type(part).__name__
            for key, value in part.get_params().items():
                if key not in _NOT_COMPARED:
                    settings[f"{name}_{key}"] = _setting(f"{name}_{key}", value)
        for role, held in zip(
            ("model", "companion"), _networks(self.guard), strict=True
        ):
            if isinstance(held, TorchModel):
                for key in _OF_A_NETWORK:
                    settings[f"{role}__{key}"] = getattr(held, key)
        companion = _companion(self.guard)
        settings["companion"] = companion is not None
        if isinstance(companion, Companion):
            settings["companion__classes"] = companion.classes
        return settings


def _companion(guard: GuardedClassifier) -> Any:
    """Return the companion as it was given: the guard's, or its detector's."""
    of_detector = getattr(guard.detector, "companion", None)
    return of_detector if guard.companion is None else guard.companion


def _networks(guard: GuardedClassifier) -> tuple[Any, Any]:
    """Return the network and that of its companion, or None, wrapped or bare."""
    companion = _companion(guard)
    if isinstance(companion, Companion):
        companion = companion.model
    return guard.model, companion


def _plain_learned(estimator: BaseEstimator) -> dict[str, Any]:
    return {name: _plain(name, value) for name, value in learned(estimator).items()}


def _with(estimator: Any, learned: dict[str, Any]) -> Any:
    for name, value in learned.items():
        setattr(estimator, name, _arrays(value))
    return estimator


def _arrays(value: Any) -> Any:
    """Return a value with arrays where :func:`_plain` put tensors."""
    if isinstance(value, Tensor):
        return value.cpu().numpy()
    if isinstance(value, tuple):
        return tuple(_arrays(v) for v in value)
    return value


def _setting(name: str, value: Any) -> Any:
    """Return a parameter as something that can be compared, and stored."""
    if isinstance(value, np.ndarray):
        return _setting(name, value.tolist())
    if isinstance(value, Signal):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        settings = sorted(vars(value).items())
        return kind, tuple((key, _setting(f"{name}.{key}", v)) for key, v in settings)
    if isinstance(value, list | tuple):
        return tuple(_setting(name, v) for v in value)
    return _plain(name, value)


def _plain(name: str, value: Any) -> Any:
    """Return a value as torch.load(weights_only=True) reads it."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return tuple(_plain(name, v) for v in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(
        f"{name} is a {type(value).__name__}, which a state dict cannot hold; use "
        "curvdetect.storage.save"
    )
