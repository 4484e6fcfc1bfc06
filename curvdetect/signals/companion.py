"""What a second classifier thinks of the label that the network gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from curvdetect._base.checks import check_positive
from curvdetect.network import TorchModel
from curvdetect.network.modules import device_of, dtype_of
from curvdetect.signals._around import Around
from curvdetect.signals.base import Signal

__all__ = ["Companion", "matched_classes"]

#: Rec. 601: how bright each colour is.
_LUMA = (0.299, 0.587, 0.114)


class Companion(Signal):
    r"""What a second classifier thinks of the label that the network gives.

    Of its log-probabilities log q: that of the network's label, that of its own best
    other label, and the Kullback-Leibler divergence sum_c p_c (log p_c - log q_c) of
    the network's probabilities p from its own; in nats. Then those of all classes.
    Nothing is learned from attacks: one that fools the network seldom fools a network
    that is flatter, larger or trained to withstand attacks, in the same way.

    Parameters
    ----------
    model : TorchModel
        The second network, with its own normalisation, bounds and size of the input:
        images are resized to it (bilinear, differentiably), grey ones are repeated for
        three channels, and coloured ones become grey for one.
    classes : sequence of int, optional
        For each class of the guarded network, which logit of the companion is of the
        same class; see :func:`matched_classes`. By default it has the same classes, in
        the same order. Its probabilities are those among the classes that are named.
    passes : float, default=1.0
        What a forward pass of it costs, in forward passes of the guarded network, for
        :meth:`cost`; see :meth:`passes_of`.

    Raises
    ------
    TypeError
        If `model` is no TorchModel.
    ValueError
        If `classes` are not different logits of it, or `passes` is not positive.

    Examples
    --------
    >>> from curvdetect import CurvatureFeaturizer
    >>> from curvdetect.signals import Companion
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import trained_model
    >>> X, _ = load_fashion_mnist_sample()
    >>> itself = Companion(trained_model("fashion-mnist"))
    >>> featurizer = CurvatureFeaturizer(
    ...     trained_model("fashion-mnist"), features=["logits", itself]
    ... )
    >>> found = featurizer.fit_transform(X[:3])
    >>> found.shape, bool((abs(found[:, 12]) < 1e-5).all()), featurizer.cost()
    ((3, 23), True, 2.0)
    """

    name = "companion"

    def __init__(
        self,
        model: TorchModel,
        *,
        classes: Sequence[int] | None = None,
        passes: float = 1.0,
    ) -> None:
        if not isinstance(model, TorchModel):
            raise TypeError(
                "model must be a TorchModel, which says what the companion takes; got "
                f"{type(model).__name__}"
            )
        self.model = model.clamped()
        self.classes = None if classes is None else tuple(int(c) for c in classes)
        if self.classes is not None and (
            len(set(self.classes)) != len(self.classes) or min(self.classes) < 0
        ):
            raise ValueError(
                "classes must be different positions of logits, from 0; got "
                f"{self.classes}"
            )
        check_positive("passes", passes)
        self.passes = float(passes)

    def __repr__(self) -> str:
        order = "" if self.classes is None else f", classes={self.classes}"
        return f"Companion({self.model!r}{order})"

    def __sklearn_clone__(self) -> Companion:
        return self  # a network is shared, not copied

    # As a signal -----------------------------------------------------------------

    def columns(self, n_classes: int) -> list[str]:
        """Name the columns: label, other, divergence, then one a class."""
        by_class = [f"class{c}" for c in range(n_classes)]
        return [
            f"{self.name}_{of}" for of in ("label", "other", "divergence", *by_class)
        ]

    def cost(self, n_classes: int) -> float:
        """Return 1 for the logits, and `passes` for the companion's."""
        return 1.0 + self.passes

    def shared(self, n_classes: int) -> dict[str, float]:
        """Return what is the network's own: its logits."""
        return {"logits": 1.0}

    def measure(self, around: Around) -> Tensor:
        """Return log-probabilities and the divergence, (n, 3 + n_classes), in nats."""
        logits, bounds = around.logits, around.model.bounds
        own = self.log_probabilities(around.x, bounds, logits.shape[1])
        label = logits.argmax(dim=1, keepdim=True)
        log_p = logits.log_softmax(dim=1)
        columns = [
            own.gather(1, label),
            own.scatter(1, label, -torch.inf).amax(dim=1, keepdim=True),
            (log_p.exp() * (log_p - own)).sum(dim=1, keepdim=True),
            own,
        ]
        return torch.cat(columns, dim=1)

    # As a second opinion -----------------------------------------------------------

    def log_probabilities(
        self, x: Tensor, bounds: tuple[float, float] | None, n_classes: int
    ) -> Tensor:
        """Ask the companion, differentiably.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images of the guarded network; moved to the companion, wherever it is.
        bounds : (float, float) or None
            Of the guarded network: its black and white become the companion's.
        n_classes : int
            Of the guarded network.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Log-probabilities, in nats, in the order of the guarded network's classes.

        Raises
        ------
        ValueError
            If it has not the same number of classes and none are named, images cannot
            be made to fit it, or its logits are not finite.
        """
        inputs = self._fitting(x, bounds).to(device_of(self.model.module))
        logits = self.model.logits(inputs).to(x.device)
        known = not torch.compiler.is_compiling()  # a program has no values yet
        if known and not logits.isfinite().all():
            raise ValueError("companion must give finite logits; got NaN or infinity")
        if self.classes is not None and max(self.classes) < logits.shape[1]:
            logits = logits[:, list(self.classes)]
        if logits.shape[1] != n_classes:
            raise ValueError(
                f"companion must have the network's {n_classes} classes, or say with "
                "Companion(model, classes=[...]) which of its logits these are; got "
                f"{logits.shape[1]} logits and classes={self.classes}"
            )
        return logits.log_softmax(dim=1)

    @property
    def eps(self) -> float:
        """Rounding of the companion: that of the numbers in which it computes."""
        dtype = dtype_of(self.model.module, torch.zeros(()))
        return float(torch.finfo(dtype).eps)

    def passes_of(self, model: TorchModel, x: Tensor) -> float:
        """Count what a forward pass costs, in forward passes of a network.

        Multiplications and additions of convolutions and matrix products, as
        ``torch.utils.flop_counter`` counts them.

        Parameters
        ----------
        model : TorchModel
            The guarded network.
        x : Tensor of shape (n, *input_shape)
            One of its images at least, where it computes.

        Returns
        -------
        float
            1 where the network has none to compare with.
        """
        one, counts, n_classes = x[:1], [], model.n_classes
        with torch.no_grad():
            for ask in (
                model.logits,
                lambda x: self.log_probabilities(x, model.bounds, n_classes),
            ):
                counter = FlopCounterMode(display=False)
                with counter:
                    ask(one)
                counts.append(counter.get_total_flops())
        return counts[1] / counts[0] if all(counts) else 1.0

    def _fitting(self, x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
        """Return images as the companion takes them."""
        own = self.model.bounds
        if bounds is not None and own is not None and bounds != own:
            (low, high), (own_low, own_high) = bounds, own
            x = own_low + (x - low) * ((own_high - own_low) / (high - low))
        shape = self.model.input_shape
        if shape is None or tuple(x.shape[1:]) == shape:
            return x
        if _same_but_for_ones(tuple(x.shape[1:]), shape):
            return x.reshape(-1, *shape)
        if len(shape) != 3 or x.ndim != 4:
            raise ValueError(
                "companion must take images of the network's shape, "
                f"{tuple(x.shape[1:])}, or pictures of another size where both take "
                f"pictures with channels; got one of input_shape={shape}"
            )
        own_last, last = _channels_last(shape), _channels_last(tuple(x.shape[1:]))
        n_channels, *size = (shape[2], *shape[:2]) if own_last else shape
        x = x.permute(0, 3, 1, 2) if last else x
        if x.shape[1] == 3 and n_channels == 1:
            x = (x * x.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
        elif x.shape[1] not in (1, n_channels):
            raise ValueError(
                f"companion must take {x.shape[1]} channels, 1 or 3, as the network "
                f"does; got one of input_shape={shape}"
            )
        x = x.expand(-1, n_channels, -1, -1)
        if list(x.shape[2:]) != size:
            x = functional.interpolate(
                x, size, mode="bilinear", align_corners=False, antialias=True
            )
        return x.permute(0, 2, 3, 1) if own_last else x


def _same_but_for_ones(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Say whether values lie in the same order: but for axes of 1, or in a row."""
    a, b = ([n for n in shape if n != 1] for shape in (one, other))
    return a == b or (math.prod(a) == math.prod(b) and min(len(a), len(b)) <= 1)


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Say whether pictures are (height, width, channels)."""
    return shape[-1] in (1, 3) and shape[0] not in (1, 3)


def matched_classes(names: Sequence[str], of_companion: Sequence[str]) -> list[int]:
    """Find the classes of a network among those of its companion, by name.

    Parameters
    ----------
    names : sequence of str
        Of the guarded network's classes, in the order of its logits.
    of_companion : sequence of str
        Of the companion's, in the order of its own.

    Returns
    -------
    list of int
        For :class:`Companion`: the place of each among the companion's.

    Raises
    ------
    ValueError
        If one is missing, or is there twice.

    Examples
    --------
    >>> from curvdetect.signals import matched_classes
    >>> matched_classes(["cat", "dog"], ["bird", "dog", "cat"])
    [2, 1]
    """
    there = list(of_companion)
    missing = [name for name in names if there.count(name) != 1]
    if missing:
        raise ValueError(
            f"of_companion must have each of names once; not so for {missing}"
        )
    return [there.index(name) for name in names]
