"""A guard that is served: what it takes, does, and says of itself."""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect import __version__
from curvdetect.estimators._p_values import p_values
from curvdetect.estimators.detector import target_fpr_of
from curvdetect.estimators.guard import GuardedClassifier
from curvdetect.estimators.monitor import GuardMonitor
from curvdetect.serving._batching import Batcher, Row
from curvdetect.serving._bodies import Part, decoded
from curvdetect.serving._looking import Watch, rows_of
from curvdetect.serving._metrics import Metrics
from curvdetect.serving.limits import Limits
from curvdetect.storage import save

__all__ = ["Service"]

Images = npt.NDArray[np.float32]

_log = logging.getLogger("curvdetect.serving")


class Service:
    """A guard with a queue, metrics, and a monitor; it knows nothing of HTTP.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted.
    limits : Limits
        What it takes.
    monitor : GuardMonitor, optional
        Fitted; updated with every assessment.
    monitor_file : Path, optional
        Where it is saved when the service is closed.
    resize : bool
        As in :func:`curvdetect.storage.read_picture`.

    Attributes
    ----------
    draining : bool
        Whether new requests are refused, because the service is to end.
    n_under_way : int
        Requests that were taken, and are not answered yet.
    metrics : Metrics
        What Prometheus is told.
    """

    def __init__(
        self,
        guard: GuardedClassifier,
        limits: Limits,
        *,
        monitor: GuardMonitor | None,
        monitor_file: Path | None,
        resize: bool,
    ) -> None:
        self.guard, self.limits = guard, limits
        self.draining = False
        self.n_under_way = 0
        self._watch = None if monitor is None else Watch(monitor)
        self._monitor_file = monitor_file
        self._batcher = Batcher(
            self._look, max_batch=limits.max_batch, capacity=limits.queue
        )
        # A few: each may hold a picture of max_pixels.
        self._decoders = ThreadPoolExecutor(
            min(4, os.cpu_count() or 1), thread_name_prefix="curvdetect-decode"
        )
        self._decode = partial(
            decoded,
            input_shape=guard.input_shape_,
            preparation=guard.model_.preparation,
            resize=resize,
            max_pixels=limits.max_pixels,
            max_images=limits.queue,
        )
        told = {name: str(value) for name, value in self.about().items()}
        self.metrics = Metrics(
            told, lambda: self._batcher.n_waiting, watched=monitor is not None
        )
        if self._watch is not None:
            self.metrics.watched(self._watch.state)

    def decode(self, parts: list[Part]) -> Future[Images]:
        """Make images of a body, in a thread."""
        return self._decoders.submit(self._decode, parts)

    def submit(self, images: Images) -> Future[list[Row]]:
        """Queue images for the guard."""
        return self._batcher.submit(images)

    def _look(self, images: Images) -> list[Row]:
        """Assess images, count them, and show them to the monitor; one thread does."""
        found = self.guard.assess(images)
        surprising = p_values(self.guard, found)
        rows = rows_of(found, surprising)
        try:
            self.metrics.assessed(
                len(images),
                int(found.flagged.sum()),
                [] if surprising is None else surprising.tolist(),
            )
            if self._watch is not None:
                self.metrics.watched(self._watch.update(found))
        except Exception:  # the answers are right, whoever cannot count them
            _log.exception("a batch of %d images could not be counted", len(images))
        return rows

    def about(self) -> dict[str, Any]:
        """Say what guard it is."""
        guard = self.guard
        known = {
            "version": __version__,
            "detector": type(guard.detector_).__name__,
            "target_fpr": target_fpr_of(guard.detector_),
            "network": guard.weights_,
            "companion": getattr(guard.detector_, "companion_weights_", None),
            "input_shape": list(guard.input_shape_),
            "n_classes": len(guard.classes_),
        }
        return {name: value for name, value in known.items() if value is not None}

    def health(self) -> dict[str, Any]:
        """Say whether it lives and takes requests, what guard it is, and any alarm."""
        alive = self._batcher.alive
        said = {
            "alive": alive,
            "ready": alive and not self.draining,
            "guard": self.about(),
        }
        if self._watch is not None:
            state = self._watch.state
            names = ("n_images", "n_flagged", "log10_martingale", "alarm", "alarm_at")
            said["monitor"] = {name: getattr(state, name) for name in names}
        return said

    def close(self) -> None:
        """Finish what was taken, and save the monitor, once."""
        self.draining = True
        self._decoders.shutdown()
        self._batcher.close()
        if self._watch is None or self._monitor_file is None:
            return
        save(self._watch.monitor, self._monitor_file)
        self._monitor_file = None
