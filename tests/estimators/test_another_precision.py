"""A network that was cast after `fit`: refused, or the same as before."""

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    TorchModel,
)

X = np.random.default_rng(0).random((12, 5), dtype=np.float32)


def made(dtype=torch.float32, step=0.3):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 8), nn.Softplus(), nn.BatchNorm1d(8), nn.Linear(8, 3)
    )
    model = TorchModel(network.to(dtype).eval(), input_shape=(5,))
    parts = CurvatureFeaturizer(None, step=step, n_directions=2, random_state=0)
    return GuardedClassifier(model, featurizer=parts, target_fpr=0.3)


CASTS = {
    "half": (lambda n: n.half(), "float16"),
    "bfloat16": (lambda n: n.bfloat16(), "bfloat16"),
    "to": (lambda n: n.to(torch.float16), "float16"),
    "one layer": (lambda n: n[3].bfloat16(), "bfloat16"),
    "buffers": (lambda n: setattr(n[2], "running_mean", n[2].running_mean.half()), ""),
    "mixed": (lambda n: (n.double(), n[0].half()), "float16"),
}
CALLS = {
    "assess": lambda g: g.assess(X),
    "predict": lambda g: g.predict(X),
    "p_values": lambda g: g.p_values(X),
    "anomaly_score": lambda g: g.anomaly_score(X),
    "transform": lambda g: g.featurizer_.transform(X),
    "measure": lambda g: g.featurizer_.measure(X),
    "module": lambda g: CurvatureGuard(g)(torch.from_numpy(X)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cast", CASTS)
def test_another_precision_is_refused(cast, call):
    guard = made().fit(X)
    change, name = CASTS[cast]
    change(guard.model.module)
    dtypes = [p.dtype for p in guard.model.module.parameters()]
    message = f"must be as it was at fit, in float32; now it is in {name}"
    with pytest.raises(ValueError, match=message):
        CALLS[call](guard)
    assert [p.dtype for p in guard.model.module.parameters()] == dtypes
    assert guard.featurizer_.precision_ == "float32"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_state_for_another_precision_is_refused(dtype):
    """Loaded on a server whose network is in half precision."""
    guard = CurvatureGuard(made()).calibrate(X)
    file = io.BytesIO()
    torch.save(guard.state_dict(), file)
    file.seek(0)
    served = CurvatureGuard(made(dtype))
    served.load_state_dict(torch.load(file, weights_only=True))
    with pytest.raises(ValueError, match="fit, in float32; now it is in b?float16"):
        served(torch.from_numpy(X))


def test_a_guard_that_is_cast_as_a_module():
    guard = CurvatureGuard(made()).calibrate(X)
    with pytest.raises(ValueError, match="Cast it back from a copy in float32"):
        copy.deepcopy(guard).half()(torch.from_numpy(X))
    assert guard(torch.from_numpy(X)).label.shape == (12,)


def test_fitted_in_half_precision_it_stays_there():
    with pytest.warns(UserWarning, match="float16"):  # it is not enough
        guard = made(torch.float16, step=1.0).fit(X)
    assert guard.featurizer_.precision_ == "float16"
    assert guard.predict(X).shape == (12,)
    guard.model.module.float()
    with pytest.raises(ValueError, match="fit, in float16; now it is in float32"):
        guard.predict(X)


@pytest.mark.parametrize(
    "change", [lambda n: n.double(), lambda n: n.to("cpu"), copy.deepcopy]
)
def test_finer_or_elsewhere_is_fine(change):
    guard = made().fit(X)
    new = np.random.default_rng(1).random((12, 5), dtype=np.float32)
    expected = guard.assess(new)
    change(guard.model.module)
    found = guard.assess(new)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-3)
    np.testing.assert_array_equal(found.label, expected.label)


def test_coarser_warns_where_the_step_is_too_small_for_it():
    for step, warns in ((0.3, False), (1e-3, True)):
        guard = made(torch.float64, step).fit(X)
        guard.model.module.float()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guard.assess(X)
        messages = [str(w.message) for w in caught]
        assert [m.startswith("step=0.001 is too small") for m in messages] == (
            [True] * warns
        )
        assert [w.filename for w in caught] == [__file__] * warns


def test_a_network_without_weights_has_the_precision_of_the_images():
    class Waves(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(1), 2 * x.square().sum(1), x.sin().sum(1)], 1)

    model = TorchModel(Waves().eval(), input_shape=(5,))
    featurizer = CurvatureFeaturizer(model, step=0.3, random_state=0).fit(X)
    single = featurizer.transform(X)
    double = featurizer.transform(X.astype(np.float64))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, double, atol=1e-3)
