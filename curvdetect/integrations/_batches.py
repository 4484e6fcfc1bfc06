"""What data loaders give: batches of many kinds, and a sample of all their images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Sample", "images_and_labels", "in_distribution"]

#: What batches that are dictionaries call images and labels.
_IMAGES = ("image", "images", "pixel_values", "img", "x", "input", "inputs", "data")
_LABELS = ("label", "labels", "y", "target", "targets")


def images_and_labels(batch: Any) -> tuple[Tensor, Any]:
    """Return the two parts of a batch; None for labels that it has not.

    Raises
    ------
    TypeError
        If it is something else than (x, y), x, or a dictionary that holds them.
    """
    labels = None
    if isinstance(batch, Mapping):
        images, labels = _named(batch, _IMAGES), _named(batch, _LABELS)
        others = [key for key in map(str, batch) if labels is None and "label" in key]
        if others:
            raise TypeError(
                "data_loader must call labels one of "
                f"{', '.join(_LABELS)}; got {others}"
            )
    elif isinstance(batch, list | tuple) and batch:
        images = batch[0]
        labels = batch[1] if len(batch) > 1 else None
    else:
        images = batch
    if not isinstance(images, Tensor):
        got = type(batch).__name__
        if isinstance(batch, Mapping):
            got += f" with the keys {list(batch)}"
        raise TypeError(
            "data_loader must give batches (x, y), x, or dictionaries with one of "
            f"{', '.join(_IMAGES)}, in which x is a tensor; got {got}"
        )
    return images.detach(), labels


def _named(batch: Mapping[Any, Any], names: Sequence[str]) -> Any:
    return next((batch[name] for name in names if name in batch), None)


def in_distribution(images: Tensor, labels: Any) -> Tensor:
    """Return the images whose labels are not negative; all where there are none.

    Raises
    ------
    TypeError
        If labels are no numbers.
    ValueError
        If there is not one for each image.
    """
    if labels is None:
        return images
    try:
        y = torch.as_tensor(labels).to(images.device)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"data_loader must give labels that are numbers; got {labels!r}"
        ) from error
    if y.shape not in ((len(images),), (len(images), 1)):
        raise ValueError(
            "data_loader must give one label for each image; got labels of shape "
            f"{tuple(y.shape)} for {len(images)} images"
        )
    return images[y.reshape(-1) >= 0]


class Sample:
    """Some images of a loader, each as likely as any other, and the range of all.

    A reservoir: the first fill it, and the i-th of the others takes the place of one of
    them with probability size / i. No more images than that are ever held, and up to
    so many are all there, in their order.

    Parameters
    ----------
    size_for : callable
        How many images of so many values to keep.
    seed : int
        Of the draw.
    """

    def __init__(self, size_for: Callable[[int], int], seed: int) -> None:
        self.size_for = size_for
        self.random = np.random.default_rng(seed)
        self.n_seen = 0
        self.low, self.high = float("inf"), float("-inf")
        self._kept: Tensor | None = None

    def extend(self, batches: Iterable[Tensor]) -> Sample:
        """Go through batches of images, empty ones too.

        Raises
        ------
        ValueError
            If their images have different shapes.
        """
        for images in batches:
            if len(images):
                self._add(images.cpu())
        return self

    def images(self) -> Tensor:
        """Return what is kept."""
        if self._kept is None:
            return torch.empty(0)
        return self._kept[: self.n_seen]

    def _add(self, images: Tensor) -> None:
        shape = tuple(images.shape[1:])
        if self._kept is None:
            size = self.size_for(images[0].numel())
            self._kept = images.new_empty((size, *shape))
        if shape != tuple(self._kept.shape[1:]):
            raise ValueError(
                "data_loader must give images of one shape; got "
                f"{tuple(self._kept.shape[1:])} and {shape}"
            )
        self.low = min(self.low, float(images.min()))
        self.high = max(self.high, float(images.max()))
        size = len(self._kept)
        numbers = np.arange(self.n_seen, self.n_seen + len(images))
        places = numbers.copy()
        late = numbers >= size
        places[late] = self.random.integers(0, numbers[late] + 1)
        for place, image in zip(places.tolist(), images, strict=True):
            if place < size:
                self._kept[place] = image
        self.n_seen += len(images)
