"""
Curvature of a surface with kinks
=================================

*A ReLU network is piecewise linear. What is its curvature?*

Its exact curvature is zero almost everywhere. At a finite step it is not: a polygon is
flat on each side, but round from a distance.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

from curvdetect.geometry import mean_curvature, random_directions
from curvdetect.network import find_nearest_boundaries
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import trained_model

# %%
# Polygons around the unit disc
# -----------------------------
# The margin is one minus the largest of K linear functions, like that of a network with
# one layer of max-pooling. We measure curvature at 4,000 points of each boundary, with
# steps from 0.01 to 2.


def polygon(n_sides):
    """Return the margin of a regular polygon around the unit disc."""
    angle = 2 * torch.pi * torch.arange(n_sides, dtype=torch.float64) / n_sides
    normals = torch.stack([angle.cos(), angle.sin()], dim=1)
    return lambda x: 1 - (x @ normals.T).amax(dim=1)


def disc(x):
    return 1 - x.norm(dim=1)


def evenly(points):
    """Return as many points of a closed line, at equal distances along it."""
    closed = torch.cat([points, points[:1]]).numpy()
    length = np.append(0, np.linalg.norm(np.diff(closed, axis=0), axis=1).cumsum())
    at = np.linspace(0, length[-1], len(points), endpoint=False)
    columns = [np.interp(at, length, column) for column in closed.T]
    return torch.from_numpy(np.stack(columns, axis=1))


around = 2 * torch.pi * (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
circle = torch.stack([around.cos(), around.sin()], dim=1)
steps = np.geomspace(0.01, 2, 40)
shapes = {"disc": disc} | {f"{k} sides": polygon(k) for k in (32, 8)}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
for (name, margin), style in zip(shapes.items(), ("-", "--", ":"), strict=True):
    z = evenly(circle / (1 - margin(circle))[:, None])  # all are 1 - a homogeneous one
    left.plot(*torch.cat([z, z[:1]]).T, style, label=name)
    kappa = torch.stack(
        [mean_curvature(margin, z, n_directions="all", step=h) for h in steps]
    )
    right.semilogx(steps, kappa.mean(dim=1), style, label=f"{name}, mean")
right.semilogx(steps, kappa.median(dim=1).values, "-.", label="8 sides, median")
left.set_aspect("equal")
left.legend(frameon=False, loc="center")
left.set(xlabel="$x_1$ (input units)", ylabel="$x_2$ (input units)")
right.set(xlabel="step $h$ (input units)", ylabel="average curvature (1 / input units)")
right.legend(frameon=False)
plt.show()

# %%
# With steps longer than a side, all shapes agree: the kinks do not matter. With short
# steps, most points of a polygon are far from any kink, so the median is zero, and the
# few points beside a kink have a very large curvature. The mean stays the same, but no
# single value describes the shape. So the step is part of the result: a curvature "at
# scale h".
#
# A trained network
# -----------------
# We measure the boundaries nearest to 100 images, with steps around the median distance
# to them, which is the step that ``step="auto"`` takes. Exact second derivatives are
# zero, and the package warns about that.

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")
nearest = find_nearest_boundaries(model, X[:100])
z = nearest.points[nearest.found]
margin = nearest.margin.take(nearest.found.nonzero().flatten())
typical = float(nearest.distances[nearest.found].median())

steps = np.geomspace(0.02, 4, 12)
generator = torch.Generator().manual_seed(0)
directions = random_directions(16, (1, 28, 28), generator=generator)
with model.evaluating():
    quartiles = np.array(
        [
            np.quantile(
                mean_curvature(margin, z, step=h, directions=directions).numpy(),
                [0.25, 0.5, 0.75],
            )
            for h in steps
        ]
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exact = mean_curvature(margin, z, method="autodiff")
print(f"exact: {exact.abs().max():g}")
print(f"warning: {said[0].message}")

figure, ax = plt.subplots(figsize=(6, 4))
ax.fill_between(steps, quartiles[:, 0], quartiles[:, 2], alpha=0.2, lw=0)
ax.semilogx(steps, quartiles[:, 1], "o-", label="median and middle half")
ax.axhline(0, color="0.4", lw=0.8)
ax.axvline(typical, color="0.4", lw=0.8, ls="--", label="median distance")
ax.set(xlabel="step $h$ (input units)", ylabel="average curvature (1 / input units)")
ax.legend(frameon=False, loc="lower right")
plt.show()

# %%
# The boundaries around natural images curve away from them at every step; the longer
# the step, the less they do.
