"""The curvature of level sets along given tangents."""

from __future__ import annotations

from torch import Tensor

from curvdetect.geometry._differences import CurvatureMethod, Differences
from curvdetect.geometry._margins import Margin

__all__ = ["normal_curvature"]


def normal_curvature(
    margin: Margin,
    z: Tensor,
    v: Tensor,
    *,
    method: CurvatureMethod = "forward",
    step: float = 0.1,
    evaluated: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Curvature of a level set along given tangents.

    kappa(v) = - v^T H v / (\|v\|^2 \|g\|), equation (5) in the package's sign:
    positive where the predicted region is locally convex. The level set is that
    through `z`; it is the boundary where F(z) = 0.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    z : Tensor of shape (n, *input_shape)
        Points.
    v : Tensor of shape (n, m, *input_shape)
        Tangent directions of each point, of any length. A part along the normal is
        not removed.
    method : {"forward", "gradient", "autodiff"}, default="forward"
        Second differences of F, differences of its gradient, or exact second
        derivatives; see :func:`mean_curvature`.
    step : float, default=0.1
        h, an L2 length in input units. Not used by "autodiff".
    evaluated : tuple of Tensor, optional
        F and its gradient at `z`, if they are known already.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n, m)
        Curvatures, in 1 / input units; NaN where the gradient vanishes. Cost per
        direction: two forward passes ("forward"), a forward and a backward
        ("gradient"), or about three times that ("autodiff").

    Raises
    ------
    ValueError
        If `method`, `step` or the shape of `v` is not allowed.

    Examples
    --------
    A cylinder of radius 2 is curved around its axis and flat along it.

    >>> import torch
    >>> from curvdetect.geometry import normal_curvature
    >>> cylinder = lambda x: 2 - x[:, :2].norm(dim=1)
    >>> z = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    >>> v = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    >>> normal_curvature(cylinder, z, v, step=1e-3).round(decimals=4)
    tensor([[0.5000, -0.0000]], dtype=torch.float64)
    """
    if v.shape[:1] + v.shape[2:] != z.shape:
        raise ValueError(
            "v must hold directions for every row of z, shape (n, m, *input_shape); "
            f"got {tuple(v.shape)} for z of shape {tuple(z.shape)}"
        )
    differences = Differences.at(
        margin, z, method=method, step=step, evaluated=evaluated, batch_size=batch_size
    )
    n, m = v.shape[:2]
    v = v.reshape(n * m, -1)
    v = v / v.norm(dim=1, keepdim=True)
    second = differences.second(m, lambda pairs: v[pairs])
    differences.warn_if_wrongly_zero(second, lambda rows: v[rows * m])
    return -second / differences.steepness[:, None]
