"""A server for the application, which finishes what it took before it ends."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from curvdetect._base.extras import require

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["run_server"]


def run_server(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    started: Callable[[str], object] | None = None,
) -> None:
    """Serve an application until SIGTERM or Ctrl-C, and end cleanly.

    New requests are then refused with 503; those that were taken are answered, and the
    monitor is saved. A second signal ends it without that.

    Parameters
    ----------
    app : FastAPI
        What :func:`create_app` returned.
    host : str, default="127.0.0.1"
        Name or address to listen at; "0.0.0.0" is all of IPv4.
    port : int, default=8000
        0 takes a free one.
    started : callable, optional
        Called with the address, such as "http://127.0.0.1:8000", once it answers.

    Raises
    ------
    OSError
        If the port is taken, there is no such host, or the monitor cannot be saved.
    ImportError
        If uvicorn is not installed.

    Examples
    --------
    >>> from curvdetect.serving import create_app, run_server
    >>> run_server(create_app(guard), port=8080)  # doctest: +SKIP
    """
    uvicorn = require("uvicorn", extra="serve")
    from curvdetect.serving._draining import DrainingServer

    # It logs every broken form, with nothing that the answer does not say.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    service = app.state.service
    config = uvicorn.Config(
        app,
        access_log=False,  # counted in the metrics
        log_level="warning",
        lifespan="on",
        # Clients that do not read their answers are not waited for.
        timeout_graceful_shutdown=math.ceil(service.limits.timeout),
    )
    with _bound(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}"
        server = DrainingServer(
            config, service, lambda: started(address) if started else None
        )
        server.run(sockets=[listening])
    service.close()  # if that failed, uvicorn has only logged it


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, or say why not."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise OSError(f"cannot listen at {host}, port {port}: {error}") from error
    return listening
