"""What a service takes: no body, picture or queue may be of any size."""

from __future__ import annotations

from dataclasses import dataclass

from curvdetect._base.checks import check_count, check_positive

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What a service takes; the rest is refused before it is decoded.

    Parameters
    ----------
    max_bytes : int, default=8388608
        Of the body of a request: a photograph, or a few.
    max_pixels : int, default=16777216
        Of a picture, as its header says, and once more after it was resized.
    max_batch : int, default=128
        Images that the guard is given at once. What an image gets does not depend on
        it.
    queue : int, default=256
        Images that may wait, and requests that may be under way. A request for which
        there is no room is refused with 503; one with more images than this, with 413.
    timeout : float, default=30
        Seconds from the head of a request to its answer.

    Raises
    ------
    ValueError
        If one is not positive.

    Examples
    --------
    >>> from curvdetect.serving import Limits
    >>> Limits(queue=32).max_batch
    128
    """

    max_bytes: int = 2**23
    max_pixels: int = 2**24
    max_batch: int = 128
    queue: int = 256
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_batch", "queue"):
            check_count(name, getattr(self, name))
        check_positive("timeout", self.timeout)
