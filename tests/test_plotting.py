import numpy as np
import pytest
from matplotlib.figure import Figure

from curvdetect import CurvatureFeaturizer, CurvatureRelabeler
from curvdetect.plotting import AverageCurvatureDisplay, RelabelRankDisplay


@pytest.fixture
def ax():
    return Figure().subplots()


def test_average_curvature_from_images(model, images, ax):
    X = images[0][:6]
    featurizer = CurvatureFeaturizer(model, random_state=0, step=0.4).fit(X)
    display = AverageCurvatureDisplay.from_estimator(featurizer, X, X, ax=ax)
    assert display.ax_ is ax
    F = -np.sort(-featurizer.transform(X), axis=1)[:, :9]
    drawn = ax.lines[0].get_ydata()
    np.testing.assert_allclose(drawn, np.nanmedian(F, axis=0), rtol=1e-5)
    assert "1 / input units" in ax.get_ylabel()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "clean",
        "adversarial",
    ]


def test_relabel_ranks(ax):
    X = np.array([[np.nan, 0.3, 0.1], [0.2, np.nan, 0.4], [0.2, 0.1, np.nan]])
    relabeler = CurvatureRelabeler().fit(X)
    display = RelabelRankDisplay.from_estimator(relabeler, X, [1, 0, 0], ax=ax)
    np.testing.assert_allclose(display.share_, [2 / 3, 1 / 3])
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([2 / 3, 1 / 3])


def test_a_figure_is_made_when_none_is_given():
    import matplotlib.pyplot as plt

    display = RelabelRankDisplay.from_predictions([1, 2, 1], n_classes=4)
    assert display.ax_.figure is display.figure_
    plt.close(display.figure_)
