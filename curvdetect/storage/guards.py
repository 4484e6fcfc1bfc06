"""Save fitted estimators so that loading them executes nothing (extra "skops")."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from curvdetect._base.extras import require
from curvdetect._base.files import written_at_once
from curvdetect._base.stand_ins import stand_in
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.estimators.monitor import GuardMonitor
from curvdetect.estimators.state import is_network, networks_replaced
from curvdetect.network import Preparation, TorchModel
from curvdetect.network.fingerprint import weights_digest
from curvdetect.network.modules import uncompiled
from curvdetect.signals import SIGNALS

__all__ = ["SavedEstimator", "load", "read_saved", "save"]

#: Of what is in a file; files of others are refused. 5: names and preparation, and
#: weights that are named by their digest.
FORMAT_VERSION = 6
#: Our own types that a file may hold, besides what skops trusts: NumPy's and
#: scikit-learn's.
_OURS = (
    "curvdetect.estimators.detector.CurvatureThresholdDetector",
    "curvdetect.estimators.featurizer.CurvatureFeaturizer",
    "curvdetect.estimators.guard.GuardedClassifier",
    "curvdetect.estimators.learned.LearnedDetector",
    "curvdetect.estimators.monitor.GuardMonitor",
    "curvdetect.estimators.relabeler.CurvatureRelabeler",
    "curvdetect.estimators.voting.VotingDetector",
    "curvdetect.signals.companion.Companion",
    "curvdetect.storage.guards._SavedModel",
    *(f"{signal.__module__}.{signal.__qualname__}" for signal in SIGNALS),
)
#: What a file may hold: the network, and its companion.
_ROLES = ("module", "companion")

_NOT_OURS = "path must be a file that curvdetect.storage.save wrote"


class _SavedModel:
    """Stands for a network in a file: its settings, or None for a bare module."""

    def __init__(self, settings: dict[str, Any] | None, number: int) -> None:
        self.settings, self.number = settings, number


def save(estimator: BaseEstimator, path: str | Path, *, weights: bool = True) -> None:
    """Write a fitted estimator, a guard or a pipeline to a file.

    The file holds parameters and arrays alone: what was learned, and the weights of the
    network, but not its code. (Pickle and joblib keep everything, and execute whatever
    is in a file when it is loaded: use them for files of your own only.)

    Caches (`memory`) are left out: what they hold is pickled.

    A file of this name stays what it is until the new one is complete, and in its place
    at once.

    Parameters
    ----------
    estimator : estimator
        With a network or without, and with a companion; with several references to
        either, as in a pipeline, but not with a third.
    path : str or Path
        Where to; by custom its name ends with ".skops".
    weights : bool, default=True
        Whether the file holds the weights of the networks. Without them it is small,
        names them by their digest (see :meth:`~curvdetect.TorchModel.weights_digest`),
        and :func:`load` takes networks with exactly those.

    Raises
    ------
    ValueError
        If the estimator holds three networks, or weights of a number format that NumPy
        lacks.
    OSError
        If the file cannot be written, as where the disk is full.
    ImportError
        If skops is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from curvdetect import GuardedClassifier
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import LeNet, load_lenet
    >>> from curvdetect.storage import load, save
    >>> X, y = load_fashion_mnist_sample()
    >>> network = load_lenet("fashion-mnist")
    >>> guard = GuardedClassifier(network, detector="threshold", target_fpr=0.05)
    >>> guard = guard.fit(X[:50], y[:50])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(guard, f"{folder}/guard.skops")
    ...     loaded = load(f"{folder}/guard.skops", LeNet())
    >>> bool((loaded.predict(X[50:60]) == guard.predict(X[50:60])).all())
    True
    """
    skops = require("skops.io", extra="skops")
    modules: list[nn.Module] = []

    def without_network(held: Any) -> Any:
        if not is_network(held):
            return held
        module = held.module if isinstance(held, TorchModel) else uncompiled(held)
        if not any(module is each for each in modules):
            modules.append(module)
        number = next(n for n, each in enumerate(modules) if each is module)
        return _SavedModel(_settings(held), number)

    content: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "estimator": networks_replaced(estimator, without_network),
    }
    if len(modules) > len(_ROLES):
        raise ValueError(
            "estimator must hold one network, and one companion; got "
            f"{len(modules)} different ones"
        )
    content["weights"] = [
        _arrays(module) if weights else weights_digest(module) for module in modules
    ]
    # Weights hardly become smaller, and all else is text.
    compression = zipfile.ZIP_STORED if weights else zipfile.ZIP_DEFLATED
    with written_at_once(path) as partial:
        skops.dump(content, partial, compression=compression)


def load(
    path: str | Path,
    module: nn.Module | None = None,
    *,
    companion: nn.Module | None = None,
    trusted: Sequence[str] = (),
) -> Any:
    """Read an estimator that :func:`save` wrote.

    Nothing in the file is executed, whoever wrote it: it names types, and those that
    are neither this package's nor known to skops (NumPy's, scikit-learn's but for some
    inner ones) are refused unless you name them.

    Parameters
    ----------
    path : str or Path
        The file.
    module : torch.nn.Module, optional
        A network of the same architecture: it is given the weights of the file, eval
        mode, and stays where it is (CPU or GPU). Needed if the estimator has a network.
        Where the file names weights by their digest: a network that has them.
    companion : torch.nn.Module, optional
        The same for the companion of a guard that has one.
    trusted : sequence of str, optional
        Names of further types that the file may hold, such as those of a detector of
        your own.

    Returns
    -------
    estimator
        As it was saved, around `module`.

    Raises
    ------
    ValueError
        If the file is not of :func:`save`, of a later version, holds types that are not
        trusted, or weights that `module` does not fit, or names others than it has.
    ImportError
        If skops is not installed.
    """
    return read_saved(path, trusted=trusted).around(module, companion)


class SavedEstimator:
    """What is in a file of :func:`save`, before there are networks for it.

    Attributes
    ----------
    holds_weights : tuple of bool
        For each network that the estimator has, the guarded one and its companion,
        whether the file holds its weights, or names them by their digest.
    """

    def __init__(self, path: str | Path, content: dict[str, Any]) -> None:
        self._path, self._estimator = path, content["estimator"]
        self._weights = content["weights"]
        self.holds_weights = tuple(isinstance(each, dict) for each in self._weights)

    def around(
        self, module: nn.Module | None, companion: nn.Module | None = None
    ) -> Any:
        """Return the estimator around networks.

        Parameters
        ----------
        module, companion
            As in :func:`load`.

        Returns
        -------
        estimator
            As :func:`load` returns it.
        """
        given = (module, companion)
        if companion is not None and len(self._weights) < len(given):
            raise ValueError(f"companion must be left out: {self._path} holds none")
        modules = [
            _with_weights(role, network, weights)
            for role, network, weights in zip(
                _ROLES, given, self._weights, strict=False
            )
        ]
        loaded = _with_networks(self._estimator, modules)
        _check_learned(loaded)
        return loaded


def read_saved(path: str | Path, *, trusted: Sequence[str] = ()) -> SavedEstimator:
    """Read a file of :func:`save`, for which networks are still to be made.

    Parameters
    ----------
    path, trusted
        As in :func:`load`, and with its errors.

    Returns
    -------
    SavedEstimator
        Says whether it needs networks that have their weights.
    """
    skops = require("skops.io", extra="skops")
    if reason := stand_in(path):
        raise ValueError(f"{_NOT_OURS}; {path} is {reason}")
    allowed = {*_OURS, *trusted}
    try:
        others = set(skops.get_untrusted_types(file=path)) - allowed
    except (AttributeError, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{_NOT_OURS}; got {path} ({error})") from error
    if others:
        raise ValueError(
            f"{path} holds types that are not trusted: {sorted(others)}. If you know "
            "them, name them: load(..., trusted=[...])"
        )
    content = skops.load(path, trusted=sorted(allowed))
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{_NOT_OURS}; got {path}")
    if version < FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {version}, of an earlier curvdetect: what guards hold "
            f"is another now, in format {FORMAT_VERSION}. Fit again, and save"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {version}; this curvdetect reads up to "
            f"{FORMAT_VERSION}. Install a newer one"
        )
    weights = content.get("weights")
    if "estimator" not in content or not (
        isinstance(weights, list) and all(isinstance(w, dict | str) for w in weights)
    ):
        raise ValueError(f"{_NOT_OURS}; {path} lacks some of what it writes")
    return SavedEstimator(path, content)


def _with_weights(
    role: str, module: nn.Module | None, weights: dict[str, npt.NDArray[Any]] | str
) -> nn.Module:
    """Give a network the weights of a file, or see that it has them; and eval mode."""
    if module is None:
        raise ValueError(
            f"{role} must be a network of the architecture that was saved; got None"
        )
    if not isinstance(module, nn.Module):
        hint = "; give its .module" if isinstance(module, TorchModel) else ""
        raise ValueError(
            f"{role} must be a torch.nn.Module; got a {type(module).__name__}{hint}"
        )
    module = uncompiled(module)
    if isinstance(weights, str):
        _check_digest(role, module, weights)
    else:
        _give(role, module, weights)
    for part in module.modules():
        part.training = False  # not eval(), which exported programs refuse
    return module


def _give(role: str, module: nn.Module, weights: dict[str, npt.NDArray[Any]]) -> None:
    try:
        module.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{role} must have the architecture that was saved; got {error}"
        ) from error


def _check_digest(role: str, module: nn.Module, digest: str) -> None:
    own = weights_digest(module)
    if own != digest:
        raise ValueError(
            f"{role} must have the very weights that the estimator was saved with: the "
            "file does not hold them, it names them by their digest, "
            f"{digest[:12]}...; got {own[:12]}.... Load them into the network before "
            "(pretrained=True, or its state dict), or save with weights=True"
        )


def _with_networks(estimator: Any, modules: list[nn.Module]) -> Any:
    """Put networks where they were."""
    wrapped: dict[str, TorchModel] = {}

    def network(held: Any) -> Any:
        if not isinstance(held, _SavedModel):
            return held
        if held.number not in range(len(modules)):
            raise ValueError(
                f"{_NOT_OURS}; got one that lacks the weights of a network"
            )
        module = modules[held.number]
        if held.settings is None:
            return module
        if not isinstance(held.settings, dict) or not all(
            isinstance(name, str) for name in held.settings
        ):
            raise ValueError(
                f"{_NOT_OURS}; got one with other settings: {held.settings!r}"
            )
        key = repr((held.number, sorted(held.settings.items())))
        if key not in wrapped:
            wrapped[key] = _model(module, held.settings)
        return wrapped[key]

    return networks_replaced(estimator, network)


def _check_learned(held: Any) -> None:
    """Refuse numbers that no learned detector or monitor in it can have."""
    if isinstance(held, LearnedDetector) and hasattr(held, "forests_"):
        held.check_learned()
    if isinstance(held, GuardMonitor) and hasattr(held, "known_"):
        held.check_learned()
    if isinstance(held, BaseEstimator):
        held = list(vars(held).values())
    if isinstance(held, list | tuple):
        for part in held:
            _check_learned(part)


def _settings(network: TorchModel | nn.Module) -> dict[str, Any] | None:
    """Return the parameters of a TorchModel but for where it computes.

    Names of classes as one string: skops takes 200 bytes for each, in several places.
    """
    if not isinstance(network, TorchModel):
        return None
    names = ("input_shape", "bounds", "mean", "std", "batch_size", "clamp")
    classes, prepare = network.class_names, network.preparation
    return {
        **{name: getattr(network, name) for name in names},
        "class_names": None if classes is None else json.dumps(classes),
        "preparation": None if prepare is None else asdict(prepare),
    }


def _model(module: nn.Module, settings: dict[str, Any]) -> TorchModel:
    """Wrap a network as it was."""
    classes, prepare = settings.get("class_names"), settings.get("preparation")
    try:
        given = {
            **settings,
            "class_names": None if classes is None else json.loads(classes),
            "preparation": None if prepare is None else Preparation(**prepare),
        }
        return TorchModel(module, **given)
    except (TypeError, RecursionError, json.JSONDecodeError) as error:  # none of ours
        raise ValueError(
            f"{_NOT_OURS}; got one with other settings: {error}"
        ) from error


def _arrays(module: nn.Module) -> dict[str, npt.NDArray[Any]]:
    return {name: _array(name, tensor) for name, tensor in module.state_dict().items()}


def _array(name: str, tensor: Tensor) -> npt.NDArray[Any]:
    try:
        return np.asarray(tensor.detach().cpu().numpy())
    except TypeError as error:
        raise ValueError(
            f"weights must have a number format that NumPy has; {name} has "
            f"{tensor.dtype}. Call module.float() first"
        ) from error
