"""Serve a guarded network over HTTP.

    pip install '.[serve]'
    python docs/examples/serve_http.py

    curl --data-binary @shirt.png http://127.0.0.1:8000/classify

answers {"label": ..., "flagged": ..., "score": ..., ...}, with class names if the
network has any. Pictures must have the size of the network's input, unless the network
has a preparation, as those of TorchModel.from_timm and the like do. Requests are
answered one after the other; start more processes to answer more at once. Each answer
tells an attacker something, and nothing here limits how often a client may ask: put a
rate limit in front of it.
"""

import io

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from curvdetect import CurvatureGuard, GuardedClassifier, LearnedDetector
from curvdetect.storage import read_picture
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

MAX_BYTES = 2**23  # a photograph


class Verdict(BaseModel):
    """The guard's answer for one image."""

    label: int
    model_label: int
    recovered_label: int
    flagged: bool
    score: float
    label_name: str | None = None
    model_label_name: str | None = None
    recovered_label_name: str | None = None


def make_app(guard: CurvatureGuard) -> FastAPI:
    """Return an application that serves a calibrated guard."""
    app = FastAPI(title="curvdetect")
    input_shape, model = guard.guard.input_shape_, guard.guard.model_

    def read(body: bytes) -> torch.Tensor:
        file = io.BytesIO(body)
        image = read_picture(file, input_shape, preparation=model.preparation)
        return torch.from_numpy(image)[None]

    @app.post("/classify", response_model_exclude_none=True)
    async def classify(request: Request) -> Verdict:
        """Classify the picture in the body of the request."""
        body = await read_body(request)
        # In other threads, so that other requests are accepted meanwhile.
        try:
            image = await run_in_threadpool(read, body)
        except (ValueError, OSError) as error:
            raise HTTPException(422, f"the body is no such picture: {error}") from error
        found = await run_in_threadpool(guard, image)
        labels = {
            "label": int(found.label),
            "model_label": int(found.logits.argmax()),
            "recovered_label": int(found.recovered_label),
        }
        names = model.class_names or ()
        named = {
            f"{of}_name": names[k] for of, k in labels.items() if 0 <= k < len(names)
        }
        return Verdict(
            **labels,
            **named,
            flagged=bool(found.flagged),
            score=float(found.score),
        )

    return app


async def read_body(request: Request) -> bytes:
    """Read the body of a request, up to the allowed size."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"the body has more than {MAX_BYTES} bytes")
    return body


def calibrated_guard() -> CurvatureGuard:
    """Return the guard to serve; to serve yours, load its state dict here."""
    X, y = load_fashion_mnist_sample()
    network = load_lenet("fashion-mnist")
    quick = LearnedDetector(target_fpr=0.05, self_test=False, random_state=0)
    inner = GuardedClassifier(network, detector=quick)
    return CurvatureGuard(inner).calibrate(X[:200], y[:200])


if __name__ == "__main__":
    uvicorn.run(make_app(calibrated_guard()), host="127.0.0.1", port=8000)
