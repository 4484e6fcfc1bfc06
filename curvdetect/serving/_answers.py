"""What is answered, for the description that clients read (OpenAPI)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

__all__ = ["Health", "Refusal", "Scores", "Verdict"]


class Verdict(BaseModel):
    """What the guard says of an image; names and p_value where it has any."""

    label: int
    model_label: int
    recovered_label: int
    label_name: str | None = None
    model_label_name: str | None = None
    recovered_label_name: str | None = None
    flagged: bool
    score: float | None
    p_value: float | None = None


class Scores(BaseModel):
    """The images of a request, in its order."""

    images: list[Verdict]


class Refusal(BaseModel):
    """Why there is no answer."""

    detail: str


class Health(BaseModel):
    """Whether the service lives and takes requests, and of what guard."""

    alive: bool
    ready: bool
    guard: dict[str, Any]
    monitor: dict[str, Any] | None = None
