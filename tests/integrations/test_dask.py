"""On a cluster of two processes: the same features, also when a worker dies."""

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

from joblib import parallel_config  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402

from curvdetect import (  # noqa: E402
    CurvatureFeaturizer,
    CurvatureThresholdDetector,
    LearnedDetector,
    VotingDetector,
)
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set  # noqa: E402
from curvdetect.integrations.dask import (  # noqa: E402
    _warn_of_malloc,
    score_samples,
    transform,
)
from modules import second_lenet  # noqa: E402


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def fitted(model, images):
    featurizer = CurvatureFeaturizer(model, step=0.4, random_state=0)
    return featurizer.fit(images[0])


def test_the_same_features(client, fitted, images):
    X = da.from_array(images[0], chunks=(7, 1, 14, 28))
    features = transform(fitted, X)
    assert features.shape == (40, 10)
    assert features.dtype == np.float32
    np.testing.assert_allclose(
        features.compute(), fitted.transform(images[0]), rtol=1e-3, atol=1e-4
    )


def test_the_same_scores(client, model, images):
    detector = LearnedDetector(
        model, target_fpr=0.4, kinds=("minimal norm",), self_test=False, random_state=0
    )
    X = np.concatenate([images[0], images[0][::-1]])
    scores = score_samples(detector.fit(X), da.from_array(X, chunks=(7, 1, 14, 28)))
    assert scores.shape == (80,)
    np.testing.assert_allclose(scores.compute(), detector.score_samples(X), atol=0.05)
    with pytest.raises(TypeError, match="X must be a dask array"):
        score_samples(detector, X)
    with pytest.raises(TypeError, match="learned detector"):
        score_samples(CurvatureFeaturizer(model), X)
    voting = VotingDetector(
        model, second_lenet(), sigma=0.05, n_votes=5, target_fpr=0.2, random_state=0
    ).fit(X)
    votes = score_samples(voting, da.from_array(X[:20], chunks=(7, 1, 14, 28)))
    np.testing.assert_array_equal(votes.compute(), voting.score_samples(X[:20]))


class DiesOnce(CurvatureFeaturizer):
    """Takes its process with it at the third block, in the middle of the run."""

    def transform(self, X):
        for call in itertools.count():
            try:
                (Path(self.calls_) / str(call)).touch(exist_ok=False)
            except FileExistsError:
                continue
            break
        if call == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().transform(X)


def test_a_worker_that_dies_is_made_up_for(client, model, images, tmp_path):
    X = np.tile(images[0], (3, 1, 1, 1))
    fitted = DiesOnce(model, n_boundaries=2, step=0.4, random_state=0).fit(images[0])
    fitted.calls_ = str(tmp_path)
    blocks = transform(fitted, da.from_array(X, chunks=(20, -1, -1, -1)))
    features = client.compute(blocks).result()
    assert len(list(tmp_path.iterdir())) > 6  # one of six was measured once more
    expected = np.tile(fitted.transform(images[0]), (3, 1))
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


def test_grid_search_on_the_cluster(client, model, images):
    attacked = make_adversarial_set(model, MinimalNormAttack(model), *images)
    X, y, *_ = attacked.labelled()
    pipeline = make_pipeline(
        CurvatureFeaturizer(model, step=0.4, n_boundaries=2, random_state=0),
        CurvatureThresholdDetector(),
    )
    search = GridSearchCV(
        pipeline,
        {"curvaturethresholddetector__statistic": ["max", "mean"]},
        cv=2,
        scoring="roc_auc",
    )
    alone = search.fit(X, y).cv_results_["mean_test_score"]
    with parallel_config(backend="dask"):
        on_cluster = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(on_cluster, alone, atol=0.01)


def test_what_is_no_dask_array(fitted, images):
    with pytest.raises(TypeError, match="X must be a dask array.*got ndarray"):
        transform(fitted, images[0])


def test_blocks_of_unknown_size(fitted, images):
    X = da.from_array(images[0].reshape(40, -1), chunks=(10, -1))
    with pytest.raises(ValueError, match="known numbers of rows"):
        transform(fitted, X[X[:, 0] >= 0])


@pytest.mark.parametrize(
    ("trim", "mapped", "said"),
    [
        ("65536", None, 1),  # dask's default
        ("65536", "33554432", 1),
        (None, "33554432", 1),
        ("268435456", "33554432", 0),
        (None, None, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler")
def test_a_worker_says_that_malloc_makes_it_slow(
    trim, mapped, said, fitted, images, monkeypatch, caplog
):
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    values = {"MALLOC_TRIM_THRESHOLD_": trim, "MALLOC_MMAP_THRESHOLD_": mapped}
    for name, value in values.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    _warn_of_malloc.cache_clear()
    X = da.from_array(images[0][:4], chunks=(2, -1, -1, -1))
    transform(fitted, X).compute(scheduler="synchronous")
    assert caplog.text.count("large tensors are slow") == said
