"""A guard as an MLflow model, with its file as an artifact.

    pip install '.[skops]' mlflow-skinny pandas
    mlflow models serve -m guard_model --env-manager local  # with the whole of mlflow

This file itself is the code of the model: nothing is pickled. Its network is the
bundled LeNet; make yours instead.
"""

import mlflow
import numpy as np

from curvdetect.storage import load
from curvdetect.study.networks import LeNet


class Guard(mlflow.pyfunc.PythonModel):
    """Says of images, (n, 1, 28, 28) in [0, 1], what the guard says."""

    def load_context(self, context):
        """Load the guard; nothing in its file is executed."""
        self.guard = load(context.artifacts["guard"], LeNet())

    def predict(self, context, model_input, params=None):
        """Return a list for each: labels, flags, scores."""
        found = self.guard.assess(np.asarray(model_input, np.float32))
        columns = "label", "model_label", "recovered_label", "flagged", "score"
        return {name: getattr(found, name).tolist() for name in columns}


def save_guard(guard_file, folder):
    """Write a model that MLflow loads, serves and registers, from a guard's file."""
    mlflow.pyfunc.save_model(
        folder,
        python_model=__file__,
        artifacts={"guard": str(guard_file)},
        pip_requirements=["curvdetect[skops]"],
    )


mlflow.models.set_model(Guard())

if __name__ == "__main__":
    save_guard("guard.skops", "guard_model")
