"""The application: a guard behind HTTP, for any ASGI server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvdetect._base.extras import require
from curvdetect.estimators.guard import GuardedClassifier
from curvdetect.estimators.monitor import GuardMonitor
from curvdetect.serving.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app"]


def create_app(
    guard: GuardedClassifier,
    *,
    limits: Limits | None = None,
    monitor: GuardMonitor | None = None,
    monitor_file: str | Path | None = None,
    resize: bool = False,
) -> FastAPI:
    """Make an application of a fitted guard.

    ``POST /score`` takes a picture (whatever its content type says), a ``.npy`` file or
    JSON (nested lists) of one image or several, or a form with any number of such
    files, and answers ``{"images": [...]}`` in their order. ``GET /health`` says
    whether it lives and takes requests, and what guard it is; ``GET /metrics`` is for
    Prometheus.

    One thread asks the guard, about the images of several requests at once; other
    threads decode.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted, for images in [0, 1]. Used, not copied.
    limits : Limits, optional
        What is taken, and what is refused.
    monitor : GuardMonitor, optional
        Fitted; it sees every assessment, in the order in which the guard makes them.
    monitor_file : str or Path, optional
        Where the monitor is saved when the application ends; needs skops.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_picture`: whether pictures of another size
        are resized, where the network has no preparation of its own.

    Returns
    -------
    FastAPI
        Mounted in another application, it must be told of the end: enter
        ``app.router.lifespan_context(app)`` in that one's lifespan.

    Raises
    ------
    TypeError
        If `guard` is no GuardedClassifier, or `monitor` no GuardMonitor.
    ValueError
        If `guard` is for images that are not in [0, 1].
    NotFittedError
        If `guard` or `monitor` was not fitted.
    ImportError
        If FastAPI, python-multipart, prometheus_client or Pillow is not installed.

    Examples
    --------
    >>> from curvdetect import GuardedClassifier
    >>> from curvdetect.serving import create_app
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> network = load_lenet("fashion-mnist")
    >>> guard = GuardedClassifier(network, detector="threshold", target_fpr=0.05)
    >>> app = create_app(guard.fit(X[:50], y[:50]))
    >>> app.state.service.health()["ready"]
    True
    """
    for module in ("fastapi", "python_multipart", "prometheus_client", "PIL.Image"):
        require(module, extra="serve")
    from sklearn.utils.validation import check_is_fitted

    from curvdetect.serving._routes import make_application
    from curvdetect.serving._service import Service

    if not isinstance(guard, GuardedClassifier):
        hint = "; give its .guard" if hasattr(guard, "guard") else ""
        raise TypeError(
            f"guard must be a GuardedClassifier; got {type(guard).__name__}{hint}"
        )
    check_is_fitted(guard)
    if (bounds := guard.model_.bounds) != (0, 1):
        raise ValueError(f"guard must be for images in [0, 1]; got one for {bounds}")
    if monitor is not None:
        if not isinstance(monitor, GuardMonitor):
            raise TypeError(
                f"monitor must be a GuardMonitor; got {type(monitor).__name__}"
            )
        check_is_fitted(monitor)
    elif monitor_file is not None:
        raise ValueError(f"monitor_file needs monitor; got {str(monitor_file)!r} alone")
    service = Service(
        guard,
        limits or Limits(),
        monitor=monitor,
        monitor_file=None if monitor_file is None else Path(monitor_file),
        resize=resize,
    )
    return make_application(service)
