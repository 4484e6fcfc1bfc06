"""What wrong inputs are answered: one table, from networks to the HTTP example."""

import io
import pickle
import re
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from torch import nn

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
    cli,
)
from curvdetect.network import load_exported
from curvdetect.storage import load, save
from curvdetect.study.networks import LeNet, load_lenet
from modules import Returns


class CommandFailedError(Exception):
    """The last line that a failed command printed."""


class World:
    """What the cases are about, made when it is asked for."""

    def __init__(self, request):
        self.request = request
        self.lenet = load_lenet("fashion-mnist")
        self.model = TorchModel(self.lenet, input_shape=(1, 28, 28))
        self.X, self.y = request.getfixturevalue("images")
        self.rng = np.random.default_rng(0)

    @cached_property
    def tmp(self):
        return self.request.getfixturevalue("tmp_path")

    @cached_property
    def featurizer(self):
        return CurvatureFeaturizer(self.model, step=0.4, n_boundaries=1).fit(self.X[:4])

    @cached_property
    def guard(self):
        featurizer = CurvatureFeaturizer(None, step=0.4, n_boundaries=1, random_state=0)
        guard = GuardedClassifier(self.model, featurizer=featurizer, target_fpr=0.2)
        return guard.fit(self.X[:8])

    def featurize(self, **settings):
        return CurvatureFeaturizer(self.model, **settings).fit(self.X[:2])

    def check(self, function):
        """Check a module that returns whatever a function makes of four values."""
        X = self.rng.random((2, 4), dtype=np.float32)
        TorchModel(Returns(function), input_shape=(4,)).check(X)

    def command(self, name, **options):
        """Run a command; the options that are not given are right."""
        right = {
            "model": "curvdetect.study.networks:LeNet",
            "images": self.file("x.npy", self.X[:12]),
        }
        if name == "score":
            right["guard"] = self.tmp / "guard.skops"
        else:
            right |= {"input_shape": "1,28,28", "out": self.tmp / "out"}
        if name == "fit":
            right["detector"] = "threshold"
        if name == "score" and "guard" not in options:
            save(self.guard, right["guard"])
        argv = [name]
        for option, value in (right | options).items():
            argv += ["--" + option.replace("_", "-"), str(value)]
        capsys = self.request.getfixturevalue("capsys")
        code = cli.main(argv)
        said = capsys.readouterr().err.splitlines()
        assert code == 1
        assert said[-1].startswith("curvdetect: error: ")
        assert not (self.tmp / "out").exists()
        raise CommandFailedError(said[-1])

    def file(self, name, content):
        """Write a file: bytes as they are, arrays with NumPy, others with torch."""
        path = self.tmp / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, np.ndarray):
            np.save(path, content, allow_pickle=True)
        elif path.suffix == ".npz":
            np.savez(path, **content)
        elif path.suffix == ".pt2":
            torch.export.save(content, path)
        else:
            torch.save(content, path)
        return path


def half(content):
    file = io.BytesIO()
    np.savez(file, X=content)
    return file.getvalue()[: len(file.getvalue()) // 2]


def exported(*arguments, least=None, most=0):
    """Export a module for batches as large as the example, or of `least` to `most`."""

    class Sum(nn.Module):
        def forward(self, *x):
            return sum(x) + torch.ones(3)

    sizes = None if most == 0 else (({0: torch.export.Dim("n", min=least, max=most)},),)
    return torch.export.export(Sum(), arguments, dynamic_shapes=sizes)


def not_a_network():
    return "a string"


def needs_arguments(width):
    return LeNet(width)


def raises_inside():
    return len(5)


a_string = "no function"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
F = np.array([[0.1, 0.2], [0.3, 0.1], [0.2, 0.5], [np.nan, 0.4]])
images = np.zeros((2, 1, 28, 28), np.float32)
LENET = LeNet().state_dict()

# What is done, what the message says, and the type of the error if it is no ValueError.

NETWORK = {
    "no module": (
        lambda w: TorchModel(lambda x: x, input_shape=(4,)),
        "module must be a torch.nn.Module; got function",
        TypeError,
    ),
    "a wrapper, such as skorch's": (
        lambda w: TorchModel(SimpleNamespace(module_=w.lenet), input_shape=(4,)),
        r"got SimpleNamespace\. Give its module_",
        TypeError,
    ),
    "shape, empty": (
        lambda w: TorchModel(w.lenet, input_shape=()),
        "input_shape must be a tuple of positive integers",
    ),
    "shape, 0": (lambda w: TorchModel(w.lenet, input_shape=(3, 0)), "input_shape must"),
    "shape, str": (lambda w: TorchModel(w.lenet, input_shape="a"), "input_shape must"),
    "bounds, order": (
        lambda w: TorchModel(w.lenet, input_shape=(4,), bounds=(1, 0)),
        "bounds must be a pair",
    ),
    "bounds, one": (
        lambda w: TorchModel(w.lenet, input_shape=(4,), bounds=1),
        "bounds must be a pair",
    ),
    "mean, two": (
        lambda w: TorchModel(w.lenet, input_shape=(4,), mean=(0.1, 0.2)),
        r"mean must be one number, or one per channel \(4\)",
    ),
    "mean, NaN": (
        lambda w: TorchModel(w.lenet, input_shape=(4,), mean=np.nan),
        "mean must be finite",
    ),
    "std, 0": (
        lambda w: TorchModel(w.lenet, input_shape=(4,), std=0.0),
        "std must be positive",
    ),
    "batch, 0": (
        lambda w: TorchModel(w.lenet, input_shape=(4,), batch_size=0),
        "batch_size must be a positive integer",
    ),
    "any shape": (
        lambda w: TorchModel(w.lenet, input_shape=None).n_classes,
        r"call check\(x\) first",
    ),
    "one value a row": (
        lambda w: w.check(lambda x: x.sum(1)),
        r"logits of shape \(n_samples, n_classes\); got \(2,\)",
    ),
    "rows missing": (lambda w: w.check(lambda x: x[:1]), "for 2 samples"),
    "one class": (lambda w: w.check(lambda x: x[:, :1]), "at least two classes"),
    "NaN logits": (lambda w: w.check(lambda x: x * np.nan), "must be finite"),
    "NaN logits, late": (
        lambda w: TorchModel(
            Returns(lambda x: x / (x[:, :1] > 0)), input_shape=(4,)
        ).predict(np.zeros((2, 4))),
        "logits must be finite",
    ),
    "a tuple": (
        lambda w: w.check(lambda x: ("x", x)),
        "must return a tensor of logits; got str",
    ),
    "random": (lambda w: w.check(lambda x: x + torch.rand_like(x)), "same answer"),
    "rows mixed": (
        lambda w: w.check(lambda x: x - x.mean(0)),
        "treat each input for itself",
    ),
    "raises": (
        lambda w: w.check(lambda x: x.reshape(2, 3, 3)),
        "cannot be called on inputs of shape",
    ),
    "not exported": (
        lambda w: load_exported(w.file("net.pt2", b"nonsense")),
        "model: .*net.pt2 cannot be read",
    ),
    "exported, one size": (
        lambda w: load_exported(w.file("net.pt2", exported(torch.zeros(4, 3)))),
        "takes batches of up to 4 images; export it for any number: dynamic_shapes",
    ),
    "exported, few": (
        lambda w: load_exported(w.file("net.pt2", exported(torch.zeros(4, 3), most=8))),
        "takes batches of up to 8 images",
    ),
    "exported, a number": (
        lambda w: load_exported(w.file("net.pt2", exported(torch.tensor(1.0)))),
        "must take one tensor, a batch of images; it takes",
    ),
    "exported, pickled": (
        lambda w: pickle.dumps(
            load_exported(w.file("net.pt2", exported(torch.zeros(4, 3), most=None)))
        ),
        "a network from a .pt2 file cannot be pickled",
        TypeError,
    ),
    "exported, many": (
        lambda w: load_exported(
            w.file("net.pt2", exported(torch.zeros(4, 3), least=4, most=None))
        ),
        "takes batches of at least 4 images; export it for any number",
    ),
    "exported, a pointer": (
        lambda w: load_exported(w.file("net.pt2", POINTER)),
        "model: .*net.pt2 is a pointer of git-lfs.* git lfs pull",
    ),
    "exported, two inputs": (
        lambda w: load_exported(
            w.file("net.pt2", exported(torch.zeros(4, 3), torch.zeros(4, 3)))
        ),
        "must take one tensor, a batch of images; it takes x_0, x_1",
    ),
}

INPUTS = {
    "another shape": (
        lambda w: w.model.predict(np.zeros((2, 3, 28, 28))),
        r"X must have shape \(n_samples, 1, 28, 28\) or",
    ),
    "flat, short": (lambda w: w.model.predict(np.zeros((2, 783))), "784"),
    "NaN": (lambda w: w.model.predict(np.full((2, 784), np.nan)), "X must be finite"),
    "inf": (lambda w: w.model.predict(np.full((2, 784), np.inf)), "X must be finite"),
    "bytes": (lambda w: w.model.predict(np.full((2, 784), 255)), "Divide by 255"),
    "normalised": (
        lambda w: w.model.predict(np.full((2, 784), -1.0)),
        "normalised already",
    ),
    "large": (
        lambda w: w.model.predict(np.full((2, 784), 1000.0)),
        "bounds=None switches",
    ),
    "text": (lambda w: w.model.predict(np.full((2, 784), "a")), "must hold numbers"),
    "bytes, later": (
        lambda w: w.featurizer.transform((255 * w.X[:2]).astype(np.uint8)),
        "Divide by 255",
    ),
    "NaN, later": (
        lambda w: w.featurizer.transform(np.full((2, 784), np.nan)),
        "NaN",
    ),
    "shape, later": (
        lambda w: w.featurizer.transform(np.zeros((2, 1, 32, 32))),
        r"X must have shape \(n_samples, 1, 28, 28\) or",
    ),
    "no images": (lambda w: w.featurizer.transform(w.X[:0]), "0 sample"),
    "flat, bare": (
        lambda w: CurvatureFeaturizer(w.lenet).fit(w.X.reshape(40, -1)),
        r"wrap it: TorchModel\(module, input_shape=",
    ),
}

FEATURIZER = {
    "model": (
        lambda w: CurvatureFeaturizer("resnet").fit(w.X[:2]),
        "model must be a TorchModel or a torch.nn",
        TypeError,
    ),
    "at": (
        lambda w: w.featurize(at="home"),
        r"at must be one of \('boundary', 'input'\); got 'home'",
    ),
    "method": (lambda w: w.featurize(method="magic"), "method must be one of"),
    "layout": (lambda w: w.featurize(layout="flat"), "layout must be one of"),
    "directions, 0": (
        lambda w: w.featurize(n_directions=0),
        'n_directions must be a positive integer or "all"; got 0',
    ),
    "directions, 2.5": (lambda w: w.featurize(n_directions=2.5), "n_directions must"),
    "directions, str": (lambda w: w.featurize(n_directions="a"), "n_directions must"),
    "boundaries, 0": (
        lambda w: w.featurize(n_boundaries=0),
        'n_boundaries must be a positive integer, "all" or None',
    ),
    "boundaries, 10": (
        lambda w: w.featurize(n_boundaries=10),
        r"n_boundaries must be less than .* \(10\); got 10",
    ),
    "tol, 0": (lambda w: w.featurize(tol=0), "tol must be a positive"),
    "tol, 1": (lambda w: w.featurize(tol=1), "tol must be less than 1; got 1"),
    "curved, -1": (
        lambda w: w.featurize(n_curved=-1),
        "n_curved must be a positive integer or 0; got -1",
    ),
    "curved, alone": (
        lambda w: w.featurize(n_curved=1),
        "n_curved must be less than n_boundaries",
    ),
    "curved, all": (
        lambda w: w.featurize(n_curved=2, n_boundaries=2),
        "n_curved must be less than n_boundaries",
    ),
    "curved, more": (
        lambda w: w.featurize(n_curved=3, n_boundaries=2),
        "n_curved must be less than n_boundaries",
    ),
    "curved, no curvature": (
        lambda w: w.featurize(n_curved=1, n_boundaries=2, features=("distance",)),
        'n_curved must be 0 where "curvature" is not among the features; got 1',
    ),
    "features, none": (lambda w: w.featurize(features=()), "features must be a seq"),
    "features, str": (lambda w: w.featurize(features="curvature"), "features must be"),
    "features, other": (
        lambda w: w.featurize(features=("colour",)),
        "features must be one of",
    ),
    "features, twice": (
        lambda w: w.featurize(features=("distance", "distance")),
        "features must not repeat",
    ),
    "step, 0": (lambda w: w.featurize(step=0), "step must be"),
    "step, str": (lambda w: w.featurize(step="small"), "step must be"),
    "step, twice": (lambda w: w.featurize(step=(0.1, 0.1)), "step must be"),
    "step, none": (lambda w: w.featurize(step=()), "step must be"),
    "step, inf": (lambda w: w.featurize(step=np.inf), "step must be"),
    "laplacian step": (
        lambda w: w.featurize(laplacian_step=-1),
        "laplacian_step must be None, ",
    ),
}

DETECTOR = {
    "statistic": (
        lambda w: CurvatureThresholdDetector(statistic="median").fit(F, [0, 1, 0, 1]),
        "statistic must be one of",
    ),
    "criterion": (
        lambda w: CurvatureThresholdDetector(criterion="taste").fit(F, [0, 1, 0, 1]),
        "criterion must be one of",
    ),
    "fpr, 0": (
        lambda w: CurvatureThresholdDetector(target_fpr=0).fit(F),
        "target_fpr must be a number between 0 and 1",
    ),
    "fpr, 1.5": (
        lambda w: CurvatureThresholdDetector(target_fpr=1.5).fit(F),
        "target_fpr must be",
    ),
    "fpr, str": (
        lambda w: CurvatureThresholdDetector(target_fpr="low").fit(F),
        "target_fpr must be",
    ),
    "fpr, few images": (
        lambda w: CurvatureThresholdDetector(target_fpr=0.01).fit(F),
        "target_fpr=0.01 needs at least 99 clean images to fit; got 4",
    ),
    "one class": (
        lambda w: CurvatureThresholdDetector().fit(F, [0, 0, 0, 0]),
        "y must hold two classes",
    ),
    "three classes": (
        lambda w: CurvatureThresholdDetector().fit(F, [0, 1, 2, 0]),
        "Only binary classification",
    ),
    "no y": (lambda w: CurvatureThresholdDetector().fit(F), "requires y"),
}

RELABELER = {
    "one column": (lambda w: CurvatureRelabeler().fit(F[:, :1]), "one class"),
    "rank, rows": (
        lambda w: CurvatureRelabeler().fit(F).rank(F, [0, 1]),
        "one label per row",
    ),
    "rank, label": (
        lambda w: CurvatureRelabeler().fit(F).rank(F, [0, 1, 7, 0]),
        r"labels out of .*; got \[7\]",
    ),
}

GUARD = {
    **{
        f"featurizer, {name}": (
            lambda w, settings=settings: GuardedClassifier(
                w.model, featurizer=CurvatureFeaturizer(None, **settings)
            ).fit(w.X[:4]),
            "featurizer must measure curvature alone, at one step",
        )
        for name, settings in {
            "features": {"features": ("curvature", "distance"), "step": 0.4},
            "steps": {"step": (0.2, 0.4)},
        }.items()
    },
    "detector": (
        lambda w: GuardedClassifier(w.model, detector=SimpleImputer()).fit(w.X[:4]),
        "an outlier detector with decision_function; SimpleImputer has no",
    ),
    "on_flag": (
        lambda w: GuardedClassifier(w.model, on_flag="ignore").fit(w.X),
        "on_flag must be one of .* got 'ignore'",
    ),
    "on_flag, later": (
        lambda w: w.guard.set_params(on_flag="ignore").predict(w.X),
        "on_flag must be one of .* got 'ignore'",
    ),
    "reject_label": (
        lambda w: GuardedClassifier(w.model, reject_label="x").fit(w.X),
        "reject_label must be an integer; got 'x'",
    ),
    "y, names": (
        lambda w: GuardedClassifier(w.model).fit(w.X, w.y.astype(str)),
        "y must hold the position of each class, 0 to 9; got dtype <U",
    ),
    "y, short": (
        lambda w: GuardedClassifier(w.model).fit(w.X, w.y[1:]),
        "one number for each of the 40 images",
    ),
    "no classifier": (
        lambda w: CurvatureGuard(w.lenet),
        "guard must be a GuardedClassifier; got LeNet",
        TypeError,
    ),
    "no network": (
        lambda w: CurvatureGuard(GuardedClassifier("resnet")),
        "must be a TorchModel or a torch.nn.Module",
        TypeError,
    ),
    "bound to a device": (
        lambda w: CurvatureGuard(
            GuardedClassifier(
                TorchModel(w.lenet, input_shape=(1, 28, 28), device="cpu")
            )
        ),
        "leave device out of TorchModel",
    ),
    "not calibrated": (
        lambda w: CurvatureGuard(GuardedClassifier(w.model))(torch.from_numpy(w.X)),
        r"call calibrate\(images, labels\)",
        RuntimeError,
    ),
    "no tensor": (
        lambda w: CurvatureGuard(w.guard)(w.X),
        "x must be a Tensor; got ndarray",
        TypeError,
    ),
    "values": (
        lambda w: CurvatureGuard(w.guard)(torch.full((1, 1, 28, 28), 2.0)),
        "must lie within the model's bounds",
    ),
    **{
        f"another state, {name}": (
            lambda w, state=state: CurvatureGuard(w.guard).set_extra_state(state),
            message,
        )
        for name, state, message in (
            ("no format", {"a": 1}, "the state is not one of a CurvatureGuard"),
            ("odd format", {"format": "a"}, "the state is not one of a CurvatureGuard"),
            ("nothing", {"format": 2}, "the state lacks some of what"),
            ("an earlier one", {"format": 1}, "format 1, of an earlier curvdetect"),
            ("a part", {"format": 2, "learned": {"x": 1}}, "the state lacks some of"),
        )
    },
}

FILES = {
    "no guard": (lambda w: load(w.file("g.skops", b"nonsense")), "path must be a file"),
    "no module": (
        lambda w: (save(w.guard, w.tmp / "g"), load(w.tmp / "g")),
        "module must be a network of the architecture that was saved; got None",
    ),
    "another module": (
        lambda w: (save(w.guard, w.tmp / "g"), load(w.tmp / "g", LeNet(5))),
        "module must have the architecture that was saved",
    ),
}

FIT = {
    "no colon": (
        {"model": "net"},
        "model must be package.module:factory, or a .pt2 or .onnx",
    ),
    "no package": ({"model": "nowhere:make"}, "model: cannot find nowhere:make"),
    "no function": (
        {"model": "curvdetect.study.networks:Nothing"},
        "model: cannot find",
    ),
    "no network": (
        {"model": "test_bad_inputs:not_a_network"},
        "must give a torch.nn.Module; test_bad_inputs:not_a_network gave str",
    ),
    "no call": ({"model": "test_bad_inputs:a_string"}, "neither a network nor a func"),
    "arguments": ({"model": "test_bad_inputs:needs_arguments"}, "cannot be called"),
    "inside": (
        {"model": "test_bad_inputs:raises_inside"},
        "raises_inside raised TypeError: object of type 'int' has no len",
    ),
    "device": ({"device": "cuda:77"}, "device must be one that torch can use here"),
    "device, none": ({"device": "meta"}, "can use here, such as cpu; got 'meta'"),
    "device, a name": ({"device": "gpu"}, "can use here, such as cpu; got 'gpu'"),
    "relative": ({"model": ".net:make"}, "model: cannot find .net:make"),
    "no program": ({"model": "nowhere.pt2"}, "model: there is no nowhere.pt2"),
    "no folder": ({"out": "nowhere/guard"}, "out: there is no folder nowhere"),
    "no weights": ({"weights": "nowhere.pt"}, "nowhere.pt"),
    "fpr, few": ({"target_fpr": 0.001}, "needs at least 999 clean images"),
    "fpr": ({"target_fpr": 7}, "target_fpr must be"),
    "boundaries": (
        {"n_boundaries": 10, "target_fpr": 0.1},
        "n_boundaries must be less than",
    ),
    "mean": ({"mean": "1,2"}, "mean must"),
    "std": ({"std": 0}, "std must be positive"),
    "input_shape": (
        {
            "input_shape": "3,28,28",
            "images": np.zeros((12, 3, 28, 28), np.float32),
            "target_fpr": 0.1,
        },
        "the module cannot be called on inputs",
    ),
    "weights, nonsense": ({"weights": b"nonsense"}, "weights: .* cannot be read"),
    "weights, empty": ({"weights": b""}, "weights: .* cannot be read"),
    "weights, others": ({"weights": {"a": torch.zeros(1)}}, "weights do not fit the"),
    "weights, a list": ({"weights": [1, 2]}, "weights do not fit the network"),
    "weights, two sets": (
        {"weights": {"state_dict": LENET, "model": LENET}},
        "more than one set .* 'state_dict', 'model': choose by weights_key",
    ),
    "weights, no such key": (
        {"weights": {"state_dict": LENET}, "weights_key": "ema"},
        "weights_key must lead to weights that fit the network; those of 'state_dict'",
    ),
    "weights, a pointer": ({"weights": POINTER}, "is a pointer of git-lfs"),
    "weights, a module": (
        {"weights": [nn.ReLU()]},
        r"torch.save\(net.state_dict\(\), path\).*Check the documentation of torch",
    ),
    "weights, twice": (
        {"weights": [1], "model": "net.pt2"},
        "weights must be left out where the network is a .pt2 file",
    ),
    "no images": ({"images": "nowhere"}, "images: there is no nowhere"),
    "images, empty": ({"images": "empty"}, "images must hold pictures"),
    "images, shape": (
        {"images": np.zeros((2, 3, 28, 28), np.float32)},
        r"must have shape \(n, 1, 28, 28\); got \(2, 3, 28, 28\)",
    ),
    "images, none": (
        {"images": images[:0]},
        r"must have shape \(n, 1, 28, 28\); got \(0, 1, 28, 28\)",
    ),
    "images, integers": (
        {"images": images.astype(np.int64)},
        r"must be floats in \[0, 1\] or bytes; got an array of int64",
    ),
    "images, objects": ({"images": np.array([{}])}, "cannot be read"),
    "images, names": (
        {"images": {"a": images, "b": images}},
        'must hold an array called "X" or "images"',
    ),
    "images, both names": ({"images": {"X": images, "images": images}}, "not both"),
    "images, a pointer": ({"images": POINTER}, "is a pointer of git-lfs"),
    "images, broken": ({"images": b"PK nonsense"}, "cannot be read"),
    "images, half": ({"images": half(images)}, "cannot be read"),
    "images, range": ({"images": images + 7}, "none of those in"),
}

SCORE = {
    "out": ({"out": "x.doc"}, "out must end with .csv, .json, .parquet, or be -"),
    "a folder": ({"out": "."}, "out must be a file; . is a folder"),
    "no folder": ({"out": "nowhere/x.csv"}, "out: there is no folder nowhere"),
    "no guard": ({"guard": "nowhere.skops"}, "nowhere.skops"),
    "device": ({"device": "cuda:77"}, "device must be one that torch can use here"),
    "a picture": ({"guard": b"\x89PNG"}, "a file that curvdetect.storage.save"),
}

PROFILE = {
    "device": ({"device": "cuda:77"}, "device must be one that torch can use here"),
    "a file": ({"out": "x.npy"}, "out must be a folder; x.npy is a file"),
    "n_images": ({"n_images": 0}, "n_images must be a positive integer"),
    "step": ({"step": 0}, "step must be a positive"),
    "boundaries": ({"n_boundaries": 10}, "n_boundaries must be an integer from 1 to 9"),
    "images": ({"images": images + 7}, "none of those in"),
}


def command(name, options):
    """Return a case that runs a command, with files in the place of their contents."""

    def run(w):
        given = dict(options)
        for option, value in options.items():
            if isinstance(value, bytes | np.ndarray | dict | list):
                suffix = ".npy" if isinstance(value, np.ndarray) else ".npz"
                if option != "images":
                    suffix = ".pt"
                given[option] = w.file("given" + suffix, value)
        w.request.getfixturevalue("monkeypatch").chdir(w.tmp)
        (w.tmp / "empty").mkdir()
        w.command(name, **given)

    return run


CASES = {
    f"{kind}: {name}": case
    for kind, cases in {
        "network": NETWORK,
        "inputs": INPUTS,
        "featurizer": FEATURIZER,
        "detector": DETECTOR,
        "relabeler": RELABELER,
        "guard": GUARD,
        "files": FILES,
        **{
            f"curvdetect {name}": {
                what: (command(name, options), message, CommandFailedError)
                for what, (options, message) in table.items()
            }
            for name, table in {
                "fit": FIT,
                "score": SCORE,
                "curvature-profile": PROFILE,
            }.items()
        },
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("what", CASES)
def test_the_error_names_what_is_wrong(what, request):
    call, message, *kind = CASES[what]
    (kind,) = kind or [ValueError]
    world = World(request)
    with pytest.raises(kind) as caught:
        call(world)
    assert type(caught.value) is kind  # none that only derives from it
    assert re.search(message, str(caught.value)), str(caught.value)
