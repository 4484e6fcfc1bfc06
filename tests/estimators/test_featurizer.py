import re
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from curvdetect import CurvatureFeaturizer, GuardedClassifier, TorchModel
from curvdetect.estimators import featurizer as featurizer_module
from curvdetect.study.networks import LeNet
from modules import AnyWidth, Returns, SmoothNet


class Cone(nn.Module):
    """Two classes: inside and outside a ball of radius 1 about the origin."""

    def forward(self, x):
        radius = x.flatten(1).norm(dim=1)
        return torch.stack([1 - radius, radius - 1], dim=1)


@pytest.fixture
def cone():
    return TorchModel(Cone().eval(), input_shape=(3,), bounds=None)


class Wedges(nn.Module):
    """Three classes whose boundaries are planes at known distances."""

    def forward(self, x):
        return torch.stack([0 * x[:, 0], x[:, 0] - 1, 2 * (x[:, 1] - 2)], dim=1)


# What it measures ---------------------------------------------------


@pytest.mark.parametrize("method", ["forward", "gradient", "autodiff"])
@pytest.mark.parametrize(
    ("x", "sign", "at"),
    [
        (0.5, 1, "boundary"),
        (1.5, -1, "boundary"),
        (0.5, 2, "input"),
        (2.0, -0.5, "input"),
    ],
)
def test_curvature_of_a_ball(cone, method, x, sign, at):
    """+1 from inside, -1 from outside; at the input, the ball through it."""
    X = np.array([[x, 0.0, 0.0], [0.0, -x, 0.0]])
    featurizer = CurvatureFeaturizer(
        cone, at=at, method=method, step=1e-3, features=("curvature", "distance")
    )
    F = featurizer.fit_transform(X)
    other = 1 if x < 1 else 0
    np.testing.assert_allclose(F[:, other], sign, rtol=2e-3)
    np.testing.assert_allclose(F[:, 2 + other], abs(x - 1), rtol=1e-3)
    assert np.isnan(F[:, 1 - other]).all()


def test_distances_to_planes_and_their_order():
    model = TorchModel(Wedges().eval(), input_shape=(2,), bounds=None)
    X = np.array([[0.0, 0.0], [0.5, 1.9]])
    settings = {"features": ("distance", "curvature"), "step": 0.1}
    by_class = CurvatureFeaturizer(model, **settings).fit_transform(X)
    np.testing.assert_allclose(by_class[:, 1:3], [[1, 2], [0.5, 0.1]], rtol=1e-3)
    nearest = CurvatureFeaturizer(model, layout="nearest", **settings).fit_transform(X)
    np.testing.assert_allclose(nearest[:, :2], [[1, 2], [0.1, 0.5]], rtol=1e-3)
    np.testing.assert_allclose(nearest[:, 2:], 0, atol=1e-4)


def test_laplacian_of_a_quadratic_margin():
    """F(x) - E F(x + h u) = c h^2 for F = -c |x|^2 + ..., whatever the direction."""
    module = Returns(
        lambda x: torch.stack([1 - 3 * x.square().sum(1), 0 * x[:, 0]], dim=1)
    )
    model = TorchModel(module, input_shape=(4,), bounds=None)
    X = np.full((2, 4), 0.1)
    featurizer = CurvatureFeaturizer(
        model, features=("laplacian",), laplacian_step=(0.5, 2.0), step=0.1
    )
    F = featurizer.fit_transform(X)
    assert featurizer.get_feature_names_out().tolist() == [
        "laplacian_h0.5_class0",
        "laplacian_h0.5_class1",
        "laplacian_h2_class0",
        "laplacian_h2_class1",
    ]
    np.testing.assert_allclose(F[:, [1, 3]], [[3 * 0.25, 3 * 4]] * 2, rtol=1e-6)


def test_automatic_step_is_the_median_distance(cone):
    X = np.array([[0.5, 0, 0], [0, 0.8, 0], [0, 0, 1.1]])
    featurizer = CurvatureFeaturizer(cone).fit(X)
    assert featurizer.step_ == pytest.approx(0.2, rel=1e-2)


@pytest.mark.parametrize("random_state", [0, 1, 2])
def test_the_automatic_step_asks_many_images(cone, random_state, monkeypatch):
    """All of 201, exactly; of 600 as many as it says, chosen at random."""
    radii = np.linspace(0.02, 0.9, 201)
    X = np.stack([radii, 0 * radii, 0 * radii], axis=1)
    featurizer = CurvatureFeaturizer(cone, random_state=random_state)
    assert featurizer.fit(X).step_ == pytest.approx(1 - np.median(radii), rel=1e-6)
    asked, nearest = [], featurizer_module.find_nearest_boundaries

    def recorded(model, images):
        asked.extend(images[:, 0].tolist())
        return nearest(model, images)

    monkeypatch.setattr(featurizer_module, "find_nearest_boundaries", recorded)
    radii = np.linspace(0.02, 0.9, 600)
    featurizer.fit(np.stack([radii, 0 * radii, 0 * radii], axis=1))
    assert len(set(asked)) == len(asked) == 256
    assert np.mean(asked) == pytest.approx(radii.mean(), abs=4 * radii.std() / 16)


def test_all_directions_are_the_limit_of_many():
    """On a smooth network: at a finite step through kinks, axes are special."""
    model = TorchModel(SmoothNet(), input_shape=(6,), bounds=None)
    X = np.random.default_rng(0).normal(size=(3, 6))
    run = lambda n, seed: CurvatureFeaturizer(
        model, n_directions=n, step=1e-3, random_state=seed
    ).fit_transform(X)
    exact, many = run("all", 0), run(20_000, 0)
    found = ~np.isnan(exact)
    spread = np.std([run(50, seed) for seed in range(30)], axis=0)[found]
    error = np.abs(many - exact)[found]
    assert (error < 5 * spread * (50 / 20_000) ** 0.5).all()


# Columns ------------------------------------------------------------


def test_layout_by_class(model, images):
    X = images[0]
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(X)
    F = featurizer.transform(X)
    assert F.shape == (40, 10)
    assert F.dtype == np.float32
    predicted = model.predict(X)
    assert np.isnan(F[np.arange(40), predicted]).all()
    assert np.isnan(F).sum() <= 40 + 4
    assert featurizer.get_feature_names_out()[3] == "curvature_class3"


def test_fewer_boundaries_are_the_nearest(model, images):
    X = images[0]
    settings = {"random_state": 0, "step": 0.4, "features": ("curvature", "distance")}
    everything = CurvatureFeaturizer(model, **settings).fit_transform(X)
    some = CurvatureFeaturizer(model, n_boundaries=3, **settings).fit_transform(X)
    chosen = ~np.isnan(some)
    assert (chosen[:, :10].sum(1) == 3).all()
    np.testing.assert_allclose(some[chosen], everything[chosen], rtol=1e-3, atol=1e-4)
    nearest = np.nanargmin(everything[:, 10:], axis=1)
    assert np.mean(chosen[np.arange(40), nearest]) > 0.9  # first order is not exact


def test_curved_boundaries_are_those_of_the_largest_laplacian(model, images):
    """Relative to the slope at the image, as far as they are not chosen already."""
    X = images[0]
    settings = {"random_state": 0, "step": 0.4, "n_directions": 4}
    everything = CurvatureFeaturizer(model, **settings).fit_transform(X)
    some = CurvatureFeaturizer(
        model, n_boundaries=4, n_curved=2, **settings
    ).fit_transform(X)
    laplacian = CurvatureFeaturizer(
        model, features=("laplacian",), **settings
    ).fit_transform(X)
    rows = np.arange(40)
    with model.evaluating():
        x = torch.from_numpy(X)
        logits, own = model.logits(x).numpy(), model.predict(X)
        jacobian = torch.func.vmap(
            torch.func.jacrev(lambda image: model.logits(image[None])[0])
        )(x).flatten(2)
        slope = (jacobian[rows, own][:, None] - jacobian).norm(dim=2).numpy()
    slope[rows, own] = np.nan
    slope[rows, logits.argmin(axis=1)] = np.nan  # only the eight largest are asked
    distance = (logits.max(axis=1, keepdims=True) - logits) / slope
    expected = np.zeros((40, 10), dtype=bool)
    expected[rows[:, None], distance.argsort(axis=1)[:, :2]] = True
    curved = np.where(expected | np.isnan(distance), -np.inf, laplacian / slope)
    expected[rows[:, None], curved.argsort(axis=1)[:, -2:]] = True
    np.testing.assert_array_equal(~np.isnan(some), expected)
    np.testing.assert_allclose(
        some[expected], everything[expected], rtol=1e-3, atol=1e-4
    )


def test_classes_without_gradient_are_chosen_last():
    """Class 1 is near; 2 and 3 have the same gradient as 0, and no boundary to it."""
    module = Returns(
        lambda x: torch.stack(
            [x[:, 0], 0 * x[:, 0], x[:, 0] - 1, x[:, 0] - 2, -x[:, 1] - 3], dim=1
        )
    )
    model = TorchModel(module, input_shape=(2,), bounds=None)
    X = np.array([[0.5, 0.1], [0.8, 0.3]])
    featurizer = CurvatureFeaturizer(
        model, step=0.1, n_boundaries=2, n_curved=1, random_state=0
    )
    F = featurizer.fit_transform(X)
    np.testing.assert_array_equal(~np.isnan(F), [[False, True, False, False, True]] * 2)
    # With more wanted than there are: none is taken twice.
    few = CurvatureFeaturizer(
        model, step=0.1, n_boundaries=4, n_curved=2, random_state=0
    )
    with pytest.warns(UserWarning, match="no boundary was found for 4 of 8"):
        assert (~np.isnan(few.fit_transform(X))).sum() == 4


def test_a_smaller_tolerance_gets_nearer(model, images):
    settings = {"random_state": 0, "step": 0.4, "features": ("distance",)}
    exact = CurvatureFeaturizer(model, tol=1e-6, **settings).fit_transform(images[0])
    errors = []
    for tol in (0.1, 0.01):
        F = CurvatureFeaturizer(model, tol=tol, **settings).fit_transform(images[0])
        errors.append(np.nanmean(np.abs(F / exact - 1)))
    assert errors[1] < errors[0] / 2
    assert errors[0] < 0.03


def test_layout_by_distance_has_no_nan(model, images):
    featurizer = CurvatureFeaturizer(
        model,
        layout="nearest",
        features=("distance", "curvature", "laplacian"),
        step=(0.2, 0.4),
        random_state=0,
    )
    F = featurizer.fit_transform(images[0])
    assert F.shape == (40, (1 + 2 + 2) * 9)
    assert np.isfinite(F).all()
    assert (np.diff(F[:, :9], axis=1) >= 0).all()
    names = featurizer.get_feature_names_out()
    assert names[0] == "distance_nearest0"
    assert names[9] == "curvature_h0.2_nearest0"
    assert names[-1] == "laplacian_h0.4_nearest8"


def test_many_classes_have_few_boundaries():
    """The five nearest of those that all are measured for, by distance."""
    torch.manual_seed(0)
    model = TorchModel(SmoothNet(n_classes=101), input_shape=(6,), bounds=None)
    X = np.random.default_rng(0).normal(size=(2, 6))
    settings = {"step": 0.1, "features": ("distance",), "random_state": 0}
    few = CurvatureFeaturizer(model, **settings)
    every = CurvatureFeaturizer(model, n_boundaries="all", **settings)
    F, all_of_them = few.fit_transform(X), every.fit_transform(X)
    assert F.shape == (2, 5)
    assert all_of_them.shape == (2, 101)
    assert few.cost() < every.cost() / 10
    # Chosen by first order among the ten largest logits: not all of them the nearest.
    np.testing.assert_allclose(F[:, 0], np.nanmin(all_of_them, axis=1), rtol=1e-3)
    known = np.isclose(F[:, :, None], all_of_them[:, None], rtol=1e-3).any(axis=2)
    assert known.all()
    with pytest.raises(ValueError, match="n_curved must be less than n_boundaries"):
        CurvatureFeaturizer(model, n_curved=2).fit(X)


def test_layouts_hold_the_same_numbers(model, images):
    settings = {"random_state": 0, "step": 0.4, "features": ("curvature", "distance")}
    by_class = CurvatureFeaturizer(model, **settings).fit_transform(images[0])
    nearest = CurvatureFeaturizer(model, layout="nearest", **settings).fit_transform(
        images[0]
    )
    for row, other in zip(by_class, nearest, strict=True):
        kept = np.flatnonzero(~np.isnan(row[:10]))
        order = kept[np.argsort(row[10:][kept], kind="stable")]
        np.testing.assert_allclose(other[: len(order)], row[:10][order], rtol=1e-6)


@pytest.mark.parametrize("at", ["boundary", "input"])
def test_missing_boundaries(at):
    """Class 2 never wins, class 3 has no gradient: one boundary of three is left."""
    module = Returns(
        lambda x: torch.stack(
            [1 - x[:, 0], x[:, 0], -5 - x[:, 0].detach() ** 2 - x[:, 0], 0.5 - x[:, 0]],
            dim=1,
        )
    )
    model = TorchModel(module, input_shape=(2,), bounds=(0, 1))
    X = np.full((3, 2), 0.1)
    settings = {"at": at, "step": 0.1, "features": ("curvature", "distance")}
    with pytest.warns(UserWarning, match="no boundary was found for 6 of 9"):
        by_class = CurvatureFeaturizer(model, **settings).fit_transform(X)
    assert (~np.isnan(by_class[:, :4])).sum(1).tolist() == [1, 1, 1]
    with pytest.warns(UserWarning, match="no boundary"):
        nearest = CurvatureFeaturizer(
            model, layout="nearest", **settings
        ).fit_transform(X)
    np.testing.assert_allclose(nearest[:, 3:], 0.4, rtol=1e-3)  # repeated


def test_no_boundary_at_all():
    model = TorchModel(
        Returns(lambda x: torch.stack([x[:, 0], x[:, 0] - 1], dim=1)), input_shape=(4,)
    )
    X = np.full((2, 4), 0.5)
    settings = {"step": 0.1, "features": ("curvature", "distance")}
    with pytest.warns(UserWarning, match="no boundary"):
        F = CurvatureFeaturizer(model, layout="nearest", **settings).fit_transform(X)
    np.testing.assert_allclose(F, [[0, 2]] * 2)
    with pytest.raises(ValueError, match='step="auto" found no boundary'):
        CurvatureFeaturizer(model).fit(X)


# One image, whatever company it keeps -------------------------------


@pytest.mark.parametrize("at", ["boundary", "input"])
def test_features_of_an_image_depend_on_nothing_else(lenet, images, at):
    X = images[0]
    settings = {
        "at": at,
        "random_state": 0,
        "step": 0.4,
        "features": ("curvature", "distance", "laplacian"),
    }

    def features(X, batch_size=None):
        model = TorchModel(lenet, input_shape=(1, 28, 28), batch_size=batch_size)
        return CurvatureFeaturizer(model, **settings).fit(images[0]).transform(X)

    together = features(X)
    # Relative to the size of each feature: curvatures cross zero.
    size = np.repeat(np.nanstd(together.reshape(40, 3, 10), axis=(0, 2)), 10)
    order = np.random.default_rng(0).permutation(40)
    others = {
        "alone": np.concatenate([features(X[k : k + 1]) for k in range(8)]),
        "batch size 16": features(X, 16),
        "batch size 1": features(X[:8], 1),
        "flattened": features(X.reshape(40, -1)),
        "tensor": features(torch.from_numpy(X)),
    }
    for name, other in others.items():
        error = np.abs(other - together[: len(other)]) / size
        assert np.nanmax(error) < 1e-4, name
        np.testing.assert_array_equal(np.isnan(other), np.isnan(together[: len(other)]))
    shuffled = features(X[order])
    assert np.nanmax(np.abs(shuffled - together[order]) / size) < 1e-4


def test_random_state_fixes_the_result(model, images):
    X = images[0][:3]
    run = lambda seed: CurvatureFeaturizer(
        model, random_state=seed, step=0.4
    ).fit_transform(X)
    np.testing.assert_array_equal(run(1), run(1))
    assert not np.allclose(run(1), run(2), equal_nan=True)


def test_global_random_numbers_are_not_touched(model, images):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    CurvatureFeaturizer(model, random_state=0).fit_transform(images[0][:2])
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients_around_it(model, images, context):
    expected = CurvatureFeaturizer(model, random_state=0).fit_transform(images[0][:2])
    with context():
        inside = CurvatureFeaturizer(model, random_state=0).fit_transform(
            torch.from_numpy(images[0][:2])
        )
    np.testing.assert_allclose(inside, expected, rtol=1e-5)


# scikit-learn ------------------------------------------------------------------------


def test_pandas_output(model, images):
    featurizer = CurvatureFeaturizer(model, random_state=0)
    frame = featurizer.set_output(transform="pandas").fit_transform(images[0][:3])
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == [f"curvature_class{k}" for k in range(10)]


def test_a_bare_module_is_wrapped(lenet, images):
    X = images[0][:3]
    bare = CurvatureFeaturizer(lenet, random_state=0).fit(X)
    wrapped = CurvatureFeaturizer(
        TorchModel(lenet, input_shape=(1, 28, 28)), random_state=0
    ).fit(X)
    np.testing.assert_array_equal(bare.transform(X), wrapped.transform(X))


@pytest.mark.parametrize("bare", [True, False])
def test_clone_shares_the_network_and_hashes_the_same(lenet, images, bare):
    model = lenet if bare else TorchModel(lenet, input_shape=(1, 28, 28))
    featurizer = CurvatureFeaturizer(model, n_directions=4).set_output(
        transform="pandas"
    )
    copy = clone(featurizer)
    assert copy.model is model
    assert copy.n_directions == 4
    assert copy._sklearn_output_config == featurizer._sklearn_output_config
    assert joblib.hash(copy) == joblib.hash(featurizer)
    assert joblib.hash(clone(featurizer)) == joblib.hash(featurizer)
    fitted = copy.fit(images[0][:2])
    assert not hasattr(clone(fitted), "model_")


@pytest.mark.parametrize("bare", [True, False])
def test_pickle(lenet, images, tmp_path, bare):
    model = lenet if bare else TorchModel(lenet, input_shape=(1, 28, 28))
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(images[0])
    joblib.dump(featurizer, tmp_path / "featurizer.joblib")
    other = joblib.load(tmp_path / "featurizer.joblib")
    assert joblib.hash(other) == joblib.hash(featurizer)
    np.testing.assert_allclose(
        other.transform(images[0][:4]), featurizer.transform(images[0][:4]), rtol=1e-5
    )


def test_progress_is_shown_when_asked_for(model, images, capsys):
    featurizer = CurvatureFeaturizer(model, verbose=1, step=0.4).fit(images[0])
    featurizer.transform(images[0])
    assert "40/40" in capsys.readouterr().err
    CurvatureFeaturizer(model, step=0.4).fit_transform(images[0])
    assert not capsys.readouterr().err


def test_no_images(model, images):
    featurizer = CurvatureFeaturizer(model, step=0.4).fit(images[0])
    with pytest.raises(ValueError, match="0 sample"):
        featurizer.transform(images[0][:0])


# Errors -------------------------------------------------------------


def test_images_with_the_channels_last_are_refused():
    module = Returns(lambda x: x.mean(dim=(2, 3)) * 10)
    model = TorchModel(module, input_shape=(3, 8, 8))
    rng = np.random.default_rng(0)
    first, last = rng.random((5, 3, 8, 8)), rng.random((5, 8, 8, 3))
    message = r"X must have shape \(n_samples, 3, 8, 8\) .* got \(5, 8, 8, 3\)"
    with pytest.raises(ValueError, match=message):
        CurvatureFeaturizer(model).fit(last)
    with pytest.raises(ValueError, match=message):
        CurvatureFeaturizer(model).fit(first).transform(last)
    with pytest.raises(ValueError, match=message):
        CurvatureFeaturizer(module).fit(first).transform(last)


def test_nan_logits_are_refused_at_transform():
    module = Returns(lambda x: x / (x[:, :1] > 0))
    featurizer = CurvatureFeaturizer(
        TorchModel(module, input_shape=(4,)), step=0.1, layout="nearest"
    )
    X = np.random.default_rng(0).random((30, 4))
    featurizer.fit(X)
    X[20] = 0
    with pytest.raises(ValueError, match="logits must be finite"):
        featurizer.transform(X)


def test_no_step_is_learned_that_no_feature_needs():
    """Not even where it could not be: this network has no boundary at all."""
    module = Returns(lambda x: torch.stack([x[:, 0], x[:, 0] - 1], dim=1))
    featurizer = CurvatureFeaturizer(
        TorchModel(module, input_shape=(4,)),
        features=("laplacian",),
        laplacian_step=1.0,
    )
    X = np.random.default_rng(0).random((5, 4))
    with pytest.warns(UserWarning, match="no boundary"):
        F = featurizer.fit_transform(X)
    assert np.isnan(featurizer.step_)
    assert F.shape == (5, 2)


@pytest.mark.parametrize("scale", [1, 30])
def test_every_boundary_of_a_linear_network_is_found(scale):
    """In single precision, where the sign may never change within rounding."""
    torch.manual_seed(0)
    module = nn.Linear(784, 10).eval()
    module.weight.data *= scale
    model = TorchModel(module, input_shape=(784,))
    X = np.random.default_rng(0).random((50, 784), dtype=np.float32)
    F = CurvatureFeaturizer(
        model, step=0.5, features=("curvature", "distance")
    ).fit_transform(X)
    assert np.isnan(F).sum() == 2 * 50  # the predicted class alone
    logits = model.predict_logits(X)
    i = logits.argmax(1)
    W = module.weight.detach().numpy()
    slope = np.linalg.norm(W[i][:, None] - W[None], axis=2)
    gap = logits[np.arange(50), i][:, None] - logits
    with np.errstate(invalid="ignore"):
        expected = np.where(gap == 0, np.nan, gap / slope)
    np.testing.assert_allclose(F[:, 10:], expected, rtol=1e-2, atol=1e-4)
    assert np.nanmax(np.abs(F[:, :10])) < 1e-3


def test_a_broken_network_is_found_before_any_work(images):
    module = Returns(lambda x: x.flatten(1)[:, :10] * float("nan"))
    with pytest.raises(ValueError, match="logits must be finite"):
        CurvatureFeaturizer(module).fit(images[0])


def test_a_step_that_rounding_swallows_warns(model, lenet, images):
    X = images[0][:3]
    settings = {"n_boundaries": 1, "random_state": 0}
    message = "step=0.001 is too small for second differences in float32.*0.0035, or"
    with pytest.warns(UserWarning, match=message):
        CurvatureFeaturizer(model, step=(0.4, 0.001), **settings).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CurvatureFeaturizer(model, step=0.004, **settings).fit(X)
        exact = TorchModel(lenet.double(), input_shape=(1, 28, 28))
        CurvatureFeaturizer(exact, step=0.001, **settings).fit(X)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [((0, 1), "0.0035"), ((0, 255), "0.89"), ((-1, 1), "0.007"), ((0, 3), "0.011")],
)
def test_the_step_that_is_recommended_does_not_warn(bounds, text):
    """10 times the range times the root of 2^-23 is 0.00345, 0.8804, 0.00691, ..."""
    smallest = 10 * (bounds[1] - bounds[0]) * 2**-11.5
    assert smallest <= float(text) < 1.1 * smallest
    model = TorchModel(LeNet(3, 8).eval(), input_shape=(1, 8, 8), bounds=bounds)
    X = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    settings = {"n_boundaries": 1, "n_directions": 1, "random_state": 0}
    with pytest.warns(UserWarning, match=f"Use at least {re.escape(text)}, or"):
        CurvatureFeaturizer(model, step=0.9 * smallest, **settings).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CurvatureFeaturizer(model, step=float(text), **settings).fit(X)


@pytest.mark.parametrize(
    "value", [1.0, 0.1, 0.01, 9.95, 9.99, 99.1, 0.0999, 1.2345e-7, 0.00345, 12345.6]
)
def test_numbers_are_rounded_up(value):
    assert value * (1 - 1e-12) <= float(featurizer_module._rounded_up(value))
    assert float(featurizer_module._rounded_up(value)) <= 1.1 * value * (1 + 1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda f, X: f.fit(X),
        lambda f, X: f.fit_transform(X),
        lambda f, X: make_pipeline(FunctionTransformer(), f).fit(X),
        lambda f, X: GuardedClassifier(
            f.model, featurizer=f.set_params(model=None), target_fpr=0.3
        ).fit(X),
    ],
)
def test_warnings_point_at_the_line_of_the_user(call):
    model = TorchModel(nn.Linear(4, 2).eval(), input_shape=(4,))
    X = np.random.default_rng(0).random((4, 4), dtype=np.float32)
    featurizer = CurvatureFeaturizer(
        model, step=0.001, n_boundaries=1, n_directions=1, random_state=0
    )
    with pytest.warns(UserWarning, match=r"step=0\.001 is too small") as caught:
        call(featurizer, X)
    assert {w.filename for w in caught} == {__file__}


def test_missing_boundaries_are_told_at_the_line_of_the_user():
    model = TorchModel(
        Returns(lambda x: torch.stack([x[:, 0], x[:, 0] - 1], dim=1)), input_shape=(4,)
    )
    featurizer = CurvatureFeaturizer(model, step=0.1).fit(np.full((2, 4), 0.5))
    for call in (featurizer.transform, featurizer.measure):
        with pytest.warns(UserWarning, match="no boundary") as caught:
            call(np.full((2, 4), 0.5))
        assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize(("n_missing", "told"), [(2, False), (3, True)])
def test_a_few_missing_boundaries_are_no_warning(n_missing, told):
    """Up to one in twenty: of 40 images with one boundary each, two."""
    flat = lambda x: torch.where(x[:, 0] > 5, 9 + 0 * x[:, 0], 1 - x[:, 0])
    module = Returns(lambda x: torch.stack([flat(x), 0 * x[:, 0]], dim=1))
    model = TorchModel(module, input_shape=(2,), bounds=None)
    X = np.random.default_rng(0).random((40, 2)) / 2
    featurizer = CurvatureFeaturizer(model, step=0.1, random_state=0).fit(X)
    X[:n_missing] = 1e6
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = featurizer.measure(X).found
    assert found[:, 0].tolist() == [False] * n_missing + [True] * (40 - n_missing)
    message = f"no boundary was found for {n_missing} of 40 pairs"
    assert [str(w.message).startswith(message) for w in caught] == [True] * told


def test_exact_derivatives_of_a_relu_network_warn(model, images):
    featurizer = CurvatureFeaturizer(model, method="autodiff", step=0.4).fit(images[0])
    with pytest.warns(UserWarning, match="piecewise linear"):
        featurizer.transform(images[0][:1])


@pytest.mark.filterwarnings("ignore:no boundary was found")  # to the far class
@pytest.mark.parametrize("n_classes", [2, 3])
def test_few_classes(n_classes):
    torch.manual_seed(0)
    model = TorchModel(LeNet(n_classes, 8).eval(), input_shape=(1, 8, 8))
    X = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)

    def with_a_far_class(x):
        logits = model.module(x)
        return torch.cat([logits, -99 + 0 * logits[:, :1]], dim=1)

    far = TorchModel(Returns(with_a_far_class), input_shape=(1, 8, 8))
    settings = {"step": 0.5, "features": ("distance", "curvature"), "random_state": 0}
    F, more = (
        CurvatureFeaturizer(network, n_boundaries=n_classes - 1, **settings)
        .fit_transform(X)
        .reshape(5, 2, -1)
        for network in (model, far)
    )
    own = np.eye(n_classes, dtype=bool)[model.predict(X)]
    assert np.isnan(F.swapaxes(1, 2)[own]).all()
    assert np.isfinite(F).any(axis=2).all()
    np.testing.assert_allclose(more[:, :, :-1], F, rtol=1e-3)
    assert np.isnan(more[:, :, -1]).all()


def test_any_width():
    model = TorchModel(AnyWidth().eval(), input_shape=None, bounds=None)
    X = np.random.default_rng(0).normal(size=(5, 7))
    settings = {"step": 0.1, "random_state": 0}
    F = CurvatureFeaturizer(model, **settings).fit_transform(X)
    assert F.dtype == np.float64
    known = TorchModel(model.module, input_shape=(7,), bounds=None)
    expected = CurvatureFeaturizer(known, **settings).fit_transform(X)
    np.testing.assert_array_equal(F, expected)
