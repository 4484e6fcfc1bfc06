"""One thread that works through images in batches, and a queue of limited length."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Batcher", "ClosedError", "FullError", "Row"]

Row = dict[str, Any]
Images = npt.NDArray[np.float32]


class FullError(RuntimeError):
    """There is no room in the queue."""


class ClosedError(RuntimeError):
    """Nothing is taken any more."""


class _Job:
    """The images of a request, some of which may have been looked at."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.future: Future[list[Row]] = Future()
        self.n_taken = 0
        self.rows: list[Row] = []
        self.failed = False

    @property
    def n_left(self) -> int:
        return len(self.images) - self.n_taken

    def take(self, n: int) -> Images:
        """Return the next images, at most n of them."""
        part = self.images[self.n_taken : self.n_taken + n]
        self.n_taken += len(part)
        return part

    def give(self, rows: list[Row]) -> None:
        self.rows += rows
        if len(self.rows) == len(self.images):
            self.future.set_result(self.rows)

    def fail(self, error: Exception) -> None:
        if not self.failed:
            self.failed = True
            self.future.set_exception(error)


class Batcher:
    """Hand images of several requests to a function together, in one thread.

    Parameters
    ----------
    look : callable
        Takes images, (n, *input_shape), and returns a row for each. It is never called
        by two threads at once.
    max_batch : int
        Images at once.
    capacity : int
        Images that may wait.
    """

    def __init__(
        self, look: Callable[[Images], list[Row]], *, max_batch: int, capacity: int
    ) -> None:
        self._look, self._max_batch, self._capacity = look, max_batch, capacity
        self._jobs: deque[_Job] = deque()
        self._n_waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: a process that dies of something else does not wait for a network.
        self._thread = threading.Thread(
            target=self._work, name="curvdetect-guard", daemon=True
        )
        self._started = False

    @property
    def n_waiting(self) -> int:
        """How many images wait."""
        return self._n_waiting

    @property
    def alive(self) -> bool:
        """Whether images are, or would be, worked through."""
        return not self._started or self._thread.is_alive()

    def submit(self, images: Images) -> Future[list[Row]]:
        """Queue the images of a request.

        Parameters
        ----------
        images : ndarray of shape (n, *input_shape)
            At least one.

        Returns
        -------
        Future
            Of a row for each image, in order. Cancelled before it was begun, it costs
            nothing.

        Raises
        ------
        FullError
            If more images than `capacity` would wait.
        ClosedError
            After :meth:`close`.
        """
        job = _Job(images)
        with self._changed:
            if self._closed:
                raise ClosedError
            if self._n_waiting + len(images) > self._capacity:
                raise FullError
            if not self._started:
                self._started = True
                self._thread.start()
            self._jobs.append(job)
            self._n_waiting += len(images)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Take nothing more, finish what is queued, and wait for that."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._started:
            self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._answer(batch)

    def _next(self) -> list[tuple[_Job, Images]] | None:
        """Wait for images, and take as many as there are; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            batch: list[tuple[_Job, Images]] = []
            room = self._max_batch
            while self._jobs and room:
                job = self._jobs[0]
                n_before = job.n_left
                if not self._is_wanted(job):
                    job.n_taken = len(job.images)
                else:
                    batch.append((job, job.take(room)))
                    room -= len(batch[-1][1])
                self._n_waiting -= n_before - job.n_left
                if not job.n_left:
                    self._jobs.popleft()
            return batch

    def _is_wanted(self, job: _Job) -> bool:
        """Say whether somebody still waits for a job, which begins with its first."""
        if job.n_taken:
            return not job.failed
        return job.future.set_running_or_notify_cancel()

    def _answer(self, batch: list[tuple[_Job, Images]]) -> None:
        """Look at a batch; if that fails, at each request alone.

        One request's images must not be the reason that others' are not answered.
        """
        try:
            rows = self._look(np.concatenate([part for _, part in batch]))
        except Exception as error:
            if len(batch) == 1:
                batch[0][0].fail(error)
                return
            for job, part in batch:
                self._answer([(job, part)])
            return
        for job, part in batch:
            job.give(rows[: len(part)])
            del rows[: len(part)]
