"""Resampled figures against scikit-learn's weighted ones and closed forms."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmarks.evidence.statistics import (
    Resampled,
    auroc,
    compared,
    holm,
    resampled,
    share,
    weights,
)


def test_each_resample_has_the_area_of_scikit_learn_with_these_weights():
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 8, 12).astype(float)  # with ties
    source = np.array([0, 0, 3, 5, 11, 7])
    adversarial = rng.integers(3, 10, len(source)).astype(float)
    drawn = weights(12, 30)
    areas = auroc(clean, adversarial, source, drawn)
    y = np.repeat([0, 1], [len(clean), len(source)])
    for area, of in zip(areas, drawn, strict=True):
        expected = roc_auc_score(
            y,
            np.concatenate([clean, adversarial]),
            sample_weight=np.concatenate([of, of[source]]),
        )
        assert area == pytest.approx(expected)


def test_scores_of_the_first_images_alone_are_drawn_with_them():
    drawn = weights(10, 20)
    clean, adversarial, source = np.arange(4.0), np.array([2.5, 9.0]), np.array([1, 3])
    full = auroc(clean, adversarial, source, drawn)
    assert full == pytest.approx(auroc(clean, adversarial, source, drawn[:, :4]))


def test_the_first_row_is_the_sample_itself_and_others_draw_as_many():
    drawn = weights(50, 40, seed=3)
    assert drawn.shape == (41, 50)
    assert (drawn[0] == 1).all()
    assert (drawn.sum(axis=1) == 50).all()


def test_shares_count_an_image_as_often_as_it_is_drawn():
    drawn = np.array([[1, 1, 1.0], [3, 0, 0], [0, 1, 2]])
    hits, source = np.array([1.0, 0.0]), np.array([0, 2])
    assert share(hits, source, drawn) == pytest.approx([0.5, 1, 0])


def test_an_interval_of_a_share_is_the_binomial_ones():
    hits = np.repeat([1.0, 0.0], [60, 140])
    values = share(hits, np.arange(200), weights(200))
    of = Resampled(float(values[0]), values[1:]).estimate()
    expected = stats.binomtest(60, 200).proportion_ci(method="wilson")
    assert of.value == 0.3
    assert (of.low, of.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_no_kind_weighs_more_for_having_more_attacks():
    of = {"a 1": np.array([1.0]), "a 2": np.array([0.5]), "b": np.array([0.25])}
    kinds = {"a 1": "a", "a 2": "a", "b": "b"}
    assert resampled(of, kinds).value == 0.5


def test_paired_differences_are_narrower_than_the_figures():
    """Two detectors that differ by a constant on every image differ by it, exactly."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.8, 0.1, 2000)
    ours, other = Resampled(0.8, values), Resampled(0.75, values - 0.05)
    found = compared(ours, other)
    assert found.difference == pytest.approx((0.05, 0.05, 0.05))
    assert found.p == pytest.approx(1 / 2001)
    assert compared(other, ours).p == 1


def test_p_of_equals_is_uniform():
    """At a level of 10 %, a tenth of the comparisons of equals is called ahead."""
    rng = np.random.default_rng(2)
    n, called = 40, 0
    for _ in range(300):
        drawn = weights(n, 200, seed=int(rng.integers(2**31)))
        pair = [share(rng.random(n) < 0.5, np.arange(n), drawn) for _ in range(2)]
        made = [Resampled(float(values[0]), values[1:]) for values in pair]
        called += compared(*made).p < 0.1
    assert stats.binomtest(called, 300, 0.1).pvalue > 0.001


def test_holm_corrects_for_the_number():
    # The smallest times three, the next times two, and never below the one before.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []
