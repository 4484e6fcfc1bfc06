"""Ways to the average curvature of the boundaries around an image.

Each is a function of the network, images and a step, which gives a row an image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.common.settings import FEW
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.report.goldman import goldman_features

__all__ = ["EXACT", "ways"]

#: As many as ours has by default.
N_DIRECTIONS = CurvatureFeaturizer(None).n_directions
#: Boundaries that are measured with 1,000 classes.
N_OF_MANY = 5


def ways(network: str) -> dict[str, tuple[Callable, int]]:
    """Return features(model, X, step), and for how many images there is time."""
    if network == "EfficientNet-Lite0":
        return {
            "curvdetect, 5 boundaries": (ours(n_boundaries=N_OF_MANY), 8),
            "curvdetect, 3 boundaries": (ours(**FEW), 8),
            "double backward, 5 boundaries": (double_backward, 8),
            "curvlinops, 5 boundaries": (curvlinops_trace, 1),
        }
    everything, reference = 10**6, ours(n_directions=256, tol=1e-4)
    small = network == "LeNet"
    found = {
        "curvdetect": (ours(), everything),
        "curvdetect, 3 boundaries": (ours(**FEW), everything),
        "curvdetect, 256 directions": (reference, everything if small else 60),
        "the report's five steps": (report, 60 if small else 1),
        "double backward": (double_backward, everything if small else 60),
        "curvlinops": (curvlinops_trace, 4 if small else 2),
    }
    if small:  # with others it would take tens of GiB
        found["torch.func.hessian"] = (dense_hessian, 4)
    return found


def ours(**settings) -> Callable:
    def features(model, X, step):
        featurizer = CurvatureFeaturizer(model, step=step, random_state=0, **settings)
        return featurizer.fit(X[:4]).transform(X)

    return features


def report(model, X, step):
    return goldman_features(model, X)


def dense_hessian(model, X, step):
    """Goldman's formula from all second derivatives of all logits, at the image."""
    rows = []
    for x in torch.from_numpy(X):
        logits = lambda v: model.logits(v[None])[0]
        f, d = logits(x), x.numel()
        jacobian = torch.func.jacrev(logits)(x).reshape(len(f), d)
        hessian = torch.func.hessian(logits)(x).reshape(len(f), d, d)
        own = int(f.argmax())
        g, H = jacobian[own] - jacobian, hessian[own] - hessian
        square = g.square().sum(1)
        along = torch.einsum("ci,cij,cj->c", g, H, g)
        trace = H.diagonal(dim1=1, dim2=2).sum(1)
        rows.append((along - trace * square) / ((d - 1) * square**1.5))
    return torch.stack(rows).detach().numpy()


def double_backward(model, X, step):
    """Average curvature from v^T H v of random tangents, at the image."""
    generator = torch.Generator().manual_seed(0)
    columns = []
    x = torch.from_numpy(X).requires_grad_()
    order = model.logits(x.detach()).argsort(dim=1, descending=True)
    for rank in range(1, 1 + n_measured(order.shape[1])):
        f = model.logits(x * 1)  # FlopCounterMode takes no leaf
        margin = f.gather(1, order[:, :1]) - f.gather(1, order[:, rank : rank + 1])
        (g,) = torch.autograd.grad(margin.sum(), x, create_graph=True)
        slope = g.detach().flatten(1).norm(dim=1)
        normal = g.detach().flatten(1) / slope[:, None]
        total = torch.zeros(len(x))
        for _ in range(N_DIRECTIONS):
            v = torch.randn(normal.shape, generator=generator)
            v = v - (v * normal).sum(1, keepdim=True) * normal
            v = (v / v.norm(dim=1, keepdim=True)).reshape(x.shape)
            (product,) = torch.autograd.grad(
                (g * v).sum(), x, retain_graph=True, materialize_grads=True
            )
            total -= (product * v).flatten(1).sum(1)
        columns.append((total / N_DIRECTIONS / slope).detach())
    return torch.stack(columns, dim=1).numpy()


def curvlinops_trace(model, X, step):
    """Goldman's formula with curvlinops' trace of the Hessian in the image."""
    from curvlinops import HessianLinearOperator, hutchinson_trace

    rows = []
    for x in torch.from_numpy(X).split(1):
        of_image = OfImage(model, x)
        row = []
        for rank in range(1, 1 + n_measured(model.n_classes)):
            of_image.rank = rank
            operator = HessianLinearOperator(
                of_image,
                Itself(),
                [of_image.x],
                [(torch.zeros(1, 1), torch.zeros(1, 1))],
                check_deterministic=False,
            )
            g = torch.autograd.grad(of_image(None).sum(), of_image.x)[0].flatten()
            trace = hutchinson_trace(operator, num_matvecs=N_DIRECTIONS)
            along = g @ (operator @ g)
            d = x.numel()
            kappa = (along - trace * g.square().sum()) / ((d - 1) * g.norm() ** 3)
            row.append(float(kappa))
        rows.append(row)
    return np.asarray(rows)


class OfImage(torch.nn.Module):
    """A margin as a function of its parameter, the image."""

    def __init__(self, model: TorchModel, x: torch.Tensor) -> None:
        super().__init__()
        self.logits = model.logits
        self.x = torch.nn.Parameter(x.clone())
        self.order = model.logits(x).argsort(dim=1, descending=True)[0]
        self.rank = 1

    def forward(self, _):
        f = self.logits(self.x * 1)  # FlopCounterMode takes no leaf
        return f[:, self.order[0]] - f[:, self.order[self.rank]]


class Itself(torch.nn.Module):
    """The margin instead of a loss, as curvlinops wants it."""

    reduction = "sum"

    def forward(self, margin, _):
        return margin.sum()


def n_measured(n_classes: int) -> int:
    return n_classes - 1 if n_classes <= 10 else N_OF_MANY


#: Those whose passes cannot be told apart: their operations are counted.
EXACT = (double_backward, curvlinops_trace, dense_hessian)
