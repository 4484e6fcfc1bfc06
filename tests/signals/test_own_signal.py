"""A signal of a user's own goes everywhere that ours go."""

import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dask.array
import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.integrations.dask import transform
from curvdetect.signals import Signal
from curvdetect.storage import load, save, transform_in_shards
from curvdetect.study.networks import LeNet


@dataclass
class Softness(Signal):
    """The largest probabilities at a temperature, and how bright the image is."""

    temperature: float = 1.0
    name = "softness"

    def columns(self, n_classes):
        return ["softness_first", "softness_second", "brightness"]

    def cost(self, n_classes):
        return 1.0

    def shared(self, n_classes):
        return {"logits": 1.0}

    def measure(self, around):
        shares = (around.logits / self.temperature).softmax(dim=1)
        light = around.x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([shares.topk(2, dim=1).values, light], dim=1)


class AnySoft(ClassifierMixin, BaseEstimator):
    """Flags what is softer than all clean images."""

    def fit(self, X, y=None):
        self.classes_, self.limit_ = np.array([0, 1]), float(X[:, 1].max())
        return self

    def decision_function(self, X):
        return X[:, 1] - self.limit_

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


FEATURES = ("softness_first", "softness_second", "brightness")


@pytest.fixture
def featurizer(model, images):
    features = [Softness(2.0), "first_order"]
    return CurvatureFeaturizer(model, features=features, random_state=0).fit(images[0])


def test_its_values_and_cost(model, images, featurizer):
    F = featurizer.transform(images[0])
    logits = torch.from_numpy(model.predict_logits(images[0]))
    expected = (logits / 2).softmax(1).sort(descending=True).values[:, :2]
    np.testing.assert_allclose(F[:, :2], expected, rtol=1e-4)
    np.testing.assert_allclose(F[:, 2], images[0].mean((1, 2, 3)), rtol=1e-5)
    names = featurizer.get_feature_names_out().tolist()
    assert names == [*FEATURES, "first_order_nearest0", "first_order_nearest1"]
    assert featurizer.cost() == 5


def test_in_a_pipeline_and_a_grid_search(model, images):
    X, y = images
    pipeline = make_pipeline(
        CurvatureFeaturizer(model, features=[Softness()], random_state=0),
        LogisticRegression(),
    )
    grid = {"curvaturefeaturizer__features": [[Softness(0.5)], [Softness(5.0)]]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(X, y % 2)
    # As by hand, and the temperature has arrived: one is better than the other.
    by_hand = [
        cross_val_score(pipeline.set_params(**{name: value}), X, y % 2, cv=2).mean()
        for name, values in grid.items()
        for value in values
    ]
    found = search.cv_results_["mean_test_score"]
    np.testing.assert_allclose(found, by_hand)
    assert found[0] != found[1]


def test_copies_and_hashes(featurizer, images):
    F = featurizer.transform(images[0][:3])
    copy = pickle.loads(pickle.dumps(featurizer))
    np.testing.assert_array_equal(copy.transform(images[0][:3]), F)
    assert clone(featurizer).features[0] == Softness(2.0)
    assert joblib.hash(copy) == joblib.hash(featurizer)
    other = clone(featurizer).set_params(features=[Softness(3.0), "first_order"])
    assert joblib.hash(other) != joblib.hash(clone(featurizer))


def test_a_cache_tells_settings_apart(model, images, tmp_path):
    def features(temperature):
        return CurvatureFeaturizer(
            model,
            features=[Softness(temperature)],
            random_state=0,
            memory=str(tmp_path),
        ).fit_transform(images[0])

    assert not np.array_equal(features(1.0), features(2.0))
    np.testing.assert_array_equal(features(1.0), features(1.0))


def guard_of(model):
    return GuardedClassifier(
        model,
        featurizer=CurvatureFeaturizer(
            features=["curvature", Softness()], n_boundaries=2, random_state=0
        ),
        detector=make_sure(),
    )


def make_sure():
    return AnySoft()


@pytest.fixture
def guard(model, images):
    return (
        guard_of(model)
        .set_params(
            featurizer=CurvatureFeaturizer(features=[Softness()]), on_flag="reject"
        )
        .fit(*images)
    )


def test_in_a_guard_and_its_files(guard, images, tmp_path):
    found = guard.assess(images[0])
    assert not found.flagged[guard.predict(images[0]) == images[1]].any()
    path = tmp_path / "guard.skops"
    save(guard, path)
    own = [f"{kind.__module__}.{kind.__qualname__}" for kind in (Softness, AnySoft)]
    with pytest.raises(ValueError, match=r"not trusted: .*Softness"):
        load(path, LeNet(), trusted=own[1:])
    loaded = load(path, LeNet(), trusted=own)
    np.testing.assert_array_equal(loaded.assess(images[0]).score, found.score)


def test_in_a_state_dict(guard, images, lenet):
    state = CurvatureGuard(guard).state_dict()
    empty = clone(guard).set_params(model=TorchModel(lenet, input_shape=(1, 28, 28)))
    served = CurvatureGuard(empty)
    served.load_state_dict(state)
    x = torch.from_numpy(images[0])
    np.testing.assert_array_equal(served(x).score, guard.assess(images[0]).score)
    other = clone(empty).set_params(
        featurizer=CurvatureFeaturizer(features=[Softness(9.0)])
    )
    with pytest.raises(ValueError, match="other parameters"):
        CurvatureGuard(other).load_state_dict(state)


def test_relabels_by_the_curvatures_beside_it(model, images):
    guard = guard_of(model).fit(*images)
    measured = guard.featurizer_.measure(images[0])
    curvature = measured.boundaries[:, 0].where(measured.found, -torch.inf)
    expected = measured.classes.gather(1, curvature.argmax(1, keepdim=True))[:, 0]
    np.testing.assert_array_equal(guard.assess(images[0]).recovered_label, expected)


def test_on_dask_and_in_shards(featurizer, images, tmp_path):
    X = images[0]
    F = featurizer.transform(X)
    blocks = transform(featurizer, dask.array.from_array(X, chunks=(15, -1, -1, -1)))
    np.testing.assert_allclose(blocks.compute(scheduler="synchronous"), F, rtol=1e-5)
    shards = transform_in_shards(featurizer, X, tmp_path, shard_size=15, verbose=0)
    np.testing.assert_allclose(shards, F, rtol=1e-5)
    other = clone(featurizer).set_params(features=[Softness(5.0), "first_order"])
    with pytest.raises(ValueError, match="other settings"):
        transform_in_shards(other.fit(X), X, tmp_path, shard_size=15, verbose=0)


def test_in_another_process(featurizer, images, tmp_path):
    joblib.dump((featurizer, images[0][:5]), tmp_path / "both.joblib")
    code = (
        "import joblib, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"featurizer, X = joblib.load({str(tmp_path / 'both.joblib')!r})\n"
        "print(joblib.hash(featurizer), featurizer.transform(X).sum())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    seen, total = done.stdout.split()
    assert seen == joblib.hash(featurizer)
    assert float(total) == pytest.approx(featurizer.transform(images[0][:5]).sum())


class Short(Signal):
    """Says three columns, gives one."""

    name = "short"

    def columns(self, n_classes):
        return ["a", "b", "c"]

    def cost(self, n_classes):
        return 0

    def measure(self, around):
        return around.x.flatten(1)[:, :1]


def test_a_signal_that_gives_other_columns_than_it_says(model, images):
    with pytest.raises(ValueError, match=r"'short' must measure .*\(2, 3\).*\(2, 1\)"):
        CurvatureFeaturizer(model, features=[Short()]).fit(images[0])


@pytest.mark.parametrize("features", [Softness(), [Softness], ["softness"], [3]])
def test_what_is_no_sequence_of_signals(model, images, features):
    with pytest.raises(ValueError, match="features must be"):
        CurvatureFeaturizer(model, features=features).fit(images[0])


def test_two_of_a_name(model, images):
    with pytest.raises(ValueError, match="features must not repeat"):
        CurvatureFeaturizer(model, features=[Softness(1), Softness(2)]).fit(images[0])
