"""Files that execute nothing: what comes out is what went in, or an error."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.network import Preparation
from curvdetect.storage import guards, load, save
from curvdetect.study.networks import LeNet


@pytest.fixture
def path(tmp_path):
    return tmp_path / "estimator.skops"


def fitted(kind, model, lenet, X, y):
    if kind == "guard":
        return GuardedClassifier(lenet, detector="threshold", target_fpr=0.1).fit(X, y)
    if kind == "featurizer":
        return CurvatureFeaturizer(model, n_boundaries=2, random_state=0).fit(X)
    if kind == "pipeline":
        return make_pipeline(
            CurvatureFeaturizer(model, step=0.4, n_boundaries=2, random_state=0),
            CurvatureThresholdDetector(target_fpr=0.1),
        ).fit(X)
    if kind == "learned":
        return make_pipeline(
            CurvatureFeaturizer(
                lenet, step=0.4, n_boundaries=2, layout="nearest", random_state=0
            ),
            LogisticRegression(),
        ).fit(X, np.arange(len(X)) % 2)
    features = np.random.default_rng(0).normal(size=(30, 10))
    if kind == "detector":
        return CurvatureThresholdDetector(target_fpr=0.1).fit(features)
    return CurvatureRelabeler().fit(features)


@pytest.mark.parametrize(
    "kind", ["guard", "featurizer", "pipeline", "learned", "detector", "relabeler"]
)
def test_round_trip(kind, model, lenet, images, path):
    X, y = images
    estimator = fitted(kind, model, lenet, X, y)
    save(estimator, path)
    torch.manual_seed(1)
    loaded = load(path, LeNet())
    assert type(loaded) is type(estimator)
    if kind in ("detector", "relabeler"):
        X = np.random.default_rng(1).normal(size=(5, 10))
    use = "transform" if kind == "featurizer" else "predict"
    np.testing.assert_array_equal(
        getattr(loaded, use)(X[:5]), getattr(estimator, use)(X[:5])
    )


def test_one_network_stays_one(lenet, images, path):
    save(
        GuardedClassifier(lenet, detector="threshold", target_fpr=0.1).fit(*images),
        path,
    )
    module = LeNet()
    loaded = load(path, module)
    assert loaded.model is module
    assert loaded.featurizer_.model_.module is module
    assert not module.training


def test_another_process_reads_it(model, images, path, tmp_path):
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.1).fit(*images)
    save(guard, path)
    np.save(tmp_path / "X.npy", images[0][:5])
    code = (
        "import numpy as np\n"
        "from curvdetect.study.networks import LeNet\n"
        "from curvdetect.storage import load\n"
        f"guard = load({str(path)!r}, LeNet())\n"
        f"print(guard.predict(np.load({str(tmp_path / 'X.npy')!r})).tolist())\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == str(guard.predict(images[0][:5]).tolist())


def test_settings_of_the_model_are_kept(lenet, images, path):
    model = TorchModel(
        lenet, input_shape=(1, 28, 28), mean=0.1, std=[0.9], bounds=None, batch_size=7
    )
    save(CurvatureFeaturizer(model, step=0.4, n_boundaries=1).fit(images[0]), path)
    loaded = load(path, LeNet()).model
    for name in ("input_shape", "mean", "std", "bounds", "batch_size"):
        assert getattr(loaded, name) == getattr(model, name)


class Doubles(nn.Module):
    """A network without weights."""

    def forward(self, x):
        return torch.stack([2 * x[:, 0], x[:, 1]], dim=1)


def test_a_network_without_weights(path):
    X = np.random.default_rng(0).random((5, 2))
    featurizer = CurvatureFeaturizer(Doubles().eval(), step=0.1, random_state=0).fit(X)
    save(featurizer, path)
    np.testing.assert_array_equal(
        load(path, Doubles()).transform(X), featurizer.transform(X)
    )
    with pytest.raises(ValueError, match="got None"):
        load(path)


def test_no_cache_comes_out_of_a_file(model, images, path, tmp_path, monkeypatch):
    """A cache is pickled: one beside a stranger's file would be executed."""
    settings = {"step": 0.4, "n_boundaries": 1, "memory": str(tmp_path / "cache")}
    guard = GuardedClassifier(
        model,
        featurizer=CurvatureFeaturizer(model, **settings),
        target_fpr=0.1,
    ).fit(*images)
    save(make_pipeline(guard, memory=str(tmp_path / "cache")), path)
    # A file that was written to hold one all the same.
    replaced = without_forgetting(guards.networks_replaced)
    monkeypatch.setattr(guards, "networks_replaced", replaced)
    save(make_pipeline(guard, memory=str(tmp_path / "cache")), tmp_path / "evil.skops")
    monkeypatch.undo()
    for file in (path, tmp_path / "evil.skops"):
        loaded = load(file, LeNet())
        assert loaded.memory is None
        assert loaded[0].featurizer.memory is None
        assert loaded[0].featurizer_.memory is None


def without_forgetting(changed):
    def keeps(holder, change):
        copied = changed(holder, change)
        if isinstance(holder, BaseEstimator) and "memory" in vars(holder):
            copied.memory = holder.memory
        return copied

    return keeps


@pytest.mark.parametrize(
    "content", [{"format": 6}, {"format": True}, {"format": "1"}, {}, [1]]
)
def test_other_contents_are_refused(content, path):
    skops.io.dump(content, path)
    with pytest.raises(ValueError, match="a file that curvdetect.storage.save"):
        load(path)


class Mine(BaseEstimator):
    """A type that nobody trusts."""


def test_types_of_strangers_are_refused(path):
    save(Mine(), path)
    with pytest.raises(ValueError, match="not trusted: .*Mine.*name them"):
        load(path)
    name = f"{Mine.__module__}.{Mine.__qualname__}"
    assert isinstance(load(path, trusted=[name]), Mine)


def test_a_later_format_is_refused(path, monkeypatch):
    known = guards.FORMAT_VERSION
    monkeypatch.setattr(guards, "FORMAT_VERSION", known + 1)
    save(CurvatureRelabeler(), path)
    monkeypatch.undo()
    message = f"format {known + 1}; this curvdetect reads up to {known}"
    with pytest.raises(ValueError, match=message):
        load(path)


def test_an_earlier_format_is_refused(path, monkeypatch):
    monkeypatch.setattr(guards, "FORMAT_VERSION", 1)
    save(CurvatureRelabeler(), path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 1, of an earlier.* Fit again"):
        load(path)


def test_other_files_are_refused(path, tmp_path):
    path.write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match="a file that curvdetect.storage.save"):
        load(path)
    skops.io.dump([1, 2], path)
    with pytest.raises(ValueError, match="a file that curvdetect.storage.save"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.skops")


def test_another_architecture_is_refused(model, images, path):
    save(CurvatureFeaturizer(model, step=0.4, n_boundaries=1).fit(images[0]), path)
    with pytest.raises(ValueError, match="architecture that was saved; got Error"):
        load(path, LeNet(n_classes=3))
    with pytest.raises(ValueError, match="architecture that was saved; got None"):
        load(path)


def test_three_networks_are_refused(model, images, path):
    featurizer = CurvatureFeaturizer(model, step=0.4, n_boundaries=1).fit(images[0])
    others = [CurvatureFeaturizer(LeNet().eval(), step=0.4) for _ in range(2)]
    with pytest.raises(ValueError, match="one companion; got 3 different"):
        save(make_pipeline(featurizer, *others), path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_guard_and_its_companion(with_companion, wrapped, path):
    guard, x = with_companion(wrapped)
    save(guard, path)
    with pytest.raises(ValueError, match="companion must be a network of the archit"):
        load(path, LeNet())
    module, companion = LeNet(), LeNet()
    loaded = load(path, module, companion=companion)
    np.testing.assert_array_equal(loaded.assess(x).score, guard.assess(x).score)
    assert loaded.detector_.companion_.model.module is companion
    assert loaded.detector_.model_.module is module


def test_a_companion_that_is_not_asked_for(lenet, path):
    save(CurvatureFeaturizer(lenet, step=0.4), path)
    with pytest.raises(ValueError, match="companion must be left out"):
        load(path, LeNet(), companion=LeNet())


def test_weights_that_a_file_lacks(lenet, path, monkeypatch):
    monkeypatch.setattr(guards, "_SavedModel", numbered_seven(guards._SavedModel))
    save(CurvatureFeaturizer(lenet, step=0.4), path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="lacks the weights of a network"):
        load(path, LeNet())


def numbered_seven(kind):
    return lambda settings, number: kind(settings, 7)


def test_weights_that_numpy_lacks(images, path):
    module = LeNet().eval().to(torch.bfloat16)
    featurizer = CurvatureFeaturizer(TorchModel(module, input_shape=(1, 28, 28)))
    with pytest.raises(ValueError, match="number format that NumPy has.*bfloat16"):
        save(featurizer, path)


# Names, preparation, and weights that are elsewhere ------------------------------


def described(lenet):
    names = tuple(f"class {number}" for number in range(10))
    prepare = Preparation(
        (28, 28), (30, 30), "bicubic", crop="border", fill=(128,), rounding="down"
    )
    return TorchModel(
        lenet, input_shape=(1, 28, 28), class_names=names, preparation=prepare
    )


def test_names_and_preparation_are_kept(lenet, images, path):
    model = described(lenet)
    save(CurvatureFeaturizer(model, step=0.4, n_boundaries=1).fit(images[0]), path)
    loaded = load(path, LeNet()).model
    assert loaded.class_names == model.class_names
    assert loaded.preparation == model.preparation


def test_a_file_without_weights(lenet, images, path, tmp_path):
    model = described(lenet)
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.1).fit(*images)
    save(guard, tmp_path / "whole.skops")
    save(guard, path, weights=False)
    size_of_weights = sum(4 * each.numel() for each in lenet.parameters())
    assert (tmp_path / "whole.skops").stat().st_size > 0.8 * size_of_weights
    assert path.stat().st_size < 0.2 * size_of_weights
    same = LeNet()
    same.load_state_dict(lenet.state_dict())
    found = load(path, same.train()).assess(images[0][:5])
    assert not same.training
    np.testing.assert_array_equal(found.score, guard.assess(images[0][:5]).score)
    with pytest.raises(ValueError, match="module must have the very weights.*pretr"):
        load(path, LeNet())
    with pytest.raises(ValueError, match="module must be a network.*got None"):
        load(path)
    with pytest.raises(ValueError, match=r"torch.nn.Module; got a TorchModel; .*\.mod"):
        load(path, model)
    with pytest.raises(ValueError, match=r"module must be a torch.nn.Module; got a i"):
        load(path, 3)


@pytest.mark.parametrize("weights", [True, False])
def test_a_compiled_network_is_the_one_inside(weights, lenet, images, path):
    model = TorchModel(lenet, input_shape=(1, 28, 28))
    save(CurvatureFeaturizer(model, step=0.4), path, weights=weights)
    assert load(path, torch.compile(lenet)).model.module is lenet
    save(CurvatureFeaturizer(torch.compile(lenet), step=0.4), path, weights=weights)
    assert load(path, lenet).model is lenet


def test_a_companion_without_weights(with_companion, path):
    guard, x = with_companion(True)
    save(guard, path, weights=False)
    assert guards.read_saved(path).holds_weights == (False, False)
    networks = guard.model_.module, guard.detector_.companion_.model.module
    module, companion = (copy.deepcopy(each) for each in networks)
    loaded = load(path, module, companion=companion)
    np.testing.assert_array_equal(loaded.assess(x).score, guard.assess(x).score)
    with pytest.raises(ValueError, match="companion must have the very weights"):
        load(path, module, companion=LeNet())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_names": "[1, 2]"}, "class_names must be a sequence of strings"),
        ({"class_names": "["}, "got one with other settings: Expecting value"),
        ({"class_names": "[" * 100_000}, "got one with other settings: maximum recurs"),
        ({"preparation": {"size": (28, 28), "run": "x"}}, "other settings: .*'run'"),
        ({"preparation": {"size": (float("inf"), 28)}}, "size must be .height, width"),
        ({"input_shape": (float("inf"), 28, 28)}, "input_shape must be a tuple"),
        ("input_shape", "got one with other settings: 'input_shape'"),
        ({1: 2}, "got one with other settings: {1: 2"),
    ],
)
def test_nothing_of_what_a_file_says_is_trusted(
    changed, message, lenet, path, monkeypatch
):
    """Settings of a model are numbers and strings; others are an error."""
    settings = changed
    if isinstance(changed, dict):
        settings = {**changed, **guards._settings(described(lenet)), **changed}
    monkeypatch.setattr(guards, "_settings", lambda network: settings)
    save(CurvatureFeaturizer(lenet, step=0.4), path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=message):
        load(path, LeNet())


def test_weights_are_arrays_or_digests(path):
    skops.io.dump({"format": 6, "estimator": [], "weights": [1]}, path)
    with pytest.raises(ValueError, match="lacks some of what it writes"):
        load(path)
