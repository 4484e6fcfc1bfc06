"""
A surface with known curvature
==============================

*Is the measured curvature right?*

A margin is any function that is positive on the predicted side; a network is not
needed. Here the predicted region is the inside of a torus, whose curvature is known in
closed form: convex on the outer rim, a saddle on the inner one.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import TwoSlopeNorm

from curvdetect.geometry import mean_curvature

R, r = 1.5, 1.0  # from the axis to the middle of the tube; of the tube


def torus(x):
    """Return the distance to the surface, positive inside."""
    across = torch.hypot(x[:, 0], x[:, 1]) - R
    return r - torch.hypot(across, x[:, 2])


# %%
# Points on the surface are given by two angles, one around the axis and one around the
# tube. In three dimensions there are two principal curvatures; "all" takes a basis of
# the tangent plane.

along, around = np.meshgrid(
    np.linspace(0, 2 * np.pi, 61), np.linspace(0, 2 * np.pi, 41)
)
distance = R + r * np.cos(around)
surface = np.stack(
    [distance * np.cos(along), distance * np.sin(along), r * np.sin(around)], axis=-1
)
z = torch.from_numpy(surface.reshape(-1, 3))
kappa = mean_curvature(torus, z, n_directions="all", step=1e-3)
kappa = kappa.reshape(along.shape).numpy()
exact = (1 / r + np.cos(around) / distance) / 2
print(f"largest error: {np.abs(kappa - exact).max():.1e}")

figure = plt.figure(figsize=(9, 4))
ax = figure.add_subplot(1, 2, 1, projection="3d")
norm = TwoSlopeNorm(0, kappa.min(), kappa.max())
colours = plt.cm.PuOr_r(norm(kappa))
ax.plot_surface(*np.moveaxis(surface, -1, 0), facecolors=colours, rcount=41, ccount=61)
ax.set_box_aspect((2.5, 2.5, 1.0))
ax.view_init(elev=42)
ax.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2], zticks=[-1, 1])
ax.set(xlabel="$x_1$", ylabel="$x_2$", zlabel="$x_3$", title="all axes in input units")
figure.colorbar(
    plt.cm.ScalarMappable(norm, "PuOr_r"),
    ax=ax,
    shrink=0.7,
    pad=0.12,
    label="average curvature\n(1 / input units)",
)
ax = figure.add_subplot(1, 2, 2)
ax.plot(np.degrees(around[:, 0]), exact[:, 0], label="exact")
ax.plot(np.degrees(around[::4, 0]), kappa[::4, 0], "o", label="measured")
ax.axhline(0, color="0.4", lw=0.8)
ax.set_xticks([0, 90, 180, 270, 360])
ax.set_xlabel("angle around the tube (degrees)")
ax.set_ylabel("average curvature (1 / input units)")
ax.legend(frameon=False)
plt.show()

# %%
# The colour is the sign convention of the whole package: positive where the predicted
# region bulges out, negative where the other region bulges into it.
#
# Few directions in many dimensions
# ---------------------------------
# An image has hundreds of tangent directions or more; the featurizer averages over
# seven random ones. The error of such an average is known: the variance of one normal
# curvature is :math:`2 (\operatorname{tr} A^2 / (d - 1) - \kappa^2) / (d + 1)` for the
# shape operator :math:`A`, and :math:`m` directions divide it by :math:`m`. Here we
# measure an ellipsoid in 200 dimensions, 200 times with each number of directions.

d = 200
axes = torch.linspace(0.2, 5, d, dtype=torch.float64)  # coefficients of x_i^2


def ellipsoid(x):
    return 1 - x.square() @ axes


z = torch.zeros(1, d, dtype=torch.float64)
z[0, 0] = axes[0] ** -0.5  # a vertex, where the principal curvatures are known
principal = axes[1:] / axes[0].sqrt()
exact = float(principal.mean())
one = math.sqrt(2 * (float(principal.square().mean()) - exact**2) / (d + 1))

numbers = [1, 2, 4, 8, 16, 32, 64, 128]
generator = torch.Generator().manual_seed(0)
errors = []
for m in numbers:
    repeated = [
        mean_curvature(ellipsoid, z, n_directions=m, step=1e-3, generator=generator)
        for _ in range(200)
    ]
    errors.append((torch.cat(repeated) - exact).square().mean().sqrt() / exact)

figure, ax = plt.subplots(figsize=(6, 4))
ax.loglog(numbers, one / exact / np.sqrt(numbers), label="formula")
ax.loglog(numbers, errors, "o", label="measured")
ax.set_xticks(numbers, numbers)
ax.set_yticks([0.005, 0.01, 0.02, 0.04], ["0.5 %", "1 %", "2 %", "4 %"])
ax.minorticks_off()
ax.set_xlabel("number of directions")
ax.set_ylabel("relative error (root mean square)")
ax.legend(frameon=False)
plt.show()

# %%
# The error falls with the square root of the number of directions. In many dimensions a
# single direction already gives nearly the average, because most directions have
# similar curvatures. See :ref:`theory-estimators`.
