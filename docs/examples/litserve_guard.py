"""A guard behind LitServe, which has workers, batches and accelerators of its own.

    pip install '.[skops]' litserve
    GUARD=guard.skops python docs/examples/litserve_guard.py

answers POST /predict {"image": nested lists in [0, 1]}. Its network is the bundled
LeNet; make yours instead. LitServe bounds neither bodies nor its queue: something in
front of it should.
"""

import os

import litserve
import numpy as np

from curvdetect.storage import load
from curvdetect.study.networks import LeNet


class GuardAPI(litserve.LitAPI):
    """One image a request; several requests are looked at together."""

    def setup(self, device):
        """Load the guard, in each worker."""
        self.guard = load(os.environ["GUARD"], LeNet().to(device))

    def decode_request(self, request):
        """Make an image of nested lists."""
        return np.asarray(request["image"], np.float32)

    def batch(self, inputs):
        """Put the images of several requests together."""
        return np.stack(inputs)

    def predict(self, x):
        """Return a row for each image."""
        found = self.guard.assess(x)
        columns = "label", "model_label", "recovered_label", "flagged", "score"
        each = zip(*(getattr(found, name).tolist() for name in columns), strict=True)
        return [dict(zip(columns, values, strict=True)) for values in each]


if __name__ == "__main__":
    api = GuardAPI(max_batch_size=64, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="auto").run(port=8000)
