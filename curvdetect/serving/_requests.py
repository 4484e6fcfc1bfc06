"""The body of a request, read up to its limit and cut into parts."""

from __future__ import annotations

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.types import Message

from curvdetect.serving._bodies import Part

__all__ = ["parts_of"]

#: Of a body that is too long, this many times the limit is read and thrown away: a
#: client that is still writing would see a broken connection instead of the answer.
_READ_ANYWAY = 4


async def parts_of(request: Request, *, max_bytes: int, max_parts: int) -> list[Part]:
    """Read a body.

    Parameters
    ----------
    request : Request
        Nothing of its body was read.
    max_bytes : int
        Of the body.
    max_parts : int
        Files of a form.

    Returns
    -------
    list of Part
        One, or the files of a form in their order.

    Raises
    ------
    HTTPException
        413 if it is too long; 400 or 422 if it is no form, or one without files.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    bounded = await _bounded(request, max_bytes)
    if kind == "multipart/form-data":
        return await _of_form(bounded, max_parts)
    content = await bounded.body()
    if not content:
        raise HTTPException(422, "the body is empty; it must hold one image or more")
    is_json = kind == "application/json" or kind.endswith("+json")
    return [Part("the body", content, is_json)]


async def _of_form(request: Request, max_parts: int) -> list[Part]:
    parts: list[Part] = []
    async with request.form(max_files=max_parts, max_fields=max_parts) as form:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                raise HTTPException(
                    422, f"{name!r} must be a file, with a file name; it is text"
                )
            label = f"image {len(parts) + 1} ({value.filename or name})"
            is_json = (value.content_type or "").partition(";")[0] == "application/json"
            parts.append(Part(label, await value.read(), is_json))
    if not parts:
        raise HTTPException(422, "the form has no file; it must have one or more")
    return parts


async def _bounded(request: Request, max_bytes: int) -> Request:
    """Return a request whose body ends in 413 where it is longer than allowed."""
    declared = request.headers.get("content-length", "")
    length = int(declared) if declared.isdecimal() else 0
    if length > max_bytes:
        if "expect" not in request.headers and length <= _READ_ANYWAY * max_bytes:
            async for _ in request.stream():
                pass
        raise _too_large(max_bytes)
    n_read = 0

    async def receive() -> Message:
        nonlocal n_read
        message = await request.receive()
        n_read += len(message.get("body", b""))
        while n_read > max_bytes:  # of a body that comes in chunks
            if n_read > _READ_ANYWAY * max_bytes or not message.get("more_body"):
                raise _too_large(max_bytes)
            message = await request.receive()
            n_read += len(message.get("body", b""))
        return message

    return Request(request.scope, receive)


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body has more than the {max_bytes} bytes allowed")
