r"""The geometry of decision boundaries, in pure torch.

Everything here takes a *margin* as its first argument: a callable that maps
points of shape ``(n, *input_shape)`` to ``(n,)`` numbers, row by row, positive on
the predicted side. Nothing here knows a network, scikit-learn or NumPy.

Notation
--------
f : R^d -> R^L
    Logits. ``d`` is the number of input values.
i, j
    Predicted class, i = argmax f(x), and another class.
F = F_ij = f_i - f_j
    Pairwise margin. The boundary between i and j is {F = 0}; F > 0 is the
    predicted side.
x, z
    An input; a point where F vanishes (a boundary point).
g, H
    Gradient and Hessian of F.
n = g / \|g\|
    Unit normal. v is a unit vector, tangent where v . n = 0.
h
    Finite step: an L2 length in input units.

Lengths are L2 norms in input units (the [0, 1] image before normalisation), so
curvatures are in 1 / input units.

Sign
----
One convention: **positive where the predicted region {F > 0} is locally
convex**. A ball of radius r that is the predicted region has curvature +1/r.

Equations
---------
loss curvature profile [3]_
    eigenvalues of the Hessian of a loss; positive where the loss is convex
normal curvature along a tangent v
    kappa(v) = - v^T H v / (\|v\|^2 \|g\|)
principal curvatures
    kappa_1 >= ... >= kappa_(d-1), eigenvalues of the shape operator
    - P H P / \|g\| on the tangent space, P = I - n n^T
average curvature
    kappa = mean of kappa(v) over unit tangents v
    = (g^T H g - tr(H) \|g\|^2) / ((d - 1) \|g\|^3)
    = 1/(d-1) times the sum of the d - 1 principal curvatures

These are equations (4) to (7) of the literature [1]_ [2]_; the last is Goldman's
formula with the constant d - 1 in place of 2, and the minus sign in the others is
what makes them agree. An average of the shape operator over all unit vectors, not
only tangents, is (d - 1)/d times the average curvature.

Steps
-----
A network of ReLU layers is piecewise linear: its exact Hessian is zero almost
everywhere. Curvature is therefore measured at a finite step h, which is part of
the result: a curvature "at scale h". The products H v at scale h are not linear in
v, so averages of v^T H v over random v are well defined there, but eigenvalues are
not: those of the matrix of differences along a basis overstate what the surface
does along their eigenvectors (:func:`principal_curvatures`).

References
----------
.. [1] A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, S. Soatto, "Empirical study
   of the topology and geometry of deep networks", CVPR 2018.
.. [2] R. Goldman, "Curvature formulas for implicit curves and surfaces", Computer
   Aided Geometric Design 22(7), 2005.
.. [3] S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, "Robustness via
   curvature regularization, and vice versa", CVPR 2019.
"""

from curvdetect.geometry._boundary import find_boundary
from curvdetect.geometry._decrease import mean_decrease
from curvdetect.geometry._derivatives import (
    margin_gradient,
    margin_value,
    margin_value_and_gradient,
)
from curvdetect.geometry._differences import CurvatureMethod
from curvdetect.geometry._directions import random_directions, tangent_basis
from curvdetect.geometry._eigen import Spectrum, Which
from curvdetect.geometry._goldman import goldman_curvature
from curvdetect.geometry._joint import JointPerturbation, find_joint_perturbation
from curvdetect.geometry._linearisation import Linearisation
from curvdetect.geometry._margins import ClassLoss, Margin, PairwiseMargin, RegionMargin
from curvdetect.geometry._mean_curvature import mean_curvature
from curvdetect.geometry._nearest_classes import linearise, nearest_classes
from curvdetect.geometry._newton import step_to_boundary
from curvdetect.geometry._normal_curvature import normal_curvature
from curvdetect.geometry._operators import ProductMethod
from curvdetect.geometry._pairs import Pairs
from curvdetect.geometry._points import BoundaryPoints
from curvdetect.geometry._principal import hessian_eigenvalues, principal_curvatures
from curvdetect.geometry._profile import ProfileStatistics, profile_statistics
from curvdetect.geometry._robustness import (
    Perturbation,
    find_adversarial_perturbation,
    random_direction_robustness,
)
from curvdetect.geometry._sampling import Estimator
from curvdetect.geometry._subspace import (
    Subspace,
    curvature_in_subspace,
    label_changes,
    random_subspace,
    shared_subspace,
)
from curvdetect.geometry._topology import (
    RegionPath,
    convex_combinations,
    find_path_in_region,
)
from curvdetect.geometry._trace import hessian_trace
from curvdetect.geometry._universal import (
    UniversalPerturbation,
    find_smallest_universal_perturbation,
    find_universal_perturbation,
    fooling_rate,
)

__all__ = [
    "BoundaryPoints",
    "ClassLoss",
    "CurvatureMethod",
    "Estimator",
    "JointPerturbation",
    "Linearisation",
    "Margin",
    "Pairs",
    "PairwiseMargin",
    "Perturbation",
    "ProductMethod",
    "ProfileStatistics",
    "RegionMargin",
    "RegionPath",
    "Spectrum",
    "Subspace",
    "UniversalPerturbation",
    "Which",
    "convex_combinations",
    "curvature_in_subspace",
    "find_adversarial_perturbation",
    "find_boundary",
    "find_joint_perturbation",
    "find_path_in_region",
    "find_smallest_universal_perturbation",
    "find_universal_perturbation",
    "fooling_rate",
    "goldman_curvature",
    "hessian_eigenvalues",
    "hessian_trace",
    "label_changes",
    "linearise",
    "margin_gradient",
    "margin_value",
    "margin_value_and_gradient",
    "mean_curvature",
    "mean_decrease",
    "nearest_classes",
    "normal_curvature",
    "principal_curvatures",
    "profile_statistics",
    "random_direction_robustness",
    "random_directions",
    "random_subspace",
    "shared_subspace",
    "step_to_boundary",
    "tangent_basis",
]
