"""The learned detector: what it promises, on a network small enough to try often."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from torch import nn

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
    assess_guard,
)
from curvdetect.attacks import effort
from curvdetect.estimators import _lessons
from curvdetect.estimators._evidence import Evidence
from curvdetect.estimators.self_test import minimal_points
from curvdetect.storage import load, save
from curvdetect.study.metrics import count_passes

pytestmark = pytest.mark.filterwarnings("ignore:.*self-test", "ignore:mean AUROC")
D = 12


def small_network():
    """Four classes of points in twelve dimensions, with kinks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 4))
    X, y = points(2000, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(150):
        loss = nn.functional.cross_entropy(
            network(torch.from_numpy(X)), torch.from_numpy(y)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.zero_grad()
    return network.eval()


def points(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    centres = np.random.default_rng(7).uniform(0.25, 0.75, (4, D))
    X = centres[y] + 0.12 * rng.normal(size=(n, D))
    return X.clip(0, 1).astype(np.float32), y


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def model(network):
    return TorchModel(network, input_shape=(D,))


@pytest.fixture(scope="module")
def detector(model):
    X, y = points(260, seed=2)
    return LearnedDetector(model, target_fpr=0.05, random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def fresh():
    return points(200, seed=3)


# What it decides -------------------------------------------------------------


def test_finds_attacks_on_new_images_and_their_labels(detector, fresh):
    test = assess_guard(detector, *fresh, random_state=0)
    assert test.mean_auroc > 0.65
    short = [row for row in test if row.kind == "minimal norm"]
    assert np.mean([row.auroc for row in short]) > 0.7
    assert np.mean([row.relabelled for row in short]) > 0.8
    assert all(row.n_fooled >= 10 for row in test)


def test_its_self_test_is_what_new_images_show(detector, fresh):
    """The same attacks on fresh images: intervals of the difference hold zero."""
    now = {row.attack: row for row in assess_guard(detector, *fresh, random_state=0)}
    misses = []
    for row in detector.self_test_:
        other = now.get(row.attack)
        if other is None:
            continue
        spread = np.hypot(
            row.auroc_high - row.auroc_low, other.auroc_high - other.auroc_low
        )
        misses.append(abs(row.auroc - other.auroc) > spread / 2)
    assert len(misses) > 10
    assert np.mean(misses) <= 0.15


def test_what_the_network_gets_wrong_is_not_tried(model, quick):
    X, y = points(150, seed=2)
    kinds = ("minimal norm",)
    fitted = LearnedDetector(
        model, target_fpr=0.1, kinds=kinds, self_test=False, random_state=0
    ).fit(X, y)
    X, y = points(40, seed=3)
    right = (model.predict(X) == y).sum()
    assert right < 40
    tried = {row.n_attacked for row in assess_guard(fitted, X, y, random_state=0)}
    assert tried == {right}
    tried = {row.n_attacked for row in assess_guard(fitted, X, random_state=0)}
    assert tried == {40}


def test_learning_without_a_kind_is_told(detector):
    test = detector.self_test_
    assert all(np.isfinite(row.auroc_without) for row in test)
    known = np.mean([row.auroc for row in test])
    unknown = np.mean([row.auroc_without for row in test])
    assert unknown < known + 0.02


def test_score_threshold_and_p_values_agree(detector, fresh):
    found = detector.examine(fresh[0])
    assert np.array_equal(found.flagged, found.score > detector.threshold_)
    assert np.array_equal(detector.predict(fresh[0]), found.flagged)
    p = detector.p_values(fresh[0])
    assert np.array_equal(p <= detector.target_fpr_ + 1e-12, found.flagged)
    order = found.score.argsort()
    assert (np.diff(p[order]) <= 0).all()
    assert np.allclose(
        detector.decision_function(fresh[0]), found.score - detector.threshold_
    )


def test_the_bound_holds_on_average_over_calibrations(model, quick):
    """Realised rates over many calibrations: mean at most 0.1, spread as Beta's."""
    X, y = points(3000, seed=5)
    new, labels = points(3000, seed=6)
    new = new[model.predict(new) == labels]
    rates, n_each = [], None
    for seed in range(12):
        rows = slice(seed * 100, seed * 100 + 100)
        detector = LearnedDetector(
            model, target_fpr=0.1, self_test=False, random_state=seed
        ).fit(X[rows], y[rows])
        n_each = len(detector.clean_scores_)
        rates.append(detector.predict(new).mean())
    k = int(0.1 * (n_each + 1))
    law = stats.beta(k, n_each + 1 - k)
    assert np.mean(rates) < law.mean() + 3 * law.std() / np.sqrt(len(rates)) + 0.01
    assert law.mean() <= 0.1


def test_a_row_does_not_depend_on_its_batch(detector, fresh):
    X = fresh[0][:60]
    whole = detector.examine(X)
    parts = [detector.examine(X[k : k + 1]) for k in range(60)]
    for name in ("recovered_label", "stage", "flagged"):
        single = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(getattr(whole, name), single)
    # The network's own rounding depends on the batch: rarely, a leaf is another one.
    score = np.concatenate([part.score for part in parts])
    assert np.median(np.abs(whole.score - score)) < 1e-12
    np.testing.assert_allclose(whole.score, score, atol=0.05)


def test_is_the_same_with_the_same_random_state(model, quick, fresh):
    X, y = points(120, seed=2)
    fitted = [
        LearnedDetector(model, target_fpr=0.1, self_test=False, random_state=seed)
        .fit(X, y)
        .score_samples(fresh[0])
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(fitted[0], fitted[1])
    assert not np.array_equal(fitted[0], fitted[2])


@pytest.mark.parametrize("given", [False, True])
def test_it_says_how_many_images_it_learned_from(model, quick, given):
    """Counted where the only attack is made, and by the images that are right."""
    X, y = points(120, seed=2)
    n_fooled = []

    def attack(images, labels):
        moved = images.flip(1)
        n_fooled.append((model.predict(moved) != labels.numpy()).sum())
        return moved

    detector = LearnedDetector(
        model, target_fpr=0.1, kinds=(), attacks={"flip": attack}, self_test=False
    )
    right = model.predict(X) == y
    detector.fit(X, y, adversarial=X[right] if given else None)
    assert detector.n_learned_ + len(detector.clean_scores_) == right.sum() < 120
    n_given = detector.n_learned_ if given else 0  # each is nearest to itself
    assert detector.n_adversarial_ == sum(n_fooled) + n_given
    assert sum(n_fooled) > 0


# What it costs ---------------------------------------------------------------


def test_cost_is_what_the_network_is_asked(detector, fresh):
    """Passes counted at the network, against what `cost` says of these images."""
    stage = detector.examine(fresh[0]).stage
    with count_passes(detector.model_.module) as passes:
        detector.examine(fresh[0])
    counted = (passes.forward + 2 * passes.backward) / len(fresh[0])
    said = detector.cost(fresh[0])
    assert set(stage) == {0, 1, 2}
    assert counted == pytest.approx(said)


def test_budget_bounds_the_cost_of_clean_images(model, fresh, quick):
    X, y = points(400, seed=2)
    costs = []
    for budget in (1.0, 3.0, 8.0):
        detector = LearnedDetector(
            model, target_fpr=0.05, budget=budget, self_test=False, random_state=0
        ).fit(X, y)
        costs.append(detector.cost())
        assert costs[-1] <= 1.25 * budget
    assert costs[0] < costs[1] < costs[2]


def test_stages_cost_what_they_ask(model):
    evidence = Evidence(model, 4, 0.3, np.eye(D)[0])
    x, columns = torch.rand(5, D), None
    with model.evaluating():
        logits = model.logits(x)
        for stage, cost in enumerate(evidence.costs()):
            with count_passes(model.module) as passes:
                columns = evidence.measured(stage, x, logits, columns)
            assert passes.forward == 5 * cost - 5 * (stage == 0)  # logits were given
            assert evidence.n_columns(stage) == (
                columns.image.shape[1],
                columns.candidate.shape[2],
            )
    assert columns.image.isfinite().all()
    assert columns.candidate.isfinite().all()


# Copies and files ------------------------------------------------------------


def test_copies_decide_alike_and_hash_alike(detector, fresh):
    expected = detector.score_samples(fresh[0])
    for other in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        assert np.array_equal(other.score_samples(fresh[0]), expected)
        assert joblib.hash(other) == joblib.hash(detector)
    assert clone(detector).model is detector.model


def test_a_file_of_a_guard_holds_numbers_alone(network, fresh, tmp_path, quick):
    pytest.importorskip("skops")
    X, y = points(120, seed=2)
    guard = GuardedClassifier(network, target_fpr=0.1).fit(X, y)
    save(guard, tmp_path / "guard.skops")
    other = nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 4))
    loaded = load(tmp_path / "guard.skops", other)
    assert np.array_equal(loaded.anomaly_score(fresh[0]), guard.anomaly_score(fresh[0]))
    assert str(loaded.self_test_) == str(guard.self_test_)
    assert loaded.detector_.n_learned_ == guard.detector_.n_learned_ > 0
    assert loaded.detector_.n_adversarial_ == guard.detector_.n_adversarial_ > 0


def test_a_file_that_does_not_say_how_many_images_were_learned_from(
    network, fresh, tmp_path, quick
):
    """As earlier versions wrote it; a state dict, too."""
    pytest.importorskip("skops")
    guard = GuardedClassifier(network, target_fpr=0.1).fit(*points(120, seed=2))
    for name in ("n_learned_", "n_adversarial_"):
        delattr(guard.detector_, name)
    save(guard, tmp_path / "guard.skops")
    other = nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    loaded = load(tmp_path / "guard.skops", other)
    served = CurvatureGuard(GuardedClassifier(other, target_fpr=0.1))
    served.load_state_dict(CurvatureGuard(guard).state_dict())
    for detector in (loaded.detector_, served.guard.detector_):
        assert detector.n_learned_ is None
        assert detector.n_adversarial_ is None
    assert np.array_equal(loaded.anomaly_score(fresh[0]), guard.anomaly_score(fresh[0]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("forests_", lambda v: (v[0] + 0.5, *v[1:])),
        ("forests_", lambda v: v[:-1]),
        ("doubt_", lambda v: v[:1]),
        ("doubt_", lambda v: v * np.nan),
        ("clean_scores_", lambda v: v[:0]),
        ("threshold_", lambda v: np.nan),
        ("shortest_", lambda v: (v[0], -1.0)),
        ("direction_", lambda v: v[:1]),
        ("usual_", lambda v: v[:, 1:]),
        ("n_learned_", str),
        ("n_adversarial_", lambda v: -v),
    ],
)
def test_a_changed_file_is_refused(network, tmp_path, name, change, quick):
    pytest.importorskip("skops")
    X, y = points(120, seed=2)
    guard = GuardedClassifier(
        network, detector=LearnedDetector(target_fpr=0.1, self_test=False)
    ).fit(X, y)
    setattr(guard.detector_, name, change(getattr(guard.detector_, name)))
    save(guard, tmp_path / "guard.skops")
    other = nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 4))
    with pytest.raises(ValueError, match="changed"):
        load(tmp_path / "guard.skops", other)


def test_a_state_dict_carries_it_to_a_server(network, fresh, tmp_path, quick):
    X, y = points(120, seed=2)
    served = CurvatureGuard(GuardedClassifier(network, target_fpr=0.1))
    served.calibrate(X, y)
    torch.save(served.state_dict(), tmp_path / "guard.pt")
    state = torch.load(tmp_path / "guard.pt", weights_only=True)
    other = nn.Sequential(nn.Linear(D, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    there = CurvatureGuard(GuardedClassifier(other, target_fpr=0.1))
    there.load_state_dict(state)
    images = torch.from_numpy(fresh[0])
    for here, then in zip(served(images), there(images), strict=True):
        assert torch.equal(here, then)
    wrong = CurvatureGuard(GuardedClassifier(other, target_fpr=0.2))
    with pytest.raises(ValueError, match="other parameters"):
        wrong.load_state_dict(state)


def test_other_weights_are_refused(fresh, quick):
    network = small_network()
    X, y = points(120, seed=2)
    detector = LearnedDetector(
        TorchModel(network, input_shape=(D,)), target_fpr=0.1, self_test=False
    ).fit(X, y)
    with torch.no_grad():
        network[0].weight[0, 0] += 0.1
    with pytest.raises(ValueError, match="Fit again"):
        detector.predict(fresh[0])


# In a guard ------------------------------------------------------------------


def test_the_guard_relabels_what_it_flags(model, detector, fresh, monkeypatch):
    X, y = points(260, seed=2)
    guard = GuardedClassifier(model, target_fpr=0.05).fit(X, y)
    found = guard.assess(fresh[0])
    seen = guard.detector_.examine(fresh[0])
    assert np.array_equal(found.flagged, found.score > 0)
    assert np.array_equal(found.recovered_label, seen.recovered_label)
    flagged = found.flagged
    assert np.array_equal(found.label[flagged], found.recovered_label[flagged])
    assert np.array_equal(found.label[~flagged], found.model_label[~flagged])
    # The same seed, the same detector.
    assert np.array_equal(seen.score, detector.score_samples(fresh[0]))


def test_which_detector_a_guard_has(model):
    assert isinstance(GuardedClassifier(model)._parts()["detector_"], LearnedDetector)
    assert "featurizer_" in GuardedClassifier(model, detector="threshold")._parts()
    wrong = GuardedClassifier(model, detector="best")
    with pytest.raises(ValueError, match="detector must be one of"):
        wrong.fit(*points(20, 0))
    both = GuardedClassifier(
        model, featurizer=CurvatureFeaturizer(), detector="learned"
    )
    with pytest.raises(ValueError, match="featurizer must be left out"):
        both.fit(*points(20, 0))


def test_assess_guard_wants_a_learned_detector(model, fresh):
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.2)
    with pytest.raises(TypeError, match="learned detector"):
        assess_guard(guard.fit(*points(60, 2)), *fresh)


# What it refuses, and warns of ------------------------------------------------


def test_too_few_images_name_the_number(model):
    with pytest.raises(ValueError, match="needs at least 249 clean images"):
        LearnedDetector(model, target_fpr=0.01).fit(*points(240, 2))


def test_without_a_rate_the_images_say_what_is_kept(model, quick):
    X, y = points(60, 2)
    with pytest.warns(
        UserWarning,
        match="rate of false positives is 0.067, not 0.01, which takes 249",
    ):
        detector = LearnedDetector(model, self_test=False, random_state=0).fit(X, y)
    n = len(detector.clean_scores_)
    assert detector.target_fpr_ == pytest.approx(2 / (n + 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target_fpr": 1.5}, "target_fpr must be"),
        ({"budget": 0.5}, "budget must be at least 1"),
        ({"budget": -1}, "budget must be a positive"),
        ({"attacks": [1]}, "attacks must be a dict"),
        ({"attacks": {"a": 1}}, "attacks must be a dict"),
        ({"kinds": ("patches",)}, "kinds must be some of"),
        ({"kinds": ()}, "kinds must not be empty"),
    ],
)
def test_wrong_parameters(model, wrong, message):
    with pytest.raises(ValueError, match=message):
        LearnedDetector(model, **wrong).fit(*points(60, 2))


def test_no_network():
    with pytest.raises(TypeError, match="model must be"):
        LearnedDetector().fit(*points(60, 2))


@pytest.mark.filterwarnings("ignore:the module seems to return probabilities")
def test_a_network_that_cannot_be_fooled():
    flat = nn.Linear(D, 3).eval()
    with torch.no_grad():
        flat.weight.zero_()
        flat.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="nothing to learn from"):
        LearnedDetector(flat, target_fpr=0.1).fit(points(80, 2)[0])


def test_a_guard_that_misses_attacks_says_so_once(model):
    X, _ = points(120, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LearnedDetector(model, target_fpr=0.03, random_state=0).fit(X)
    said = [str(w.message) for w in caught if "self-test" in str(w.message)]
    assert len(said) == 1
    assert "it detects only" in said[0]
    assert "%" in said[0]


def test_hardly_better_than_chance_is_said_loudly(model):
    from curvdetect.estimators.self_test import SelfTest, Tried, warn_of_misses

    figures = [0.5] * 3 + [0.1, 0, 0.2] + [0.3] * 3 + [0.0, 0.5]
    row = Tried("one step, l2 1", "gradient steps", 1, 1, 50, 30, *figures)
    with pytest.warns(UserWarning, match="HARDLY BETTER THAN CHANCE.*10% of one step"):
        warn_of_misses(SelfTest([row], 0.01))


# Attacks of the user's own, and failures in the middle -------------------------


def test_attacks_given_are_learned_from_and_left_out(model, quick):
    def towards_grey(images, labels):
        return images + 0.9 * (0.5 - images)

    X, y = points(300, 2)
    detector = LearnedDetector(
        model, target_fpr=0.05, attacks={"grey": towards_grey}, random_state=0
    ).fit(X, y)
    rows = {row.attack: row for row in detector.self_test_}
    assert rows["grey"].kind == "given"
    assert np.isfinite(rows["grey"].auroc_without)


def test_kinds_can_be_left_out(model, quick):
    X, y = points(200, 2)
    detector = LearnedDetector(
        model, target_fpr=0.05, kinds=("minimal norm",), random_state=0
    ).fit(X, y)
    assert {row.kind for row in detector.self_test_} == {"minimal norm"}


def test_an_attack_that_returns_something_else(model, quick):
    detector = LearnedDetector(
        model, target_fpr=0.1, attacks={"cut": lambda x, y: x[:, :2]}
    )
    with pytest.raises(ValueError, match="attack 'cut' must keep the shape"):
        detector.fit(*points(120, 2))
    assert not detector.__sklearn_is_fitted__()


def test_an_interrupted_fit_leaves_the_old_one(model, fresh, quick):
    X, y = points(120, seed=2)
    detector = LearnedDetector(
        model, target_fpr=0.1, self_test=False, random_state=0
    ).fit(X, y)
    expected = detector.score_samples(fresh[0])

    def interrupted(images, labels):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detector.set_params(attacks={"stop": interrupted}).fit(X[:100], y[:100])
    assert np.array_equal(detector.score_samples(fresh[0]), expected)


def test_the_network_and_the_images_are_as_they_were(quick):
    network = small_network().train()
    X, y = points(120, seed=2)
    given, state = X.copy(), torch.get_rng_state()
    with pytest.warns(UserWarning, match="training mode"):
        model = TorchModel(network, input_shape=(D,))
    LearnedDetector(model, target_fpr=0.1, random_state=0).fit(X, y).predict(X)
    assert np.array_equal(X, given)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_two_classes_and_no_bounds(quick):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    X = np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)
    model = TorchModel(network, input_shape=(5,), bounds=None)
    detector = LearnedDetector(model, target_fpr=0.1, random_state=0).fit(X)
    assert set(detector.examine(X).recovered_label) <= {0, 1}
    own = model.predict(X)
    assert (detector.examine(X).recovered_label == 1 - own).all()


def test_many_classes_are_told_apart_by_rank(quick):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 50)).eval()
    X = np.random.default_rng(0).random((120, 8)).astype(np.float32)
    model = TorchModel(network, input_shape=(8,))
    detector = LearnedDetector(model, target_fpr=0.1, random_state=0).fit(X)
    assert detector._cascade().evidence.n_columns(0) == (6, 2)
    assert detector.predict(X[:4]).shape == (4,)


def test_large_images_are_attacked_less(model, quick, monkeypatch):
    """With fewer passes and tests, and minimal perturbations nearly as short."""
    X, y = points(140, seed=5)
    x, label = torch.from_numpy(X), torch.from_numpy(y)
    _, shortest = minimal_points(model, x, label)
    monkeypatch.setattr(effort, "_LARGE_IMAGE", D - 1)
    with count_passes(model.module) as passes:
        _, norms = minimal_points(model, x, label)
        n_searching = passes.forward + 2 * passes.backward
        detector = LearnedDetector(model, target_fpr=0.1, random_state=0).fit(X, y)
    n_fitting = passes.forward + 2 * passes.backward - n_searching
    found = shortest.isfinite()
    assert (norms[found] <= 1.5 * shortest[found]).all()
    assert n_searching < 100 * len(X)
    assert n_fitting < 300 * len(X)  # of a photograph, 10 s on one core
    assert max(row.n_attacked for row in detector.self_test_) == 30


@pytest.mark.filterwarnings("ignore:Persisting input arguments")  # on a busy disk
def test_an_interrupted_fit_goes_on_where_it_was(model, quick, tmp_path, monkeypatch):
    X, y = points(120, seed=2)
    settings = {"target_fpr": 0.1, "self_test": False, "random_state": 0}
    expected = LearnedDetector(model, **settings).fit(X, y).score_samples(X)
    kept = LearnedDetector(model, memory=str(tmp_path), **settings)
    whole, made = _lessons.attacked, []

    def twice(network, lesson, *rest):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(lesson.name)
        return whole(network, lesson, *rest)

    monkeypatch.setattr(_lessons, "attacked", twice)
    with pytest.raises(KeyboardInterrupt):
        kept.fit(X, y)
    first = list(made)
    monkeypatch.setattr(
        _lessons, "attacked", lambda *a: made.append(a[1].name) or whole(*a)
    )
    assert np.array_equal(kept.fit(X, y).score_samples(X), expected)
    assert len(first) == 3
    assert not set(first) & set(made[3:])  # none was made again
    done = len(made)
    kept.fit(X, y)
    assert len(made) == done


def test_progress_is_shown(model, quick, capsys):
    X, y = points(120, seed=2)
    settings = {"target_fpr": 0.1, "self_test": False, "random_state": 0}
    LearnedDetector(model, verbose=1, **settings).fit(X, y)
    shown = capsys.readouterr().err
    assert "measure: 100%" in shown
    assert "learn: 100%" in shown
    LearnedDetector(model, **settings).fit(X, y)
    assert capsys.readouterr().err == ""
