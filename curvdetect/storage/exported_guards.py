"""Guards as programs of torch.export: files that need torch alone to run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from curvdetect import __version__
from curvdetect._base.files import written_at_once
from curvdetect._base.warn import warn
from curvdetect.estimators import CurvatureGuard, GuardedClassifier, LearnedDetector
from curvdetect.estimators._exportable import OUTPUTS, exported
from curvdetect.network.modules import device_of, dtype_of, working_dtype

__all__ = ["METADATA", "compare_exported", "export_guard"]

#: Of what :data:`METADATA` holds.
FORMAT_VERSION = 1
#: Under which name ``torch.export.load(path, extra_files={name: ""})`` finds JSON.
METADATA = "guard.json"
#: Images that are compared at a time.
_AT_ONCE = 64


def export_guard(
    guard: GuardedClassifier | CurvatureGuard,
    path: str | Path,
    *,
    early_exit: bool = True,
) -> dict[str, Any]:
    """Write a fitted guard as a program of ``torch.export``, which needs torch alone.

    Network, companion, stages, forests and threshold are one program, with the weights
    inside; this package is not needed to run it::

        guard = torch.export.load("guard.pt2").module()
        found = guard(images)  # (n, *input_shape), any n, without normalisation

    `found` is a dict of tensors: "logits", "label", "recovered_label", "score",
    "p_value" and "flagged", as :meth:`curvdetect.GuardedClassifier.assess` and
    :meth:`curvdetect.GuardedClassifier.p_values` give them: the program is traced from
    the very code that they run. What they refuse, images with values that are not
    finite or not within the bounds, is flagged, with an infinite score.

    Parameters
    ----------
    guard : GuardedClassifier or CurvatureGuard
        Fitted, with a :class:`~curvdetect.LearnedDetector`. Left as it is.
    path : str or Path
        Where to; by custom its name ends with ".pt2".
    early_exit : bool, default=True
        Whether images that are in doubt no more are left out of the later stages, as
        the guard does it. Without, every image costs as much as one that is in doubt to
        the end, 8 forward passes, and no shape in the program depends on the data.

    Returns
    -------
    dict
        What the file says of itself, and ``torch.export.load(path,
        extra_files={"guard.json": ""})`` reads as JSON: versions, shape and bounds of
        images, normalisation (inside the program), threshold and rate, what a flagged
        image gets, class names and preparation, and whether there is an early exit.

    Raises
    ------
    TypeError
        If `guard` is no guard.
    ValueError
        If its detector is no LearnedDetector, it has a companion on another device, or
        torch can export its network in no way.
    NotFittedError
        If it is not fitted.
    OSError
        If `path` cannot be written.

    Warns
    -----
    UserWarning
        If torch cannot export the early exit for these networks: then there is none.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from curvdetect import GuardedClassifier, LearnedDetector
    >>> from curvdetect.storage import export_guard
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> guard = GuardedClassifier(
    ...     load_lenet("fashion-mnist"),
    ...     detector=LearnedDetector(target_fpr=0.1, self_test=False, random_state=0),
    ... ).fit(X[:90], y[:90])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     about = export_guard(guard, f"{folder}/guard.pt2")
    ...     program = torch.export.load(f"{folder}/guard.pt2").module()
    >>> found = program(torch.from_numpy(X[90:94]))
    >>> bool((found["label"].numpy() == guard.predict(X[90:94])).all())
    True
    >>> about["early_exit"]
    True
    """
    held = guard.guard if isinstance(guard, CurvatureGuard) else guard
    _check(held)
    if not Path(path).absolute().parent.is_dir():  # before long work
        raise FileNotFoundError(f"path: there is no folder {Path(path).parent}")
    program, refused = exported(held, early=early_exit)
    if refused:
        warn(
            "torch cannot export these networks for a number of images that depends on "
            "the data, so the program measures every image to the end, which costs 8 "
            f"forward passes; torch.export says: {refused}"
        )
    about = _about(held, early_exit and not refused)
    with written_at_once(Path(path)) as file, file.open("wb") as stream:
        torch.export.save(program, stream, extra_files={METADATA: json.dumps(about)})
    return about


def compare_exported(
    path: str | Path,
    guard: GuardedClassifier | CurvatureGuard,
    X: npt.ArrayLike | Tensor,
) -> dict[str, float]:
    """Load a program of :func:`export_guard` and compare it with the guard.

    Parameters
    ----------
    path : str or Path
        The file; one of your own, since reading it can execute whatever is in it.
    guard : GuardedClassifier or CurvatureGuard
        What it was made of.
    X : array or Tensor of shape (n_samples, *input_shape)
        Images.

    Returns
    -------
    dict of str to float
        The largest difference of "logits", "score" and "p_value"; for how many images
        "label", "recovered_label" and "flagged" differ.

    Examples
    --------
    See :func:`export_guard`; then ``compare_exported("guard.pt2", guard, X)["score"]``
    is 0.0, or rounding.
    """
    held = guard.guard if isinstance(guard, CurvatureGuard) else guard
    model = held.model_
    logits, found = held._logits_and_assessment(X)
    expected = {
        "logits": logits,
        "label": found.label,
        "recovered_label": found.recovered_label,
        "score": found.score,
        "p_value": held.p_values(X),
        "flagged": found.flagged,
    }
    program, parts = torch.export.load(path).module(), []
    images = model.to_tensor(X).to(device_of(model.module))
    with torch.no_grad():
        for batch in images.split(_AT_ONCE):
            answer = program(batch)
            parts.append([answer[name].cpu().numpy() for name in OUTPUTS])
    differences = {}
    for name, of_batches in zip(OUTPUTS, zip(*parts, strict=True), strict=True):
        found_, wanted = np.concatenate(of_batches), expected[name]
        if wanted.dtype.kind == "f":
            differences[name] = float(np.abs(found_ - wanted).max())
        else:
            differences[name] = float((found_ != wanted).sum())
    return differences


def _check(guard: Any) -> None:
    """Refuse what is no fitted guard with a learned detector, on one device."""
    if not isinstance(guard, GuardedClassifier):
        raise TypeError(
            "guard must be a GuardedClassifier or a CurvatureGuard; got a "
            f"{type(guard).__name__}"
        )
    check_is_fitted(guard)
    detector = guard.detector_
    if not isinstance(detector, LearnedDetector):
        raise ValueError(
            "guard must have a LearnedDetector to be exported, as by default "
            '(detector="learned"): a threshold searches for boundaries and '
            "differentiates, and votes need random numbers with a key, which no "
            f"program holds; got one with a {type(detector).__name__}. "
            "curvdetect.storage.save keeps it"
        )
    detector._checked(guard.model_._blank(guard.input_shape_))  # weights as at fit
    companion = detector.companion_
    if companion is not None:
        devices = [device_of(model.module) for model in (guard.model_, companion.model)]
        if devices[0] != devices[1]:
            raise ValueError(
                "the guard's companion must be on the device of its network to be "
                f"exported, one program; got {devices[1]} and {devices[0]}"
            )


def _about(guard: GuardedClassifier, early_exit: bool) -> dict[str, Any]:
    """Return what a file says of itself."""
    model, detector = guard.model_, guard.detector_
    prepare = model.preparation
    dtype = working_dtype(dtype_of(model.module, torch.zeros(())))
    return {
        "format": FORMAT_VERSION,
        "curvdetect": __version__,
        "torch": torch.__version__,
        "input_shape": list(guard.input_shape_),
        "dtype": str(dtype).removeprefix("torch."),
        "bounds": model.bounds and list(model.bounds),
        "mean": model.mean and list(model.mean),
        "std": model.std and list(model.std),
        "normalisation": "inside the program: give images within bounds",
        "n_classes": int(detector.n_classes_),
        "class_names": model.class_names and list(model.class_names),
        "preparation": None if prepare is None else asdict(prepare),
        "companion": detector.companion_ is not None,
        "target_fpr": float(detector.target_fpr_),
        "threshold": float(detector.threshold_),
        "on_flag": guard.on_flag,
        "reject_label": int(guard.reject_label),
        "early_exit": early_exit,
        "outputs": list(OUTPUTS),
    }
