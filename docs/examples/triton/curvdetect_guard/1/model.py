"""A guard for Triton's Python backend; config.pbtxt says what goes in and comes out."""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from curvdetect.network import load_module
from curvdetect.storage import load


class TritonPythonModel:
    """Looks at the images of several requests together."""

    def initialize(self, args):
        """Load the guard that lies beside this file."""
        config = json.loads(args["model_config"])
        network = load_module(config["parameters"]["network"]["string_value"])
        here = Path(args["model_repository"]) / args["model_version"]
        self.guard = load(here / "guard.skops", network)
        self.outputs = [output["name"] for output in config["output"]]

    def execute(self, requests):
        """Answer each request with its part."""
        images = [
            pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
            for request in requests
        ]
        try:
            found = self.guard.assess(np.concatenate(images))
        except ValueError as error:  # values outside of [0, 1], say: whose?
            if len(requests) > 1:
                return [self.execute([request])[0] for request in requests]
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))]
        ends = np.cumsum([len(part) for part in images])[:-1]
        columns = [getattr(found, name.lower()) for name in self.outputs]
        parts = [np.split(values[:, None], ends) for values in columns]
        return [self._response(each) for each in zip(*parts, strict=True)]

    def _response(self, values):
        named = zip(self.outputs, values, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in named])
