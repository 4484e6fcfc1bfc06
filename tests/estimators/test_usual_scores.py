"""What is usual of a label is taken off its scores: closed forms, and a simulation."""

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import LearnedDetector, TorchModel
from curvdetect.estimators._evidence import Columns, Evidence
from curvdetect.estimators._lessons import CLEAN, CORRUPTED, Material, usual_scores


def evidence(n_classes):
    return Evidence(None, n_classes, 1.0, np.ones(1))


def material(label, lesson):
    """Rows of which only the label is known, as the first stage holds it."""
    n = len(label)
    candidate = torch.zeros(n, 1, 4, dtype=torch.float64)
    candidate[:, 0, 3] = torch.from_numpy(label)
    columns = Columns(torch.zeros(n, 1), candidate, torch.zeros(n, 1, dtype=int))
    return Material([columns], np.where(lesson < 0, CLEAN, 0), lesson, np.arange(n))


def test_it_is_the_difference_of_upper_quartiles_as_far_as_it_is_trusted():
    label = np.repeat([0, 1, 2], [20, 60, 1])
    lesson = np.full(81, CLEAN)
    scores = np.concatenate([np.arange(20.0), np.arange(60.0), [5.0]])
    scores = [scores, 2 * scores, 3 * scores]
    found = usual_scores(material(label, lesson), evidence(4), scores)
    of_all = np.quantile(scores[0], 0.75)
    expected = [
        20 / 40 * (14.25 - of_all),
        60 / 80 * (44.25 - of_all),
        1 / 21 * (5 - of_all),
        0.0,  # none
    ]
    np.testing.assert_allclose(found, np.outer([1, 2, 3], expected))


def test_only_clean_images_tell():
    label, lesson = np.repeat([0, 1], 40), np.full(80, CLEAN)
    scores = [np.random.default_rng(0).normal(size=80)] * 3
    alone = usual_scores(material(label, lesson), evidence(2), scores)
    more = np.concatenate([lesson, np.repeat([CORRUPTED, 0, 3], 10)])
    with_others = usual_scores(
        material(np.concatenate([label, np.zeros(30, int)]), more),
        evidence(2),
        [np.concatenate([of, np.full(30, 99.0)]) for of in scores],
    )
    np.testing.assert_array_equal(with_others, alone)
    assert np.abs(alone).max() > 0


def test_many_classes_have_no_labels_of_their_own():
    rows = material(np.zeros(5, int), np.full(5, CLEAN))
    found = usual_scores(rows, evidence(33), [np.arange(5.0)] * 3)
    np.testing.assert_array_equal(found, np.zeros((3, 33)))


@pytest.mark.parametrize("largest", [1.0, 1e6, 1e9, 1e30])
def test_labels_are_exact_however_large_logits_are(largest):
    """What is small beside the largest logit is rounded away; classes are not."""
    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)) * largest
    seen = evidence(10)
    columns = seen._alone(logits, seen._candidates(logits))
    assert torch.equal(seen.labels(columns), logits.argmax(dim=1))
    assert torch.equal(columns.candidate[:, :, 2].long(), columns.classes)


@pytest.fixture(scope="module")
def fitted():
    """Four classes in twelve dimensions, two of which lie near each other."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    centres = random.uniform(0.25, 0.75, (4, 12))
    centres[3] = centres[2] + 0.08

    def points(n):
        y = random.integers(0, 4, n)
        X = centres[y] + 0.08 * random.normal(size=(n, 12))
        return X.clip(0, 1).astype(np.float32), y

    network = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    X, y = map(torch.from_numpy, points(2000))
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(X), y).backward()
        optimizer.step()
    network.zero_grad()
    model = TorchModel(network.eval(), input_shape=(12,))
    detector = LearnedDetector(
        model, target_fpr=0.1, self_test=False, random_state=0
    ).fit(*points(500))
    return detector, points(4000)


def raw_scores(detector, X):
    """Return what `examine` finds, and the scores without what is usual."""
    without = LearnedDetector()
    without.__dict__.update(detector.__dict__)
    without.__dict__.pop("_ready", None)
    without.usual_ = np.zeros_like(detector.usual_)
    return detector.examine(X), without.examine(X).score


@pytest.fixture
def in_all_stages(fitted, monkeypatch):
    """All images go through all stages, so that the same forests decide."""
    detector, points = fitted
    monkeypatch.setattr(detector, "doubt_", np.array([[-1e9, 1e9]] * 2))
    monkeypatch.delitem(detector.__dict__, "_ready")
    yield detector, points
    detector.__dict__.pop("_ready", None)


def test_scores_are_those_of_the_forests_less_what_is_usual(in_all_stages):
    detector, (X, _) = in_all_stages
    found, raw = raw_scores(detector, X[:300])
    label = found.logits.argmax(axis=1)
    np.testing.assert_allclose(found.score, raw - detector.usual_[-1][label])
    assert np.ptp(detector.usual_[-1]) > 0.1


def test_classes_near_each_other_are_flagged_less_often(in_all_stages):
    detector, (X, y) = in_all_stages
    found, raw = raw_scores(detector, X)
    label = found.logits.argmax(axis=1)

    def worst(score):
        """Return the largest share of a class above the score of 10 % of all."""
        above = score > np.quantile(score[label == y], 0.9)
        return max(above[(label == y) & (y == c)].mean() for c in range(4))

    assert worst(found.score) < worst(raw) - 0.02
