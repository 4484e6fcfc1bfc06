"""What a companion says of noisy copies of an image: votes for classes."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from curvdetect._base.checks import check_count, check_positive
from curvdetect.network import TorchModel
from curvdetect.signals._around import Around
from curvdetect.signals.base import Signal
from curvdetect.signals.companion import Companion

__all__ = ["Votes"]

_MOST_KEY_BYTES = 64


class Votes(Signal):
    r"""What a companion says of noisy copies of an image: votes for classes.

    The share of class c among argmax q(clamp(x + sigma e_k)), k = 1 .. n_votes, with
    standard normal e_k: an estimate of its ideal share, which cannot change faster than
    a Gaussian allows, whatever it is: :class:`curvdetect.VotingDetector`.

    Parameters
    ----------
    companion : Companion
        What votes, trained with such noise: few others say anything of use.
    sigma : float
        Standard deviation of the noise on every value, in input units. Added before
        clamping and resizing.
    n_votes : int, default=100
        How many.
    key : bytes, default=b""
        The noise is drawn from a keyed hash of the image, BLAKE2b: the same image gets
        the same noise, and who does not know the key cannot foresee it. At most 64
        bytes.

    Raises
    ------
    TypeError
        If `companion` is no Companion.
    ValueError
        If another parameter is not allowed.

    Examples
    --------
    >>> from curvdetect import CurvatureFeaturizer
    >>> from curvdetect.signals import Companion, Votes
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import trained_model
    >>> X, _ = load_fashion_mnist_sample()
    >>> model = trained_model("fashion-mnist")
    >>> votes = Votes(Companion(model), sigma=0.1, n_votes=20)
    >>> found = CurvatureFeaturizer(model, features=[votes]).fit_transform(X[:3])
    >>> found.shape, bool(abs(found[:, 1:].sum(axis=1) - 1).max() < 1e-6)
    ((3, 11), True)
    """

    name = "votes"

    def __init__(
        self,
        companion: Companion,
        *,
        sigma: float,
        n_votes: int = 100,
        key: bytes = b"",
    ) -> None:
        if not isinstance(companion, Companion):
            raise TypeError(
                f"companion must be a Companion; got {type(companion).__name__}"
            )
        check_positive("sigma", sigma)
        check_count("n_votes", n_votes)
        if not isinstance(key, bytes) or len(key) > _MOST_KEY_BYTES:
            raise ValueError(f"key must be at most {_MOST_KEY_BYTES} bytes")
        self.companion, self.key = companion, key
        self.sigma, self.n_votes = float(sigma), int(n_votes)

    def __repr__(self) -> str:  # not the key
        return f"Votes({self.companion!r}, sigma={self.sigma}, n_votes={self.n_votes})"

    def __sklearn_clone__(self) -> Votes:
        return self  # a network is shared, not copied

    def columns(self, n_classes: int) -> list[str]:
        """Name the columns: "votes_label", then one a class."""
        return [
            f"{self.name}_label",
            *(f"{self.name}_class{c}" for c in range(n_classes)),
        ]

    def cost(self, n_classes: int) -> float:
        """Return 1 for the logits, and a pass of the companion for each vote."""
        return 1.0 + self.n_votes * self.companion.passes

    def shared(self, n_classes: int) -> dict[str, float]:
        """Return what is the network's own: its logits."""
        return {"logits": 1.0}

    def measure(self, around: Around) -> Tensor:
        """Return shares, (n, 1 + n_classes): of the network's label, and by class."""
        logits = around.logits
        share = self.counts(around.x, around.model, logits.shape[1]).to(logits)
        share = share / self.n_votes
        return torch.cat(
            [share.gather(1, logits.argmax(1, keepdim=True)), share], dim=1
        )

    def counts(self, x: Tensor, model: TorchModel, n_classes: int) -> Tensor:
        """Count the votes.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images, on the companion's device.
        model : TorchModel
            The guarded network, whose bounds they have.
        n_classes : int
            Its number of classes.

        Returns
        -------
        Tensor of shape (n, n_classes), int64
            Each row sums to `n_votes`. An image is a batch, or several: its votes do
            not depend on the others.
        """
        companion, found = self.companion, []
        with companion.model.evaluating(), torch.no_grad():
            for image in x:
                count = torch.zeros(n_classes, dtype=torch.int64, device=x.device)
                noise = self._noise(image)
                left = self.n_votes
                while left:
                    rows = min(left, companion.model.rows_per_batch(x[:1]))
                    drawn = noise.standard_normal((rows, *image.shape), np.float32)
                    near = image + self.sigma * torch.from_numpy(drawn).to(image)
                    if model.bounds is not None:
                        near = near.clamp(*model.bounds)
                    own = companion.log_probabilities(near, model.bounds, n_classes)
                    count += own.argmax(dim=1).bincount(minlength=n_classes)
                    left -= rows
                found.append(count)
        return torch.stack(found) if found else x.new_zeros((0, n_classes)).long()

    def _noise(self, image: Tensor) -> np.random.Generator:
        """Return what draws an image's noise, from a keyed hash of it."""
        # Zero has two signs, but one noise.
        values = (image.detach().float() + 0.0).cpu().contiguous().numpy()
        digest = hashlib.blake2b(values.tobytes(), key=self.key, digest_size=16)
        seed = int.from_bytes(digest.digest(), "little")
        # Not torch's: on the CPU it uses 32 bits of a seed.
        return np.random.Generator(np.random.Philox(key=seed))
