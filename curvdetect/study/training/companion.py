"""Train a second network that an attack on the first does not fool as well."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from curvdetect._base.checks import check_share
from curvdetect._base.warn import warn
from curvdetect.geometry import (
    RegionMargin,
    find_adversarial_perturbation,
    find_joint_perturbation,
)
from curvdetect.network import TorchModel
from curvdetect.study.training.cure import CURE
from curvdetect.study.training.loop import NotFiniteError, TrainingLoss, train

__all__ = ["TrainedCompanion", "train_companion"]

#: Validated by at most; attacked of these; of so many classes; by so many steps.
_MOST_VALIDATED, _N_ATTACKED, _N_TARGETS, _N_STEPS = 2000, 60, 2, 100
#: Share of clean images that a companion alone may flag, where norms are compared.
_FLAGGED = 0.05
#: Below that, a network is too small to be flat and right, or was trained too hard.
_LEAST_AGREEMENT = 0.9


@dataclass(frozen=True)
class TrainedCompanion:
    """A companion, and what its training reached, on images held back from it.

    Attributes
    ----------
    model : TorchModel
        The companion: for ``GuardedClassifier(model, companion=trained.model)``.
    loss : str
        What it was trained with.
    n_validation : int
        Images held back.
    accuracy : (float, float)
        Share that the network, and the companion, get right; NaN without labels.
    agreement : float
        Share of the images that the network gets right (all, without labels) on which
        the companion says the same.
    n_attacked : int
        Of these, the images whose norms follow.
    norm : (float, float)
        Median L2 norm of the smallest perturbation found that fools the network, and
        the companion.
    joint_norm : float
        The same for one that fools the network, while the companion gives no larger
        odds against the wrong label than against those of 95 % of the clean images.
        An upper bound: a better attack finds a smaller one.
    """

    model: TorchModel
    loss: str
    n_validation: int
    accuracy: tuple[float, float]
    agreement: float
    n_attacked: int
    norm: tuple[float, float]
    joint_norm: float

    def __str__(self) -> str:
        right = ""
        if not np.isnan(self.accuracy[0]):
            right = "right {1:.1%} (network {0:.1%}), ".format(*self.accuracy)
        alone, own = self.norm
        return (
            f"companion trained with {self.loss}; on {self.n_validation} images held "
            f"back: {right}agrees on {self.agreement:.1%}. Median L2 norm on "
            f"{self.n_attacked}: to fool the network {alone:.3g}, the companion "
            f"{own:.3g}, both at 5 % of clean images flagged {self.joint_norm:.3g} "
            f"({self.joint_norm / alone:.2f} times the first)"
        )


def train_companion(
    model: TorchModel,
    X: npt.ArrayLike | Tensor,
    y: npt.ArrayLike | None = None,
    *,
    module: nn.Module | None = None,
    loss: TrainingLoss | Sequence[TrainingLoss] | None = None,
    n_epochs: int = 4,
    batch_size: int = 128,
    max_lr: float = 2e-3,
    validation: float = 0.1,
    checkpoint: str | Path | None = None,
    random_state: int = 0,
    verbose: bool = True,
) -> TrainedCompanion:
    """Train a companion for a network: a copy of it, fine-tuned to be flatter.

    Parameters
    ----------
    model : TorchModel
        The network to be guarded; it is not changed.
    X : array or Tensor of shape (n_samples, *input_shape)
        Images: thousands, best those that the network was trained on. They must not
        be those that the guard will be fitted on.
    y : array of shape (n_samples,), optional
        Their labels; by default those that the network gives.
    module : torch.nn.Module, optional
        What to train instead of a copy: a larger network, if the guarded one is too
        small to be both flat and right. It takes the same images, with the same
        normalisation, and is trained in place, from the weights that it has.
    loss : callable or sequence of callable, optional
        As in :func:`train`; by default :class:`CURE`. With several, a copy is trained
        with each, and the one with the largest `joint_norm` is kept.
    n_epochs, batch_size, max_lr, checkpoint, random_state, verbose
        As in :func:`train`. With several losses, the name of a checkpoint contains the
        number of the loss.
    validation : float, default=0.1
        Share of the images to hold back, at most 2,000, to judge the companion.

    Returns
    -------
    TrainedCompanion
        The companion, in eval mode, and how good it is. Print it.

    Raises
    ------
    TypeError
        If `model` is no TorchModel.
    ValueError
        If a parameter or the images are not allowed; as :func:`train` does.

    Warns
    -----
    UserWarning
        If the companion agrees with the network on less than 90 % of the images held
        back, or one of several losses is left out because it did not stay finite.

    Notes
    -----
    Cost: with CURE about eight forward passes and as many backward passes for each
    image and epoch. There is no early stopping: the learning rate of :func:`train`
    becomes small towards the end, while the step of CURE grows, so stopping earlier
    would be another, weaker training.

    References
    ----------
    S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, "Robustness via curvature
    regularization, and vice versa", CVPR 2019.

    Examples
    --------
    >>> from curvdetect.study.datasets import load_digits
    >>> from curvdetect.study.networks import train_on_digits
    >>> from curvdetect.study.training import train_companion
    >>> from curvdetect import TorchModel
    >>> X, y = load_digits()
    >>> network = TorchModel(
    ...     train_on_digits(X[:600], y[:600], seed=0), input_shape=(1, 8, 8)
    ... )
    >>> trained = train_companion(network, X[:600], y[:600], verbose=False)
    >>> trained.agreement > 0.9, trained.joint_norm > trained.norm[0]
    (True, True)
    """
    if not isinstance(model, TorchModel):
        raise TypeError(f"model must be a TorchModel; got {type(model).__name__}")
    check_share("validation", validation)
    images, told, labels = _labelled(model, X, y)
    loss = CURE() if loss is None else loss
    losses: list[TrainingLoss] = [loss] if callable(loss) else list(loss)
    if not losses:
        raise ValueError("loss must be a loss, or several; got an empty sequence")
    order = np.random.default_rng(random_state).permutation(len(images))
    n_held = min(_MOST_VALIDATED, max(2, round(validation * len(images))))
    if len(images) <= n_held:
        raise ValueError(f"X must hold at least 3 images; got {len(images)}")
    held, rest = np.split(order, [n_held])
    origin = model.module if module is None else module
    in_place = module is not None and len(losses) == 1
    found = []
    for number, each in enumerate(losses):
        twin = _twin(model, origin if in_place else copy.deepcopy(origin))
        try:
            train(
                twin.as_module(trainable=True),
                images[rest],
                labels[rest],
                loss=each,
                n_epochs=n_epochs,
                batch_size=batch_size,
                max_lr=max_lr,
                checkpoint=_numbered(checkpoint, number, len(losses)),
                random_state=random_state,
                verbose=verbose,
            )
        except NotFiniteError as error:
            if len(losses) == 1:
                raise
            warn(f"{each!r} is left out: {error}")
            continue
        given = None if y is None else labels[held]
        found.append(_reached(model, twin, images[held], told[held], given, repr(each)))
        if verbose:
            tqdm.write(str(found[-1]), file=sys.stderr)
    if not found:
        raise ValueError("loss: with none of them the training came to an end")
    best = max(found, key=lambda each: each.joint_norm)
    if best.agreement < _LEAST_AGREEMENT:
        warn(
            f"the companion agrees with the network on {best.agreement:.0%} of the "
            "images held back: what it is too small for, or was trained too hard for, "
            "will be flagged. Give a larger network to train, "
            "module=curvdetect.study.networks.LeNet() for grey images of 28 x 28, more "
            "images, or a weaker loss, CURE(strength=0.01)"
        )
    return best


def _labelled(
    model: TorchModel, X: npt.ArrayLike | Tensor, y: npt.ArrayLike | None
) -> tuple[Tensor, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return images, what the network says of them, and their labels."""
    images = model.to_tensor(X)
    told = model.predict(images)
    labels = told if y is None else np.asarray(y)
    if labels.shape != (len(images),):
        raise ValueError(
            f"y must have a label for each of {len(images)} images; got shape "
            f"{labels.shape}"
        )
    return images, told, labels


def _twin(model: TorchModel, module: nn.Module) -> TorchModel:
    """Return a module that takes what the network takes, ready to be trained."""
    for part in module.parameters():
        part.requires_grad_(part.is_floating_point())
    return TorchModel(
        module.eval(),
        input_shape=model.input_shape,
        bounds=model.bounds,
        mean=model.mean,
        std=model.std,
        device=model.device,
        clamp=model.clamp,
        class_names=model.class_names,
        preparation=model.preparation,
    )


def _numbered(path: str | Path | None, number: int, n: int) -> Path | None:
    """Return a file for each of n checkpoints."""
    if path is None or n == 1:
        return None if path is None else Path(path)
    return Path(path).with_stem(f"{Path(path).stem}-{number}")


def _reached(
    model: TorchModel,
    companion: TorchModel,
    images: Tensor,
    told: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64] | None,
    loss: str,
) -> TrainedCompanion:
    """Say what a companion does on images held back."""
    own = companion.predict_logits(images)
    says = own.argmax(axis=1)
    right = told == (told if labels is None else labels)
    if not right.any():
        raise ValueError(
            "y must be the labels of X: the network gets none of the images held back "
            "right"
        )
    log_q = torch.from_numpy(own).log_softmax(dim=1)
    limit = float(_against(log_q, torch.from_numpy(told))[right].quantile(1 - _FLAGGED))
    x, label = images[right][:_N_ATTACKED], torch.from_numpy(told[right][:_N_ATTACKED])
    alone, alone_of_companion = (
        _smallest(each, x, torch.from_numpy(each.predict(x)))
        for each in (model, companion)
    )
    known = alone[alone.isfinite() & (alone > 0)]
    joint = torch.full_like(alone, torch.inf)  # where nothing fools the network
    if len(known):
        radius = float(known.median())
        joint = _smallest_joint(model, companion, x, label, limit, radius)
    accuracy = (np.nan, np.nan)
    if labels is not None:
        accuracy = float(np.mean(told == labels)), float(np.mean(says == labels))
    return TrainedCompanion(
        model=companion,
        loss=loss,
        n_validation=len(images),
        accuracy=accuracy,
        agreement=float(np.mean(says[right] == told[right])),
        n_attacked=len(x),
        norm=(float(alone.median()), float(alone_of_companion.median())),
        joint_norm=float(joint.median()),
    )


def _against(log_q: Tensor, label: Tensor) -> Tensor:
    """Return the log-odds that a classifier gives against labels, (n,)."""
    own = log_q.gather(1, label[:, None])
    others = log_q.scatter(1, label[:, None], -torch.inf)
    return others.logsumexp(dim=1) - own[:, 0]


def _smallest(model: TorchModel, images: Tensor, labels: Tensor) -> Tensor:
    """Return the norms of the smallest perturbations."""
    norms = []
    size = model.rows_per_batch(images[:1])
    with model.evaluating():
        for x, label in zip(model.split(images), labels.split(size), strict=True):
            found = find_adversarial_perturbation(
                model.logits, x, label=label.to(x.device), bounds=model.bounds
            )
            norms.append(found.norms.cpu())
    return torch.cat(norms)


def _smallest_joint(
    model: TorchModel,
    companion: TorchModel,
    images: Tensor,
    labels: Tensor,
    limit: float,
    radius: float,
) -> Tensor:
    """Return the norms of the smallest that make both say the same wrong class."""
    norms = []
    size = model.rows_per_batch(images[:1])
    with model.evaluating(), companion.evaluating():
        for x, label in zip(model.split(images), labels.split(size), strict=True):
            with torch.no_grad():
                logits = model.logits(x)
            others = logits.scatter(1, label[:, None].to(x.device), -torch.inf)
            n_targets = min(_N_TARGETS, logits.shape[1] - 1)
            best = x.new_full((len(x),), torch.inf)
            for target in others.topk(n_targets, dim=1).indices.T:
                found = find_joint_perturbation(
                    partial(_both, model, companion, target, limit),
                    x,
                    radius=radius,
                    bounds=model.bounds,
                    n_steps=_N_STEPS,
                )
                best = best.minimum(found.norms)
            norms.append(best.cpu())
    return torch.cat(norms)


def _both(
    model: TorchModel, companion: TorchModel, target: Tensor, limit: float, x: Tensor
) -> Tensor:
    """Return what is positive where both say a class, (n, 2)."""
    margin = RegionMargin(model.logits, target)(x)
    odds = _against(companion.logits(x).log_softmax(1), target)
    return torch.stack([margin, limit - odds], dim=1)
