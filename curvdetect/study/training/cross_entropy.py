"""Plain training."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CrossEntropy"]


class CrossEntropy:
    """Plain training.

    Examples
    --------
    >>> from curvdetect.study.training import CrossEntropy
    >>> CrossEntropy()
    CrossEntropy()
    """

    def __repr__(self) -> str:
        return "CrossEntropy()"

    def __call__(
        self, module: nn.Module, x: Tensor, y: Tensor, progress: float
    ) -> Tensor:
        """Return the mean cross-entropy of a batch.

        Parameters
        ----------
        module : torch.nn.Module
            The network.
        x, y : Tensor of shape (n, *input_shape) and (n,)
            Images and labels.
        progress : float
            Not used.

        Returns
        -------
        Tensor
            A number.
        """
        return functional.cross_entropy(module(x), y)
