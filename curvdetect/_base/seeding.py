"""The global random generators, from which attacks of other packages draw."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["generators_kept", "seeded"]


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put Python's and NumPy's global generators back as they were.

    torch's are put back by :meth:`curvdetect.TorchModel.evaluating`.
    """
    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)  # noqa: NPY002


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators; see :func:`generators_kept`.

    Parameters
    ----------
    seed : int
        Of each.
    """
    with generators_kept():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        yield
