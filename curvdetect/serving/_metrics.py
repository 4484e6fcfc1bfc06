"""What Prometheus is told of a service, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
)

from curvdetect.estimators.monitor import MonitorState

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, *(k / 10 for k in range(2, 11)))
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters and histograms of a service.

    Parameters
    ----------
    about : dict of str to str
        What the guard is.
    n_waiting : callable
        Says how many images wait.
    watched : bool
        Whether there is a monitor.
    """

    def __init__(
        self, about: dict[str, str], n_waiting: Callable[[], int], *, watched: bool
    ) -> None:
        # Not the one of the process: two services in it would collide.
        self._registry = registry = CollectorRegistry()
        Info("curvdetect_guard", "What is served", registry=registry).info(about)
        self._images = Counter(
            "curvdetect_images", "Images that the guard looked at", registry=registry
        )
        self._flagged = Counter(
            "curvdetect_flagged_images", "Images that it flagged", registry=registry
        )
        self._requests = Counter(
            "curvdetect_requests",
            "Requests for scores, by the status of the answer",
            ["status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "curvdetect_request_seconds",
            "From the head of a request for scores to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._p_values = Histogram(
            "curvdetect_p_value",
            "How surprising images would be if they were clean",
            buckets=_SHARES,
            registry=registry,
        )
        self._batches = Histogram(
            "curvdetect_batch_images",
            "Images that the guard was given at once",
            buckets=_SIZES,
            registry=registry,
        )
        Gauge(
            "curvdetect_queue_images", "Images that wait", registry=registry
        ).set_function(n_waiting)
        self._alarm = self._martingale = None
        if watched:
            self._alarm = Gauge(
                "curvdetect_monitor_alarm",
                "1 if the monitor has raised this alarm",
                ["alarm"],
                registry=registry,
            )
            self._martingale = Gauge(
                "curvdetect_monitor_log10_martingale",
                "Common logarithm of the monitor's bets against the stream",
                registry=registry,
            )

    def answered(self, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(status=str(status)).inc()
        self._seconds.observe(seconds)

    def assessed(
        self, n_images: int, n_flagged: int, p_values: Sequence[float]
    ) -> None:
        """Count a batch."""
        self._images.inc(n_images)
        self._flagged.inc(n_flagged)
        self._batches.observe(n_images)
        for p_value in p_values:
            self._p_values.observe(p_value)

    def watched(self, state: MonitorState) -> None:
        """Show what the monitor says."""
        if self._alarm is None or self._martingale is None:
            return
        for kind in ("burst", "drift"):
            self._alarm.labels(alarm=kind).set(state.alarm == kind)
        self._martingale.set(state.log10_martingale)

    def exposed(self) -> bytes:
        """Return all in the text format of Prometheus."""
        return generate_latest(self._registry)
