"""Attackers who know the detector.

All have torchattacks' calling convention, attack(images, labels) -> images, and all are
projected gradient methods: they differ in what they climb.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice, check_count, check_positive
from curvdetect._base.rows import per_row
from curvdetect.attacks._libraries import Attack
from curvdetect.geometry import random_directions
from curvdetect.network import TorchModel

__all__ = [
    "EvasionAttack",
    "LogitMatchingAttack",
    "MinimalEvasion",
    "NeighbourhoodMarginAttack",
    "minimal_evasion",
]

#: The norm of the budget.
Norm: TypeAlias = Literal["Linf", "L2"]
#: Steps go from this share of the budget down to a tenth of it, and from more where
#: there are few: together they are at least so many budgets long.
_FIRST_STEP = 0.25
_PATH = 2.5
#: Points tried on the way back from a perturbation that evades, and bisections after.
_N_SHARES = 10
_N_BISECTIONS = 5
#: Budgets tried between the last that failed and the first that was enough.
_N_REFINEMENTS = 2


class _ProjectedAscent(ABC):
    """Climb an objective inside a ball around each image; keep the best image.

    An image that the model gets wrong is better than one that it gets right; between
    two wrong ones the larger value decides, between two right ones the margin.
    """

    def __init__(
        self, model: TorchModel, *, eps: float, norm: Norm, steps: int, seed: int
    ) -> None:
        check_positive("eps", eps)
        check_choice("norm", norm, get_args(Norm))
        check_count("steps", steps)
        self.model = model
        self.eps = eps
        self.norm = norm
        self.steps = steps
        self.seed = seed

    @abstractmethod
    def _climb(
        self, x: Tensor, labels: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the margin of the wrong classes, the value, and the way up.

        All without a graph; `x` is a leaf that requires its gradient.
        """

    def _aim(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return what is fixed before the first step."""
        return images

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Perturb images within the budget.

        Parameters
        ----------
        images : Tensor of shape (n, *input_shape)
            On the model's device, within its bounds.
        labels : Tensor of shape (n,)
            Labels to get away from.

        Returns
        -------
        Tensor of shape (n, *input_shape)
            The best images met, within the bounds and the budget.
        """
        images, labels = images.detach(), labels.to(images.device)
        if not len(images):
            return images
        self._generator = torch.Generator().manual_seed(self.seed)
        with self.model.evaluating():
            aim = self._aim(images, labels)
            x, best = images.clone(), images
            best_value = images.new_full((len(images),), -torch.inf)
            best_wrong = torch.zeros_like(best_value, dtype=torch.bool)
            shares = 10 ** (-torch.arange(self.steps) / self.steps)
            shares *= max(_FIRST_STEP, _PATH / float(shares.sum()))
            for share in [*shares.tolist(), 0.0]:
                margin, value, way = self._climb(x.requires_grad_(), labels, aim)
                x = x.detach()
                wrong = margin > 0
                value = value.where(wrong, margin)
                better = (wrong & ~best_wrong) | (
                    (wrong == best_wrong) & (value > best_value)
                )
                best = x.where(per_row(better, x), best)
                best_value = value.where(better, best_value)
                best_wrong = best_wrong | wrong
                x = self._project(x + share * self.eps * self._unit(way), images)
        return best

    def _unit(self, way: Tensor) -> Tensor:
        way = way.nan_to_num(0, 0, 0)
        if self.norm == "Linf":
            return way.sign()
        length = way.flatten(1).norm(dim=1)
        return way / per_row(length.clamp(min=torch.finfo(way.dtype).tiny), way)

    def _project(self, x: Tensor, images: Tensor) -> Tensor:
        """Return points within the budget and the bounds."""
        change = x - images
        if self.norm == "Linf":
            change = change.clamp(-self.eps, self.eps)
        else:
            length = change.flatten(1).norm(dim=1)
            change = change * per_row((self.eps / length).clamp(max=1), x)
        # Images lie within the bounds, so this never lengthens the change.
        bounds = self.model.bounds or (-torch.inf, torch.inf)
        return (images + change).clamp(*bounds)


class NeighbourhoodMarginAttack(_ProjectedAscent):
    """Make the model wrong all around the perturbed image.

    Climbs the mean over random neighbours x' + h u of the largest wrong logit minus
    the right one: where the neighbours are wrong too, the surroundings look like those
    of a natural image. Fresh directions u at every step: an expectation over what the
    detector draws.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    eps : float
        Budget, in input units.
    radius : float
        h, an L2 length; the detector's step, or longer.
    n_neighbors : int, default=8
        Directions at each step, each used both ways.
    norm : {"Linf", "L2"}, default="Linf"
        Norm of the budget.
    steps : int, default=40
        Gradient steps; each costs 3 (2 n_neighbors + 1) forward passes an image.
    seed : int, default=0
        Of the directions.

    References
    ----------
    A. Athalye, L. Engstrom, A. Ilyas, K. Kwok, "Synthesizing robust adversarial
    examples", ICML 2018 (expectation over transformations).

    Examples
    --------
    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.evasion import NeighbourhoodMarginAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> attack = NeighbourhoodMarginAttack(model, eps=0.3, radius=0.1)
    >>> attack(torch.tensor([[0.7, 0.3, 0.1]]), torch.tensor([0])).argmax(dim=1)
    tensor([1])
    """

    def __init__(
        self,
        model: TorchModel,
        *,
        eps: float,
        radius: float,
        n_neighbors: int = 8,
        norm: Norm = "Linf",
        steps: int = 40,
        seed: int = 0,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, steps=steps, seed=seed)
        check_positive("radius", radius)
        check_count("n_neighbors", n_neighbors)
        self.radius = radius
        self.n_neighbors = n_neighbors

    def _climb(
        self, x: Tensor, labels: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        u = self.radius * random_directions(
            self.n_neighbors,
            x.shape[1:],
            generator=self._generator,
            dtype=x.dtype,
            device=x.device,
        )
        shifts = torch.cat([u.new_zeros(1, *u.shape[1:]), u, -u])
        neighbours = (x[:, None] + shifts).flatten(0, 1)
        repeated = labels.repeat_interleave(len(shifts))
        margins = _wrong_margin(self.model.logits(neighbours), repeated)
        margins = margins.reshape(len(x), len(shifts))
        value = margins.mean(1)
        (way,) = torch.autograd.grad(value.sum(), x)
        return margins[:, 0].detach(), value.detach(), way


class LogitMatchingAttack(_ProjectedAscent):
    """Give an image the logits that a natural image of another class has.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    references : Tensor of shape (n_references, *input_shape)
        Natural images, of at least two predicted classes. The target of each image is
        the reference of another class whose logits are nearest to its own.
    eps : float
        Budget, in input units.
    norm : {"Linf", "L2"}, default="Linf"
        Norm of the budget.
    steps : int, default=40
        Gradient steps; each costs 3 forward passes an image.

    References
    ----------
    F. Tramer, N. Carlini, W. Brendel, A. Madry, "On adaptive attacks to adversarial
    example defenses", NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.evasion import LogitMatchingAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(2,))
    >>> attack = LogitMatchingAttack(model, references=torch.eye(2), eps=1.0)
    >>> attack(torch.tensor([[0.8, 0.3]]), torch.tensor([0])).round(decimals=1)
    tensor([[0., 1.]])
    """

    def __init__(
        self,
        model: TorchModel,
        *,
        references: Tensor,
        eps: float,
        norm: Norm = "Linf",
        steps: int = 40,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, steps=steps, seed=0)
        self.references = references

    def _aim(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = torch.from_numpy(self.model.predict_logits(self.references)).to(images)
        own = torch.from_numpy(self.model.predict_logits(images)).to(images)
        of_label = logits.argmax(1) == labels[:, None]
        if bool(of_label.all(1).any()):
            raise ValueError(
                "references must hold images of at least two predicted classes; all "
                f"{len(logits)} are of one"
            )
        distance = torch.cdist(own, logits).masked_fill(of_label, torch.inf)
        return logits[distance.argmin(1)]

    def _climb(
        self, x: Tensor, labels: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.model.logits(x)
        value = -(logits - aim).square().sum(1)
        (way,) = torch.autograd.grad(value.sum(), x)
        return _wrong_margin(logits, labels).detach(), value.detach(), way


class EvasionAttack(_ProjectedAscent):
    """Be misclassified and stay below the detector's threshold.

    Where the image is still classified right, a step climbs the margin of the wrong
    classes; where it is wrong but flagged, a step descends the score. Either goes
    along what is orthogonal to the other's gradient, so that what was reached is not
    lost ("orthogonal PGD"; with the signs of an L-infinity step only nearly so);
    `orthogonal=False` takes the gradients as they are ("selective PGD"). Where it is
    wrong and not flagged nothing moves any more.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    score : callable
        Differentiable score, (n, *input_shape) -> (n,) or (n, n_scores), such as
        :class:`CurvatureScore`; an image is flagged if any is above its threshold.
    threshold : float or sequence of float
        One, or one for each score.
    eps : float
        Budget, in input units.
    norm : {"Linf", "L2"}, default="Linf"
        Norm of the budget.
    steps : int, default=40
        Gradient steps; each costs 3 forward passes an image and those of the score
        and its gradient.
    orthogonal : bool, default=True
        Whether steps keep away from the other objective's gradient.

    References
    ----------
    O. Bryniarski, N. Hingun, P. Pachuca, V. Wang, N. Carlini, "Evading adversarial
    example detection defenses with orthogonal projected gradient descent", ICLR 2022.

    Examples
    --------
    A score that flags whatever has a large third value.

    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.evasion import EvasionAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> attack = EvasionAttack(model, lambda x: x[:, 2], 0.4, eps=0.5)
    >>> attack(torch.tensor([[0.6, 0.4, 0.5]]), torch.tensor([0])).argmax(dim=1)
    tensor([1])
    """

    def __init__(
        self,
        model: TorchModel,
        score: Callable[[Tensor], Tensor],
        threshold: float | Sequence[float],
        *,
        eps: float,
        norm: Norm = "Linf",
        steps: int = 40,
        orthogonal: bool = True,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, steps=steps, seed=0)
        self.score = score
        self.threshold = threshold
        self.orthogonal = orthogonal

    def _climb(
        self, x: Tensor, labels: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        margin = _wrong_margin(self.model.logits(x), labels)
        (to_wrong,) = torch.autograd.grad(margin.sum(), x)
        score = self.score(x)
        score = score[:, None] if score.ndim == 1 else score
        above = score - torch.as_tensor(
            self.threshold, dtype=score.dtype, device=score.device
        )
        largest, excess = above.amax(1), above.relu().sum(1)
        wrong, flagged = margin > 0, largest > 0
        # Below the threshold the excess has no gradient, but there is a way to lose it.
        objective = excess.where(flagged, largest)
        (to_flag,) = torch.autograd.grad(objective.sum(), x)
        to_flag = to_flag.nan_to_num(0, 0, 0)
        down = -to_flag
        if self.orthogonal:
            to_wrong, down = _without(to_wrong, down), _without(down, to_wrong)
        way = down.where(per_row(wrong, x), to_wrong)
        way = way.where(per_row(~wrong | flagged, x), torch.zeros_like(way))
        return margin.detach(), -excess.detach(), way


class MinimalEvasion(NamedTuple):
    """What :func:`minimal_evasion` found.

    Attributes
    ----------
    images : Tensor of shape (n, *input_shape)
        The perturbed images; the originals where no budget was enough.
    norms : Tensor of shape (n,)
        L2 norms of the perturbations; infinity where no budget was enough.
    """

    images: Tensor
    norms: Tensor


def minimal_evasion(
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
    >>> from curvdetect.evasion import LogitMatchingAttack, minimal_evasion
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(2,))
    >>> attack = lambda eps: LogitMatchingAttack(
    ...     model, references=torch.eye(2), eps=eps, norm="L2"
    ... )
    >>> x, label = torch.tensor([[0.8, 0.2]]), torch.tensor([0])
    >>> wrong = lambda x, label: x.argmax(1) != label
    >>> found = minimal_evasion(attack, wrong, x, label, budgets=[0.2, 0.4, 0.6])
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


def _wrong_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest logit of the other classes minus that of the label."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.max(1).values - own


def _without(a: Tensor, b: Tensor) -> Tensor:
    """Return the part of each row of `a` that is orthogonal to that of `b`."""
    square = b.flatten(1).square().sum(1).clamp(min=torch.finfo(b.dtype).tiny)
    return a - per_row((a * b).flatten(1).sum(1) / square, a) * b
