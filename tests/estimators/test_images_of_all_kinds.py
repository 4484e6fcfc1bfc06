"""Images in other layouts are refused; in other containers they are the same images."""

import array
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.network.arrays import as_flat_array, from_numpy, plain_array

N, SHAPE = 12, (3, 4, 5)


class World:
    """A network that takes any layout without a word, and what is built on it."""

    def __init__(self):
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(60, 8), nn.Softplus(), nn.Linear(8, 3)
        ).eval()
        self.model = TorchModel(self.network, input_shape=SHAPE)
        rng = np.random.default_rng(0)
        self.X = rng.random((N, *SHAPE), dtype=np.float32)
        self.y = self.model.predict(self.X)
        self.guard = self.new_guard().fit(self.X)
        self.featurizer = self.guard.featurizer_

    def new_guard(self):
        parts = CurvatureFeaturizer(None, step=0.3, n_directions=1, random_state=0)
        return GuardedClassifier(self.model, featurizer=parts, target_fpr=0.2)

    def new_featurizer(self, network=None):
        return CurvatureFeaturizer(
            network or self.model, step=0.3, n_directions=1, random_state=0
        )


@pytest.fixture(scope="module")
def world():
    return World()


# What takes images, and what comes of them as one array.
LATER = {
    "transform": lambda w, X: w.featurizer.transform(X),
    "measure": lambda w, X: w.featurizer.measure(X).boundaries.numpy(),
    "assess": lambda w, X: w.guard.assess(X).score,
    "predict": lambda w, X: w.guard.predict(X),
    "predict_proba": lambda w, X: w.guard.predict_proba(X),
    "decision_function": lambda w, X: w.guard.decision_function(X),
    "anomaly_score": lambda w, X: w.guard.anomaly_score(X),
    "p_values": lambda w, X: w.guard.p_values(X),
    "score": lambda w, X: w.guard.score(X, w.y),
}
FIT = {
    "featurizer": lambda w, X: w.new_featurizer().fit(X).directions_,
    "bare": lambda w, X: w.new_featurizer(w.network).fit(X).transform(X),
    "fit_transform": lambda w, X: w.new_featurizer().fit_transform(X),
    "guard": lambda w, X: w.new_guard().fit(X, w.y).detector_.clean_scores_,
    "calibrate": lambda w, X: (
        CurvatureGuard(w.new_guard()).calibrate(X, w.y).guard.detector_.clean_scores_
    ),
}
MODEL = {
    "model": lambda w, X: w.model.predict_logits(X),
    "labels": lambda w, X: w.model.predict(X),
}
FORWARD = {"forward": lambda w, X: CurvatureGuard(w.guard)(torch.tensor(X)).score}

OTHER_LAYOUTS = {
    "channels last": lambda X: X.transpose(0, 2, 3, 1),
    "channels last, in memory": lambda X: np.ascontiguousarray(X.transpose(0, 2, 3, 1)),
    "height and width": lambda X: X.transpose(0, 1, 3, 2),
    "batch second": lambda X: X.transpose(1, 0, 2, 3),
    "batch last": lambda X: X.transpose(1, 2, 3, 0),
    "one image": lambda X: X[0],
    "two axes": lambda X: X.reshape(N, 12, 5),
    "a batch of batches": lambda X: X[None],
    "other size": lambda X: X[..., :4],
    "half the rows": lambda X: X.reshape(N // 2, 6, 4, 5),
    "one channel": lambda X: X[:, :1],
}


@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
@pytest.mark.parametrize("name", [*LATER, *MODEL, *FORWARD])
def test_other_layouts_are_refused(world, name, layout):
    call = {**LATER, **MODEL, **FORWARD}[name]
    X = OTHER_LAYOUTS[layout](world.X)
    expected = "X must have shape (n_samples, 3, 4, 5) or (n_samples, 60); got "
    with pytest.raises(ValueError, match=re.escape(f"{expected}{X.shape}")):
        call(world, X)


@pytest.mark.parametrize("name", [*LATER, *MODEL, *FORWARD])
def test_flat_images_are_the_same(world, name):
    call = {**LATER, **MODEL, **FORWARD}[name]
    flat = world.X.reshape(N, -1)
    np.testing.assert_array_equal(call(world, flat), call(world, world.X))


@pytest.mark.parametrize("bare", [True, False])
def test_the_shape_is_that_of_fit_where_the_model_takes_any(world, bare):
    model = world.network if bare else TorchModel(world.network, input_shape=None)
    featurizer = world.new_featurizer(model).fit(world.X)
    with pytest.raises(ValueError, match=r"n_samples, 3, 4, 5\).*got \(12, 4, 5, 3\)"):
        featurizer.transform(world.X.transpose(0, 2, 3, 1))


class LikeH5py:
    """What h5py.Dataset and others have in common."""

    def __init__(self, values):
        self._values, self.shape, self.dtype = values, values.shape, values.dtype

    def __len__(self):
        return len(self._values)

    def __getitem__(self, key):
        return self._values[key]

    def __array__(self, dtype=None, copy=None):
        return np.array(self._values, dtype=dtype)


class LikeAPicture:
    """What old pictures of Pillow have."""

    def __init__(self, values):
        self.__array_interface__ = values.__array_interface__
        self.kept = values


def of_objects(X):
    images = np.empty(len(X), dtype=object)
    images[:] = list(X)
    return images


def stored(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


def of_dask(X):
    return pytest.importorskip("dask.array").from_array(X, chunks=(7, 3, 4, 5))


CONTAINERS = {
    "list of arrays": list,
    "tuple of arrays": tuple,
    "list of tensors": lambda X: list(torch.from_numpy(X)),
    "list of leaves": lambda X: [torch.tensor(x, requires_grad=True) for x in X],
    "lists": lambda X: X.tolist(),
    "lists of channels": lambda X: [list(x) for x in X],
    "h5py": LikeH5py,
    "list of h5py": lambda X: [LikeH5py(x) for x in X],
    "pictures": lambda X: [LikeAPicture(x) for x in X],
    "dask": of_dask,
    "objects": of_objects,
    "not masked": lambda X: np.ma.masked_greater(X, 2),
    "leaf": lambda X: torch.tensor(X, requires_grad=True),
    "channels last in memory": lambda X: torch.tensor(X).to(
        memory_format=torch.channels_last
    ),
    "reversed": lambda X: X[::-1].copy()[::-1],
    "flat lists": lambda X: X.reshape(len(X), -1).tolist(),
    "flat tensors": lambda X: list(torch.from_numpy(X.reshape(len(X), -1))),
}


@pytest.mark.parametrize("name", [*LATER, *FIT, *MODEL])
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_container_does_not_matter(world, name, container):
    if name == "bare" and container.startswith("flat"):
        pytest.skip("a bare module has the shape of the images it is fitted with")
    call = {**LATER, **FIT, **MODEL}[name]
    before = world.X.copy()
    found = call(world, CONTAINERS[container](world.X))
    np.testing.assert_allclose(found, call(world, world.X), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(world.X, before)


def test_a_memory_map_is_only_read(world, tmp_path):
    mapped = stored(world.X, tmp_path)
    np.testing.assert_array_equal(
        world.featurizer.transform(mapped), world.featurizer.transform(world.X)
    )


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(SHAPE), 0


def pairs(X):
    return TensorDataset(torch.from_numpy(X), torch.zeros(len(X)).long())


NOT_CONVERTED = {
    "loader": (
        lambda X: DataLoader(pairs(X), batch_size=7),
        r"got DataLoader.*X, y = map\(torch.cat, zip\(\*loader\)\)",
    ),
    "dataset": (pairs, r"got TensorDataset.*X, y = zip\(\*\(dataset\[i\] for i in"),
    "iterable dataset": (lambda X: Endless(), r"got Endless.*list\(X\)"),
    "pairs": (
        lambda X: list(pairs(X)),
        r"one shape; got \(3, 4, 5\) and \(\) \(images with their labels",
    ),
    "images and labels": (lambda X: (X, np.zeros(N)), "images with their labels"),
    "batches": (
        lambda X: list(DataLoader(pairs(X), batch_size=7)),
        "images with their labels",
    ),
    "sizes": (lambda X: [X[0], X[1][:, :2]], r"got \(3, 4, 5\) and \(3, 2, 5\)$"),
    "lists of other lengths": (lambda X: [[0.0, 1.0], [0.0]], "one shape; got a list"),
    "generator": (lambda X: (x for x in X), r"got generator.*list\(X\)"),
    "dict": (lambda X: {"image": X}, r"got dict.*one of \['image'\]"),
    "nothing": (lambda X: None, "got NoneType"),
    "masked": (lambda X: np.ma.masked_greater(X, 0.5), "must have no masked values"),
    "sparse tensor": (lambda X: torch.tensor(X).to_sparse(), r"Convert it.*to_dense"),
    "complex": (lambda X: torch.from_numpy(X).to(torch.complex64), "complex64|Complex"),
    "meta": (lambda X: torch.zeros(X.shape, device="meta"), "must have values"),
}


@pytest.mark.parametrize("kind", NOT_CONVERTED)
@pytest.mark.parametrize("name", [*LATER, *FIT, *MODEL])
def test_what_is_not_converted_says_how(world, name, kind):
    made, message = NOT_CONVERTED[kind]
    # What is no array at all is of a wrong type; what is one, but no images, is not.
    others = ("loader", "dataset", "iterable dataset", "generator", "dict", "nothing")
    wrong = TypeError if kind in others else ValueError
    with pytest.raises(wrong, match=message):
        {**LATER, **FIT, **MODEL}[name](world, made(world.X))


def test_the_recipes_are_right(world):
    loader, dataset = DataLoader(pairs(world.X), batch_size=7), pairs(world.X)
    expected = world.model.predict(world.X)
    X, y = map(torch.cat, zip(*loader, strict=True))
    np.testing.assert_array_equal(world.guard.featurizer_.model_.predict(X), expected)
    assert len(y) == N
    X, y = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    flat, shape = as_flat_array(X)
    np.testing.assert_array_equal(flat.reshape(N, *shape), world.X)
    assert plain_array(y, "y").shape == (N,)


@pytest.mark.parametrize(
    "labels",
    [list, torch.from_numpy, lambda y: list(torch.from_numpy(y)), LikeH5py, tuple],
)
def test_labels_of_all_kinds(world, labels):
    guard = world.new_guard().fit(world.X, labels(world.y))
    expected = world.new_guard().fit(world.X, world.y)
    np.testing.assert_array_equal(
        guard.detector_.clean_scores_, expected.detector_.clean_scores_
    )
    with pytest.raises(ValueError, match=r"each of the 12 images; got shape \(9,\)"):
        world.new_guard().fit(world.X, labels(world.y[:9]))


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2, torch.uint8]
)
def test_tensors_of_formats_that_numpy_lacks(dtype):
    x = torch.tensor([[0.5, 1.0], [0.0, 2.0]]).to(dtype)
    np.testing.assert_array_equal(plain_array(x), x.float().numpy())
    np.testing.assert_array_equal(plain_array([*x]), x.float().numpy())


@pytest.mark.parametrize(
    "values", [array.array("d", [1, 2]), memoryview(b"ab"), np.float32(3), range(3)]
)
def test_other_sequences_are_told_what_to_do(values):
    if hasattr(values, "__array__"):
        assert plain_array(values).shape == ()
    else:
        with pytest.raises(TypeError, match="Convert it: "):
            plain_array(values)


@pytest.mark.parametrize("values", [["a"], [[None]], np.array([1j])])
def test_what_is_no_number_is_no_tensor(values):
    with pytest.raises(ValueError, match="X must hold numbers; got an array of dtype"):
        from_numpy(values)
