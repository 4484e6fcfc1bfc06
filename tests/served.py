"""Guards that are served on the loopback, and how to ask them."""

import http.client
import io
import json
import queue
import threading
import time
from contextlib import contextmanager

import numpy as np

from curvdetect import CurvatureFeaturizer, GuardedClassifier
from curvdetect.serving import create_app, run_server
from curvdetect.study.datasets import load_fashion_mnist_sample

JSON = {"Content-Type": "application/json"}


def small_guard(model, **settings):
    """A guard that is fitted, and asked, quickly."""
    X, y = load_fashion_mnist_sample()
    features = CurvatureFeaturizer(
        model, n_boundaries=2, n_directions=2, random_state=0
    )
    guard = GuardedClassifier(
        model, featurizer=features, detector="threshold", target_fpr=0.1, **settings
    )
    return guard.fit(X[:40], y[:40])


class Client:
    """Asks a service, each time over a connection of its own."""

    def __init__(self, address):
        self.host = address.removeprefix("http://")

    def __call__(self, body=None, headers=None, *, path="/score", method=None):
        status, content, _ = self.whole(body, headers, path=path, method=method)
        return status, json.loads(content)

    def whole(self, body=None, headers=None, *, path="/score", method=None):
        """Return status, content and headers."""
        method = method or ("GET" if body is None else "POST")
        connection = http.client.HTTPConnection(self.host)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


@contextmanager
def served(guard, **settings):
    """Serve a guard while this lasts: how to ask, and the service."""
    app = create_app(guard, **settings)
    addresses = queue.SimpleQueue()
    thread = threading.Thread(
        target=run_server, args=[app], kwargs={"port": 0, "started": addresses.put}
    )
    thread.start()
    try:
        while addresses.empty():
            assert thread.is_alive()
            time.sleep(0.01)
        yield Client(addresses.get()), app.state.service
    finally:
        app.state.service.draining = True
        thread.join()


def npy(array, **settings):
    """Return the bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **settings)
    return file.getvalue()


def form(*files):
    """Return body and headers of a form, of (file name, content type, content)."""
    lines = []
    for name, kind, content in files:
        named = f'; filename="{name}"' if name else ""
        lines += [
            b"--edge",
            f'Content-Disposition: form-data; name="images"{named}'.encode(),
            f"Content-Type: {kind}".encode(),
            b"",
            content,
        ]
    body = b"\r\n".join([*lines, b"--edge--", b""])
    return body, {"Content-Type": "multipart/form-data; boundary=edge"}
