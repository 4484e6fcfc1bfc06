"""The smallest perturbation that fools a model and its detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import check_positive
from curvdetect._base.rows import per_row
from curvdetect.attacks import Attack

__all__ = ["MinimalEvasion", "find_minimal_evasion"]

#: Points tried on the way back from a perturbation that evades, and bisections after.
_N_SHARES = 10
_N_BISECTIONS = 5
#: Budgets tried between the last that failed and the first that was enough.
_N_REFINEMENTS = 2


class MinimalEvasion(NamedTuple):
    """What :func:`find_minimal_evasion` found.

    Attributes
    ----------
    images : Tensor of shape (n, *input_shape)
        The perturbed images; the originals where no budget was enough.
    norms : Tensor of shape (n,)
        L2 norms of the perturbations; infinity where no budget was enough.
    """

    images: Tensor
    norms: Tensor


def find_minimal_evasion(
    attack: Callable[[float], Attack],
    evades: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    budgets: Sequence[float],
) -> MinimalEvasion:
    """Find small perturbations that fool a model and its detector.

    Budgets are tried in increasing order, each on the images that have not evaded yet,
    then two between the last that failed and the first that was enough. From each
    success the way back to the image is searched for the nearest point that evades. An
    upper bound of the smallest perturbation, like every attack.

    Parameters
    ----------
    attack : callable
        Makes an attack from a budget.
    evades : callable
        ``evades(images, labels)`` says, with the real detector, which images are
        misclassified and not flagged, (n,) of bool.
    images : Tensor of shape (n, *input_shape)
        Images that the model gets right.
    labels : Tensor of shape (n,)
        Their labels.
    budgets : sequence of float
        In the attack's norm; in any order.

    Returns
    -------
    MinimalEvasion
        Perturbed images and norms.

    Raises
    ------
    ValueError
        If there are no budgets, or one is not positive.

    Examples
    --------
    A detector that flags nothing: the smallest evasion is the smallest perturbation.

    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.evasion import LogitMatchingAttack, find_minimal_evasion
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(2,))
    >>> attack = lambda eps: LogitMatchingAttack(
    ...     model, references=torch.eye(2), eps=eps, norm="L2"
    ... )
    >>> x, label = torch.tensor([[0.8, 0.2]]), torch.tensor([0])
    >>> wrong = lambda x, label: x.argmax(1) != label
    >>> found = find_minimal_evasion(attack, wrong, x, label, budgets=[0.2, 0.4, 0.6])
    >>> bool(0.42 < found.norms < 0.46)
    True
    """
    if not len(budgets):
        raise ValueError("budgets must hold at least one; got none")
    for budget in budgets:
        check_positive("budgets", budget)
    best, norms = images.clone(), images.new_full((len(images),), torch.inf)
    low, high = torch.zeros_like(norms), torch.full_like(norms, torch.inf)

    def improve(budget: float, rows: Tensor) -> None:
        """Attack some images with a budget, and keep what is shorter than before."""
        x, label = images[rows], labels[rows]
        found = attack(budget)(x, label).detach()
        shorter = _shortest_share(evades, x, found, label)
        evaded = shorter.isfinite()
        high[rows] = torch.where(evaded, budget, high[rows])
        low[rows] = torch.where(evaded, low[rows], budget)
        nearer = x + per_row(shorter.nan_to_num(posinf=0), x) * (found - x)
        length = (nearer - x).flatten(1).norm(dim=1)
        keep = evaded & (length < norms[rows])
        best[rows] = nearer.where(per_row(keep, x), best[rows])
        norms[rows] = length.where(keep, norms[rows])

    for budget in sorted(budgets):
        rows = high.isinf().nonzero().squeeze(1)
        if len(rows):
            improve(budget, rows)
    for _ in range(_N_REFINEMENTS):
        between = ((low + high) / 2).where(high.isfinite(), 0)
        for budget in between[between > 0].unique().tolist():
            improve(budget, (between == budget).nonzero().squeeze(1))
    return MinimalEvasion(best, norms)


def _shortest_share(
    evades: Callable[[Tensor, Tensor], Tensor], x: Tensor, found: Tensor, label: Tensor
) -> Tensor:
    """Return how much of the way from x to what was found it takes to evade.

    The smallest of ten shares that evades, then bisected against the one below it;
    infinity where none does.
    """
    share = x.new_full((len(x),), torch.inf)
    for k in range(_N_SHARES, 0, -1):
        tried = k / _N_SHARES
        share[evades(x + tried * (found - x), label)] = tried
    low = share - 1 / _N_SHARES
    for _ in range(_N_BISECTIONS):
        middle = ((low + share) / 2).nan_to_num(posinf=0)
        ok = evades(x + per_row(middle, x) * (found - x), label) & share.isfinite()
        share, low = middle.where(ok, share), low.where(ok, middle)
    return share
