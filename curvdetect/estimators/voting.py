"""`VotingDetector`: flags by votes of a companion, with a certificate."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta, norm
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from tqdm.auto import tqdm

from curvdetect._base.checks import check_count, check_positive, check_share
from curvdetect._base.warn import warn
from curvdetect.attacks import Lesson
from curvdetect.attacks.gradient_steps import Norm
from curvdetect.estimators._companions import check_companion, companion_for
from curvdetect.estimators._image_detector import Examined, ImageDetector
from curvdetect.estimators.detector import conformal_p_values, conformal_threshold
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.estimators.state import module_of
from curvdetect.network import TorchModel
from curvdetect.signals import Companion, Votes

__all__ = ["Certified", "VotingDetector"]

#: Certificates have noise of their own.
_CERTIFY = b"certify"
#: Bytes of a key, at most.
_KEY = 32
#: With a smaller limit radii are nothing, or nearly.
_NO_USE = 0.01


class Certified(NamedTuple):
    """Certificates of n images; see :meth:`VotingDetector.certify`.

    Attributes
    ----------
    radius : ndarray of shape (n,)
        Certified radius, an L2 norm in input units; 0 where nothing is certified.
    share : ndarray of shape (n,)
        Lower bound p of the ideal share of votes for the network's label.
    label : ndarray of shape (n,), int64
        The network's label.
    limit : float
        t: an image whose label has an ideal share below t is left unflagged with
        probability at most b.
    level : float
        b, this probability.
    confidence : float
        1 - a, the confidence of the statement for each image by itself.
    sigma : float
        Standard deviation of the noise.
    """

    radius: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    label: npt.NDArray[np.int64]
    limit: float
    level: float
    confidence: float
    sigma: float

    def __str__(self) -> str:
        some = float(np.mean(self.radius > 0)) if len(self.radius) else 0.0
        return (
            f"For each of {len(self.radius)} images, with confidence "
            f"{self.confidence:g}: any fixed image within its L2 radius (positive for "
            f"{some:.0%} of them) to which the network gives another label is flagged "
            f"with probability at least {1 - self.level:g} over keys that its maker "
            "does not know"
        )


class VotingDetector(ImageDetector):
    r"""Flag images by a companion's votes on noisy copies, with a certificate.

    A companion that was trained with Gaussian noise votes on noisy copies of an image.
    The image is flagged unless enough votes are for the network's label. The noise
    limits how fast the share of a class can change with the image. Therefore
    :meth:`certify` can state a radius within which an image with another label is
    flagged, whatever attack made it, except with a known probability.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The trained network.
    companion : Companion, TorchModel or torch.nn.Module
        The classifier that votes; :class:`~curvdetect.study.training.GaussianNoise`
        says how to train it.
    sigma : float, default=0.25
        Standard deviation of the noise, in input units. More noise gives larger radii,
        for fewer images.
    n_votes : int, default=100
        Number of votes for each image.
    target_fpr : float, default=0.05
        False-positive rate: the share of clean images that may be flagged.
    level : float, default=0.001
        b, the probability with which an adversarial image within a certified radius may
        pass.
    detector : LearnedDetector, optional
        A learned detector to use as well. A copy is fitted, for `model`, with its own
        companion or none. An image is flagged if either flags it, and each gets half of
        `target_fpr`. The certificate is the same, because the votes are always taken.
    key : bytes, optional
        Secret of at most 32 bytes. The certificate does not hold against an attacker
        who has it and can predict the noise. By default `fit` draws it from the
        operating system; with a `random_state`, from that, which must then be secret.
    random_state : int, RandomState or None, default=None
        Seed of the key, unless that is given, and of `detector`, unless it has its own.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    least_votes_ : int
        k: an image with fewer votes for its label is flagged.
    limit_ : float
        t: the lower bound of the ideal share that k votes show at level b.
    threshold_ : float
        0: an image with a larger score is flagged.
    clean_scores_ : ndarray
        Scores of the clean images that set k, sorted.
    detector_ : LearnedDetector or None
        The fitted learned detector.
    key_ : str
        The key in hexadecimal digits. It is also in pickles and saved files.
    model_, companion_, passes_, n_classes_, n_features_in_
        As in :class:`LearnedDetector`.

    Notes
    -----
    *Rate.* The number of votes for its label is a fixed function of an image and the
    key; with n exchangeable calibration images and a new one, the new one has fewer
    than k votes with probability at most target_fpr.

    *Certificate.* Let p_c(x) be the ideal share of class c, the probability that a
    vote at x is for c. t is such that a binomial variable of n_votes trials with
    success probability t is at least k with probability b. If p_c(x) >= p, where c is
    the network's label at x, then at any x' with \|x' - x\|_2 < R,

    .. math:: R = \sigma (\Phi^{-1}(p) - \Phi^{-1}(1 - t)),

    p_c(x') > 1 - t (the lemma of Neyman and Pearson, as in the second reference), so
    the share of any other class is less than t, and if the network gives x' another
    label it has k votes with probability at most b. :meth:`certify` bounds p from below
    by votes with fresh noise. For Q images that do not depend on what was flagged, the
    probability that one passes is at most Q b. Nothing is claimed about images outside
    all radii, about a single image (that it passed does not show that it was not
    attacked), about attackers who learn about the key, or about rounding, with which
    the noise is not quite Gaussian.

    *Cost.* A pass of the network and n_votes passes of the companion for each image;
    :meth:`cost` gives it in passes of the network.

    References
    ----------
    J. Cohen, E. Rosenfeld, J. Z. Kolter, "Certified adversarial robustness via
    randomized smoothing", ICML 2019. M. Lecuyer, V. Atlidakis, R. Geambasu, D. Hsu,
    S. Jana, "Certified robustness to adversarial examples with differential privacy",
    S&P 2019.

    Examples
    --------
    >>> from curvdetect import VotingDetector
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import LeNet, load_lenet
    >>> from curvdetect.study.training import GaussianNoise, train
    >>> X, y = load_fashion_mnist_sample()
    >>> noisy = train(
    ...     load_lenet("fashion-mnist"), X[:100], y[:100],
    ...     loss=GaussianNoise(sigma=0.1), n_epochs=2, verbose=False,
    ... )
    >>> detector = VotingDetector(
    ...     load_lenet("fashion-mnist"), noisy, sigma=0.1, n_votes=50, random_state=0
    ... ).fit(X[100:150], y[100:150])
    >>> found = detector.certify(X[150:155], n_samples=200)
    >>> found.radius.shape, detector.cost()
    ((5,), 51.0)
    """

    def __init__(
        self,
        model: TorchModel | nn.Module | None = None,
        companion: Companion | TorchModel | nn.Module | None = None,
        *,
        sigma: float = 0.25,
        n_votes: int = 100,
        target_fpr: float = 0.05,
        level: float = 0.001,
        detector: LearnedDetector | None = None,
        key: bytes | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.companion = companion
        self.sigma = sigma
        self.n_votes = n_votes
        self.target_fpr = target_fpr
        self.level = level
        self.detector = detector
        self.key = key
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: npt.ArrayLike | Tensor, y: npt.ArrayLike | None = None
    ) -> VotingDetector:
        """Calibrate on clean images.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Clean images that neither network was trained on.
        y : array of shape (n_samples,), optional
            Their true labels. With them, only images that the network gets right are
            used.

        Returns
        -------
        VotingDetector
            Itself.

        Raises
        ------
        TypeError
            If `model`, `companion` or `detector` is of another type.
        ValueError
            If a parameter, the images or the labels are not allowed, the companion does
            not fit, or there are too few images for `target_fpr`.

        Warns
        -----
        UserWarning
            If so many clean images have so few votes for their labels that nothing can
            be certified.
        """
        self._check_parameters()
        model, images, labels, left_out = self._prepared(X, y)
        companion: Any
        companion, passes = companion_for(self.companion, model, images, labels)
        random = check_random_state(self.random_state)
        own = float(self.target_fpr) / (1 if self.detector is None else 2)
        key = self._drawn_key(random)
        n_classes = model.n_classes
        votes = Votes(companion, sigma=self.sigma, n_votes=self.n_votes, key=key)
        counts = self._counted(votes, model, n_classes, images)
        n_own = counts.gather(1, labels[:, None])[:, 0].numpy()
        least = -int(conformal_threshold(np.sort(-n_own), own, left_out))
        detector = None
        if self.detector is not None:
            detector = clone(self.detector).set_params(model=self.model, target_fpr=own)
            if detector.random_state is None:
                detector.random_state = int(random.randint(2**31 - 1))
            detector.fit(images, labels)
        self.model_, self.companion_, self.passes_ = model, companion, passes
        self.n_classes_, self.input_shape_ = n_classes, tuple(images.shape[1:])
        self.weights_ = model.weights_digest()
        self.companion_weights_ = companion.model.weights_digest()
        self.key_, self.least_votes_, self.detector_ = key.hex(), least, detector
        # A beta quantile is the binomial's bound: Clopper and Pearson's.
        rest = self.n_votes - least + 1
        self.limit_ = float(beta.ppf(self.level, least, rest)) if least else 0.0
        self.clean_scores_ = np.sort(self._score(n_own))
        self.threshold_ = 0.0
        if self.limit_ < _NO_USE:
            warn(
                f"nothing of use can be certified: of clean images, a share of {own:g} "
                f"has less than {least + 1} of {self.n_votes} votes for the network's "
                "label. Train the companion with noise (GaussianNoise), or give a "
                "smaller sigma, or a larger target_fpr"
            )
        return self

    def _check_parameters(self) -> None:
        module_of(self.model)
        check_companion(self.companion)
        if self.companion is None:
            raise TypeError("companion must be a network that votes; got None")
        check_positive("sigma", self.sigma)
        check_count("n_votes", self.n_votes)
        check_share("target_fpr", self.target_fpr)
        check_share("level", self.level)
        if not isinstance(self.detector, LearnedDetector | None):
            raise TypeError(
                "detector must be a LearnedDetector or None; got "
                f"{type(self.detector).__name__}"
            )
        key = self.key
        if key is not None and not (isinstance(key, bytes) and 0 < len(key) <= _KEY):
            raise ValueError(f"key must be 1 to {_KEY} bytes, or None")

    def _drawn_key(self, random: np.random.RandomState) -> bytes:
        if self.key is not None:
            return self.key
        if self.random_state is None:
            return secrets.token_bytes(_KEY)
        return random.bytes(_KEY)

    def _counted(
        self, votes: Votes, model: TorchModel, n_classes: int, images: Tensor
    ) -> Tensor:
        """Count the votes for all images; on the CPU."""
        found = [torch.zeros((0, n_classes), dtype=torch.int64)]
        with (
            model.evaluating(),
            tqdm(
                total=len(images), unit="image", desc="vote", disable=not self.verbose
            ) as bar,
        ):
            for batch in model.split(images):
                found.append(votes.counts(batch, model, n_classes).cpu())
                bar.update(len(batch))
        return torch.cat(found)

    def _score(self, n_own: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return how many votes are missing, in parts of all: positive if any are."""
        return np.asarray((self.least_votes_ - n_own) / self.n_votes, dtype=np.float64)

    def _voted(
        self, images: Tensor, label: Tensor
    ) -> tuple[Tensor, npt.NDArray[np.float64]]:
        """Return votes, and the score of each image with its label."""
        counts = self._all_votes(b"", self.n_votes, images)
        return counts, self._score(counts.gather(1, label[:, None])[:, 0].numpy())

    def _all_votes(self, purpose: bytes, n_votes: int, images: Tensor) -> Tensor:
        """Count votes whose noise has nothing to do with that of another purpose."""
        key = bytes.fromhex(self.key_) + purpose
        votes = Votes(self.companion_, sigma=self.sigma, n_votes=n_votes, key=key)
        return self._counted(votes, self.model_, self.n_classes_, images)

    def examine(self, X: npt.ArrayLike | Tensor) -> Examined:
        """Look at images once and say all that is known.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        Examined
            Score: how many votes for the network's label are missing, in parts of all;
            with a `detector`, the larger of that and its score less its threshold.
            Recovered: the other class with most votes, or what the detector says.

        Raises
        ------
        ValueError
            If the images are not what they must be, or a network has other weights
            than at `fit`.
        """
        return self._examined(self._checked(X))

    def _examined(self, images: Tensor) -> Examined:
        logits = self.model_.predict_logits(images)
        label = torch.from_numpy(logits.argmax(axis=1))
        counts, score = self._voted(images, label)
        others = counts.scatter(1, label[:, None], -1)
        recovered = others.argmax(dim=1).numpy()
        share = others.amax(dim=1).clamp(min=0).numpy() / self.n_votes
        if self.detector_ is not None:
            found = self.detector_.examine(images)
            score = np.maximum(score, found.score - self.detector_.threshold_)
            recovered = found.recovered_label
            share = found.recovered_probability
        return Examined(
            logits=logits,
            score=score,
            flagged=score > 0,
            recovered_label=recovered,
            recovered_probability=share,
            stage=np.zeros(len(logits), dtype=np.int64),
        )

    def _lessons(
        self, model: TorchModel, shortest: Mapping[Norm, float]
    ) -> list[Lesson]:
        if self.detector_ is None:
            return super()._lessons(model, shortest)
        return self.detector_._lessons(model, shortest)

    def p_values(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Return how surprising each image would be if it were clean.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples,)
            By the votes; with a `detector`, twice the smaller of two, at most 1.
        """
        if self.detector_ is None:
            return super().p_values(X)
        images = self._checked(X)
        label = torch.from_numpy(self.model_.predict(images))
        _, score = self._voted(images, label)
        by_votes = conformal_p_values(self.clean_scores_, score)
        return np.minimum(1, 2 * np.minimum(by_votes, self.detector_.p_values(images)))

    def _settings(self) -> dict[str, Any]:
        inner = self.detector_
        own = None if inner is None else (inner._settings(), inner.threshold_)
        return {
            "weights": self.weights_,
            "model": self.model_,
            "companion": self.companion_,
            "companion_weights": self.companion_weights_,
            "sigma": self.sigma,
            "n_votes": self.n_votes,
            "key": self.key_,
            "least_votes": self.least_votes_,
            "detector": own,
        }

    def certify(
        self,
        X: npt.ArrayLike | Tensor,
        *,
        n_samples: int = 1000,
        confidence: float = 0.999,
    ) -> Certified:
        """Certify a radius within which no image with another label passes.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Clean images: what is said is about changes of them.
        n_samples : int, default=1000
            Votes that bound the share of the network's label, with noise of their own.
        confidence : float, default=0.999
            1 - a, for each image.

        Returns
        -------
        Certified
            Radii, and what they rest on. Print it for the statement. Cost: n_samples
            passes of the companion an image.

        Raises
        ------
        ValueError
            As :meth:`examine` does, or if a parameter is not allowed.
        """
        check_count("n_samples", n_samples)
        check_share("confidence", confidence)
        images = self._checked(X)
        told = self.model_.predict(images)
        counts = self._all_votes(_CERTIFY, n_samples, images)
        n_own = counts.numpy()[np.arange(len(told)), told]
        share = beta.ppf(1 - confidence, n_own, n_samples - n_own + 1)
        share = np.where(n_own > 0, share, 0.0)
        radius = self.sigma * (norm.ppf(share) - norm.ppf(1 - self.limit_))
        return Certified(
            radius=np.maximum(radius, 0.0),
            share=share,
            label=told,
            limit=self.limit_,
            level=self.level,
            confidence=confidence,
            sigma=self.sigma,
        )

    def cost(self, X: npt.ArrayLike | Tensor | None = None) -> float:
        """Return what a decision costs, in forward-equivalents an image.

        Parameters
        ----------
        X : array, Tensor or list, optional
            Images, for the detector; by default the clean ones of its calibration.

        Returns
        -------
        float
            On average.
        """
        check_is_fitted(self)
        cost = 1.0 + self.n_votes * self.passes_
        return cost if self.detector_ is None else cost + self.detector_.cost(X)
