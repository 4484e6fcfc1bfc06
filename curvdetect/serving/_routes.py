"""The paths of a service: scores, health, metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException  # FastAPI's and those of its forms
from starlette.requests import ClientDisconnect

from curvdetect import __version__
from curvdetect._base.messages import one_line
from curvdetect.serving._answers import Health, Refusal, Scores
from curvdetect.serving._batching import ClosedError, FullError
from curvdetect.serving._bodies import UnusableError
from curvdetect.serving._requests import parts_of
from curvdetect.serving._service import Service
from curvdetect.storage.tables import as_json

__all__ = ["make_application"]

_log = logging.getLogger("curvdetect.serving")
_LATER = {"Retry-After": "1"}  # seconds: a queue is a few batches long
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "required": True,
    "description": "One picture, a .npy file, nested lists, or a form of such files.",
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "application/json": {"schema": {}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "images": {"type": "array", "items": _BINARY["schema"]},
                },
            }
        },
    },
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": said}
    for status, said in {
        400: "The body is broken",
        408: "The body did not come in time",
        413: "Too many bytes or images",
        422: "The body holds something else than images that the network takes",
        503: "No room, or about to end: ask again after Retry-After seconds",
        504: "Not done in time",
    }.items()
}


def make_application(service: Service) -> FastAPI:
    """Return the application of a service, which ends with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(title="curvdetect", version=__version__, lifespan=lifespan)
    app.state.service = service

    @app.post(
        "/score",
        responses={200: {"model": Scores}, **_REFUSALS},
        openapi_extra={"requestBody": _BODY},
    )
    async def score(request: Request) -> Response:
        """Label images, and say which look adversarial."""
        begun = time.perf_counter()
        response = await _answered(service, request)
        service.metrics.answered(response.status_code, time.perf_counter() - begun)
        return response

    @app.get("/health", responses={200: {"model": Health}, 503: {"model": Health}})
    async def health() -> Response:
        """Say whether requests are taken (200, else 503), and what guard it is."""
        said = service.health()
        return _json(said, 200 if said["ready"] else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return counters for Prometheus."""
        return Response(service.metrics.exposed(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _answered(service: Service, request: Request) -> Response:
    """Answer a request for scores, whatever becomes of it."""
    if service.draining:
        return _refusal(503, "the service is about to end", _LATER)
    if service.n_under_way >= service.limits.queue:
        return _refusal(503, "too many requests are under way", _LATER)
    service.n_under_way += 1
    try:
        return await _scored(service, request)
    except HTTPException as error:
        return _refusal(error.status_code, str(error.detail), error.headers)
    except UnusableError as error:
        return _refusal(error.status, str(error))
    except FullError:
        return _refusal(503, "too many images wait", _LATER)
    except ClosedError:
        return _refusal(503, "the service is about to end", _LATER)
    except ClientDisconnect:
        return Response(status_code=499)  # which nobody reads, but the metrics
    except Exception as error:
        _log.exception("a request could not be answered")
        return _refusal(500, f"the guard failed: {one_line(error)}")
    finally:
        service.n_under_way -= 1


async def _scored(service: Service, request: Request) -> Response:
    """Read, decode and assess images, all of it in time."""
    limits = service.limits
    end = time.monotonic() + limits.timeout
    try:
        parts = await asyncio.wait_for(
            parts_of(request, max_bytes=limits.max_bytes, max_parts=limits.queue),
            limits.timeout,
        )
    except asyncio.TimeoutError:
        raise HTTPException(
            408, f"the body was not there within {limits.timeout:g} seconds"
        ) from None
    try:
        images = await _in_time(service.decode(parts), end)
        rows = await _in_time(service.submit(images), end)
    except asyncio.TimeoutError:
        raise HTTPException(
            504, f"the images were not done within {limits.timeout:g} seconds"
        ) from None
    return _json({"images": rows})


async def _in_time(future: Any, end: float) -> Any:
    """Wait for what a thread does; afterwards it is cancelled if it has not begun."""
    return await asyncio.wait_for(
        asyncio.wrap_future(future), max(end - time.monotonic(), 0)
    )


def _json(content: Any, status: int = 200) -> Response:
    return Response(as_json(content), status, media_type="application/json")


def _refusal(status: int, detail: str, headers: Any = None) -> Response:
    return JSONResponse({"detail": detail}, status, headers)
