"""Features kept on disk: what is finished stays, what is other is refused."""

import numpy as np
import pytest
from sklearn.base import clone

from curvdetect import (
    CurvatureFeaturizer,
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
    VotingDetector,
)
from curvdetect.signals import Companion
from curvdetect.storage import score_in_shards, transform_in_shards
from curvdetect.study import metrics
from curvdetect.study.networks import LeNet
from modules import second_lenet


@pytest.fixture
def fitted(model, images):
    featurizer = CurvatureFeaturizer(model, n_boundaries=2, step=0.4, random_state=0)
    return featurizer.fit(images[0])


@pytest.fixture
def learned(model, images):
    detector = LearnedDetector(
        model, target_fpr=0.4, kinds=("minimal norm",), self_test=False, random_state=0
    )
    return detector.fit(np.concatenate([images[0], images[0][::-1]]))


@pytest.fixture
def voting(model, images):
    detector = VotingDetector(
        model, second_lenet(), sigma=0.05, n_votes=20, target_fpr=0.2, random_state=0
    )
    return detector.fit(images[0])


def test_the_same_as_at_once(fitted, images, tmp_path):
    F = transform_in_shards(fitted, images[0], tmp_path / "new", shard_size=15)
    assert len(list((tmp_path / "new").glob("features-*.npz"))) == 3
    expected = fitted.transform(images[0])
    np.testing.assert_allclose(F, expected, rtol=1e-3, atol=1e-4)
    assert F.dtype == expected.dtype


def test_only_what_is_missing_is_measured(fitted, images, tmp_path, monkeypatch):
    def interrupt(file, **arrays):
        file.write(b"half of it")
        if len(list(tmp_path.glob("features-*"))) == 2:
            raise KeyboardInterrupt
        file.seek(0)
        savez(file, **arrays)

    savez = np.savez
    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        transform_in_shards(fitted, images[0], tmp_path, shard_size=15)
    monkeypatch.undo()
    assert not list(tmp_path.glob(".*"))  # nothing half written
    with metrics.count_passes(fitted.model_.module) as passes:
        F = transform_in_shards(fitted, images[0], tmp_path, shard_size=15)
    with metrics.count_passes(fitted.model_.module) as of_ten:
        fitted.transform(images[0][30:])
    assert passes.forward_equivalents == of_ten.forward_equivalents
    np.testing.assert_allclose(F, fitted.transform(images[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("left", [0, 100])
def test_a_shard_that_was_cut_short_is_measured_again(fitted, images, tmp_path, left):
    expected = transform_in_shards(fitted, images[0], tmp_path, shard_size=15)
    shard = sorted(tmp_path.glob("features-*"))[1]
    shard.write_bytes(shard.read_bytes()[:left])
    again = transform_in_shards(fitted, images[0], tmp_path, shard_size=15)
    np.testing.assert_array_equal(again, expected)
    assert len(shard.read_bytes()) > 100


def test_a_shard_of_another_process_with_other_settings(
    fitted, model, images, tmp_path
):
    other = CurvatureFeaturizer(model, n_boundaries=2, step=0.5, random_state=0)
    transform_in_shards(other.fit(images[0]), images[0], tmp_path, shard_size=15)
    (tmp_path / "manifest.json").unlink()  # both began when there was none
    with pytest.raises(ValueError, match="one network and one estimator"):
        transform_in_shards(fitted, images[0], tmp_path, shard_size=15)


def test_the_same_images_in_another_order_of_memory(fitted, images, tmp_path):
    expected = transform_in_shards(fitted, images[0], tmp_path)
    X = np.asfortranarray(images[0])
    with metrics.count_passes(fitted.model_.module) as passes:
        F = transform_in_shards(fitted, X, tmp_path)
    assert passes.forward == 0  # known by their values
    np.testing.assert_array_equal(F, expected)


def test_a_memory_mapped_array(fitted, images, tmp_path):
    np.save(tmp_path / "X.npy", images[0])
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    F = transform_in_shards(fitted, X, tmp_path / "features", shard_size=25)
    expected = fitted.transform(images[0])
    np.testing.assert_allclose(F, expected, rtol=1e-3, atol=1e-4)


def test_progress_is_shown(fitted, images, tmp_path, capsys):
    transform_in_shards(fitted, images[0][:4], tmp_path, verbose=1)
    assert "4/4" in capsys.readouterr().err
    transform_in_shards(fitted, images[0][:4], tmp_path, verbose=0)
    assert capsys.readouterr().err == ""


def others(fitted, images):
    network = CurvatureFeaturizer(LeNet().eval(), n_boundaries=2, step=0.4)
    return {
        "network": (network.fit(images), images, 15, "another network or with other"),
        "step": (
            CurvatureFeaturizer(
                fitted.model, n_boundaries=2, step=0.5, random_state=0
            ).fit(images),
            images,
            15,
            "another network or with other settings",
        ),
        "images": (fitted, 1 - images, 15, "those from number 0 on are others"),
        "number": (fitted, images[:30], 15, "n_images=40, not 30"),
        "shard_size": (fitted, images, 10, "shard_size=15, not 10"),
        "zero": (fitted, images, 0, "shard_size must be a positive integer; got 0"),
        "none": (fitted, images[:0], 15, "X must hold at least one image; got none"),
    }


@pytest.mark.parametrize(
    "what", ["network", "step", "images", "number", "shard_size", "zero", "none"]
)
def test_what_is_other_is_refused(fitted, images, tmp_path, what):
    transform_in_shards(fitted, images[0], tmp_path, shard_size=15)
    featurizer, X, shard_size, message = others(fitted, images[0])[what]
    with pytest.raises(ValueError, match=message):
        transform_in_shards(featurizer, X, tmp_path, shard_size=shard_size)


def test_a_folder_of_a_later_version(fitted, images, tmp_path):
    (tmp_path / "manifest.json").write_text('{"version": 99}')
    with pytest.raises(ValueError, match="another version of curvdetect"):
        transform_in_shards(fitted, images[0], tmp_path)


def test_scores_in_shards(learned, images, tmp_path):
    X = images[0]
    scores = score_in_shards(learned, X, tmp_path / "a", shard_size=15, verbose=0)
    np.testing.assert_allclose(scores, learned.score_samples(X), atol=0.05)
    with metrics.count_passes(learned.model_.module) as passes:
        again = score_in_shards(learned, X, tmp_path / "a", shard_size=15, verbose=0)
    assert passes.forward_equivalents == 0
    np.testing.assert_array_equal(again, scores)
    guard = GuardedClassifier(learned.model, detector=clone(learned))
    guard.fit(np.concatenate([X[::-1], X]))
    with pytest.raises(ValueError, match="hold the same scores; .* other settings"):
        score_in_shards(guard, X, tmp_path / "a", shard_size=15, verbose=0)
    with pytest.raises(TypeError, match="a learned detector or one that votes"):
        score_in_shards(CurvatureFeaturizer(learned.model), X, tmp_path / "b")


def test_scores_by_votes_in_shards(voting, images, tmp_path):
    X = images[0]
    scores = score_in_shards(voting, X, tmp_path, shard_size=15, verbose=0)
    np.testing.assert_array_equal(scores, voting.score_samples(X))
    guard = GuardedClassifier(voting.model, detector=clone(voting)).fit(X)
    with metrics.count_passes(voting.model_.module) as passes:
        again = score_in_shards(guard, X, tmp_path, shard_size=15, verbose=0)
    assert passes.forward_equivalents == 0  # the same key, from the same seed
    np.testing.assert_array_equal(again, scores)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", 0.06),
        ("n_votes", 21),
        ("key_", "00"),
        ("least_votes_", 3),
        ("weights_", "others"),
        ("companion_weights_", "others"),
        ("companion_", Companion(TorchModel(LeNet().eval(), input_shape=(1, 28, 28)))),
    ],
)
def test_scores_by_other_votes_are_refused(voting, images, tmp_path, name, value):
    X = images[0][:3]
    score_in_shards(voting, X, tmp_path, verbose=0)
    setattr(voting, name, value)
    with pytest.raises(ValueError, match="hold the same scores; .* other settings"):
        score_in_shards(voting, X, tmp_path, verbose=0)


def test_scores_by_votes_and_a_learned_detector(voting, learned, images, tmp_path):
    X = images[0][:3]
    score_in_shards(voting, X, tmp_path / "a", verbose=0)
    voting.detector_ = learned
    with pytest.raises(ValueError, match="hold the same scores"):
        score_in_shards(voting, X, tmp_path / "a", verbose=0)
    scores = score_in_shards(voting, X, tmp_path / "b", verbose=0)
    np.testing.assert_allclose(scores, voting.score_samples(X), atol=0.05)
    learned.threshold_ += 1
    with pytest.raises(ValueError, match="hold the same scores"):
        score_in_shards(voting, X, tmp_path / "b", verbose=0)
