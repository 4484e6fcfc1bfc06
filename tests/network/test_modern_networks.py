"""Attention, GELU, LayerNorm, GRN, squeeze-and-excite: what is measured is right.

Networks of torchvision, timm and transformers, as small as they get, with random
weights, not as they are initialised: that is flat (logits near zero, LayerScale of a
millionth, GRN of zero).
"""

import copy
import functools
import pickle

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from curvdetect import CurvatureFeaturizer, GuardedClassifier, TorchModel
from curvdetect.geometry import margin_gradient, mean_curvature, principal_curvatures
from curvdetect.network import find_nearest_boundaries

DOUBLE = torch.float64
SIZE, N_CLASSES = 32, 5


def torchvision_network(name):
    models = pytest.importorskip("torchvision.models")
    if name == "vit":
        return models.VisionTransformer(
            image_size=SIZE,
            patch_size=8,
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            mlp_dim=32,
            num_classes=N_CLASSES,
        )
    if name == "swin":
        return models.SwinTransformer(
            patch_size=[4, 4],
            embed_dim=8,
            depths=[2, 2],
            num_heads=[2, 2],
            window_size=[4, 4],
            num_classes=N_CLASSES,
        )
    if name == "convnext":
        block = models.convnext.CNBlockConfig
        return models.ConvNeXt([block(8, 12, 1), block(12, None, 1)], num_classes=5)
    return models.mobilenet_v3_small(width_mult=0.25, num_classes=N_CLASSES)


def timm_network(name):
    create = pytest.importorskip("timm").create_model
    if name == "vit":
        arguments = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2}
        name, arguments = "vit_tiny_patch16_224", {**arguments, "num_heads": 2}
    elif name == "swin":
        arguments = {"img_size": SIZE, "patch_size": 4, "window_size": 4}
        sizes = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
        name, arguments = "swin_tiny_patch4_window7_224", {**arguments, **sizes}
    elif name.startswith("convnext"):
        name += "_atto"
        arguments = {"depths": (1, 1, 1, 1), "dims": (6, 8, 8, 12)}
    else:
        name, arguments = "mobilenetv3_small_050", {}
    return create(name, num_classes=N_CLASSES, **arguments)


def transformers_network(name):
    t = pytest.importorskip("transformers")
    sizes = {"image_size": SIZE, "num_labels": N_CLASSES}
    if name == "vit":
        config = t.ViTConfig(
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            **sizes,
        )
        return t.ViTForImageClassification(config)
    if name == "swin":
        heads = {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]}
        config = t.SwinConfig(patch_size=4, window_size=4, **heads, **sizes)
        return t.SwinForImageClassification(config)
    if name.startswith("convnext"):
        kind = "ConvNext" if name == "convnext" else "ConvNextV2"
        sizes |= {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}
        config = getattr(t, f"{kind}Config")(patch_size=4, **sizes)
        return getattr(t, f"{kind}ForImageClassification")(config)
    config = t.MobileNetV2Config(depth_multiplier=0.35, hidden_act="silu", **sizes)
    return t.MobileNetV2ForImageClassification(config)


MAKERS = {
    "torchvision": torchvision_network,
    "timm": timm_network,
    "transformers": transformers_network,
}
KINDS = ("vit", "swin", "convnext", "convnextv2", "mobilenet")
NAMES = [
    f"{library} {kind}"
    for library in MAKERS
    for kind in KINDS
    if (library, kind) != ("torchvision", "convnextv2")
]


def randomised(network, seed=0):
    """Draw all weights, and statistics of what they give, so that nothing is flat."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda like: torch.randn(like.shape, generator=generator)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            last = name.rpartition(".")[2]
            if weight.ndim > 1 and min(weight.shape[0], weight.numel()) > 1:
                fan_in = weight[0].numel()
                weight.copy_(draw(weight) * (1.5 / fan_in) ** 0.5)
            elif last in ("bias", "beta"):
                weight.copy_(0.2 * draw(weight))
            else:
                weight.copy_(1 + 0.2 * draw(weight))
        parts = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        network.eval()
        for part in parts:
            part.momentum, part.training = None, True
            part.reset_running_stats()
        if parts:
            network(torch.rand(64, 3, SIZE, SIZE, generator=generator))
    return network.eval()


@functools.cache
def shared(name):
    torch.manual_seed(0)
    library, kind = name.split()
    return randomised(MAKERS[library](kind))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def model_of(name, dtype, **arguments):
    module = copy.deepcopy(shared(name)).to(dtype)
    return TorchModel(module, input_shape=(3, SIZE, SIZE), **arguments)


def some_images(n, dtype=DOUBLE, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, SIZE, SIZE, generator=generator, dtype=DOUBLE).to(dtype)


def margin_at(model, x):
    """The margin of the two largest logits."""
    with torch.no_grad(), model.evaluating():
        pair = model.logits(x).topk(2).indices
    return model.margin(*pair.T)


def directions(m, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(7)
    shape = (m, 3, SIZE, SIZE)
    return torch.randn(shape, generator=generator, dtype=DOUBLE).to(dtype)


def test_gradients_are_those_of_central_differences(name):
    model, x = model_of(name, DOUBLE), some_images(3)
    margin, h = margin_at(model, x), 1e-6
    with model.evaluating(), torch.no_grad():
        gradient = margin_gradient(margin, x)
        single = model_of(name, torch.float32)
        same = single.margin(margin.predicted, margin.other)
        coarse = margin_gradient(same, x.float())
        for v in directions(4):
            measured = (margin(x + h * v) - margin(x - h * v)) / (2 * h)
            along = (gradient * v).flatten(1).sum(1)
            scale = gradient.flatten(1).norm(dim=1)
            assert bool((scale > 1e-3).all())
            # torch's hard sigmoid has a gradient of single precision in float64.
            assert bool(((measured - along).abs() < 1e-6 * scale).all())
    error = (coarse - gradient).flatten(1).norm(dim=1) / scale
    assert bool((error < 1e-4).all())


@pytest.fixture
def plain(monkeypatch):
    """torch's own second derivatives: the hard sigmoid has none."""
    monkeypatch.setattr(
        functional, "hardsigmoid", lambda x, inplace=False: functional.relu6(x + 3) / 6
    )


def by_torch(margin, x, v):
    """Average curvature along tangents, from Hessians of torch.autograd.functional."""
    results = []
    for row in range(len(x)):
        one = margin.take(torch.tensor([row]))
        z = x[row : row + 1]
        gradient = torch.autograd.functional.jacobian(lambda p, f=one: f(p)[0], z)
        n = (gradient / gradient.norm()).flatten()
        t = v.flatten(1) - (v.flatten(1) @ n)[:, None] * n
        t = functional.normalize(t)
        section = lambda a, f=one, z=z, t=t: f(z + (a @ t).reshape(z.shape))[0]
        with sdpa_kernel(SDPBackend.MATH):
            hessian = torch.autograd.functional.hessian(
                section, torch.zeros(len(t), dtype=x.dtype)
            )
        results.append(-hessian.diagonal().mean() / gradient.norm())
    return torch.stack(results)


def test_curvatures_are_those_of_the_hessian(name, plain):
    model, x, v = model_of(name, DOUBLE), some_images(2), directions(3)
    margin = margin_at(model, x)
    with model.evaluating():
        expected = by_torch(margin, x, v)
    # O(h^2) and O(h), and rounding; MobileNetV3 has kinks nearby.
    near = name.endswith("mobilenet")
    for method, step, error in [
        ("autodiff", 1.0, 1e-6),
        ("forward", 1e-5 if near else 1e-4, 1e-2 if near else 1e-3),
        ("gradient", 1e-6 if near else 1e-5, 1e-3),
    ]:
        with model.evaluating():
            found = mean_curvature(margin, x, method=method, directions=v, step=step)
        scale = expected.abs().max()
        assert scale > 1e-6
        assert bool(((found - expected).abs() < error * scale).all()), method


def test_single_precision_at_the_default_step(name):
    """The error is what rounding of the margin comes to; it is small at far boundaries.

    F is off by as much as single precision is here (the step is rounded too), and the
    second difference divides it by h^2 and the steepness. These networks change within
    a fraction of what trained ones do: at a step of 0.005, 1/10,000 of the length of an
    image, an error is a quarter of the curvature.
    """
    x = some_images(6)
    single, double = model_of(name, torch.float32), model_of(name, DOUBLE)
    nearest = find_nearest_boundaries(single, x.float())
    assert bool(nearest.found.all())
    featurizer = CurvatureFeaturizer(single, features=["curvature"], n_boundaries=1)
    step = float(featurizer.fit(x.float().numpy()).step_)
    pair = nearest.margin.predicted, nearest.margin.other
    kappa, around = [], []
    for model, dtype in ((single, torch.float32), (double, DOUBLE)):
        z, v, margin = (
            nearest.points.to(dtype),
            directions(7, dtype),
            model.margin(*pair),
        )
        with model.evaluating(), torch.no_grad():
            kappa.append(mean_curvature(margin, z, directions=v, step=step).double())
            probes = [z + step * u / u.norm() for u in (*v, *-v)]
            around.append(torch.stack([margin(p) for p in (z, *probes)]).double())
    steepness = margin_gradient(margin, z).flatten(1).norm(dim=1)
    rounding = (around[0] - around[1]).abs().amax(0) / (step**2 * steepness)
    error, scale = (kappa[0] - kappa[1]).abs(), kappa[1].abs().max()
    assert bool((error < 4 * rounding).all())
    if step > 0.1:
        assert bool((error < 0.05 * scale).all())


def test_results_do_not_depend_on_the_batch(name):
    model, x = model_of(name, DOUBLE), some_images(5)
    margin, v = margin_at(model, x), directions(2)
    with model.evaluating():
        together = mean_curvature(margin, x, directions=v, method="gradient")
        for size in (1, 2):
            parts = mean_curvature(
                margin, x, directions=v, method="gradient", batch_size=size
            )
            torch.testing.assert_close(parts, together, rtol=1e-8, atol=1e-10)
    images = x.float().numpy()
    values = [
        CurvatureFeaturizer(
            model_of(name, torch.float32, batch_size=size),
            step=0.5,
            n_boundaries=2,
            random_state=0,
        )
        .fit(images)
        .transform(images)
        for size in (1, 5)
    ]
    np.testing.assert_allclose(*values, rtol=0, atol=0.01 * np.nanmax(np.abs(values)))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_boundary_points_lie_on_the_boundary(name, dtype):
    model, x = model_of(name, dtype), some_images(4, dtype)
    nearest = find_nearest_boundaries(model, x, n_boundaries=2)
    assert bool(nearest.found.all())
    with model.evaluating(), torch.no_grad():
        at_start = nearest.margin(nearest.images)
        at_end = nearest.margin(nearest.points)
    assert bool((at_end.abs() < 1e-3 * at_start.abs()).all())
    assert bool((nearest.distances > 0).all())


def test_the_network_is_left_as_it_was(name):
    model = model_of(name, torch.float32)
    module = model.module.train()
    next(module.parameters()).requires_grad_(False)
    asks = [p.requires_grad for p in module.parameters()]
    modes = [part.training for part in module.modules()]
    before, seed = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    x = some_images(2, torch.float32)
    margin = margin_at(model, x)
    for method in ("forward", "gradient", "autodiff"):
        with model.evaluating():
            mean_curvature(margin, x, method=method, directions=directions(1).float())
    model.predict(x)
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), seed)
    assert [p.requires_grad for p in module.parameters()] == asks
    assert [part.training for part in module.modules()] == modes
    assert all(p.grad is None for p in module.parameters())


def test_copies_are_the_same_network(name):
    model, x = model_of(name, torch.float32), some_images(2, torch.float32)
    digest = joblib.hash(model)
    logits = model.predict_logits(x)
    mean_curvature(margin_at(model, x), x, method="autodiff", n_directions=1)
    assert joblib.hash(model) == digest
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert joblib.hash(other) == digest
        np.testing.assert_array_equal(other.predict_logits(x), logits)
    with torch.no_grad():
        next(other.module.parameters()).add_(1e-3)
    assert joblib.hash(other) != digest


@pytest.mark.parametrize(
    "name",
    ["torchvision swin", "timm convnextv2", "timm mobilenet", "transformers vit"],
)
def test_a_guard(name):
    X = some_images(16, torch.float32).numpy()
    guard = GuardedClassifier(
        model_of(name, torch.float32),
        featurizer=CurvatureFeaturizer(n_boundaries=1, random_state=0),
        detector="threshold",
        target_fpr=0.1,
    )
    guard.fit(X)
    assert np.isfinite(guard.decision_function(X)).all()
    assessed = guard.assess(X)
    assert assessed.flagged.sum() <= 2
    np.testing.assert_array_equal(guard.predict(X), assessed.label)
    kept = assessed.label[~assessed.flagged]
    np.testing.assert_array_equal(kept, assessed.model_label[~assessed.flagged])


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_attention_of_transformers_by_default_is_as_good_as_eager(kind):
    x, v = some_images(2), directions(2)
    model = model_of(f"transformers {kind}", DOUBLE)
    results = []
    for attention in ("sdpa", "eager"):
        model.module.set_attn_implementation(attention)
        with model.evaluating():
            margin = margin_at(model, x)
            results.append(mean_curvature(margin, x, method="autodiff", directions=v))
    # transformers' eager attention takes its softmax in single precision, always.
    scale = float(results[0].abs().max())
    torch.testing.assert_close(*results, rtol=0, atol=1e-4 * scale)


def test_fused_attention_of_timm_is_as_good_as_plain():
    layers = pytest.importorskip("timm.layers")
    x, v = some_images(2), directions(2)
    results = []
    for fused in (True, False):
        layers.set_fused_attn(fused)
        try:
            module = timm_network("vit")
        finally:
            layers.set_fused_attn(True)
        assert module.blocks[0].attn.fused_attn is fused
        module.load_state_dict(shared("timm vit").state_dict())
        model = TorchModel(module.double().eval(), input_shape=(3, SIZE, SIZE))
        with model.evaluating():
            margin = margin_at(model, x)
            results.append(mean_curvature(margin, x, method="autodiff", directions=v))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_all_principal_curvatures_are_those_of_a_dense_hessian(kind):
    """Of a network for images of 3 x 8 x 8, whose Hessian is written down in full."""
    t = pytest.importorskip("transformers")
    if kind == "vit":
        config = t.ViTConfig(
            image_size=8,
            patch_size=4,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=3,
        )
        network = t.ViTForImageClassification(config)
    else:
        sizes = {"hidden_sizes": [6, 8], "depths": [1, 1], "num_stages": 2}
        config = t.ConvNextV2Config(image_size=8, patch_size=2, num_labels=3, **sizes)
        network = t.ConvNextV2ForImageClassification(config)
    model = TorchModel(randomised(network).double(), input_shape=(3, 8, 8))
    x = some_images(1)[..., :8, :8].contiguous()
    margin = margin_at(model, x)
    with model.evaluating():
        found = principal_curvatures(margin, x, method="autodiff")
        average = mean_curvature(margin, x, method="autodiff", n_directions="all")
        gradient = margin_gradient(margin, x).flatten()
        with sdpa_kernel(SDPBackend.MATH):
            hessian = torch.autograd.functional.hessian(
                lambda p: margin(p.reshape(x.shape))[0], x.flatten()
            )
    n = gradient / gradient.norm()
    projection = torch.eye(len(n), dtype=DOUBLE) - torch.outer(n, n)
    shape = -projection @ hessian @ projection / gradient.norm()
    values = torch.linalg.eigvalsh(shape)
    normal = values.abs().argmin()  # the normal itself: zero, or as small as it gets
    expected = torch.cat([values[:normal], values[normal + 1 :]]).flip(0)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found.values[0], expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        average[0], shape.trace() / (len(n) - 1), rtol=1e-8, atol=1e-12
    )
