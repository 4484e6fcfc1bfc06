"""Labels by the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["named"]


def named(
    labels: npt.ArrayLike, class_names: Sequence[str] | None
) -> npt.NDArray[np.str_] | None:
    """Return the name of each label.

    Parameters
    ----------
    labels : array of shape (n,), int
        Positions among the logits; what is none, such as a `reject_label`, has the
        name "".
    class_names : sequence of str or None
        Of a :class:`~curvdetect.TorchModel`.

    Returns
    -------
    ndarray of shape (n,), str, or None
        None where no names are known.

    Examples
    --------
    >>> from curvdetect.network.class_names import named
    >>> named([1, 0, -1], ["cat", "dog"]).tolist()
    ['dog', 'cat', '']
    """
    if class_names is None:
        return None
    n = len(class_names)
    found = [
        class_names[label] if 0 <= label < n else "" for label in np.asarray(labels)
    ]
    return np.asarray(found, dtype=np.str_)
