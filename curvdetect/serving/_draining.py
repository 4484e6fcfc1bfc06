"""Uvicorn's server, but it drains before it shuts down."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from curvdetect.serving._service import Service

__all__ = ["DrainingServer"]


class DrainingServer(uvicorn.Server):
    """A server that goes on listening, to refuse, until all it took is answered.

    Uvicorn's own stops listening at once, so that new clients see a refused connection
    rather than a 503, and ends with the signal instead of exit code 0.

    Parameters
    ----------
    config : uvicorn.Config
        Of the application.
    service : Service
        Knows what is under way.
    started : callable
        Called once it listens.
    """

    def __init__(
        self, config: uvicorn.Config, service: Service, started: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._service, self._tell = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal, do as uvicorn does."""
        if self._service.draining:
            super().handle_exit(sig, frame)
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Go on, until it is drained."""
        if self._service.draining and not self._service.n_under_way:
            self.should_exit = True
        return await super().on_tick(counter)
