"""What a profile of principal curvatures looks like, in numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import check_positive

__all__ = ["ProfileStatistics", "profile_statistics"]


class ProfileStatistics(NamedTuple):
    """Sparsity and asymmetry of curvature profiles; see :func:`profile_statistics`.

    Attributes
    ----------
    near_zero : Tensor of shape (...)
        Share of the curvatures that are small beside the largest.
    effective_rank : Tensor of shape (...)
        exp of the entropy of the shares |kappa| / sum |kappa|: how many curvatures of
        equal size would be as spread out. 1 to m.
    negative : Tensor of shape (...)
        Share of negative ones among those that are not near zero: 0.5 for a symmetric
        profile.
    skewness : Tensor of shape (...)
        Third standardised moment: 0 for a symmetric profile, negative where the most
        negative curvatures are the outliers.
    """

    near_zero: Tensor
    effective_rank: Tensor
    negative: Tensor
    skewness: Tensor


def profile_statistics(curvatures: Tensor, *, tol: float = 0.05) -> ProfileStatistics:
    """Describe how sparse and how asymmetric profiles of principal curvatures are.

    Parameters
    ----------
    curvatures : Tensor of shape (..., m)
        All principal curvatures of a point, or all eigenvalues of a Hessian, in any
        order; of as many points as there are leading axes.
    tol : float, default=0.05
        What counts as near zero: at most this part of the largest absolute value.

    Returns
    -------
    ProfileStatistics
        Four numbers a profile; NaN where the profile has a NaN or is all zero, and
        for the skewness of equal values.

    Raises
    ------
    ValueError
        If `tol` is not positive.

    References
    ----------
    O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import profile_statistics
    >>> found = profile_statistics(torch.tensor([1.0, 0.0, 0.0, 0.0, -3.0]))
    >>> found.near_zero, found.negative
    (tensor(0.6000), tensor(0.5000))
    """
    check_positive("tol", tol)
    if not curvatures.is_floating_point():
        curvatures = curvatures.to(torch.get_default_dtype())
    if not curvatures.shape[-1]:
        raise ValueError("curvatures must have at least one value a profile; got none")
    size = curvatures.abs()
    largest = size.amax(-1, keepdim=True)
    small = size <= tol * largest
    defined = curvatures.isfinite().all(-1) & (largest.squeeze(-1) > 0)
    share = size / size.sum(-1, keepdim=True)
    spread = curvatures - curvatures.mean(-1, keepdim=True)
    deviation = spread.square().mean(-1).sqrt()
    rounding = 8 * torch.finfo(curvatures.dtype).eps
    differ = deviation > rounding * largest.squeeze(-1)
    statistics = ProfileStatistics(
        near_zero=small.to(curvatures).mean(-1),
        effective_rank=torch.special.entr(share).sum(-1).exp(),
        negative=((curvatures < 0) & ~small).to(curvatures).sum(-1) / (~small).sum(-1),
        skewness=((spread**3).mean(-1) / deviation**3).where(differ, torch.nan),
    )
    return ProfileStatistics(*(s.where(defined, torch.nan) for s in statistics))
