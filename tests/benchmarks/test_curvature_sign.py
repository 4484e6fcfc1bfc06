"""The table of signs, and what `curvdetect reproduce` says of it."""

import numpy as np
import pytest
import torch

from benchmarks.common.results import read
from benchmarks.geometry import curvature_sign, curvature_sign_report
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.report import _reproduce_page


def figures(natural, perturbed, auroc):
    return {
        "auroc": auroc,
        "natural": {"mean": {"value": natural}, "largest": {"value": natural}},
        "perturbed": {"mean": {"value": perturbed}, "largest": {"value": perturbed}},
    }


def test_signs_count_with_their_whole_intervals():
    below, above, both = [-2, -3, -1], [2, 1, 3], [-1, -2, 0.1]
    signs = curvature_sign_report.signs
    assert signs(figures(below, above, [1, 1, 1])) == "as in the report (mean)"
    assert signs(figures(both, above, [1, 1, 1])) == "other"
    assert signs(figures(above, below, [0, 0, 0])) == "other"


def test_the_rule_holds_where_the_interval_lies_above_a_half():
    holds = curvature_sign_report.rule_holds
    assert holds({"auroc": [0.7, 0.51, 0.8]})
    assert not holds({"auroc": [0.7, 0.49, 0.8]})


def test_the_sign_is_that_of_the_surface():
    """Within a ball of the predicted class the boundary is convex: +1 / r."""

    class Ball(torch.nn.Module):
        def forward(self, x):
            return torch.stack([1 - x.square().sum(1), x.square().sum(1) - 1], 1)

    model = TorchModel(Ball().eval(), input_shape=(6,), bounds=None)
    inside = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    inside *= 0.5 / np.linalg.norm(inside, axis=1, keepdims=True)
    measured = CurvatureFeaturizer(model, step=0.05, random_state=0).fit(inside)
    found = curvature_sign.of_images(measured.transform(inside))
    assert found["mean"]["value"].value == pytest.approx(1, rel=0.05)
    assert found["largest"]["positive"].value == 1
    outside = curvature_sign.of_images(measured.transform(4 * inside))
    assert outside["mean"]["value"].value == pytest.approx(-1, rel=0.05)


def test_an_image_without_a_boundary_is_left_out():
    curvatures = np.array([[np.nan, 1.0], [np.nan, np.nan], [2.0, np.nan]])
    assert curvature_sign.bounded(curvatures).shape == (2, 2)


def test_reproduce_says_what_was_measured():
    found = list(read("curvature_sign").values())
    signed = sum(curvature_sign_report.signs(of) != "other" for of in found)
    rule = sum(curvature_sign_report.rule_holds(of) for of in found)
    turned = sum(of["auroc"][2] < 0.5 for of in found)
    said = " ".join(_reproduce_page.BEYOND.split())
    assert f"of {len(found)} that were measured" in said
    assert f"same on {signed} and the rule on {rule}" in said
    assert f"on {turned} it is the other way round" in said
