"""Train networks whose loss is less curved, and adversarially, to compare with.

:func:`cure_penalty` drops into any training loop; :func:`train` is a small one, with
checkpoints, for :class:`CrossEntropy`, :class:`CURE`, :class:`AdversarialTraining` or a
loss of one's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeAlias

import joblib
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from curvdetect._base.checks import check_count, check_positive
from curvdetect._base.extras import require
from curvdetect._base.files import written_at_once
from curvdetect._base.rows import per_row

__all__ = ["CURE", "AdversarialTraining", "CrossEntropy", "cure_penalty", "train"]

#: (module, images, labels, progress from 0 to 1) -> mean loss of the batch.
TrainingLoss: TypeAlias = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def cure_penalty(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    step: float,
    loss: Callable[..., Tensor] = functional.cross_entropy,
) -> Tensor:
    r"""Compute the curvature penalty of CURE for a batch, differentiably.

    \|grad l(x + h z) - grad l(x)\|^2 for each image, with gradients with respect to the
    input and z the unit vector along the sign of grad l(x): how much the loss curves
    along the direction in which an attack would go.

    Parameters
    ----------
    module : torch.nn.Module
        The network. What it draws at random in training mode (dropout) differs between
        the two gradients and adds to the penalty.
    x : Tensor of shape (n, *input_shape)
        Images.
    y : Tensor of shape (n,), int64
        Labels.
    step : float
        h, an L2 length in input units; about 1 in the paper.
    loss : callable, default=torch.nn.functional.cross_entropy
        (logits, labels) -> (n,), called with ``reduction="none"``.

    Returns
    -------
    Tensor of shape (n,)
        Penalties, in (loss per input unit) squared. Their mean, times a strength, is
        added to the loss of a training loop. Cost: two forward and backward passes,
        both of which are differentiated again.

    Raises
    ------
    ValueError
        If `step` is not a positive number.

    References
    ----------
    S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, "Robustness via curvature
    regularization, and vice versa", CVPR 2019, equation (8).

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.training import cure_penalty
    >>> module = torch.nn.Linear(4, 3)
    >>> x, y = torch.rand(8, 4), torch.randint(3, (8,))
    >>> loss = torch.nn.functional.cross_entropy(module(x), y)
    >>> loss = loss + 4 * cure_penalty(module, x, y, step=1.0).mean()
    >>> loss.backward()
    """
    check_positive("step", step)

    def gradient(points: Tensor) -> Tensor:
        leaf = points.detach().requires_grad_()
        with torch.enable_grad():
            total = loss(module(leaf), y, reduction="none").sum()
            (result,) = torch.autograd.grad(total, leaf, create_graph=True)
        return result

    at_x = gradient(x)
    z = at_x.detach().sign()
    length = z.flatten(1).norm(dim=1).clamp(min=torch.finfo(z.dtype).tiny)
    z = z / per_row(length, z)
    return (gradient(x + step * z) - at_x).flatten(1).square().sum(1)


class CrossEntropy:
    """Plain training.

    Examples
    --------
    >>> from curvdetect.study.training import CrossEntropy
    >>> CrossEntropy()
    CrossEntropy()
    """

    def __repr__(self) -> str:
        return "CrossEntropy()"

    def __call__(
        self, module: nn.Module, x: Tensor, y: Tensor, progress: float
    ) -> Tensor:
        """Return the mean cross-entropy of a batch.

        Parameters
        ----------
        module : torch.nn.Module
            The network.
        x, y : Tensor of shape (n, *input_shape) and (n,)
            Images and labels.
        progress : float
            Not used.

        Returns
        -------
        Tensor
            A number.
        """
        return functional.cross_entropy(module(x), y)


class CURE:
    """Cross-entropy and the curvature penalty, with a step that grows.

    Parameters
    ----------
    strength : float, default=0.03
        Of the penalty.
    step : float, default=1.5
        h in the end, an L2 length in input units.
    warm_up : float, default=0.5
        Share of the training during which h grows linearly from 0.

    References
    ----------
    S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, "Robustness via curvature
    regularization, and vice versa", CVPR 2019.

    Examples
    --------
    >>> from curvdetect.study.training import CURE
    >>> CURE(strength=2.0)
    CURE(strength=2.0, step=1.5, warm_up=0.5)
    """

    def __init__(
        self, *, strength: float = 0.03, step: float = 1.5, warm_up: float = 0.5
    ) -> None:
        check_positive("strength", strength)
        check_positive("step", step)
        if not 0 <= warm_up <= 1:
            raise ValueError(f"warm_up must be from 0 to 1; got {warm_up!r}")
        self.strength = strength
        self.step = step
        self.warm_up = warm_up

    def __repr__(self) -> str:
        return (
            f"CURE(strength={self.strength!r}, step={self.step!r}, "
            f"warm_up={self.warm_up!r})"
        )

    def __call__(
        self, module: nn.Module, x: Tensor, y: Tensor, progress: float
    ) -> Tensor:
        """Return the mean regularised loss of a batch.

        Parameters
        ----------
        module : torch.nn.Module
            The network.
        x, y : Tensor of shape (n, *input_shape) and (n,)
            Images and labels.
        progress : float
            Share of the training that is done: sets h.

        Returns
        -------
        Tensor
            A number.
        """
        loss = functional.cross_entropy(module(x), y)
        grown = 1.0 if self.warm_up == 0 else min(1.0, progress / self.warm_up)
        if grown == 0:
            return loss
        penalty = cure_penalty(module, x, y, step=grown * self.step)
        return loss + self.strength * penalty.mean()


class AdversarialTraining:
    """Cross-entropy on images under a PGD attack, by torchattacks.

    Parameters
    ----------
    eps : float
        Largest change of a value; images are within [0, 1].
    n_steps : int, default=7
        Steps of the attack, of length 2.5 eps / n_steps.

    References
    ----------
    A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards deep learning
    models resistant to adversarial attacks", ICLR 2018.

    Examples
    --------
    >>> from curvdetect.study.training import AdversarialTraining
    >>> AdversarialTraining(eps=0.1)
    AdversarialTraining(eps=0.1, n_steps=7)
    """

    def __init__(self, *, eps: float, n_steps: int = 7) -> None:
        check_positive("eps", eps)
        check_count("n_steps", n_steps)
        self.eps = eps
        self.n_steps = n_steps
        self._torchattacks = require("torchattacks", extra="attacks")

    def __repr__(self) -> str:
        return f"AdversarialTraining(eps={self.eps!r}, n_steps={self.n_steps!r})"

    def __call__(
        self, module: nn.Module, x: Tensor, y: Tensor, progress: float
    ) -> Tensor:
        """Return the mean cross-entropy of a batch under attack.

        Parameters
        ----------
        module : torch.nn.Module
            The network.
        x, y : Tensor of shape (n, *input_shape) and (n,)
            Images and labels.
        progress : float
            Not used.

        Returns
        -------
        Tensor
            A number.
        """
        attack = self._torchattacks.PGD(
            module,
            eps=self.eps,
            alpha=2.5 * self.eps / self.n_steps,
            steps=self.n_steps,
        )
        return functional.cross_entropy(module(attack(x, y).detach()), y)


def train(
    module: nn.Module,
    X: npt.ArrayLike | Tensor,
    y: npt.ArrayLike | Tensor,
    *,
    loss: TrainingLoss | None = None,
    n_epochs: int = 10,
    batch_size: int = 128,
    max_lr: float = 1e-3,
    weight_decay: float = 5e-4,
    checkpoint: str | Path | None = None,
    random_state: int = 0,
    verbose: bool = True,
) -> nn.Module:
    """Train a network in place, with AdamW and a one-cycle schedule.

    Parameters
    ----------
    module : torch.nn.Module
        The network; trained on the device where it is, from the weights that it has.
    X : array or Tensor of shape (n_samples, *input_shape)
        Images.
    y : array or Tensor of shape (n_samples,)
        Labels.
    loss : callable, optional
        (module, images, labels, progress) -> mean loss of the batch, progress from 0
        to 1; :class:`CrossEntropy` by default. A checkpoint knows it by its ``repr``,
        or by its name if that is Python's default.
    n_epochs, batch_size : int, default=10 and 128
        How long, and how many images a step.
    max_lr, weight_decay : float, default=1e-3 and 5e-4
        Of the schedule and of AdamW.
    checkpoint : str or Path, optional
        A file to which each epoch is saved when it is done. If it is there already,
        training goes on from it, with the same result as if it had never stopped; it
        must come from the same settings.
    random_state : int, default=0
        Order of the images, and what the loss draws; the global random numbers are
        left as they were.
    verbose : bool, default=True
        Whether to show a progress bar.

    Returns
    -------
    torch.nn.Module
        The same module, in eval mode.

    Raises
    ------
    ValueError
        If a parameter is not allowed, the loss is not finite, or the checkpoint is of
        other settings.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.training import CURE, train
    >>> X, y = torch.rand(64, 4), torch.randint(3, (64,))
    >>> module = train(
    ...     torch.nn.Linear(4, 3), X, y, loss=CURE(), n_epochs=2, verbose=False
    ... )
    >>> module.training
    False
    """
    check_count("n_epochs", n_epochs)
    check_count("batch_size", batch_size)
    check_positive("max_lr", max_lr)
    n_epochs, batch_size = int(n_epochs), int(batch_size)
    first = next(module.parameters(), None)
    if first is None:
        raise ValueError("module must have parameters to train; got none")
    images = torch.as_tensor(X).detach().to(device="cpu", dtype=first.dtype)
    labels = torch.as_tensor(y).detach().long().cpu()
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            "X and y must have the same number of rows, at least one; got "
            f"{len(images)} and {len(labels)}"
        )
    loss = CrossEntropy() if loss is None else loss
    device = first.device
    n_batches = math.ceil(len(images) / batch_size)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=max_lr, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=n_epochs * n_batches
    )
    state = {"module": module, "optimizer": optimizer, "schedule": schedule}
    settings = {
        "loss": _name(loss),
        "data": joblib.hash((images.numpy(), labels.numpy())) if checkpoint else None,
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "max_lr": float(max_lr),
        "weight_decay": float(weight_decay),
        "random_state": int(random_state),
    }
    done = _resume(checkpoint, state, settings)
    cuda = [device] if device.type == "cuda" else []
    bar = tqdm(
        total=n_epochs * n_batches,
        initial=done * n_batches,
        unit="step",
        disable=not verbose,
    )
    try:
        with bar, torch.random.fork_rng(devices=cuda):
            for epoch in range(done, n_epochs):
                torch.manual_seed(random_state * 1_000_003 + epoch)
                module.train()
                order = torch.randperm(len(images)).split(batch_size)
                for step, rows in enumerate(order):
                    progress = (epoch + step / n_batches) / n_epochs
                    x, target = images[rows].to(device), labels[rows].to(device)
                    value = loss(module, x, target, progress)
                    size = float(value.detach())
                    if not math.isfinite(size):
                        raise ValueError(
                            f"the loss must be finite; got {size} in epoch "
                            f"{epoch}. Lower max_lr, or the strength of the penalty"
                        )
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
                    schedule.step()
                    bar.update()
                    bar.set_postfix(loss=f"{size:.3f}", refresh=False)
                _save(checkpoint, state, settings, epoch + 1)
    finally:
        optimizer.zero_grad()
        module.eval()
    return module


def _name(loss: TrainingLoss) -> str:
    """Return a name of the loss that is the same in another process."""
    if isinstance(loss, FunctionType):
        return f"{loss.__module__}.{loss.__qualname__}"
    if " object at 0x" in repr(loss):  # Python's default, with an address
        return f"{type(loss).__module__}.{type(loss).__qualname__}"
    return repr(loss)


def _resume(path: str | Path | None, state: dict[str, Any], settings: object) -> int:
    """Load what a checkpoint holds, and return how many epochs are done."""
    if path is None:
        return 0
    if not Path(path).exists():
        if not Path(path).resolve().parent.is_dir():
            raise ValueError(f"checkpoint must be in a folder that exists; got {path}")
        return 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["settings"] != json.dumps(settings):
        raise ValueError(
            f"checkpoint {path} must be of the same settings, {json.dumps(settings)}; "
            f"got {saved['settings']}. Remove the file, or name another"
        )
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return int(saved["n_epochs_done"])


def _save(
    path: str | Path | None, state: dict[str, Any], settings: object, done: int
) -> None:
    """Save an epoch, so that the file is whole at any time."""
    if path is None:
        return
    saved = {name: part.state_dict() for name, part in state.items()}
    whole = {**saved, "settings": json.dumps(settings), "n_epochs_done": done}
    with written_at_once(Path(path)) as partial:
        torch.save(whole, partial)
