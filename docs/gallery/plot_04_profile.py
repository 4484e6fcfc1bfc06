"""
The profile of principal curvatures
===================================

*In how many directions does a boundary curve?*

In few: most principal curvatures are near zero, some are large, and more of these are
negative. The method began with this observation.
"""

import matplotlib.pyplot as plt

from curvdetect.geometry import (
    normal_curvature,
    principal_curvatures,
    profile_statistics,
)
from curvdetect.network import find_nearest_boundaries
from curvdetect.plotting import CurvatureProfileDisplay
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")

# %%
# We compute all 783 principal curvatures of the three boundaries nearest to each of
# four images, at a step of 0.1. This takes as many gradients for each boundary.

n_images, n_boundaries = 4, 3
nearest = find_nearest_boundaries(model, X[:n_images], n_boundaries=n_boundaries)
with model.evaluating():
    profile = principal_curvatures(nearest.margin, nearest.points, step=0.1)
curvatures = profile.values.reshape(n_images, n_boundaries, -1)

near_zero = profile_statistics(profile.values).near_zero.mean()
print(f"within 5 % of the largest: {near_zero:.0%}")

# %%
# A warning: across kinks the differences are not linear in the direction, so a matrix
# made of them has eigenvalues that are the curvature of no direction. The normal
# curvatures along the same eigenvectors, measured one by one at the same step, are much
# smaller.

with model.evaluating():
    along = normal_curvature(
        nearest.margin, nearest.points, profile.directions, step=0.1
    )
along = along.mean(dim=0)

figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
CurvatureProfileDisplay.from_predictions(curvatures, ax=axes[0])
axes[0].set_title("eigenvalues of the matrix of differences")
axes[1].plot(profile.values.mean(dim=0), label="eigenvalues")
axes[1].plot(along, label="measured along the eigenvectors", lw=0.8)
axes[1].axhline(0, color="0.4", lw=0.8)
axes[1].set_xlabel("principal direction, by eigenvalue")
axes[1].set_title("what the boundary does along them")
axes[1].legend(frameon=False)
plt.show()

largest, smallest = profile.values.amax(dim=1), profile.values.amin(dim=1)
print(f"largest:  eigenvalue {largest.mean():+.1f}, along it {along[0]:+.1f}")
print(f"smallest: eigenvalue {smallest.mean():+.1f}, along it {along[-1]:+.1f}")

# %%
# So the profile is a definition at a scale, not the curvature along single directions.
# The average over random directions, which detection uses, does not have this problem.
# With a smooth network (softplus instead of ReLU) and ``method="autodiff"`` the two
# lines agree.
