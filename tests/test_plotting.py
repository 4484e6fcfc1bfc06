import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from curvdetect import CurvatureFeaturizer, CurvatureRelabeler, TorchModel
from curvdetect.geometry import principal_curvatures
from curvdetect.network import find_nearest_boundaries
from curvdetect.plotting import (
    AverageCurvatureDisplay,
    BoundarySectionDisplay,
    CurvatureProfileDisplay,
    FoolingRateDisplay,
    ProfileComparisonDisplay,
    RegionPathDisplay,
    RelabelRankDisplay,
    RobustnessDisplay,
)
from modules import Returns


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


# Curvature profiles -------------------------------------------------


def test_profile_from_images(model, images, ax):
    X = images[0][:2]
    display = CurvatureProfileDisplay.from_model(
        model, X, n_boundaries=2, step=0.3, ax=ax
    )
    nearest = find_nearest_boundaries(model, X, n_boundaries=2)
    found = principal_curvatures(nearest.margin, nearest.points, step=0.3)
    expected = found.values.reshape(2, 2, 783).mean(0)
    np.testing.assert_allclose(display.profile_, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), display.profile_[1])
    assert "1 / input units" in ax.get_ylabel()


def test_profile_leaves_missing_boundaries_out():
    curvatures = np.array([[[1.0, 3.0], [np.nan, np.nan]], [[5.0, 3.0], [2.0, 4.0]]])
    display = CurvatureProfileDisplay(curvatures=curvatures)
    np.testing.assert_array_equal(display.profile_, [[4, 2], [4, 2]])
    missing = CurvatureProfileDisplay(curvatures=curvatures[:1])
    assert np.isnan(missing.profile_[1]).all()


def test_profile_needs_three_axes():
    with pytest.raises(ValueError, match="n_images, n_boundaries, m.* got shape"):
        CurvatureProfileDisplay(curvatures=np.ones((2, 3)))


# Sections -----------------------------------------------------------


@pytest.fixture
def ball():
    """Class 0 within a ball of radius 2 around the origin, class 1 outside."""
    logits = lambda x: torch.stack([4 - x.square().sum(1), 0 * x[:, 0]], dim=1)
    return TorchModel(Returns(logits), input_shape=(3,), bounds=None)


def test_section_of_a_ball(ball, ax):
    x = np.array([0.0, 0.0, 1.5])
    display = BoundarySectionDisplay.from_model(
        ball, x, y=[1.0, 0.0, 2.0], tangent=[1.0, 0.0, 0.0], extent=5, ax=ax
    )
    assert display.curvature_ == pytest.approx(0.5, rel=1e-3)
    assert display.x_ == pytest.approx((0, 0.5), abs=1e-3)
    assert display.y_ == pytest.approx((1, 0), abs=1e-3)
    a, b = np.meshgrid(np.linspace(-5, 5, 81), np.linspace(-5, 5, 81))
    np.testing.assert_allclose(display.margin_, 4 - a**2 - (b - 2) ** 2, atol=1e-2)
    (circle,) = ax.patches
    assert circle.center == pytest.approx((0, 2), rel=1e-2)
    assert circle.radius == pytest.approx(2, rel=1e-2)
    assert ax.get_aspect() == 1


def test_section_of_a_network(model, images, ax):
    """z is on the boundary, x on the predicted side."""
    display = BoundarySectionDisplay.from_model(
        model, images[0][0], step=0.3, n_points=21, ax=ax
    )
    middle = display.margin_[10, 10]
    assert abs(middle) < 1e-2 * np.abs(display.margin_).max()
    assert display.x_[1] > 0
    other = int(find_nearest_boundaries(model, images[0][:1]).margin.other)
    same = BoundarySectionDisplay.from_model(
        model, images[0][0], other=other, step=0.3, n_points=21, ax=ax
    )
    np.testing.assert_allclose(same.margin_, display.margin_, rtol=1e-3, atol=1e-3)


def test_a_flat_section_has_no_circle(ax):
    display = BoundarySectionDisplay.from_predictions(
        np.linspace(-1, 1, 9)[:, None].repeat(9, 1),
        extent=1,
        curvature=1e-3,
        x=(0, 0.5),
        ax=ax,
    )
    assert not display.ax_.patches


def test_what_a_section_refuses(ball, model, images):
    x = np.array([0.0, 0.0, 1.5])
    with pytest.raises(ValueError, match="z is the point nearest to x"):
        BoundarySectionDisplay.from_model(ball, x)
    with pytest.raises(ValueError, match=r"other must be one of .* \[1\]; got 0"):
        BoundarySectionDisplay.from_model(ball, x, other=0)


# Robustness and topology --------------------------------------------


def test_robustness_of_a_ball(ball, ax):
    """From its centre every direction is as long as the shortest way."""
    x = np.array([[0.0, 0.0, 1e-3], [1e-3, 0.0, 0.0]])
    display = RobustnessDisplay.from_model(ball, x, max_norm=4, ax=ax)
    for norms in display.norms_.values():
        np.testing.assert_allclose(norms, 2, rtol=1e-2)
    assert display.norms_["random direction"].shape == (32,)
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["adversarial, median 2", "random direction, median 2"]
    assert "input units" in ax.get_xlabel()


def test_robustness_draws_shares(ax):
    RobustnessDisplay.from_predictions({"a": [1.0, 2.0, np.inf, 3.0]}, ax=ax)
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(0.75)


def test_robustness_with_zeros_and_with_nothing_to_draw(ax):
    display = RobustnessDisplay.from_predictions(
        {"a": [0.0, 0.3], "b": [np.inf]}, ax=ax
    )
    labels = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert labels == ["a, median 0.15 (50 % zero)", "b, median inf (100 % not found)"]
    RobustnessDisplay.from_predictions({"b": [np.inf]}, ax=Figure().subplots())


def test_no_series_is_dropped(ax):
    names = [str(k) for k in range(7)]
    display = RobustnessDisplay.from_predictions({k: [1.0, 2.0] for k in names}, ax=ax)
    assert len(display.ax_.get_legend().get_texts()) == 7
    ax = Figure().subplots()
    FoolingRateDisplay.from_predictions({k: ([1], [0.5]) for k in names}, ax=ax)
    assert len(ax.lines) == 7
    ax = Figure().subplots()
    ProfileComparisonDisplay.from_predictions({k: [[1.0, 2.0]] for k in names}, ax=ax)
    assert len(ax.get_legend().get_texts()) == 7


def test_a_path_that_was_not_found_says_so(ax):
    def two_discs(x):
        shift = torch.tensor([2.0, 0.0]).to(x)
        nearest = torch.minimum((x - shift).norm(dim=1), (x + shift).norm(dim=1))
        return torch.stack([1 - nearest, 0 * nearest], dim=1)

    model = TorchModel(Returns(two_discs), input_shape=(2,), bounds=None, batch_size=1)
    display = RegionPathDisplay.from_model(
        model, [2.0, 0.2], [-2.0, 0.3], n_levels=2, n_points=5, ax=ax
    )
    assert not display.found_
    assert ax.get_legend().get_texts()[0].get_text() == "no path found"


def test_fooling_rates(ax):
    curves = {"adversarial": ([0.1, 1], [0.2, 1]), "universal": ([1, 10], [0.1, 0.9])}
    FoolingRateDisplay.from_predictions(curves, p=np.inf, ax=ax)
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [1, 10])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [0.1, 0.9])
    assert ax.get_xlabel() == "L-infinity norm (input units)"


def test_path_around_a_hole(ax):
    ring = lambda x: 1 - (x.norm(dim=1) - 2) ** 2
    logits = lambda x: torch.stack([ring(x), 0 * x[:, 0]], dim=1)
    model = TorchModel(Returns(logits), input_shape=(2,), bounds=None)
    a, b = np.array([2.0, 0.3]), np.array([-2.0, 0.3])
    display = RegionPathDisplay.from_model(model, a, b, ax=ax)
    assert set(np.unique(display.classes_)) == {0, 1}
    np.testing.assert_allclose(display.path_[0], [0, 0], atol=1e-9)
    np.testing.assert_allclose(display.path_[-1], [4, 0], atol=1e-9)
    # In two dimensions nothing is lost by projection: the path goes up, and across is
    # up too, towards the vertex that is farthest from the line.
    s, t = np.meshgrid(*display.axes_)
    x = torch.from_numpy(np.stack([2 - s, 0.3 + t], axis=-1).reshape(-1, 2))
    expected = logits(x).argmax(1).reshape(s.shape)
    np.testing.assert_array_equal(display.classes_, expected)


def test_a_straight_path_has_a_plane_too(model, images, ax):
    label = model.predict(images[0])
    i, j = np.flatnonzero(label == label[0])[:2]
    display = RegionPathDisplay.from_model(
        model, images[0][i], images[0][j], n_points=11, ax=ax
    )
    assert display.classes_.shape == (11, 11)
    distance = np.linalg.norm(images[0][i] - images[0][j])
    assert display.path_[-1, 0] == pytest.approx(distance, rel=1e-5)
    with pytest.raises(ValueError, match="two different images"):
        RegionPathDisplay.from_model(model, images[0][i], images[0][i])


def test_comparison_of_profiles(ax):
    profiles = {"before": [[3.0, -5.0], [5.0, -1.0]], "after": [[1.0, -1.0]]}
    display = ProfileComparisonDisplay.from_predictions(profiles, ax=ax)
    np.testing.assert_array_equal(display.quartiles_["before"][1], [4, -3])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [4, -3])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["before", "after"]


def test_classes_are_called_by_their_names(lenet, images, ax):
    """In the legends: of several names of a class, the first."""
    names = [f"name {k}, and more" for k in range(10)]
    model = TorchModel(lenet, input_shape=(1, 28, 28), class_names=names)
    X, predicted = images[0], model.predict(images[0])
    section = BoundarySectionDisplay.from_model(model, X[0], n_points=5, ax=ax)
    assert section.sides_[0] == f"name {predicted[0]}"
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown[-2:] == list(section.sides_)
    i, j = np.flatnonzero(predicted == predicted[0])[:2]
    path = RegionPathDisplay.from_model(
        model, X[i], X[j], n_points=5, ax=Figure().subplots()
    )
    shown = [text.get_text() for text in path.ax_.get_legend().get_texts()]
    assert f"name {predicted[0]}" in shown
