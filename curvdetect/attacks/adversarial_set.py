"""Adversarial sets: run an attack, keep what it really fooled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from curvdetect._base.seeding import seeded
from curvdetect._base.warn import warn
from curvdetect.attacks.convention import Attack
from curvdetect.attacks.labelled_set import LabelledSet
from curvdetect.network import TorchModel
from curvdetect.network.checks import FEW_RIGHT, doubts_of_labels

__all__ = ["AdversarialSet", "make_adversarial_set"]


@dataclass(frozen=True)
class AdversarialSet:
    """Clean images that the model gets right, and what an attack made of them.

    Attributes
    ----------
    clean : ndarray of shape (n_clean, *input_shape)
        The images that the model classifies right.
    clean_label : ndarray of shape (n_clean,), int64
        Their labels, true and predicted.
    adversarial : ndarray of shape (n_adversarial, *input_shape)
        The perturbed images that the model classifies wrong.
    original_label : ndarray of shape (n_adversarial,), int64
        Label of each before the attack.
    predicted_label : ndarray of shape (n_adversarial,), int64
        Label of each after it.
    source : ndarray of shape (n_adversarial,), int64
        Position in `clean` of the image that each was made from.
    """

    clean: npt.NDArray[np.float32]
    clean_label: npt.NDArray[np.int64]
    adversarial: npt.NDArray[np.float32]
    original_label: npt.NDArray[np.int64]
    predicted_label: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]

    @property
    def success_rate(self) -> float:
        """Share of the clean images that the attack made the model get wrong."""
        return len(self.adversarial) / max(len(self.clean), 1)

    @property
    def fooled(self) -> npt.NDArray[np.bool_]:
        """Whether the attack succeeded on each clean image, shape (n_clean,)."""
        return np.isin(np.arange(len(self.clean)), self.source)

    @property
    def norms(self) -> npt.NDArray[np.float64]:
        """L2 norm of each perturbation, in input units, shape (n_adversarial,)."""
        change = self.adversarial - self.clean[self.source]
        flat = change.reshape(len(change), math.prod(change.shape[1:]))
        return np.linalg.norm(flat.astype(np.float64), axis=1)

    @property
    def control_norms(self) -> npt.NDArray[np.float64]:
        """Norm of noise that is a fair control for each clean image, shape (n_clean,).

        That of its own perturbation, or the mean of all where the attack failed.
        """
        norms = np.full(len(self.clean), self.norms.mean())
        norms[self.source] = self.norms
        return norms

    def labelled(self) -> LabelledSet:
        """Put clean and adversarial images into one set.

        Returns
        -------
        LabelledSet
            Images, 0 or 1, groups, and labels before and after the attack.

        Examples
        --------
        >>> import torch
        >>> from curvdetect import TorchModel
        >>> from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
        >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
        >>> X = torch.tensor([[0.7, 0.3, 0.1], [0.2, 0.6, 0.3]]).numpy()
        >>> attacked = make_adversarial_set(model, MinimalNormAttack(model), X, [0, 1])
        >>> X, y, groups, original, predicted = attacked.labelled()
        >>> y, groups, predicted
        (array([0, 0, 1, 1]), array([0, 1, 0, 1]), array([0, 1, 1, 2]))
        """
        is_adversarial = np.repeat([0, 1], [len(self.clean), len(self.adversarial)])
        return LabelledSet(
            X=np.concatenate([self.clean, self.adversarial]),
            y=is_adversarial.astype(np.int64),
            groups=np.concatenate([np.arange(len(self.clean)), self.source]),
            original_label=np.concatenate([self.clean_label, self.original_label]),
            predicted_label=np.concatenate([self.clean_label, self.predicted_label]),
        )


def make_adversarial_set(
    model: TorchModel,
    attack: Attack,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    *,
    batch_size: int = 256,
    seed: int = 0,
    verbose: int = 0,
) -> AdversarialSet:
    """Attack the images that a model gets right; keep those it then gets wrong.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    attack : callable
        ``attack(images, labels) -> images``, torchattacks' calling convention, built
        on ``model.as_module()``.
    X : array of shape (n_samples, *input_shape)
        Images.
    y : array of shape (n_samples,)
        True labels, 0 .. n_classes - 1.
    batch_size : int, default=256
        Images given to the attack at a time.
    seed : int, default=0
        Of torch's generators and NumPy's global one during the attack; those of the
        CPU and of the model's device are restored afterwards.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    AdversarialSet
        Clean and adversarial images with their labels.

    Raises
    ------
    ValueError
        If there is not a label for each image, the model gets none of the images right,
        or the attack's result has another shape, is not finite or leaves the model's
        bounds.

    Warns
    -----
    UserWarning
        If the model gets less than half of the images right.
    """
    right, y = _classified_right(model, X, y)
    clean, labels = np.asarray(X, dtype=np.float32)[right], y[right]
    attacked = []
    with (
        tqdm(total=len(clean), unit="image", desc="attack", disable=not verbose) as bar,
        model.evaluating(),
        seeded(seed),
    ):
        targets = torch.from_numpy(labels).split(batch_size)
        for images, target in zip(
            model.split(model.to_tensor(clean), batch_size), targets, strict=True
        ):
            result = attack(images, target.to(images.device))
            attacked.append(result.detach().cpu())
            bar.update(len(images))
    adversarial = torch.cat(attacked).numpy().astype(np.float32)
    if adversarial.shape != clean.shape:
        raise ValueError(
            f"attack must keep the shape of the images, {clean.shape}; got "
            f"{adversarial.shape}"
        )
    predicted = model.predict(adversarial)  # checks values and bounds too
    fooled = predicted != labels
    return AdversarialSet(
        clean=clean,
        clean_label=labels,
        adversarial=adversarial[fooled],
        original_label=labels[fooled],
        predicted_label=predicted[fooled],
        source=np.flatnonzero(fooled),
    )


def _classified_right(
    model: TorchModel, X: npt.ArrayLike, y: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return which images the model gets right, and their labels, checked."""
    given, logits = np.asarray(y), model.predict_logits(X)
    predicted = logits.argmax(axis=1)
    if given.shape != predicted.shape:
        raise ValueError(
            f"y must hold one label for each of the {len(predicted)} images; got shape "
            f"{given.shape}"
        )
    numbers = given.dtype.kind in "iufb"
    labels = given.astype(np.int64) if numbers else np.full(given.shape, -1)
    if not np.array_equal(labels, given):
        raise ValueError(
            "y must hold whole numbers, the positions of the classes; got dtype "
            f"{given.dtype}"
        )
    right = predicted == labels
    if right.sum() >= FEW_RIGHT * len(right) > 0:
        return right, labels
    doubts = doubts_of_labels(predicted, labels, logits.shape[1])
    if not right.any():
        raise ValueError(f"the model classifies none of these images right; {doubts}")
    warn(
        f"the model gets only {right.sum()} of the {len(right)} images right, and the "
        f"others are left out; {doubts}"
    )
    return right, labels
