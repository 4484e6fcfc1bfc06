"""The margin: the one function that the rest of the geometry differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ClassLoss", "Margin", "PairwiseMargin", "RegionMargin", "take_rows"]

#: A margin: (n, *input_shape) -> (n,), each row for itself, positive on the
#: predicted side.
Margin: TypeAlias = Callable[[Tensor], Tensor]


class PairwiseMargin:
    """The margin F_ij = f_i - f_j, with a pair (i, j) of its own for every row.

    One call of the network thus serves many images and many boundaries.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes).
    predicted, other : Tensor of shape (n,), int64
        The classes i and j of each row.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import PairwiseMargin
    >>> logits = lambda x: torch.stack([x[:, 0], x[:, 1], -x[:, 0]], dim=1)
    >>> x = torch.tensor([[3.0, 1.0], [3.0, 1.0]])
    >>> PairwiseMargin(logits, torch.tensor([0, 0]), torch.tensor([1, 2]))(x)
    tensor([2., 6.])
    """

    def __init__(
        self, logits: Callable[[Tensor], Tensor], predicted: Tensor, other: Tensor
    ) -> None:
        self.logits = logits
        self.predicted = predicted
        self.other = other

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the margin of every row.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            As many rows as there are pairs.

        Returns
        -------
        Tensor of shape (n,)
            F_ij(x), in logits.
        """
        f = self.logits(x)
        f_i = f.gather(1, self.predicted[:, None])
        f_j = f.gather(1, self.other[:, None])
        return (f_i - f_j).squeeze(1)

    def take(self, rows: Tensor) -> PairwiseMargin:
        """Return the margin of some rows, in that order, repeats allowed.

        Parameters
        ----------
        rows : Tensor of shape (m,), int64
            Positions.

        Returns
        -------
        PairwiseMargin
            The margin for inputs that were taken with the same `rows`.
        """
        return PairwiseMargin(self.logits, self.predicted[rows], self.other[rows])


class RegionMargin:
    """The margin of a class against the best of all others, one class for every row.

    F_i = f_i - max of f_j over j other than i: positive in the region of class i.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes).
    label : Tensor of shape (n,), int64
        The class i of each row.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import RegionMargin
    >>> logits = lambda x: torch.stack([x[:, 0], x[:, 1], -x[:, 0]], dim=1)
    >>> RegionMargin(logits, torch.tensor([0]))(torch.tensor([[3.0, 1.0]]))
    tensor([2.])
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], label: Tensor) -> None:
        self.logits = logits
        self.label = label

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the margin of every row.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            As many rows as there are labels.

        Returns
        -------
        Tensor of shape (n,)
            F_i(x), in logits.
        """
        f = self.logits(x)
        column = self.label[:, None]
        rest = f.scatter(1, column, -torch.inf).amax(dim=1)
        return f.gather(1, column).squeeze(1) - rest

    def take(self, rows: Tensor) -> RegionMargin:
        """Return the margin of some rows, in that order, repeats allowed.

        Parameters
        ----------
        rows : Tensor of shape (m,), int64
            Positions.

        Returns
        -------
        RegionMargin
            The margin for inputs that were taken with the same `rows`.
        """
        return RegionMargin(self.logits, self.label[rows])


class ClassLoss:
    """The loss of a classifier as a function of its input, one label for every row.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes).
    label : Tensor of shape (n,), int64
        The label of each row.
    loss : callable, default=torch.nn.functional.cross_entropy
        (logits, labels) -> (n,), called with ``reduction="none"``, as torch's losses
        take it.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import ClassLoss, hessian_eigenvalues
    >>> logits = lambda x: torch.stack([x[:, 0], -x[:, 0]], dim=1)
    >>> loss = ClassLoss(logits, torch.tensor([0]))
    >>> x = torch.zeros(1, 2, dtype=torch.float64)
    >>> hessian_eigenvalues(loss, x, method="autodiff").values
    tensor([[1., 0.]], dtype=torch.float64)
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        label: Tensor,
        loss: Callable[..., Tensor] = functional.cross_entropy,
    ) -> None:
        self.logits = logits
        self.label = label
        self.loss = loss

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the loss of every row.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            As many rows as there are labels.

        Returns
        -------
        Tensor of shape (n,)
            Losses.
        """
        return self.loss(self.logits(x), self.label, reduction="none")

    def take(self, rows: Tensor) -> ClassLoss:
        """Return the loss of some rows, in that order, repeats allowed.

        Parameters
        ----------
        rows : Tensor of shape (m,), int64
            Positions.

        Returns
        -------
        ClassLoss
            The loss for inputs that were taken with the same `rows`.
        """
        return ClassLoss(self.logits, self.label[rows], self.loss)


def take_rows(margin: Margin, rows: Tensor) -> Margin:
    """Return the margin of some rows; a margin without ``take`` serves any row."""
    take = getattr(margin, "take", None)
    return margin if take is None else take(rows)
