"""Sections of reports: a picture is a module, and any experiment can use it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from curvdetect import CurvatureRelabeler, CurvatureThresholdDetector
from curvdetect.attacks import AdversarialSet
from curvdetect.report.sections import (
    average_curvature,
    before_and_after,
    figures_table,
    numbered_pictures,
    relabel_rank,
    roc_curve,
    scores,
)
from curvdetect.report.sections.base import Measured, drawn, joined
from curvdetect.study import metrics


@pytest.fixture
def measured(rng):
    """Sixty images of three classes; the attack failed on the first six."""
    label = np.arange(60) % 3
    image = rng.random((60, 1, 4, 4), dtype=np.float32)
    predicted = (label[6:] + 1) % 3
    images = AdversarialSet(
        image, label, image[6:] / 2, label[6:], predicted, np.arange(6, 60)
    )
    clean = np.where(np.eye(3)[label] == 1, np.nan, rng.normal(0, 1, (60, 3)))
    adversarial = np.where(np.eye(3)[predicted] == 1, np.nan, 3.0)
    detector = CurvatureThresholdDetector().fit(*joined(clean, adversarial))
    relabeler = CurvatureRelabeler().fit(clean)
    return Measured("one way", None, images, clean, adversarial, detector, relabeler)


@pytest.mark.parametrize(
    "section",
    [average_curvature, relabel_rank, roc_curve, scores],
    ids=lambda section: section.__name__.rpartition(".")[2],
)
def test_ways_of_measuring_are_side_by_side(section, measured):
    figure = drawn(section, measured, replace(measured, title="another"))
    assert [ax.get_title() for ax in figure.axes] == ["one way", "another"]
    assert all(ax.has_data() for ax in figure.axes)
    width, height = section.SIZE
    assert tuple(figure.get_size_inches()) == (2 * width, height)


def test_a_section_of_ones_own(measured):
    section = SimpleNamespace(
        SIZE=(3.0, 2.0),
        CAPTION="the largest of each.",
        draw=lambda ax, m: ax.plot(np.nanmax(m.clean, axis=1)),
    )
    (ax,) = drawn(section, measured).axes
    assert len(ax.lines[0].get_ydata()) == 60
    assert ax.get_title() == ""
    page = numbered_pictures.as_markdown({1: section}, {2: section})
    assert (
        page.splitlines()[2] == "| ![](figure1.png) | Figure 1: the largest of each. |"
    )
    assert page.endswith("\n\nFigure 2: the largest of each.\n\n![](figure2.png)")


def test_pictures_of_the_originals(measured):
    natural, perturbed = np.array([0, 5]), np.array([1, 2])
    clean, adversarial = measured.pictures(natural, perturbed)
    np.testing.assert_array_equal(clean, measured.clean[[6, 11]])
    np.testing.assert_array_equal(adversarial, measured.adversarial[[1, 2]])


def test_images_before_and_after(measured):
    figure = Figure(before_and_after.SIZE)
    before_and_after.draw(figure, measured, ["zero", "one", "two"])
    titles = [ax.get_title().splitlines() for ax in figure.axes]
    assert [title[0] for title in titles] == [
        "zero",
        "one",
        "two",
        "one",
        "two",
        "zero",
    ]
    assert "flagged" in titles[3][1]
    assert all(title[2].startswith("relabelled ") for title in titles[3:])


def test_tables():
    text = figures_table.as_text(
        {"AUROC": metrics.Estimate(0.9, 0.85, 0.925)}, {"AUROC": "good"}
    )
    assert " ".join(text.splitlines()[1].split()) == "AUROC 0.900 0.850 to 0.925 good"
    ours = {"this": {"AUROC": [0.9, 0.8, 1]}, "that": {"AUROC": [0.7, 0.6, 0.8]}}
    assert figures_table.as_markdown({"AUROC": "not given"}, ours).splitlines() == [
        "| | the report | this | that |",
        "| --- | --- | --- | --- |",
        "| AUROC | not given | 0.900 (0.80 to 1.00) | 0.700 (0.60 to 0.80) |",
    ]
