"""A guard as a part of your own FastAPI service.

    pip install '.[serve]'
    python docs/examples/embedded_service.py

    curl --data-binary @shirt.png http://127.0.0.1:8000/guard/score

For a service with nothing else in it, use `curvdetect serve`.
"""

from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from curvdetect import CurvatureFeaturizer, GuardedClassifier
from curvdetect.serving import Limits, create_app
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

# Load yours instead: curvdetect.storage.load("guard.skops", make_network())
X, y = load_fashion_mnist_sample()
network = load_lenet("fashion-mnist")
few = CurvatureFeaturizer(network, n_boundaries=3, n_curved=2, n_directions=3)
guard = GuardedClassifier(network, featurizer=few, target_fpr=0.05)
guarded = create_app(guard.fit(X[:100], y[:100]), limits=Limits(max_bytes=2**20))


@asynccontextmanager
async def lifespan(_):
    """Begin and end with the guard: what it took is answered first."""
    async with guarded.router.lifespan_context(guarded):
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/guard", guarded)


@app.get("/")
def home():
    """Answer as your service does."""
    return {"guarded": "/guard/score"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
