"""`LearnedDetector`: learns from attacks on the network, decides in stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from joblib import Memory
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from curvdetect._base.checks import check_positive
from curvdetect._base.warn import warn
from curvdetect.attacks import KINDS, Attack, Lesson, curriculum
from curvdetect.attacks.gradient_steps import Norm
from curvdetect.estimators._cascade import Cascade, examined
from curvdetect.estimators._companions import check_companion
from curvdetect.estimators._evidence import N_STAGES, Evidence
from curvdetect.estimators._given import given_images
from curvdetect.estimators._image_detector import (
    Examined,
    ImageDetector,
    held_detector,
)
from curvdetect.estimators._learning import Learning
from curvdetect.estimators._lessons import N_VETO
from curvdetect.estimators.detector import check_target_fpr
from curvdetect.estimators.self_test import SelfTest, Tried
from curvdetect.estimators.state import module_of
from curvdetect.network import TorchModel
from curvdetect.signals import Companion

__all__ = ["LearnedDetector", "learned_detector"]

#: Where no rate is asked for, and there are images enough for it.
_TARGET_FPR = 0.01
#: To learn from at least, where a rate is asked for.
_LEAST_LEARNED = 50


class LearnedDetector(ImageDetector):
    r"""Flag adversarial images by what attacks on this network look like.

    `fit` takes clean images, attacks some of them itself, and learns to tell the
    results from clean and noisy images. The other images set the threshold and are used
    to test the detector. An image is measured in up to three stages, and goes on to the
    next only while the decision is in doubt: its logits; then how they change when it
    is moved by a pixel, mirrored, and reduced to two levels of grey; then when it is
    moved back and blurred, and after a step in a random direction both ways, which
    gives the mean curvature of the margins. An adversarial perturbation does not
    survive these changes; the content of a clean image does.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The trained network.
    companion : Companion, TorchModel or torch.nn.Module, optional
        A second classifier of the same classes, which is asked about every image: a
        flatter copy (:func:`~curvdetect.study.training.train_companion`), or another
        network, the larger or the more robust the better. See
        :class:`~curvdetect.signals.Companion` if the size of its input or the order of
        its classes differs.
    target_fpr : float, optional
        False-positive rate: the share of clean images that may be flagged. It takes
        2 / target_fpr - 1 images for the threshold and 50 to learn from. By default
        0.01; with too few images, the lowest rate that they allow, with a warning.
    attacks : dict of str to callable, optional
        Further attacks to learn from, by name: ``attack(images, labels) -> images``,
        such as those of torchattacks, :func:`curvdetect.attacks.from_foolbox` or
        ``from_art``.
    kinds : sequence of str, default=("gradient steps", "minimal norm")
        Which of the built-in attacks to learn from.
    budget : float, default=6
        What a clean image may cost on average, in forward-equivalents (a forward pass
        is one, a backward pass two). An image costs 1 if the logits suffice, 4 after
        the second stage and 8 after the third. This includes the pass of a companion
        that is no larger than the network; what a larger one costs more is not counted.
    self_test : bool, default=True
        Whether `fit` tests the detector on attacks on images that it did not learn
        from.
    memory : str or joblib.Memory, optional
        Folder in which `fit` keeps the results of its own attacks, so that an
        interrupted `fit` continues where it stopped.
    random_state : int, RandomState or None, default=None
        Seed of the split of the images, and of directions, attacks and noise.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    threshold_ : float
        Images with a larger score are flagged.
    target_fpr_ : float
        The false-positive rate that the threshold guarantees.
    clean_scores_ : ndarray
        Scores of the clean images that set the threshold, sorted.
    n_learned_, n_adversarial_ : int or None
        How many clean images were learned from; how many adversarial ones, that attacks
        made of these or that were given. None if the detector comes from a file of an
        earlier version, which does not say.
    self_test_ : SelfTest or None
        How well the detector detects each attack; see
        :func:`curvdetect.assess_guard`.
    shortest_ : (float, float)
        How large a perturbation typically has to be to fool the network, in input
        units: medians over minimal perturbations of the L-infinity norm and of the L2
        norm.
    model_ : TorchModel
        The network, clamped to its bounds.
    companion_ : Companion or None
        The second classifier.
    passes_ : float
        Cost of a forward pass of the companion, in forward passes of the network,
        by multiplications and additions.
    n_classes_, n_features_in_ : int
        Number of logits; of values of an image.

    Notes
    -----
    *Companion.* What it says is an input of the boosted trees. It also has a veto: if
    its odds against the network's label are exceeded by a share s of clean images only,
    the score is at least the one that a share s of clean images exceeds. So an attacker
    who makes the trees sure of an image still has to make the companion agree. The same
    is asked of clean images with less contrast, other light, less focus or a tilt, and
    the lower score counts: a companion may doubt whatever is pale.

    *False-positive rate.* Stages, exits and trees depend only on the images learned
    from. Given them, the score is a fixed function. The n calibration images and a new
    clean one are exchangeable, so the rank of the new score among the n + 1 is uniform
    (ties only help), and it is among the k = floor(target_fpr (n + 1)) largest with
    probability at most k / (n + 1) <= target_fpr. The threshold is the k-th largest of
    the n: a score above it is among the k largest of n + 1. This holds for images like
    those of the calibration. If y is given, these are images that the network gets
    right; others are flagged more often, and rightly so. It holds on average over
    calibration sets; for a single one, the rate varies as a Beta(k, n + 1 - k).

    *Classes.* What is usual of the network's label is taken off a score: how much
    higher the upper quartile of the clean images of that label lies than that of all,
    by cross-fitting, times n / (n + 20) for n images of the label. Without it, classes
    near others (shirts, pullovers) are flagged many times as often as the rest. Of more
    than 32 classes it is not done.

    *What it learns from.* One step and ten steps along the gradient, in L-infinity and
    L2, with budgets that about double from the network's own minimal norms to 64/255 of
    the range per value; and minimal perturbations times 1.02, 1.5, 2 and 3. The
    negatives are clean images; noise of the same norms; and clean images with less
    contrast, lighter or darker, blurred, or turned by up to 10 degrees, where the
    network still gets them right. Attackers who know the detector are not among these.

    *Cost.* See :meth:`cost`. `fit` attacks at most 8,000 times, and trains the trees.

    References
    ----------
    W. Xu, D. Evans, Y. Qi, "Feature squeezing: detecting adversarial examples in deep
    neural networks", NDSS 2018 (levels, blur). C. Guo, M. Rana, M. Cisse, L. van der
    Maaten, "Countering adversarial images using input transformations", ICLR 2018.
    Neither stops attackers who know it: W. He, J. Wei, X. Chen, N. Carlini, D. Song,
    "Adversarial example defenses: ensembles of weak defenses are not strong", WOOT
    2017, and :class:`~curvdetect.evasion.AgreementAttack`.

    Examples
    --------
    >>> from curvdetect import LearnedDetector
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> detector = LearnedDetector(
    ...     load_lenet("fashion-mnist"), target_fpr=0.1, self_test=False, random_state=0
    ... ).fit(X[:90], y[:90])
    >>> detector.predict(X[90:94]).shape
    (4,)
    """

    # Files of earlier versions lack both.
    n_learned_: int | None = None
    n_adversarial_: int | None = None

    def __init__(
        self,
        model: TorchModel | nn.Module | None = None,
        *,
        companion: Companion | TorchModel | nn.Module | None = None,
        target_fpr: float | None = None,
        attacks: Mapping[str, Attack] | None = None,
        kinds: Sequence[str] = KINDS,
        budget: float = 6.0,
        self_test: bool = True,
        memory: str | Memory | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.companion = companion
        self.target_fpr = target_fpr
        self.attacks = attacks
        self.kinds = kinds
        self.budget = budget
        self.self_test = self_test
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    # Fitting ----------------------------------------------------------------

    def fit(
        self,
        X: npt.ArrayLike | Tensor,
        y: npt.ArrayLike | None = None,
        *,
        adversarial: npt.ArrayLike | Tensor | None = None,
    ) -> LearnedDetector:
        """Attack clean images, learn from that, and calibrate on others.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Clean images that the network was not trained on.
        y : array of shape (n_samples,), optional
            Their true labels: images that the network gets wrong are then left out.
            Without them, the network's labels are taken as true.
        adversarial : array, Tensor or list of shape (n, *input_shape) or (n, d)
            Adversarial images to learn from as well, made from some or all of the
            images in X; by default none. They have as much weight as all built-in
            attacks together. The source of each is taken to be the nearest image in X;
            if that sets the threshold, the adversarial image is not learned from but
            used in the self-test.

        Returns
        -------
        LearnedDetector
            Itself. After an interruption it is as it was before.

        Raises
        ------
        TypeError
            If `model` is neither a TorchModel nor a module, or `companion` no network.
        ValueError
            If a parameter, the images or the labels are not allowed, the companion does
            not fit, too few images are left, or no attack fools the network.

        Warns
        -----
        UserWarning
            If there are too few images for a rate of 0.01; if the self-test finds
            attacks that are missed; if the network gets less than half right, or the
            companion agrees with it on less than half.
        """
        self._check_parameters()
        model, images, labels, left_out = self._prepared(X, y)
        random = check_random_state(self.random_state)
        order = random.permutation(len(images))
        n_learned, fpr = self._split(len(images), left_out)
        learn, rest = np.split(order, [n_learned])
        given = None
        if adversarial is not None:
            given = given_images(model, adversarial, images)
        learning = Learning(self, model, fpr, int(random.randint(2**31 - 1)))
        found = learning.run(images, labels, learn, rest, given)
        for name, value in found.items():
            setattr(self, name, value)
        self.model_, self.input_shape_ = model, tuple(images.shape[1:])
        self._cascade()  # ready before the first image comes
        return self

    def _check_parameters(self) -> None:
        module_of(self.model)
        check_companion(self.companion)
        check_target_fpr(self.target_fpr)
        if isinstance(self.kinds, str) or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"kinds must be some of {KINDS}; got {self.kinds!r}")
        if not (len(self.kinds) or self.attacks):
            raise ValueError(
                "kinds must not be empty where no attacks are given: there is nothing "
                "to learn from"
            )
        check_positive("budget", self.budget)
        if self.budget < 1:
            raise ValueError(
                "budget must be at least 1, the forward pass that gives the label; "
                f"got {self.budget!r}"
            )
        attacks = self.attacks
        if attacks is not None and not (
            isinstance(attacks, Mapping) and all(map(callable, attacks.values()))
        ):
            raise ValueError(
                "attacks must be a dict of names and callables attack(images, labels); "
                f"got {attacks!r}"
            )

    def _lessons(
        self, model: TorchModel, shortest: Mapping[Norm, float]
    ) -> list[Lesson]:
        """Return the attacks that are learned from."""
        lessons = curriculum(model, self.n_features_in_, shortest, self.attacks or {})
        return [
            lesson
            for lesson in lessons
            if lesson.kind in self.kinds or lesson.kind not in KINDS
        ]

    def _split(self, n: int, left_out: str) -> tuple[int, float]:
        """Return how many of n images to learn from, and the rate of the others."""
        fpr = _TARGET_FPR if self.target_fpr is None else float(self.target_fpr)
        least = math.ceil(2 / fpr - 1e-9) - 1
        needed = least + _LEAST_LEARNED
        if n >= needed:
            return n - max(least, n // 3), fpr
        if self.target_fpr is not None:
            raise ValueError(
                f"target_fpr={fpr:g} needs at least {needed} clean images to fit: "
                f"{least} for the threshold and {_LEAST_LEARNED} to learn from; got "
                f"{n}{left_out}"
            )
        if n < 4:
            raise ValueError(
                f"X must hold at least 4 clean images; got n_samples = {n}{left_out}"
            )
        allowed = min(2 / (n - n // 2 + 1), 0.5)
        warn(
            f"the rate of false positives is {allowed:.2g}, not {fpr:g}, which takes "
            f"{needed} clean images: give more, or target_fpr={allowed:.2g}; got "
            f"{n}{left_out}"
        )
        return n // 2, allowed

    # Deciding ---------------------------------------------------------------

    def examine(self, X: npt.ArrayLike | Tensor) -> Examined:
        """Look at images once and say all that is known.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        Examined
            Logits, scores, flags, recovered labels.

        Raises
        ------
        ValueError
            If the images are not what they must be, or the network has other weights
            than at `fit`.
        """
        return self._examined(self._checked(X))

    def _examined(self, images: Tensor) -> Examined:
        return examined(self._cascade(), images, self.threshold_, self.verbose)

    def cost(self, X: npt.ArrayLike | Tensor | None = None) -> float:
        """Return what a decision costs, in forward-equivalents an image.

        Parameters
        ----------
        X : array, Tensor or list, optional
            Images; by default the clean ones of the calibration.

        Returns
        -------
        float
            On average: a forward pass counts as 1, a backward pass as 2.
        """
        check_is_fitted(self)
        stage = self.clean_stages_ if X is None else self.examine(X).stage
        up_to = np.cumsum(self._cascade().evidence.costs())
        return float(up_to[stage].mean())

    @property
    def self_test_(self) -> SelfTest | None:
        """What the detector does on attacks that it did not learn from."""
        check_is_fitted(self)
        rows = self.tried_
        return (
            SelfTest([Tried(*row) for row in rows], self.target_fpr_) if rows else None
        )

    def check_learned(self) -> None:
        """Refuse what was learned, read from a file, if it cannot be evaluated.

        Raises
        ------
        ValueError
            If an array has another shape than `fit` gives it, or holds what it must
            not.
        """
        # A file of another version may lack one.
        numbers = (
            getattr(self, name, None)
            for name in (
                "doubt_",
                "clean_scores_",
                "direction_",
                "usual_",
                *self._of_companion(),
            )
        )
        shapes = (
            (N_STAGES - 1, 2),
            np.shape(getattr(self, "clean_scores_", 0)),
            tuple(self.input_shape_),
            (N_STAGES, self.n_classes_),
            (N_VETO, 2),
        )
        whole = all(
            isinstance(values, np.ndarray)
            and values.dtype == np.float64
            and values.shape == shape
            and not np.isnan(values).any()
            for values, shape in zip(numbers, shapes, strict=False)
        )
        counts = self.n_learned_, self.n_adversarial_
        if not (
            whole
            and all(n is None or (type(n) is int and n > 0) for n in counts)
            and (not self._of_companion() or (np.diff(self.veto_, axis=0) > 0).all())
            and math.isfinite(getattr(self, "passes_", math.nan))
            and len(self.forests_) == 2 * N_STAGES
            and len(self.clean_scores_)
            and math.isfinite(self.threshold_)
            and all(0 < budget < math.inf for budget in self.shortest_)
        ):
            raise ValueError(
                "what the detector learned is not what fit gives it; was its file "
                "changed?"
            )
        self._cascade().forests(torch.device("cpu"))  # checks them

    def _of_companion(self) -> tuple[str, ...]:
        """Name what is learned with a companion alone."""
        return () if getattr(self, "companion_", None) is None else ("veto_",)

    def _evidence(self) -> Evidence:
        return Evidence(
            self.model_,
            self.n_classes_,
            self.shortest_[1],
            self.direction_,
            self.companion_,
            self.passes_,
        )

    def _cascade(self) -> Cascade:
        """Return what was learned, ready to decide; once."""
        key, cascade = self.__dict__.get("_ready", (None, None))
        looks = self.model_, self.companion_
        if key is not self.forests_ or looks != (
            cascade.evidence.model,
            cascade.evidence.companion,
        ):
            nodes = list(zip(self.forests_[::2], self.forests_[1::2], strict=True))
            cascade = Cascade(
                self._evidence(), nodes, self.doubt_, self.veto_, self.usual_
            )
            self._ready = self.forests_, cascade
        return cascade

    def _settings(self) -> dict[str, Any]:
        """Return all that a score depends on, besides the image."""
        return {
            "weights": self.weights_,
            "model": self.model_,
            "shortest": self.shortest_,
            "direction": self.direction_,
            "forests": self.forests_,
            "doubt": self.doubt_,
            "companion": self.companion_,
            "veto": self.veto_,
            "usual": self.usual_,
        }

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_ready", None)
        return state


def learned_detector(guard: Any) -> LearnedDetector:
    """Return the learned detector of a guard, which may be one itself.

    Parameters
    ----------
    guard : LearnedDetector, GuardedClassifier or CurvatureGuard
        Fitted.

    Returns
    -------
    LearnedDetector
        Fitted.

    Raises
    ------
    TypeError
        If it has none.
    NotFittedError
        If it was not fitted.
    """
    detector = held_detector(guard)
    if not isinstance(detector, LearnedDetector):
        raise TypeError(
            "guard must have a learned detector, fitted; got "
            f"{type(guard).__name__} with {type(detector).__name__}"
        )
    check_is_fitted(detector)
    return detector
