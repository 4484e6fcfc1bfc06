"""Which classes are near a point, by the first order of the logits there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvdetect._base.checks import check_count, check_labels
from curvdetect._base.rows import batches
from curvdetect.geometry._derivatives import check_differentiable
from curvdetect.geometry._linearisation import Linearisation
from curvdetect.geometry._pairs import Pairs

__all__ = ["linearise", "nearest_classes"]

#: At least so many classes are compared by first-order distance before the nearest
#: are chosen; with very many classes only those of the largest logits are.
_MIN_CANDIDATES = 10


def linearise(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    n_candidates: int | None = None,
    label: Tensor | None = None,
    pairs: Pairs | None = None,
    batch_size: int | None = None,
) -> Linearisation:
    """Take margins around points to first order.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    n_candidates : int, optional
        How many other classes: those of the largest logits, the largest first. All
        of them by default, or where there are no more.
    label : Tensor of shape (n,), int64, optional
        The class of each point; the predicted one by default.
    pairs : Pairs, optional
        These classes instead; `n_candidates` and `label` must be None then.
    batch_size : int, optional
        Rows given to `logits` at a time; all at once by default.

    Returns
    -------
    Linearisation
        Margins and gradients. Cost: one forward pass a point, and a backward pass for
        each class.

    Raises
    ------
    ValueError
        If a parameter is not allowed, or the logits have fewer than two classes or no
        gradient.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import linearise
    >>> logits = lambda x: torch.stack([x[:, 0], x[:, 1], -x[:, 0]], dim=1)
    >>> around = linearise(logits, torch.tensor([[3.0, 1.0]]))
    >>> around.pairs.classes, around.value
    (tensor([[1, 2]]), tensor([[2., 6.]]))
    >>> around.distances
    tensor([[1.4142, 3.0000]])
    """
    if pairs is not None:
        if n_candidates is not None or label is not None:
            raise ValueError("pairs must not be given with n_candidates or label")
        if len(pairs.classes) != len(x):
            raise ValueError(
                f"pairs must hold the classes of {len(x)} points; got those of "
                f"{len(pairs.classes)}"
            )
    elif n_candidates is not None:
        check_count("n_candidates", n_candidates, alternative=" or None")

    def chosen(f: Tensor, rows: Tensor) -> Pairs:
        if pairs is not None:
            return pairs.take(rows)
        given = label
        if label is not None:
            given = check_labels("label", label, len(x), f.shape[1])[rows]
        return _largest(f, n_candidates, given)

    parts = [
        _margins(logits, x, rows, chosen)
        for rows in batches(len(x), batch_size, x.device)
    ]
    f, predicted, classes, value, gradient = (
        torch.cat(part) for part in zip(*parts, strict=True)
    )
    return Linearisation(f, Pairs(predicted, classes), value, gradient)


def nearest_classes(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    k: int,
    *,
    label: Tensor | None = None,
    batch_size: int | None = None,
) -> Linearisation:
    """Choose the k classes whose boundaries are nearest to first order.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    k : int
        How many classes, or all of them where there are fewer. Compared are those of
        the 2 k largest other logits, at least ten.
    label : Tensor of shape (n,), int64, optional
        The class whose boundaries they are; the predicted one by default.
    batch_size : int, optional
        Rows given to `logits` at a time; all at once by default.

    Returns
    -------
    Linearisation
        Of these classes, the nearest first. Cost: one forward pass a point, and a
        backward pass for each class that is compared.

    Raises
    ------
    ValueError
        As :func:`linearise`.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import nearest_classes
    >>> logits = lambda x: torch.stack([x[:, 0], x[:, 1], 9 * x[:, 1] - 8], dim=1)
    >>> nearest_classes(logits, torch.tensor([[3.0, 1.0]]), 1).pairs.classes
    tensor([[2]])
    """
    around = linearise(
        logits,
        x,
        n_candidates=max(2 * k, _MIN_CANDIDATES),
        label=label,
        batch_size=batch_size,
    ).nearest_first()
    nearest = torch.arange(min(k, around.pairs.k), device=x.device)
    return around.select(nearest.expand(len(x), -1))


def _largest(f: Tensor, n_candidates: int | None, label: Tensor | None) -> Pairs:
    """Return the classes of the largest logits besides the label's or the largest."""
    predicted = f.argmax(dim=1) if label is None else label
    n_others = f.shape[1] - 1
    n_candidates = n_others if n_candidates is None else min(n_candidates, n_others)
    others = f.scatter(1, predicted[:, None], -torch.inf)
    return Pairs(predicted, others.topk(n_candidates, dim=1).indices)


def _margins(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    rows: Tensor,
    chosen: Callable[[Tensor, Tensor], Pairs],
) -> tuple[Tensor, ...]:
    """Return logits, classes, margins and gradients of some rows."""
    with torch.enable_grad():
        leaf = x[rows].detach().requires_grad_()
        f = logits(leaf)
        check_differentiable(f)
        if f.shape[1] < 2:
            raise ValueError(f"logits must be of at least 2 classes; got {f.shape[1]}")
        pairs = chosen(f.detach(), rows)
        margins = f.gather(1, pairs.predicted[:, None]) - f.gather(1, pairs.classes)
        # One forward pass serves all. A backward pass for each class, of all points
        # at once: batched gradients would need a vmap rule for every layer.
        gradients = [
            torch.autograd.grad(of_class.sum(), leaf, retain_graph=True)[0]
            for of_class in margins.T
        ]
    gradient = torch.stack(gradients, dim=1)
    return f.detach(), pairs.predicted, pairs.classes, margins.detach(), gradient
