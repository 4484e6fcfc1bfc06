"""Noise of the same norm as an attack: the control that must not be flagged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from curvdetect._base.warn import warn

__all__ = ["same_norm_noise"]

#: Relative, of the norm of the noise.
_PRECISION = 1e-3


def same_norm_noise(
    X: npt.NDArray[np.float32],
    norms: npt.NDArray[Any] | float,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    random_state: int | np.random.RandomState | None = None,
) -> npt.NDArray[np.float32]:
    """Add Gaussian noise of a given norm: the control that must not be flagged.

    Parameters
    ----------
    X : array of shape (n_samples, *input_shape)
        Images.
    norms : float or array of shape (n_samples,)
        L2 norm that the noise has in the end, in input units.
    bounds : (float, float) or None, default=(0.0, 1.0)
        Values are clipped to these; the noise is made longer until it has its norm
        nevertheless.
    random_state : int, RandomState or None, default=None
        Draws the noise.

    Returns
    -------
    ndarray of shape (n_samples, *input_shape), float32
        Noisy images.

    Warns
    -----
    UserWarning
        If some images cannot be moved so far within the bounds; their noise is shorter.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect.attacks import same_norm_noise
    >>> noisy = same_norm_noise(np.zeros((1, 64), np.float32), 2.0, random_state=0)
    >>> round(float(np.linalg.norm(noisy)), 3), float(noisy.min())
    (2.0, 0.0)
    """
    rng = check_random_state(random_state)
    flat = np.asarray(X, dtype=np.float64).reshape(len(X), -1)
    target = np.broadcast_to(np.asarray(norms, dtype=np.float64), len(flat))[:, None]
    low, high = bounds or (-np.inf, np.inf)
    noise = rng.normal(size=flat.shape)
    # The norm after clipping grows with the scale: bisect for it.
    least, most = np.zeros_like(target), np.full_like(target, 1e3) * target
    for _ in range(60):
        scale = (least + most) / 2
        noisy = np.clip(flat + scale * noise, low, high)
        longer = np.linalg.norm(noisy - flat, axis=1, keepdims=True) > target
        least, most = np.where(longer, least, scale), np.where(longer, scale, most)
    reached = np.linalg.norm(noisy - flat, axis=1, keepdims=True)
    n_short = int((reached < (1 - _PRECISION) * target).sum())
    if n_short:
        warn(
            f"{n_short} of {len(flat)} images cannot be moved as far as norms say, "
            f"within bounds={bounds}; their noise is shorter. Give smaller norms, or "
            "wider bounds"
        )
    return noisy.reshape(X.shape).astype(np.float32)
