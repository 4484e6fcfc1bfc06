"""What it costs to evade a guard: against closed forms, and against the guard."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from quickly import learn_little, search_little
from torch import nn

from curvdetect import (
    CurvatureThresholdDetector,
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
)
from curvdetect.evasion import Evasion, MeasuredEvasion, measure, measure_evasion
from curvdetect.evasion.searches import agreement_attacks, in_batches
from curvdetect.report.guard.evasion import read_evasion, write_evasion
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    with pytest.MonkeyPatch.context() as monkeypatch:
        learn_little(monkeypatch)
        search_little(monkeypatch)
        yield


# A network whose smallest perturbations are known ----------------------------------


@pytest.fixture(scope="module")
def linear():
    """A detector of a linear network, and images far from where pixels end."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    X = (0.4 + 0.2 * torch.rand(170, 1, 6, 6)).numpy()
    model = TorchModel(network, input_shape=(1, 6, 6))
    detector = LearnedDetector(
        model, target_fpr=0.1, self_test=False, random_state=0
    ).fit(X[:120])
    return detector, X[120:]


@pytest.fixture(scope="module")
def measured(linear):
    return measure_evasion(*linear, n_attacked=6)


def closed_form(detector, X):
    """The margin over the distance of the weights, of the nearest class."""
    layer = detector.model_.module[1]
    with torch.no_grad():
        logits = layer(torch.from_numpy(X).flatten(1))
        own = logits.argmax(1)
        margins = logits.gather(1, own[:, None]) - logits
        spread = (layer.weight[own][:, None] - layer.weight[None]).norm(dim=2)
    return (margins / spread).nan_to_num(torch.inf).amin(1).numpy()


def test_what_fools_a_linear_network_is_known(linear, measured):
    detector, X = linear
    expected = closed_form(detector, X[measured.rows])
    for name, rtol in (("smallest perturbation", 1e-3), ("shortest way", 0.05)):
        np.testing.assert_allclose(measured.fooling[name], expected, rtol=rtol)
    assert measured.norm_to_fool == pytest.approx(np.median(expected), rel=1e-3)


def test_a_guard_that_flags_nothing_costs_nothing(linear):
    detector, X = copy.copy(linear[0]), linear[1]
    detector.threshold_ = math.inf
    found = measure_evasion(detector, X, n_attacked=6)
    assert list(found.rows) == list(range(6))
    assert 1 - 1e-6 <= found.cost <= 1.05
    assert found.n_never == 0
    low, high = found.interval
    assert 1 - 1e-6 <= low <= found.cost <= high <= 1.1


def test_the_same_seed_gives_the_same(linear, measured):
    again = measure_evasion(*linear, n_attacked=6)
    assert again.evading.keys() == measured.evading.keys()
    for name, norms in measured.evading.items():
        np.testing.assert_array_equal(again.evading[name], norms)
    np.testing.assert_array_equal(again.images, measured.images)
    assert again.interval == measured.interval


def test_a_longer_search_also_begins_elsewhere(linear, measured):
    found = measure_evasion(*linear, n_attacked=6, light=False)
    more = found.evading.keys() - measured.evading.keys()
    assert more == {"stand-in", "stand-in, second class"}
    # From an unflagged image of another class, which evades itself.
    assert np.isfinite(found.evading["again, a stand-in"]).all()
    assert found.n_never == 0


# The guard itself judges -----------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    """A guard of the shipped network, images, labels, and what was measured."""
    X, y = load_fashion_mnist_sample()
    guard = GuardedClassifier(
        load_lenet("fashion-mnist"),
        detector=LearnedDetector(target_fpr=0.1, self_test=False, random_state=0),
    ).fit(X[:90], y[:90])
    X, y = X[90:122], y[90:122]
    return guard, X, y, measure_evasion(guard, X, y, n_attacked=4)


def test_what_evades_is_wrong_and_not_flagged(guarded):
    guard, X, y, found = guarded
    norms = np.min(list(found.evading.values()), axis=0)
    evaded = np.isfinite(norms)
    assert evaded.any()
    assert found.n_never == (~evaded).sum()
    seen = guard.assess(found.images[evaded])
    assert not seen.flagged.any()
    assert (seen.model_label != y[found.rows][evaded]).all()
    assert found.images.min() >= -1e-6
    assert found.images.max() <= 1 + 1e-6
    change = (found.images - X[found.rows]).reshape(len(norms), -1)
    lengths = np.linalg.norm(change, axis=1)
    np.testing.assert_allclose(lengths[evaded], norms[evaded], rtol=1e-4)
    assert (lengths[~evaded] == 0).all()
    fooled = np.min(list(found.fooling.values()), axis=0)
    assert (fooled <= norms).all()
    assert found.cost >= 1


def test_which_images_are_attacked(guarded):
    """The first that are right and not flagged."""
    guard, X, y, found = guarded
    seen = guard.assess(X)
    usable = (seen.model_label == y) & ~seen.flagged
    assert list(found.rows) == list(np.flatnonzero(usable)[:4])
    assert found.target_fpr == guard.detector_.target_fpr_


def test_nothing_given_is_changed(linear):
    detector, X = linear
    y = detector.model_.predict(X)
    module = detector.model_.module
    before = X.copy(), y.copy(), detector.threshold_, torch.get_rng_state()
    module.train()
    try:
        measure_evasion(detector, X, y, n_attacked=2)
        assert all(each.training for each in module.modules())
    finally:
        module.eval()
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert detector.threshold_ == before[2]
    assert torch.equal(torch.get_rng_state(), before[3])
    for weight in module.parameters():
        assert weight.grad is None
        assert weight.requires_grad


# Figures ---------------------------------------------------------------------------


def figures(evading, fooling=(1.0, 2.0, 3.0, 4.0), largest=25.0):
    n = len(fooling)
    return MeasuredEvasion(
        fooling={"one": np.array(fooling)},
        evading={name: np.array(norms) for name, norms in evading.items()},
        images=np.zeros((n, 1)),
        rows=np.arange(n),
        largest_norms=dict.fromkeys(evading, largest),
        target_fpr=0.05,
    )


def test_the_best_attack_for_each_image_counts():
    found = figures({"a": [2.0, 9.0, 9.0, 8.0], "b": [math.inf, 4.0, 6.0, math.inf]})
    assert found.cost == 2
    assert found.interval == (2, 2)  # of each image
    assert found.n_never == 0
    best, a, b = found.searches()
    assert best.attack == "the shortest of 2 attacks, for each image"
    assert (best.norm_to_evade, a.norm_to_evade, b.norm_to_evade) == (5, 8.5, math.inf)
    assert (best.n_never, a.n_never, b.n_never) == (0, 0, 2)
    assert a.cost == pytest.approx(3.4)
    said = str(found)
    assert "a: a median norm of 8.5, cost 3.4" in said
    assert "b: not found up to 25, cost not found" in said
    assert "evades on 2 of 4" in said
    assert "evasion cost: 2 (95 %: 2 to 2) times as long" in said
    assert "An upper bound" in said


def test_the_interval_is_of_the_images_together():
    """By another bootstrap: of pairs, by SciPy."""
    from scipy import stats

    random = np.random.default_rng(1)
    fool = random.uniform(1, 2, 40)
    evade = fool * random.uniform(1.5, 3, 40)
    found = figures({"a": evade}, fool).interval
    expected = stats.bootstrap(
        (evade, fool),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    np.testing.assert_allclose(found, expected, rtol=0.03)


@pytest.mark.parametrize("n_never", [2, 3, 4])
def test_no_number_where_half_never_evade(n_never):
    norms = np.array([5.0, 6.0, 7.0, 8.0])
    norms[4 - n_never :] = math.inf
    found = figures({"a": norms})
    assert math.isinf(found.cost)
    assert found.n_never == n_never
    said = str(found)
    assert "evasion cost: not found, for half or more of the images never" in said
    assert "never evaded: not up to a norm of 25, 10 times what fools" in said
    assert "This says nothing of other attacks" in said
    assert found.searches()[0].largest_norm == 25
    assert "upper bound" not in said
    assert "inf" not in said
    assert ("to not found" in said) == (n_never < 4)


def test_it_says_how_far_each_attack_went():
    """Of one without a limit it does not say that there was one."""
    never = [math.inf] * 4
    found = figures({"a": never, "b": never})
    found.largest_norms["b"] = math.inf
    best, a, b = found.searches()
    assert (best.largest_norm, a.largest_norm, b.largest_norm) == (None, 25, None)
    said = str(found)
    assert "a: not found up to 25, cost" in said
    assert "b: not found, cost" in said
    assert (
        "not up to a norm of 25, 10 times what fools the network, and not by attacks "
        "to which the bounds of images alone are a limit." in said
    )
    only = figures({"b": never}, largest=math.inf)
    assert "never evaded: not by attacks to which the bounds" in str(only)
    assert "inf" not in said + str(only)


def test_how_far_the_attacks_go(linear, measured):
    """Those with a budget ten times the median norm (here, four), and on, twelve."""
    detector, X = linear
    unit = np.median(closed_form(detector, X[measured.rows]))
    largest = measured.largest_norms
    assert largest.keys() == measured.evading.keys()
    for name in ("agreement", "even agreement", "even agreement, second class"):
        assert largest[name] == pytest.approx(4 * unit, rel=1e-3)
    assert largest["further on"] == pytest.approx(12 * unit, rel=1e-3)
    ways = [norm for name, norm in largest.items() if name.endswith("a stand-in")]
    assert ways == [math.inf, math.inf]
    for name, norms in measured.evading.items():  # of one image it may be farther
        assert np.median(norms[np.isfinite(norms)]) <= largest[name]


def test_few_that_never_evade_open_the_interval():
    found = figures({"a": [2.0, 4.0, 6.0, math.inf]})
    assert found.cost == 2
    assert math.isinf(found.interval[1])
    assert "to not found) times as long" in str(found)


# Files -----------------------------------------------------------------------------


def test_a_file_gives_back_what_was_measured(measured, tmp_path):
    never = figures({"a": [2.0, math.inf, math.inf, math.inf]})
    searches = measured.searches() + never.searches()
    write_evasion(tmp_path / "evasion.json", searches)
    assert read_evasion(tmp_path / "evasion.json") == searches

    def refuse(name):
        raise AssertionError(name)

    text = (tmp_path / "evasion.json").read_text()
    json.loads(text, parse_constant=refuse)  # no Infinity, which others cannot read


def test_a_file_of_the_figures_alone(tmp_path):
    row = Evasion("one", 60, 0.33, 0.84, 0.05)
    kept = {name: value for name, value in row._asdict().items() if value is not None}
    (tmp_path / "evasion.json").write_text(json.dumps(kept))
    assert read_evasion(tmp_path / "evasion.json") == [row]
    never = row._replace(norm_to_evade=math.inf)
    kept["norm_to_evade"] = None
    (tmp_path / "evasion.json").write_text(json.dumps(kept))
    assert read_evasion(tmp_path / "evasion.json") == [never]


# What is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"n_attacked": 0}, "n_attacked must be a positive integer"),
        ({"n_attacked": 31}, "X must hold n_attacked=31 .* or a smaller n_attacked"),
        ({"y": np.zeros(3, dtype=int)}, "y must hold one number for each of the 50"),
        ({"y": np.full(50, 4)}, "y must"),
        ({"y": np.full(50, 0.5)}, "y must hold the position of each class, 0 to 3"),
        ({"y": np.full(50, "a")}, "y must hold the position of each class, 0 to 3"),
        ({"X": np.zeros((50, 1, 5, 5), "f4")}, "X must have shape"),
    ],
)
def test_what_is_refused(linear, monkeypatch, settings, why):
    monkeypatch.setattr(measure, "taught", lambda *a, **k: pytest.fail("too late"))
    detector, X = linear
    with pytest.raises(ValueError, match=why):
        measure_evasion(detector, **{"X": X, "n_attacked": 6, **settings})


def test_labels_that_the_network_never_gives(linear):
    detector, X = linear
    wrong = (detector.model_.predict(X) + 1) % 4
    with pytest.raises(ValueError, match="of the 50 given it gets 0 right"):
        measure_evasion(detector, X, wrong, n_attacked=6)


def test_a_network_that_is_never_fooled(linear, monkeypatch):
    def none(model, x, label):
        return SimpleNamespace(norms=torch.full((len(x),), torch.inf), points=x)

    monkeypatch.setattr(measure, "smallest_perturbations", none)
    with pytest.raises(ValueError, match="on half or more of the 6 attacked no change"):
        measure_evasion(*linear, n_attacked=6)


def test_a_guard_that_learned_nothing(linear):
    with pytest.raises(TypeError, match="learned detector"):
        measure_evasion(CurvatureThresholdDetector(), linear[1])


def test_two_classes_have_no_second_other(linear):
    names = list(agreement_attacks(SimpleNamespace(n_classes_=2), None, 3))
    assert names == ["agreement", "even agreement"]
    assert len(agreement_attacks(linear[0], None, 3)) == 3


def test_an_attack_in_batches_is_the_attack():
    x, label = torch.rand(5, 3), torch.arange(5)
    sizes = []

    def attack(images, labels):
        sizes.append(len(images))
        return images + labels[:, None]

    assert torch.equal(in_batches(attack, 2)(x, label), attack(x, label))
    assert sizes == [2, 2, 1, 5]
    assert in_batches(attack, None) is attack
