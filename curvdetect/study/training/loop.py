"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from curvdetect._base.checks import check_count, check_positive
from curvdetect.study.training._checkpoint import Checkpoint, fingerprint, name_of
from curvdetect.study.training.cross_entropy import CrossEntropy

__all__ = ["NotFiniteError", "TrainingLoss", "train"]

#: (module, images, labels, progress from 0 to 1) -> mean loss of the batch.
TrainingLoss: TypeAlias = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


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
    images, labels, device = _prepared(module, X, y)
    loss = CrossEntropy() if loss is None else loss
    n_steps = math.ceil(len(images) / batch_size)  # an epoch
    descent = _Descent(module, max_lr, weight_decay, n_epochs * n_steps)
    file = Checkpoint(
        checkpoint,
        parts={"module": module, **descent.parts},
        settings={
            "loss": name_of(loss),
            "data": fingerprint(images, labels) if checkpoint else None,
            "n_epochs": n_epochs,
            "batch_size": batch_size,
            "max_lr": float(max_lr),
            "weight_decay": float(weight_decay),
            "random_state": int(random_state),
        },
    )
    done = file.resume()
    total, initial = n_epochs * n_steps, done * n_steps
    bar = tqdm(total=total, initial=initial, unit="step", disable=not verbose)
    cuda = [device] if device.type == "cuda" else []
    try:
        with bar, torch.random.fork_rng(devices=cuda):
            for epoch in range(done, n_epochs):
                torch.manual_seed(random_state * 1_000_003 + epoch)
                module.train()
                order = torch.randperm(len(images)).split(batch_size)
                for step, rows in enumerate(order):
                    progress = (epoch + step / n_steps) / n_epochs
                    x, target = images[rows].to(device), labels[rows].to(device)
                    size = descent.step(loss(module, x, target, progress), epoch)
                    bar.update()
                    bar.set_postfix(loss=f"{size:.3f}", refresh=False)
                file.save(epoch + 1)
    finally:
        descent.optimizer.zero_grad()
        module.eval()
    return module


def _prepared(
    module: nn.Module, X: npt.ArrayLike | Tensor, y: npt.ArrayLike | Tensor
) -> tuple[Tensor, Tensor, torch.device]:
    """Return images of the network's dtype, their labels, and the network's device."""
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
    return images, labels, first.device


class NotFiniteError(ValueError):
    """The loss of a training is not finite any more."""


class _Descent:
    """AdamW and a one-cycle schedule, a step at a time."""

    def __init__(
        self, module: nn.Module, max_lr: float, weight_decay: float, n_steps: int
    ) -> None:
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=max_lr, weight_decay=weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=max_lr, total_steps=n_steps
        )

        self.parts = {"optimizer": self.optimizer, "schedule": self.schedule}

    def step(self, loss: Tensor, epoch: int) -> float:
        """Take a step, unless the loss is not finite; return the loss."""
        size = float(loss.detach())
        if not math.isfinite(size):
            raise NotFiniteError(
                f"the loss must be finite; got {size} in epoch {epoch}. Lower max_lr, "
                "or the strength of the penalty"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return size
