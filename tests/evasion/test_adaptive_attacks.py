import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.attacks import make_adversarial_set, pgd
from curvdetect.evasion import (
    EvasionAttack,
    LogitMatchingAttack,
    NeighbourhoodMarginAttack,
    SignalScore,
    find_minimal_evasion,
)
from curvdetect.evasion.orthogonal import _without
from modules import Returns


@pytest.fixture
def right(model, images):
    """Images that the network gets right, and their labels, as tensors."""
    X, y = images
    rows = model.predict(X) == y
    return torch.from_numpy(X[rows][:12]), torch.from_numpy(y[rows][:12])


@pytest.fixture
def guarded(model, images):
    return GuardedClassifier(
        model, detector="threshold", target_fpr=0.2, random_state=0
    ).fit(images[0])


def attacks_by_name(model, score, threshold, references, **common):
    return {
        "neighbourhood": NeighbourhoodMarginAttack(
            model, radius=1.0, n_neighbors=2, **common
        ),
        "matching": LogitMatchingAttack(model, references=references, **common),
        "orthogonal": EvasionAttack(model, score, threshold, **common),
        "selective": EvasionAttack(model, score, threshold, orthogonal=False, **common),
    }


NAMES = ["neighbourhood", "matching", "orthogonal", "selective"]


# The score --------------------------------------------------------------------


@pytest.mark.parametrize("step", ["auto", (0.3, 0.6)])
def test_score_is_the_featurizers(model, images, right, step):
    featurizer = CurvatureFeaturizer(model, step=step, random_state=0).fit(images[0])
    features = featurizer.transform(right[0].numpy())
    blocks = np.split(features, features.shape[1] // 10, axis=1)
    expected = [-np.sort(-np.where(np.isnan(b), -9e9, b), 1)[:, :2] for b in blocks]
    score = SignalScore(featurizer, n_largest=2)(right[0])
    np.testing.assert_allclose(
        score.detach().numpy(), np.hstack(expected), rtol=1e-3, atol=1e-4
    )


def test_score_of_one_image_depends_on_no_other(model, images, right):
    score = SignalScore(
        CurvatureFeaturizer(model, random_state=0).fit(images[0]), n_largest=3
    )
    alone = torch.cat([score(x) for x in right[0].split(1)])
    torch.testing.assert_close(score(right[0]), alone, rtol=1e-3, atol=1e-4)


def test_gradient_on_a_cubic_boundary():
    """The boundary x2 = c x1^3 has curvature 6 c x1 near the origin.

    Convex, so positive, for the region above it.
    """
    c = 0.7
    module = Returns(
        lambda x: torch.stack([x[:, 1] - c * x[:, 0] ** 3, 0 * x[:, 0]], dim=1)
    )
    model = TorchModel(module, input_shape=(2,), bounds=None)
    X = np.array([[0.0, 0.2], [0.0, 0.4]])
    featurizer = CurvatureFeaturizer(model, step=1e-3, random_state=0).fit(X)
    x = torch.from_numpy(X).requires_grad_()
    score = SignalScore(featurizer)(x)
    torch.testing.assert_close(score, torch.zeros_like(score), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    expected = torch.tensor([[6 * c, 0.0]]).double().expand(2, 2)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)


def test_missing_boundaries_do_not_count():
    """Class 2 is never reached; class 1 is beyond a plane."""
    module = Returns(
        lambda x: torch.stack([x[:, 0], 0 * x[:, 0], -1 - x[:, 0] ** 2], dim=1)
    )
    model = TorchModel(module, input_shape=(3,), bounds=None)
    X = np.array([[0.5, 0.1, 0.0], [0.8, 0.3, 0.2]])
    featurizer = CurvatureFeaturizer(model, step=0.1, random_state=0).fit(X)
    x = torch.from_numpy(X).requires_grad_()
    with pytest.warns(UserWarning, match="no boundary"):
        features = featurizer.transform(X)
    assert np.isnan(features[:, 2]).all()
    score = SignalScore(featurizer, n_largest=2)(x)
    assert (score[:, 1] == -torch.inf).all()
    (gradient,) = torch.autograd.grad(score[score.isfinite()].sum(), x)
    assert gradient.isfinite().all()


def test_an_image_without_boundaries_is_flagged_as_the_detector_does():
    """Only x[0] > 2 has a boundary nearby; elsewhere the logits are flat."""
    module = Returns(
        lambda x: torch.stack([1 + (3 - x[:, 0]).relu(), 0 * x[:, 0] + 2], dim=1)
    )
    model = TorchModel(module, input_shape=(2,), bounds=None)
    X = np.array([[2.5, 0.3], [5.0, 0.1], [2.4, 0.2]])
    featurizer = CurvatureFeaturizer(model, step=0.1, random_state=0).fit(X[::2])
    x = torch.from_numpy(X).requires_grad_()
    score = SignalScore(featurizer)(x).squeeze(1)
    assert score[1] == torch.finfo(torch.float64).max
    assert (score[[0, 2]].abs() < 1e3).all()
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert gradient.isfinite().all()
    with pytest.warns(UserWarning, match="no boundary"):
        features = featurizer.transform(X)
    detector = CurvatureThresholdDetector(target_fpr=0.5).fit(features[::2])
    with pytest.warns(UserWarning, match="no boundary"):
        assert detector.predict(features)[1] == 1


def test_no_images(model, images):
    featurizer = CurvatureFeaturizer(model, step=(0.1, 0.2), random_state=0)
    score = SignalScore(featurizer.fit(images[0][:5]), n_largest=3)
    empty = torch.zeros(0, 1, 28, 28)
    assert score(empty).shape == (0, 6)
    nothing = torch.zeros(0, dtype=torch.int64)
    for attack in attacks_by_name(
        model, score, 0.0, torch.from_numpy(images[0]), eps=0.1, steps=2
    ).values():
        assert attack(empty, nothing).shape == empty.shape


def test_fresh_directions_are_fresh_and_reproducible(model, images, right):
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(images[0])
    first, second = (
        SignalScore(featurizer, fresh_directions=True, seed=3) for _ in range(2)
    )
    values = first(right[0])
    assert torch.equal(values, second(right[0]))
    assert not torch.allclose(values, first(right[0]))


def test_score_refuses_what_has_no_gradient(model, images):
    exact = CurvatureFeaturizer(model, step=0.3, method="autodiff").fit(images[0][:5])
    with pytest.raises(ValueError, match='curvature by method="forward".*autodiff'):
        SignalScore(exact)
    basis = CurvatureFeaturizer(model, step=0.3, n_directions="all").fit(images[0][:5])
    with pytest.raises(ValueError, match="fresh_directions needs .* some n_directions"):
        SignalScore(basis, fresh_directions=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"at": "input"},
        {"features": ("distance",)},
        {"features": ("laplacian",), "laplacian_step": (0.5, 2.0)},
        {"features": ("first_order", "logits")},
        {"step": (0.2, 0.4), "features": ("curvature", "distance", "logits")},
    ],
)
def test_score_of_other_features(model, images, settings):
    """The largest of each block, or all columns, as the featurizer measures them."""
    X = images[0][:6]
    featurizer = CurvatureFeaturizer(
        model, random_state=0, **{"step": 0.3, **settings}
    ).fit(X)
    x = torch.from_numpy(X).requires_grad_()
    score = SignalScore(featurizer)(x)
    F = featurizer.transform(X)
    expected, names = [], featurizer.get_feature_names_out()
    for block in dict.fromkeys(name.rpartition("_")[0] for name in names):
        columns = F[:, [name.rpartition("_")[0] == block for name in names]]
        whole = block in ("logits", "first_order")
        expected.append(columns if whole else np.nanmax(columns, axis=1)[:, None])
    np.testing.assert_allclose(
        score.detach(), np.concatenate(expected, axis=1), rtol=1e-3, atol=1e-4
    )
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert bool(gradient.isfinite().all())
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())


# The attacks ------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", NAMES)
def test_attacks_keep_budget_and_bounds_and_leave_no_trace(model, right, name, norm):
    x, label = right
    before = x.clone()
    state = torch.get_rng_state()
    attack = attacks_by_name(
        model, lambda x: x.flatten(1).mean(1), 0.2, x, eps=0.1, norm=norm, steps=5
    )[name]
    found = attack(x, label)
    change = (found - x).flatten(1)
    length = change.abs().amax(1) if norm == "Linf" else change.norm(dim=1)
    assert bool((length <= 0.1 + 1e-5).all())
    assert bool((length > 0).any())
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(x, before)
    assert torch.equal(found, attack(x, label))
    assert not found.requires_grad
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())


@pytest.mark.parametrize("steps", [2, 5, 40])
def test_a_few_steps_reach_the_whole_budget(steps):
    """Uphill is one way, and the bounds are far."""
    module = Returns(lambda x: torch.stack([9 - x.sum(1), x.sum(1)], dim=1))
    model = TorchModel(module, input_shape=(3,), bounds=None)
    attack = NeighbourhoodMarginAttack(model, eps=0.5, radius=0.1, steps=steps)
    found = attack(torch.zeros(1, 3), torch.tensor([0]))
    torch.testing.assert_close(found, torch.full((1, 3), 0.5))


@pytest.mark.parametrize("name", ["neighbourhood", "orthogonal", "selective"])
def test_a_larger_budget_fools_more(model, right, name):
    x, label = right
    shares = []
    for eps in (0.005, 0.05, 0.3):
        attack = attacks_by_name(
            model, lambda x: x.flatten(1).mean(1), 0.4, x, eps=eps, steps=20
        )[name]
        wrong = model.predict(attack(x, label)) != label.numpy()
        shares.append(wrong.mean())
    assert shares[0] < shares[1] <= shares[2] == 1


def test_matching_comes_near_the_logits_it_is_after(model, right):
    x, label = right
    attack = LogitMatchingAttack(model, references=x, eps=2.0, norm="L2", steps=60)
    aim = attack._aim(x, label)
    before = (model.logits(x) - aim).square().sum(1)
    after = (model.logits(attack(x, label)) - aim).square().sum(1)
    assert bool((after < before).all())
    assert float((after / before).median()) < 0.2
    assert bool((aim.argmax(1) != label).all())


def test_matching_needs_another_class(model, right):
    x, label = right
    attack = LogitMatchingAttack(model, references=x[:1], eps=1.0)
    with pytest.raises(ValueError, match="at least two predicted classes; all 1"):
        attack(x[:1], label[:1])


@pytest.mark.parametrize("orthogonal", [True, False])
def test_evasion_evades_where_pgd_is_flagged(guarded, model, right, orthogonal):
    x, label = right
    score = SignalScore(guarded.featurizer_)
    threshold = float(guarded.detector_.threshold_)
    eps = 16 / 255
    attack = EvasionAttack(
        model, score, threshold, eps=eps, steps=25, orthogonal=orthogonal
    )
    evaded = {}
    for name, images in {
        "pgd": pgd(model, eps=eps)(x, label).detach(),
        "evasion": attack(x, label),
    }.items():
        assessed = guarded.assess(images.numpy())
        wrong = assessed.model_label != label.numpy()
        evaded[name] = (wrong & ~assessed.flagged).mean()
    assert evaded["evasion"] >= evaded["pgd"] + 0.4


def test_evasion_of_several_scores(right, model):
    """Each score has a threshold of its own, and all must be kept."""
    x, label = right
    corners = lambda x: torch.stack([x[:, 0, 0, 0], x[:, 0, 27, 27]], dim=1)
    dark = EvasionAttack(
        model, corners, [0.01, 0.02], eps=0.2, steps=30, orthogonal=False
    )
    found = dark(x, label)
    wrong = torch.from_numpy(model.predict(found)) != label
    assert float(wrong.double().mean()) > 0.9
    below = corners(found) <= torch.tensor([0.01, 0.02]) + 1e-6
    assert bool(below[wrong].all())


@given(st.integers(0, 1000), st.integers(2, 6))
def test_without_is_orthogonal(seed, d):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, d, generator=generator, dtype=torch.float64)
    rest = _without(a, b)
    assert float((rest * b).sum(1).abs().max()) < 1e-9
    torch.testing.assert_close(_without(a, torch.zeros_like(b)), a)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0}, "eps must be a positive finite number; got 0"),
        ({"eps": 1.0, "norm": "L1"}, "norm must be one of"),
        ({"eps": 1.0, "steps": 0}, "steps must be a positive integer; got 0"),
        ({"eps": 1.0, "radius": -1}, "radius must be a positive finite number"),
        ({"eps": 1.0, "n_neighbors": 2.5}, "n_neighbors must be a positive integer"),
    ],
)
def test_bad_parameters(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        NeighbourhoodMarginAttack(model, **{"radius": 1.0, **parameters})


def test_adversarial_sets_take_them(model, images):
    attack = NeighbourhoodMarginAttack(model, eps=0.2, radius=1.0, steps=10)
    made = make_adversarial_set(model, attack, images[0][:10], images[1][:10])
    assert made.success_rate == 1


# The smallest evasion ---------------------------------------------------------


def ball_model(radius=1.0):
    module = Returns(
        lambda x: torch.stack([radius - x.norm(dim=1), 0 * x[:, 0]], dim=1)
    )
    return TorchModel(module, input_shape=(3,), bounds=None)


def test_smallest_evasion_of_a_known_detector():
    """Wrong outside of the unit ball; flagged up to radius 1.5."""
    model = ball_model()
    x, label = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.9, 0.0]]), torch.tensor([0, 0])
    evades = lambda x, label: x.norm(dim=1) > 1.5
    attack = lambda eps: EvasionAttack(
        model, lambda x: -x.norm(dim=1), -1.5, eps=eps, norm="L2", orthogonal=False
    )
    found = find_minimal_evasion(attack, evades, x, label, budgets=[2.0, 0.5, 1.1])
    assert bool(evades(found.images, label).all())
    torch.testing.assert_close(found.norms, (found.images - x).norm(dim=1))
    smallest = torch.tensor([1.0, 0.6])
    assert bool((found.norms >= smallest).all())
    assert bool((found.norms <= 1.02 * smallest).all())


@given(st.floats(0.1, 0.9), st.floats(1.3, 3))
@settings(max_examples=10)
def test_without_a_detector_evasion_costs_nothing(start, growth):
    """The smallest perturbation, whatever budgets are tried."""
    model = ball_model()
    x, label = torch.tensor([[0.0, start, 0.0]]), torch.tensor([0])
    wrong = lambda x, label: x.norm(dim=1) > 1
    attack = lambda eps: NeighbourhoodMarginAttack(
        model, eps=eps, radius=0.05, norm="L2", steps=20
    )
    budgets = [0.1 * growth**k for k in range(1, 12)]
    found = find_minimal_evasion(attack, wrong, x, label, budgets=budgets)
    assert 1 - start <= float(found.norms) <= 1.03 * (1 - start) + 1e-3


def test_what_no_budget_evades_stays_as_it_was():
    model = ball_model()
    x, label = torch.tensor([[0.5, 0.0, 0.0]]), torch.tensor([0])
    never = lambda x, label: torch.zeros(len(x), dtype=torch.bool)
    attack = lambda eps: NeighbourhoodMarginAttack(model, eps=eps, radius=0.1)
    found = find_minimal_evasion(attack, never, x, label, budgets=[1.0])
    assert bool(found.norms.isinf().all())
    assert torch.equal(found.images, x)
    for budgets, message in (([], "at least one"), ([-1.0], "budgets must be a pos")):
        with pytest.raises(ValueError, match=message):
            find_minimal_evasion(attack, never, x, label, budgets=budgets)


def test_model_is_restored_after_an_exception(lenet, right):
    lenet.train()
    with pytest.warns(UserWarning, match="training mode"):
        model = TorchModel(lenet, input_shape=(1, 28, 28))

    def broken(x):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        EvasionAttack(model, broken, 0.0, eps=0.1)(*right)
    assert lenet.training
    assert all(p.requires_grad for p in lenet.parameters())
