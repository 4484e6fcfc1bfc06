"""`Signal`: something that can be measured around an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from curvdetect.signals._around import Around
from curvdetect.signals.setup import Setup

__all__ = ["BoundarySignal", "Signal", "by_class", "joint_cost"]


class Signal(ABC):
    """Something that can be measured around an image: one class a signal.

    `CurvatureFeaturizer(features=[...])` takes names of the package's signals, their
    instances, and instances of classes of your own. Those are pickled, copied, hashed
    and stored like any parameter of an estimator: their attributes are their settings,
    and the class must be importable where they are loaded.

    Attributes
    ----------
    name : str
        What its columns are called after.

    Examples
    --------
    A signal of one's own, the largest margin; what it needs of the network is computed
    once for all signals.

    >>> from curvdetect import CurvatureFeaturizer
    >>> from curvdetect.signals import Signal
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import trained_model
    >>> class Margin(Signal):
    ...     name = "margin"
    ...
    ...     def columns(self, n_classes):
    ...         return ["margin"]
    ...
    ...     def cost(self, n_classes):
    ...         return 1.0
    ...
    ...     def shared(self, n_classes):
    ...         return {"logits": 1.0}
    ...
    ...     def measure(self, around):
    ...         largest = around.logits.topk(2, dim=1).values
    ...         return largest[:, :1] - largest[:, 1:]
    >>> X, y = load_fashion_mnist_sample()
    >>> featurizer = CurvatureFeaturizer(
    ...     trained_model("fashion-mnist"), features=["logits", Margin()]
    ... )
    >>> featurizer.fit_transform(X[:5]).shape, featurizer.cost()
    ((5, 11), 1.0)
    """

    name: str

    @abstractmethod
    def columns(self, n_classes: int) -> list[str]:
        """Name the columns.

        Parameters
        ----------
        n_classes : int
            Number of logits.

        Returns
        -------
        list of str
            One name a column: by class ("curvature_class3"), or a few of the image.
        """

    @abstractmethod
    def cost(self, n_classes: int) -> float:
        """Return the cost of the signal alone, in forward-equivalents an image.

        Parameters
        ----------
        n_classes : int
            Number of logits.

        Returns
        -------
        float
            A forward pass counts as 1, a backward pass as 2.
        """

    def shared(self, n_classes: int) -> Mapping[str, float]:
        """Return what part of the cost others share: work that is done once for all.

        Parameters
        ----------
        n_classes : int
            Number of logits.

        Returns
        -------
        dict of str to float
            Forward-equivalents by piece of work: "logits", "gradients", "boundary" and
            others of :class:`Setup`. Nothing by default.
        """
        return {}

    @abstractmethod
    def measure(self, around: Around) -> Tensor:
        """Measure the signal around a batch of images.

        Parameters
        ----------
        around : Around
            The images, the network, and what signals share.

        Returns
        -------
        Tensor of shape (n, n_columns)
            On the device and in the precision of ``around.x``; a row depends on its
            image alone. Differentiable in the image where ``around`` is
            (:meth:`Around.attached`) and the signal can be.
        """

    def resolved(self, setup: Setup) -> Signal:
        """Return the signal with what was left to the featurizer filled in.

        Parameters
        ----------
        setup : Setup
            What the featurizer settled.

        Returns
        -------
        Signal
            Itself by default.
        """
        return self

    def parts(self) -> list[Signal]:
        """Return the same as several signals, as far as that can be told apart.

        Returns
        -------
        list of Signal
            One for each step; itself alone by default.
        """
        return [self]


class BoundarySignal(Signal):
    """A signal with a value for each of the boundaries around an image.

    The featurizer arranges them, by class or by distance; alone they stand by class.
    """

    #: Settled by :meth:`resolved`.
    setup: Setup | None = None

    @property
    def takes_step(self) -> bool:
        """Whether its step is the featurizer's, which may have to be learned."""
        return False

    def blocks(self) -> list[str]:
        """Name the values of one boundary.

        Returns
        -------
        list of str
            The signal's name; with several steps, one name for each.
        """
        return [self.name]

    def blank(self, diagonal: float) -> float:
        """Return the value for images without any boundary, where NaN will not do.

        Parameters
        ----------
        diagonal : float
            Of the input range: no distance is larger.

        Returns
        -------
        float
            0 by default.
        """
        return 0.0

    @abstractmethod
    def measure_boundaries(self, around: Around) -> Tensor:
        """Measure the boundaries to the classes ``around.pairs.classes``.

        Parameters
        ----------
        around : Around
            The images, the network, and what signals share.

        Returns
        -------
        Tensor of shape (n, n_blocks, k)
            For each image and block, a value for each of its k boundaries.
        """

    def columns(self, n_classes: int) -> list[str]:
        """Name the columns by block and class.

        Parameters
        ----------
        n_classes : int
            Number of logits.

        Returns
        -------
        list of str
            Such as "curvature_class3".
        """
        return [
            f"{block}_class{c}" for block in self.blocks() for c in range(n_classes)
        ]

    def measure(self, around: Around) -> Tensor:
        """Measure the boundaries, a column a class.

        Parameters
        ----------
        around : Around
            The images, the network, and what signals share.

        Returns
        -------
        Tensor of shape (n, n_blocks * n_classes)
            NaN at the predicted class and where no boundary was asked for.
        """
        values = self.measure_boundaries(around)
        return by_class(values, around.pairs.classes, around.setup.n_classes).flatten(1)


def by_class(values: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Give k values of each image a column a class; NaN elsewhere.

    Parameters
    ----------
    values : Tensor of shape (n, n_blocks, k)
        Values.
    classes : Tensor of shape (n, k), int64
        The class of each.
    n_classes : int
        Number of columns.

    Returns
    -------
    Tensor of shape (n, n_blocks, n_classes)
        Values by class.
    """
    out = values.new_full((*values.shape[:2], n_classes), torch.nan)
    return out.scatter(2, classes[:, None].expand_as(values), values)


def joint_cost(signals: Iterable[Signal], n_classes: int) -> float:
    """Return what several signals cost together: shared work is counted once.

    Parameters
    ----------
    signals : iterable of Signal
        Resolved.
    n_classes : int
        Number of logits.

    Returns
    -------
    float
        Forward-equivalents an image, at least 1.

    Examples
    --------
    >>> from curvdetect.signals import FirstOrder, Logits, joint_cost
    >>> joint_cost([Logits(), FirstOrder(n_nearest=2)], 10)
    5.0
    """
    own, shared = 0.0, {"logits": 1.0}  # without them there is nothing to guard
    for signal in signals:
        pieces = signal.shared(n_classes)
        own += signal.cost(n_classes) - sum(pieces.values())
        for piece, cost in pieces.items():
            shared[piece] = max(cost, shared.get(piece, 0.0))
    return own + sum(shared.values())
