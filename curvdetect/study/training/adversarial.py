"""Training on images under attack."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from curvdetect._base.checks import check_count, check_positive
from curvdetect._base.extras import require

__all__ = ["AdversarialTraining"]


class AdversarialTraining:
    """Cross-entropy on images under a PGD attack, by torchattacks.

    Parameters
    ----------
    eps : float
        Largest change of a value; images are within [0, 1].
    n_steps : int, default=7
        Steps of the attack, of length 2.5 eps / n_steps.

    References
    ----------
    A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards deep learning
    models resistant to adversarial attacks", ICLR 2018.

    Examples
    --------
    >>> from curvdetect.study.training import AdversarialTraining
    >>> AdversarialTraining(eps=0.1)
    AdversarialTraining(eps=0.1, n_steps=7)
    """

    def __init__(self, *, eps: float, n_steps: int = 7) -> None:
        check_positive("eps", eps)
        check_count("n_steps", n_steps)
        self.eps = eps
        self.n_steps = n_steps
        self._torchattacks = require("torchattacks", extra="attacks")

    def __repr__(self) -> str:
        return f"AdversarialTraining(eps={self.eps!r}, n_steps={self.n_steps!r})"

    def __call__(
        self, module: nn.Module, x: Tensor, y: Tensor, progress: float
    ) -> Tensor:
        """Return the mean cross-entropy of a batch under attack.

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
        attack = self._torchattacks.PGD(
            module,
            eps=self.eps,
            alpha=2.5 * self.eps / self.n_steps,
            steps=self.n_steps,
        )
        return functional.cross_entropy(module(attack(x, y).detach()), y)
