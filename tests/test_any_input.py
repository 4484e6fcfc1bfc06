"""Whatever comes in: a result of the right shape, or an error that was meant."""

import contextlib
import io
import itertools
import traceback
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

import curvdetect
from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.storage import read_picture
from modules import AnyWidth

#: Whose errors are meant: not those of NumPy or torch, on the way.
MEANT = [Path(package.__file__).parent for package in (curvdetect, sklearn)]
DTYPES = ["f2", "f4", "f8", ">f4", "i1", "i8", "u1", "u4", "?", "c8", "U2", "O"]
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def images(draw):
    """Return arrays of all kinds; more often than not, ones that could be images."""
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(12, 4), (12, 1, 2, 2), (12, 3, 2, 2)]))
        values = st.floats(0, 1, width=16)
        return draw(arrays(draw(st.sampled_from(["f4", "f8"])), shape, elements=values))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind == "O":
        return draw(
            arrays(dtype, draw(SHAPES), elements=st.none() | st.text(max_size=1))
        )
    return draw(arrays(dtype, draw(SHAPES)))


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "at": st.sampled_from(["boundary", "input", "home"]),
        "method": st.sampled_from(["forward", "gradient", "autodiff", 3]),
        "n_directions": st.sampled_from([1, 3, "all", 0, None, 2.0]),
        "step": st.sampled_from(["auto", 0.3, (0.2, 0.5), 0, "x", (), np.nan]),
        "n_boundaries": st.sampled_from([1, 2, 3, None, -1, "2"]),
        "n_curved": st.sampled_from([0, 1, -1, None]),
        "tol": st.sampled_from([0.1, 1e-3, 0, None, 2]),
        "features": st.sampled_from(
            [
                ("curvature",),
                ("distance", "laplacian"),
                ("curvature", "distance"),
                (),
                3,
            ]
        ),
        "layout": st.sampled_from(["class", "nearest", None]),
        "laplacian_step": st.sampled_from([None, 0.5, (1, 2), -1]),
        "random_state": st.sampled_from([0, None, "x"]),
    },
)
MODELS = st.fixed_dictionaries(
    {},
    optional={
        "input_shape": st.sampled_from([None, (4,), (1, 2, 2), (0,), "x"]),
        "bounds": st.sampled_from([(0, 1), None, (1, 0), 3]),
        "mean": st.sampled_from([None, 0.1, (0.1, 0.2), "x"]),
        "std": st.sampled_from([None, 0.5, 0, "x"]),
        "batch_size": st.sampled_from([None, 1, 5, 0]),
    },
)


def made(make):
    """Return what comes out, or None where an error says why nothing does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy's casts
        try:
            return make()
        except (ValueError, TypeError) as error:
            raised = error
    by = Path(traceback.extract_tb(raised.__traceback__)[-1].filename)
    assert any(by.is_relative_to(package) for package in MEANT), (by, raised)
    assert str(raised)
    event("refused")
    return None


@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(images(), images(), PARAMETERS, MODELS)
@example(np.zeros((12, 4)), np.ones((3, 4)), {}, {})
def test_features(X, other, parameters, model):
    settings = {"input_shape": None, **model}

    def features():
        network = TorchModel(AnyWidth().eval(), **settings)
        featurizer = CurvatureFeaturizer(network, **{"random_state": 0, **parameters})
        return featurizer.fit(X).transform(X), featurizer

    found = made(features)
    if found is None:
        return
    F, featurizer = found
    assert F.shape == (len(X), len(featurizer.get_feature_names_out()))
    assert F.dtype.kind == "f"
    assert not np.isinf(F).any()
    later = made(lambda: featurizer.transform(other))
    assert later is None or later.shape == (len(other), F.shape[1])


@settings(max_examples=500)
@given(images(), images(), st.sampled_from([0.1, 0.3, 0, 2, None, "x"]))
def test_detector_and_relabeler(X, y, fpr):
    for estimator in (
        CurvatureThresholdDetector(target_fpr=fpr),
        CurvatureRelabeler(),
    ):
        for labels in (None, y, np.arange(len(X)) % 2 if X.ndim else y):
            found = made(lambda e=estimator, v=labels: e.fit(X, v).predict(X))
            assert found is None or found.shape == (len(X),)


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(images(), images(), images(), st.sampled_from(["relabel", "reject", 0]))
def test_guards(X, y, other, on_flag):
    network = TorchModel(AnyWidth().eval(), input_shape=None)

    def guarded():
        guard = GuardedClassifier(
            network, detector="threshold", target_fpr=0.2, on_flag=on_flag
        )
        return guard.fit(X, y if len(np.shape(y)) == 1 else None)

    guard = made(guarded)
    if guard is None:
        return
    for rows in (X, other):
        labels = made(lambda rows=rows: guard.predict(rows))
        assert labels is None or labels.shape == (len(rows),)
        if rows.dtype.kind == "f" and rows.dtype.isnative:
            tensor = torch.from_numpy(np.array(rows))
            found = made(lambda t=tensor: CurvatureGuard(guard)(t))
            assert (found is None) == (labels is None)


def real_pictures():
    """Return small files of all formats and modes."""
    files = []
    for name, mode in itertools.product(
        ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "DDS", "ICNS"),
        ("1", "L", "P", "RGB", "RGBA", "I;16"),
    ):
        file = io.BytesIO()
        with contextlib.suppress(OSError, KeyError, ValueError):
            Image.new(mode, (16, 16)).save(file, name)
            files.append(file.getvalue())
    return files


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4)


@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(real_pictures()), CHANGES, st.floats(0, 2))
@example(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n", [], 1)
def test_broken_pictures(content, changes, share):
    content = bytearray(content[: int(share * len(content))])
    for position, value in changes:
        if content:
            content[int(position * (len(content) - 1))] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what it makes the best of
            picture = read_picture(io.BytesIO(content), (3, 16, 16))
    except (ValueError, OSError):
        event("refused")
        return
    assert picture.shape == (3, 16, 16)
    assert 0 <= picture.min() <= picture.max() <= 1
