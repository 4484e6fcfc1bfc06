"""Every warning points at the user's line, whichever way the call went."""

import functools
import linecache
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from torch import nn

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
)
from curvdetect._base.warn import warn
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.geometry import (
    PairwiseMargin,
    curvature_in_subspace,
    find_smallest_universal_perturbation,
    goldman_curvature,
    hessian_eigenvalues,
    hessian_trace,
    mean_curvature,
    normal_curvature,
    principal_curvatures,
)
from curvdetect.network import find_nearest_boundaries
from curvdetect.plotting import (
    AverageCurvatureDisplay,
    BoundarySectionDisplay,
    CurvatureProfileDisplay,
)
from modules import Returns

X = np.random.default_rng(0).random((24, 4)).astype(np.float32)
Z = torch.from_numpy(X[:3]).double()


def network(activation, **settings):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 3))
    return TorchModel(layers.eval(), input_shape=(4,), **settings)


RELU, SMOOTH = network(nn.ReLU), network(nn.Tanh)
KINKED = lambda x: (x - 0.5).abs().sum(1)
CURVED = lambda x: x[:, 0] + x[:, 1] ** 2 + 0.5 * x[:, 2] ** 2 + (x**3).sum(1)
HALF_PLANE = lambda x: torch.stack([1e-9 - x[:, 0], 0 * x[:, 0]], dim=1)
#: Between the first class and the last one there is no boundary anywhere.
FLAT = Returns(
    lambda x: torch.stack([0 * x[:, 0], x.square().sum(1) - 4.1, 0 * x[:, 0] - 5], 1)
)
PROBABLE = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1)).eval()
LABELS = SMOOTH.predict(X)


def training():
    return nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train()


def pipeline(model, **settings):
    return make_pipeline(
        CurvatureFeaturizer(model, random_state=0, **settings),
        CurvatureThresholdDetector(target_fpr=0.2),
    )


def guarded(model):
    return GuardedClassifier(model, detector="threshold", target_fpr=0.2)


@functools.cache
def fitted(kind):
    """Estimators that are fitted to images and will be asked about others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "detector":
            return CurvatureThresholdDetector(target_fpr=0.2).fit(X)
        flat = TorchModel(FLAT, input_shape=(4,))
        if kind == "featurizer":
            return CurvatureFeaturizer(flat, step=0.1, random_state=0).fit(X)
        if kind == "pipeline":
            return pipeline(flat, step=0.1).fit(X)
        guard = guarded(flat).fit(X)
        return guard if kind == "guard" else CurvatureGuard(guard)


def blank(X):
    X = np.array(X)
    X[0] = np.nan
    return X


class Blank(TransformerMixin, BaseEstimator):
    """A step of a pipeline after which an image has no boundary."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return blank(X)


def basis():
    return torch.eye(4, dtype=torch.float64)[1:3]


EXACT = {"method": "autodiff"}
STEP = {"step": 1e-6}

PIECEWISE = "piecewise linear"
RESIDUAL = "did not reach a residual"
TRAINING = "training mode"
SOFTMAX = "probabilities"
COARSE = "mostly rounding"
BYTES = "in bytes"
ROUNDING = "too small for second differences"
MISSING = "no boundary was found"
BLANK = "have no boundary"
WRONG = "none of these images right"
WIDTH = "labels, but X has"
SHORTER = "Lower first_norm"

CASES = {
    # geometry, called by the user
    "mean curvature": (lambda: mean_curvature(KINKED, Z, **EXACT), PIECEWISE),
    "all directions": (
        lambda: mean_curvature(KINKED, Z, n_directions="all", **EXACT),
        PIECEWISE,
    ),
    "trace": (lambda: hessian_trace(KINKED, Z, **EXACT), PIECEWISE),
    "xtrace": (
        lambda: mean_curvature(KINKED, Z, estimator="xtrace", n_directions=4, **EXACT),
        PIECEWISE,
    ),
    "normal": (
        lambda: normal_curvature(KINKED, Z, basis().expand(3, 2, 4), step=2, **EXACT),
        PIECEWISE,
    ),
    "goldman": (lambda: goldman_curvature(KINKED, Z, **EXACT), PIECEWISE),
    "principal": (lambda: principal_curvatures(KINKED, Z, **EXACT), PIECEWISE),
    "hessian": (lambda: hessian_eigenvalues(KINKED, Z, k=2, **EXACT), PIECEWISE),
    "subspace": (
        lambda: curvature_in_subspace(KINKED, Z, basis(), step=2, **EXACT),
        PIECEWISE,
    ),
    "not converged": (
        lambda: principal_curvatures(CURVED, Z, k=1, max_iter=1, tol=1e-12),
        RESIDUAL,
    ),
    "eigenvalues not converged": (
        lambda: hessian_eigenvalues(CURVED, Z, k=1, max_iter=1, tol=1e-12),
        RESIDUAL,
    ),
    "universal": (
        lambda: find_smallest_universal_perturbation(
            HALF_PLANE, 0 * Z, 0 * Z, n_steps=1, n_bisections=1
        ),
        SHORTER,
    ),
    # geometry, called by the displays
    "display of profiles": (
        lambda: CurvatureProfileDisplay.from_model(RELU, X[:3], **EXACT),
        PIECEWISE,
    ),
    "display of sections": (
        lambda: BoundarySectionDisplay.from_model(
            RELU, X[0], tangent=np.eye(4)[0], n_points=3, step=2, **EXACT
        ),
        PIECEWISE,
    ),
    # the network
    "model": (lambda: TorchModel(training(), input_shape=(4,)), TRAINING),
    "model in featurizer": (lambda: CurvatureFeaturizer(training()).fit(X), TRAINING),
    "model in pipeline": (lambda: pipeline(training()).fit(X), TRAINING),
    "model in union": (
        lambda: make_union(CurvatureFeaturizer(training())).fit(X),
        TRAINING,
    ),
    "model in guard": (
        lambda: guarded(training()).fit(X),
        TRAINING,
    ),
    "check": (lambda: TorchModel(PROBABLE, input_shape=(4,)).check(X), SOFTMAX),
    "n_classes": (lambda: TorchModel(PROBABLE, input_shape=(4,)).n_classes, SOFTMAX),
    "boundaries": (
        lambda: find_nearest_boundaries(TorchModel(PROBABLE, input_shape=(4,)), X[:2]),
        SOFTMAX,
    ),
    "probabilities in pipeline": (lambda: pipeline(PROBABLE).fit(X), SOFTMAX),
    "probabilities in guard": (
        lambda: guarded(PROBABLE).fit(X),
        SOFTMAX,
    ),
    "half": (
        lambda: TorchModel(nn.Linear(4, 3).eval().bfloat16(), input_shape=(4,)).check(
            X
        ),
        COARSE,
    ),
    "bytes": (lambda: network(nn.ReLU, mean=127.5, std=127.5), BYTES),
    # the featurizer
    "step": (lambda: CurvatureFeaturizer(SMOOTH, **STEP).fit(X), ROUNDING),
    "step, fit_transform": (
        lambda: CurvatureFeaturizer(SMOOTH, **STEP).fit_transform(X),
        ROUNDING,
    ),
    "step in pipeline": (lambda: pipeline(SMOOTH, **STEP).fit(X), ROUNDING),
    "step in search": (
        lambda: GridSearchCV(
            pipeline(SMOOTH, **STEP), {"curvaturefeaturizer__n_directions": [2]}, cv=2
        ).fit(X, np.arange(24) % 2),
        ROUNDING,
    ),
    "step in validation": (
        lambda: cross_val_score(
            pipeline(SMOOTH, **STEP), X, np.arange(24) % 2, cv=2, scoring="roc_auc"
        ),
        ROUNDING,
    ),
    "step in guard": (
        lambda: GuardedClassifier(
            SMOOTH, featurizer=CurvatureFeaturizer(None, **STEP), target_fpr=0.2
        ).fit(X),
        ROUNDING,
    ),
    "transform": (lambda: fitted("featurizer").transform(X), MISSING),
    "measure": (lambda: fitted("featurizer").measure(X), MISSING),
    "fit_transform": (
        lambda: CurvatureFeaturizer(FLAT, step=0.1).fit_transform(X),
        MISSING,
    ),
    "pandas": (
        lambda: (
            CurvatureFeaturizer(FLAT, step=0.1)
            .set_output(transform="pandas")
            .fit_transform(X)
        ),
        MISSING,
    ),
    "pipeline": (lambda: fitted("pipeline").predict(X), MISSING),
    "pipeline, transform": (lambda: fitted("pipeline")[:-1].transform(X), MISSING),
    "pipeline, fit": (lambda: pipeline(FLAT, step=0.1).fit(X), MISSING),
    "display of curvatures": (
        lambda: AverageCurvatureDisplay.from_estimator(fitted("featurizer"), X, X),
        MISSING,
    ),
    # the detector and the relabeler
    "scores": (lambda: fitted("detector").score_samples(blank(X)), BLANK),
    "decisions": (lambda: fitted("detector").decision_function(blank(X)), BLANK),
    "flags": (lambda: fitted("detector").predict(blank(X)), BLANK),
    "flags in pipeline": (
        lambda: (
            make_pipeline(Blank(), CurvatureThresholdDetector(target_fpr=0.2))
            .fit(X)
            .predict(X)
        ),
        BLANK,
    ),
    "relabeler": (lambda: CurvatureRelabeler().fit(X, ["a", "b"] * 12), WIDTH),
    "relabeler in pipeline": (
        lambda: make_pipeline(CurvatureRelabeler()).fit(X, ["a", "b"] * 12),
        WIDTH,
    ),
    # guards
    "guard, labels": (
        lambda: guarded(SMOOTH).fit(X, (LABELS + 1) % 3),
        WRONG,
    ),
    "guard, fit": (
        lambda: guarded(FLAT).fit(X),
        MISSING,
    ),
    "guard, assess": (lambda: fitted("guard").assess(X), MISSING),
    "guard, predict": (lambda: fitted("guard").predict(X), MISSING),
    "guard, scores": (lambda: fitted("guard").anomaly_score(X), MISSING),
    "guard, p-values": (lambda: fitted("guard").p_values(X), MISSING),
    "module": (lambda: fitted("module")(torch.from_numpy(X)), MISSING),
    "module, calibrate": (
        lambda: CurvatureGuard(guarded(FLAT)).calibrate(X),
        MISSING,
    ),
    "module, labels": (
        lambda: CurvatureGuard(guarded(network(nn.Tanh).module)).calibrate(
            X, (LABELS + 1) % 3
        ),
        WRONG,
    ),
    "module in a module": (
        lambda: nn.Sequential(fitted("module"))(torch.from_numpy(X)),
        MISSING,
    ),
    # attacks
    "attack": (
        lambda: make_adversarial_set(
            TorchModel(PROBABLE, input_shape=(4,)),
            MinimalNormAttack(TorchModel(training(), input_shape=(4,))),
            X,
            PROBABLE(torch.from_numpy(X)).argmax(1).numpy(),
        ),
        TRAINING,
    ),
}


def recorded(call, message):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w for w in caught if message in str(w.message)]


@pytest.mark.parametrize("case", CASES)
def test_it_reports_this_file(case):
    call, message = CASES[case]
    found = recorded(call, message)
    assert found
    for warning in found:
        assert warning.category is UserWarning
        assert warning.filename == __file__


def in_art():
    pytest.importorskip("art")
    from art.estimators.classification import PyTorchClassifier

    from curvdetect.integrations.art import CurvatureEvasionDetector

    classifier = PyTorchClassifier(
        model=FLAT,
        loss=nn.CrossEntropyLoss(),
        input_shape=(4,),
        nb_classes=3,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    CurvatureEvasionDetector(classifier, detector="threshold", target_fpr=0.2).fit(X)


def in_pytorch_ood():
    pytest.importorskip("pytorch_ood")
    from curvdetect.integrations.pytorch_ood import CurvatureDetector

    x = torch.from_numpy(X)
    CurvatureDetector(FLAT, detector="threshold", step=0.1).fit([x])(x)


def in_dask():
    array = pytest.importorskip("dask.array")
    from curvdetect.integrations.dask import transform

    transform(fitted("featurizer"), array.from_array(X)).compute(scheduler="sync")


@pytest.mark.parametrize("toolkit", [in_art, in_pytorch_ood, in_dask])
def test_other_toolkits_in_between(toolkit):
    found = recorded(toolkit, MISSING)
    assert found
    assert {warning.filename for warning in found} == {__file__}


# The helper -----------------------------------------------------------------


def test_a_frame_of_the_user_in_between_is_the_users():
    """A signal, an attack or a transform of the user's that calls us."""

    class Own(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return mean_curvature(KINKED, Z, **EXACT)  # this line

    (found,) = recorded(lambda: make_pipeline(Own()).fit_transform(X), PIECEWISE)
    assert found.filename == __file__
    assert linecache.getline(__file__, found.lineno).endswith("# this line\n")


def test_it_skips_what_calls_for_others():
    calls = [
        functools.partial(warn, "here"),
        torch.no_grad()(lambda: warn("here")),
        lambda: PairwiseMargin(lambda x: warn("here"), None, None).logits(0),
    ]
    for call in calls:
        (found,) = recorded(call, "here")
        assert found.filename == __file__


def test_without_anybody_else_it_reports_the_outermost_line():
    """In a thread no line of the user's may be left."""
    with ThreadPoolExecutor(1) as pool:
        (found,) = recorded(lambda: pool.submit(warn, "here").result(), "here")
    assert found.category is UserWarning
