import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from curvdetect import CurvatureFeaturizer
from curvdetect.study import metrics


def test_auroc_is_scikit_learns(rng):
    clean, adversarial = rng.normal(size=80), rng.normal(1, size=60)
    figure = metrics.auroc(clean, adversarial)
    truth = np.repeat([0, 1], [80, 60])
    expected = roc_auc_score(truth, np.concatenate([clean, adversarial]))
    assert figure.value == pytest.approx(expected)
    assert figure.low < expected < figure.high


def test_auroc_interval_covers_the_truth():
    """Normal scores one apart have an AUROC of Phi(1 / sqrt 2) = 0.7602."""
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        figure = metrics.auroc(rng.normal(size=100), rng.normal(1, size=100))
        covered += figure.low <= 0.7602 <= figure.high
    assert covered >= 16  # 95 % of 20 is 19, with a standard deviation of 1


@pytest.mark.parametrize(
    "figure", [metrics.auroc, lambda *s: metrics.tpr_at_fpr(*s, 0.1)]
)
def test_scores_must_be_numbers(figure):
    for scores, message in (([0.0, np.nan], "1 NaN among 2"), ([], "0 NaN among 0")):
        with pytest.raises(ValueError, match=f"clean must hold .* got {message}"):
            figure(scores, [1.0, 2.0])
    alone = figure([0.0, 1.0], [2.0])
    assert alone.value == 1
    assert np.isnan(alone.low)


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.5])
def test_tpr_at_fpr_counts(rng, fpr):
    clean, adversarial = rng.normal(size=200), rng.normal(2, size=100)
    rates = [
        (np.mean(clean >= t), np.mean(adversarial >= t))
        for t in [*clean, *adversarial, np.inf]
    ]
    expected = max(tpr for reached, tpr in rates if reached <= fpr)
    assert metrics.tpr_at_fpr(clean, adversarial, fpr).value == pytest.approx(expected)


def test_share_at_the_ends():
    assert metrics.proportion([True] * 10).high == pytest.approx(1)
    assert metrics.proportion([True] * 10).low < 0.8
    assert np.isnan(metrics.proportion([]).value)


def test_mean_norm_interval():
    figure = metrics.mean_norm([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert figure == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-5)


def test_passes_are_counted_where_they_go_through(model, images):
    x = torch.from_numpy(images[0][:6]).requires_grad_()
    with metrics.count_passes(model.module) as passes:
        model.logits(x)
        assert (passes.forward, passes.backward) == (6, 0)
        torch.autograd.grad(model.logits(x[:4]).sum(), x)
        torch.nn.Linear(784, 2)(x.flatten(1)).sum().backward()  # another network
    model.logits(x)  # no longer
    assert (passes.forward, passes.backward) == (10, 4)
    assert passes.forward_equivalents == 18


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, 220),  # about (L - 1) (2 n_directions + 10), it says
        ({"n_boundaries": 3, "n_curved": 2, "n_directions": 3}, 62),
        ({"n_boundaries": 5}, 130),
        ({"at": "input"}, 1 + 9 * (2 + 14)),
        ({"features": ("laplacian",)}, 1 + 9 * 2 + 14),
    ],
)
def test_the_featurizer_costs_what_it_says(model, images, settings, limit):
    """Passes are the same on every machine: a change that adds some shows here."""
    featurizer = CurvatureFeaturizer(model, step=0.44, random_state=0, **settings)
    featurizer.fit_transform(images[0])
    with metrics.count_passes(model.module) as passes:
        featurizer.transform(images[0])
    assert passes.forward_equivalents / len(images[0]) <= limit
