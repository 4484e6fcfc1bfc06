"""The examples for other hosts: each says what the guard says."""

import json
import re
import runpy
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from curvdetect import TorchModel
from curvdetect.storage import save
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from served import Client, npy, small_guard

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COLUMNS = ("label", "model_label", "recovered_label", "flagged")


@pytest.fixture(scope="module")
def fitted():
    return small_guard(TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28)))


@pytest.fixture
def guard_file(fitted, tmp_path):
    save(fitted, tmp_path / "guard.skops")
    return tmp_path / "guard.skops"


@pytest.fixture(scope="module", name="X")
def some_images():
    return load_fashion_mnist_sample()[0][100:106]


def test_in_a_service_of_ones_own():
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    pytest.importorskip("prometheus_client")
    example = runpy.run_path(str(EXAMPLES / "embedded_service.py"))
    image = example["X"][100]
    server = uvicorn.Server(uvicorn.Config(example["app"], log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ask = Client(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=server.run, args=[[listening]])
        thread.start()
        try:
            assert ask(path="/") == (200, {"guarded": "/guard/score"})
            status, answer = ask(npy(image), path="/guard/score")
        finally:
            server.should_exit = True
            thread.join()
    assert status == 200
    label = example["guard"].predict(image[None])[0]
    assert [told["label"] for told in answer["images"]] == [label]
    assert example["guarded"].state.service.draining  # it was told of the end


@pytest.mark.filterwarnings("ignore")  # what MLflow says of itself
def test_mlflow(fitted, guard_file, X, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    example = runpy.run_path(str(EXAMPLES / "mlflow_guard.py"))
    example["save_guard"](guard_file, tmp_path / "model")
    told = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(X)
    found = fitted.assess(X)
    for name in COLUMNS:
        assert told[name] == getattr(found, name).tolist()
    assert told["score"] == pytest.approx(found.score, abs=1e-5)
    assert not [*(tmp_path / "model").rglob("*.pkl")]


@pytest.mark.filterwarnings("ignore")  # what LitServe says of itself
def test_litserve(fitted, guard_file, X, monkeypatch):
    pytest.importorskip("litserve")
    monkeypatch.setenv("GUARD", str(guard_file))
    api = runpy.run_path(str(EXAMPLES / "litserve_guard.py"))["GuardAPI"]
    api = api(max_batch_size=8)
    api.pre_setup(None)
    api.setup("cpu")
    # As LitServe's loop calls them.
    inputs = [api.decode_request({"image": image.tolist()}) for image in X]
    outputs = api.unbatch(api.predict(api.batch(inputs)))
    told = [json.loads(json.dumps(api.encode_response(each))) for each in outputs]
    found = fitted.assess(X)
    for name in COLUMNS:
        assert [each[name] for each in told] == getattr(found, name).tolist()


# Triton --------------------------------------------------------------------------

TRITON = EXAMPLES / "triton" / "curvdetect_guard"


def stand_in():
    """What the server gives to Python models, as far as ours needs it."""
    module = ModuleType("triton_python_backend_utils")
    module.Tensor = lambda name, values: SimpleNamespace(
        name=name, as_numpy=lambda: values
    )
    module.TritonError = lambda message: SimpleNamespace(message=message)
    module.InferenceResponse = lambda outputs=(), error=None: SimpleNamespace(
        outputs={output.name: output.as_numpy() for output in outputs}, error=error
    )
    module.get_input_tensor_by_name = lambda request, name: request[name]
    return module


@pytest.fixture
def triton(fitted, tmp_path, monkeypatch):
    """The model of the example, as Triton would have loaded it."""
    module = stand_in()
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    (tmp_path / "1").mkdir()
    save(fitted, tmp_path / "1" / "guard.skops")
    text = (TRITON / "config.pbtxt").read_text()
    config = {
        "parameters": {
            "network": {"string_value": re.findall(r'"(\S+:\S+)"', text)[0]}
        },
        "output": [
            {"name": name}
            for name in re.findall(r'name: "(\w+)"', text.partition("output [")[2])
        ],
    }
    model = runpy.run_path(str(TRITON / "1" / "model.py"))["TritonPythonModel"]()
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(tmp_path),
            "model_version": "1",
        }
    )
    return model, lambda images: {"IMAGE": module.Tensor("IMAGE", images)}


def test_triton_answers_several_requests(fitted, triton, X):
    model, request = triton
    answers = model.execute([request(X[:1]), request(X[1:4]), request(X[4:])])
    found = fitted.assess(X)
    assert [len(each.outputs["LABEL"]) for each in answers] == [1, 3, 2]
    for name in ("LABEL", "RECOVERED_LABEL", "FLAGGED"):
        told = np.concatenate([each.outputs[name] for each in answers])
        np.testing.assert_array_equal(told[:, 0], getattr(found, name.lower()))
        assert told.shape == (6, 1)  # dims of the config, for each image
    types = {name: values.dtype.name for name, values in answers[0].outputs.items()}
    assert types == {
        "LABEL": "int64",
        "RECOVERED_LABEL": "int64",
        "FLAGGED": "bool",
        "SCORE": "float64",
    }


def test_triton_refuses_one_request_alone(triton, X):
    model, request = triton
    good, bad = model.execute([request(X[:1]), request(X[1:2] * np.nan)])
    assert good.error is None
    assert "NaN" in bad.error.message


def test_config_of_triton_is_one():
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    text = (TRITON / "config.pbtxt").read_text()
    config = text_format.Parse(text, schema.ModelConfig())
    assert config.name == TRITON.name  # as Triton wants it
    assert config.backend == "python"
    types = {each.name: schema.DataType.Name(each.data_type) for each in config.output}
    assert types == {
        "LABEL": "TYPE_INT64",
        "RECOVERED_LABEL": "TYPE_INT64",
        "FLAGGED": "TYPE_BOOL",
        "SCORE": "TYPE_FP64",
    }
    assert list(config.input[0].dims) == [1, 28, 28]
