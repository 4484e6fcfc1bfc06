"""The table of detectors: a run, what is kept of it, and how it goes on."""

import argparse
import json

import numpy as np
import pytest
import torch

from benchmarks.common.splits import Split
from benchmarks.evidence import cells, images, scores, table
from benchmarks.evidence.attacks import Attack
from benchmarks.evidence.case import CLEAN, Case, Files, Network, Sizes, Training
from benchmarks.evidence.detectors import Detector
from benchmarks.evidence.networks import names, network
from curvdetect import TorchModel
from curvdetect.attacks import make_adversarial_set

N = 120


def two_sums(model=None, files=None):
    """Two classes: which of red and blue is the lighter."""
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2, bias=False))
    with torch.no_grad():
        signs = torch.tensor([1.0] * 64 + [0.0] * 64 + [-1.0] * 64)
        flat[1].weight.copy_(torch.stack([signs, -signs]))
    return TorchModel(flat.eval(), input_shape=(3, 8, 8))


@pytest.fixture
def case(tmp_path):
    model = two_sums()
    X = np.random.default_rng(0).random((4 * N, 3, 8, 8)).astype(np.float32)
    y = model.predict(X)
    parts = [Split(X[i : i + N], y[i : i + N]) for i in range(0, 4 * N, N)]
    of = Network("two sums", "cifar10", (8,), two_sums, two_sums)
    files = Files(cache=tmp_path / "cache")
    return Case("sums", of, files, Sizes(attacked=N), model, *parts)


def swapped(X, y):
    return X.flip(1)  # of the other class, as long as the difference


def nothing(X, y):
    return X


ATTACKS = [
    Attack("swap", "gradient steps", swapped),
    Attack("swap few", "moved", swapped, n_images=40, learned_from=False),
    Attack("nothing", "black box", nothing),
]


class Brightness:
    """The mean of an image; it counts how often it learned."""

    fitted = 0

    def __init__(self, case):
        self.learned = None

    def fit(self, training):
        type(self).fitted += 1
        self.training = training
        return self

    def score(self, X):
        return X.mean(axis=(1, 2, 3), dtype=np.float64)


def detector(name="brightness", make=Brightness, learns="nothing", **more):
    return Detector(name, make, learns, "a test", **more)


@pytest.fixture
def few_attacks(monkeypatch):
    monkeypatch.setattr(images, "attacks_on", lambda case: ATTACKS)
    monkeypatch.setattr(Brightness, "fitted", 0)


def run(case, out, found, monkeypatch, *, resume=False, only=""):
    monkeypatch.setattr(table, "all_detectors", lambda: found)
    args = argparse.Namespace(only=[only], out=out, resume=resume)
    out.mkdir(exist_ok=True)
    table.Run(case, args, case.files.cache / case.name).all()
    lines = (out / "sums.jsonl").read_text().splitlines()
    return {cell["what"]: cell for cell in map(json.loads, lines)}, len(lines)


def test_a_run_has_a_line_for_attacks_detectors_and_comparisons(
    case, few_attacks, tmp_path, monkeypatch
):
    lines, n = run(case, tmp_path / "out", [detector()], monkeypatch)
    assert list(lines) == ["attacks", "brightness", "comparisons"]
    assert n == 3
    attacks = lines["attacks"]["attacks"]
    assert attacks["swap"]["success"][0] == 1
    assert attacks["swap"]["n"] == N
    assert attacks["swap few"]["n"] == 40
    assert attacks["nothing"]["n"] == 0
    cell = lines["brightness"]
    # Swapping channels keeps the mean: every attacked image ties with its clean one.
    assert cell["attacks"]["swap"][0] == pytest.approx(0.5)
    assert cell["attacks"]["swap"][5] == cell["attacks"]["swap"][0]  # learns nothing
    assert "nothing" not in cell["attacks"]
    assert cell["cost"]["fe"] == 0
    assert cell["n_calibration"] == N


def test_resume_measures_only_what_is_missing(case, few_attacks, tmp_path, monkeypatch):
    out = tmp_path / "out"
    before, _ = run(case, out, [detector()], monkeypatch)
    again, n = run(case, out, [detector()], monkeypatch, resume=True)
    assert again == before
    assert n == 3
    assert Brightness.fitted == 1
    lines = (out / "sums.jsonl").read_text().splitlines(keepends=True)
    (out / "sums.jsonl").write_text("".join(lines[:2]))  # killed before the end
    rest, _ = run(case, out, [detector()], monkeypatch, resume=True)
    assert rest == before
    assert Brightness.fitted == 1


def test_comparisons_are_of_all_that_was_measured(
    case, few_attacks, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    found = [detector("one"), detector("two")]
    lines, _ = run(case, out, found, monkeypatch, only="o")
    assert list(lines["comparisons"]["means"]) == ["one"]
    both, n = run(case, out, found, monkeypatch, resume=True)
    assert list(both["comparisons"]["means"]) == ["one", "two"]
    assert n == 4  # the earlier comparisons are gone
    again, _ = run(case, out, found, monkeypatch, resume=True, only="t")
    assert again == both


def test_networks_met_later_are_not_among_all():
    later, rest = table.chosen(["later"], False), table.chosen(["all"], False)
    assert {"resnet_2b_cifar10", "vit_pgd_cifar10"} <= {*later}
    assert {"resnet_4b_cifar10", "lenet_mnist"} <= {*rest}
    assert not {*later} & {*rest}
    assert sorted([*later, *rest]) == names() == table.chosen(["all", "later"], False)
    one = ["resnet_2b_cifar10"]
    assert table.chosen(one, False) == table.chosen(one, True) == one
    assert table.chosen(["all"], True) == table.QUICK


def test_a_line_cut_short_by_a_kill_is_written_again(
    case, few_attacks, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    before, _ = run(case, out, [detector()], monkeypatch)
    text = (out / "sums.jsonl").read_text()
    (out / "sums.jsonl").write_text(text[: text.index("brightness") + 30])
    again, _ = run(case, out, [detector()], monkeypatch, resume=True)
    assert again == before


def test_a_detector_that_fails_is_a_result_and_stops_nobody(
    case, few_attacks, tmp_path, monkeypatch
):
    class Fails(Brightness):
        def score(self, X):
            return np.full(len(X), np.nan)

    found = [detector("fails", Fails), detector()]
    lines, _ = run(case, tmp_path / "out", found, monkeypatch)
    assert lines["fails"]["failed"].startswith("ValueError: NaN among the scores of ")
    assert "attacks" in lines["brightness"]
    assert list(lines["comparisons"]["means"]) == ["brightness"]


def test_what_learns_from_attacks_is_made_again_without_each_kind(
    case, few_attacks, tmp_path, monkeypatch
):
    seen = []

    class Learns(Brightness):
        def fit(self, training):
            seen.append((training.left_out, sorted(training.attacked)))
            self.sign = -1 if training.left_out else 1
            return self

        def score(self, X):
            # Told apart by the first value, and wrong without the kind.
            return self.sign * np.asarray(X[:, 0, 0, 0], dtype=np.float64)

    lines, _ = run(
        case, tmp_path / "out", [detector("l", Learns, "attacks")], monkeypatch
    )
    assert seen == [("", ["swap"]), ("gradient steps", [])]
    auroc, unseen = (lines["l"]["attacks"]["swap"][i] for i in (0, 5))
    assert auroc == pytest.approx(1 - unseen)
    moved = lines["l"]["attacks"]["swap few"]  # nothing of its kind was learned from
    assert moved[0] == moved[5]


def test_what_is_learned_from_is_not_what_gives_the_figures(case, few_attacks):
    learned = images.training(case, case.files.cache)
    assert np.shares_memory(learned.reference.X, case.reference.X)
    assert set(learned.attacked) == {"swap"}
    X, labels, sources = learned.labelled()
    assert len(X) == len(labels) == len(sources) == 2 * N
    assert (labels[:N] == CLEAN).all()
    assert np.array_equal(labels[N:], case.fit.y)
    assert np.array_equal(X[:N], case.fit.X)
    assert np.array_equal(sources, np.tile(np.arange(N), 2))


def test_cost_is_that_of_images_that_were_not_seen(case, few_attacks, monkeypatch):
    class Asks(Brightness):
        def __init__(self, case):
            self.model = case.model

        def score(self, X):
            x = torch.from_numpy(np.ascontiguousarray(X)).requires_grad_()
            logits = self.model.module(x)
            torch.autograd.grad(logits.sum(), x)
            return logits[:, 0].detach().numpy()

    sets = images.attacked(case, case.files.cache)
    learned = images.training(case, case.files.cache)
    path = case.files.cache / "scores.npz"
    found = scores.scores_of(detector("asks", Asks), case, learned, sets, path)
    assert found.cost["fe"] == 3  # a forward pass, and a backward one as two
    again = scores.scores_of(detector("asks", Asks), case, learned, sets, path)
    assert again.cost == found.cost
    assert all(np.array_equal(again.of[name], of) for name, of in found.of.items())


def test_corrupted_images_are_counted_by_what_the_network_makes_of_them(
    case, few_attacks
):
    sets = images.attacked(case, case.files.cache)
    learned = images.training(case, case.files.cache)
    found = scores.scores_of(
        detector(), case, learned, sets, case.files.cache / "scores.npz"
    )
    cell = cells.of_detector(detector(), case, sets, found)
    X = dict(images.corrupted_sets(case, (3,)))["brightness 3"]
    right = case.model.predict(X) == case.test.y[: len(X)]
    flagged = X.mean(axis=(1, 2, 3), dtype=np.float64) > found.threshold(0.05)
    counts = cell["corrupted"]["brightness 3"]
    assert (counts[0], counts[2]) == (right.sum(), (right & flagged).sum())
    assert (counts[3], counts[5]) == ((~right).sum(), (~right & flagged).sum())
    assert flagged.any()  # lighter ones are


def test_ours_is_compared_on_the_images_that_a_peer_scored(case, few_attacks):
    sets = images.attacked(case, case.files.cache)
    rng = np.random.default_rng(0)

    def made(n, gap):
        of = {"clean": rng.random(n), "calibration": rng.random(N)}
        for name, (_, images_) in sets.items():
            of[name] = rng.random((images_.source < n).sum()) + gap
        return scores.Scores(of, {})

    guard, peer = made(N, 2.0), made(30, 0.0)
    guards = {cells.GUARD: detector(cells.GUARD, ours=True), "peer": detector("peer")}
    found = cells.of_comparisons(case, guards, sets, {cells.GUARD: guard, "peer": peer})
    rows = found["means"]
    assert rows[cells.GUARD]["unseen"] == [1, 1, 1]
    assert "ahead" not in rows[cells.GUARD]
    assert rows["peer"]["ahead"][0] == pytest.approx(1 - rows["peer"]["unseen"][0])
    assert rows["peer"]["ahead"][1] > 0.3
    assert rows["peer"]["p_holm"] == rows["peer"]["p"] < 0.001


def test_a_peer_with_a_companion_meets_the_guard_that_has_it(case, few_attacks):
    sets = images.attacked(case, case.files.cache)
    vars(case)["companion"] = two_sums()
    both = lambda case: (case.model.module, case.companion.module)
    rng = np.random.default_rng(0)
    names_ = [cells.GUARD, cells.GUARD_WITH_COMPANION, "alone", "two"]
    found = {
        name: scores.Scores(
            {"clean": rng.random(N), "calibration": rng.random(N)}
            | {a: rng.random(len(of.source)) for a, (_, of) in sets.items()},
            {},
        )
        for name in names_
    }
    detectors = {n: detector(n, ours=n in names_[:2]) for n in names_}
    detectors["two"] = detector("two", networks=both)
    rows = cells.of_comparisons(case, detectors, sets, found)["means"]
    assert rows["alone"]["guard"] == cells.GUARD
    assert rows["two"]["guard"] == cells.GUARD_WITH_COMPANION
    ahead = rows[cells.GUARD_WITH_COMPANION]["unseen"][0] - rows["two"]["unseen"][0]
    assert rows["two"]["ahead"][0] == pytest.approx(ahead, abs=1e-3)


def test_what_was_attacked_is_found_again(case, few_attacks, monkeypatch):
    first = images.attacked(case, case.files.cache)
    monkeypatch.setattr(
        images, "attacked_by", lambda *_, **__: pytest.fail("made again")
    )
    again = images.attacked(case, case.files.cache)
    for name, (_, of) in first.items():
        assert np.array_equal(of.adversarial, again[name][1].adversarial)


def test_not_a_number_stays_as_it_was(case, monkeypatch):
    def broken(X, y):
        return torch.where(torch.arange(len(X)).view(-1, 1, 1, 1) == 0, torch.nan, X)

    monkeypatch.setattr(
        images, "attacks_on", lambda case: [Attack("broken", "moved", broken)]
    )
    ((_, of),) = images.attacked(case, case.files.cache).values()
    assert not len(of.adversarial)
    assert len(of.clean) == N


@pytest.mark.parametrize("name", names())
def test_a_network_is_a_file_that_says_what_it_is(name):
    of = network(name)
    assert of.data in ("mnist", "fashion-mnist", "cifar10")
    assert all(isinstance(budget, int) for budget in of.budgets)
    assert of.data in of.title.lower().replace("cifar-10", "cifar10")


def test_without_a_kind_the_rest_is_as_it_was(case):
    model, (X, y) = case.model, case.fit
    sets = {n: make_adversarial_set(model, swapped, X, y) for n in "ab"}
    both = Training(case.reference, case.fit, sets, {"a": "moved", "b": "few pixels"})
    one = both.without("moved")
    assert set(one.attacked) == {"b"}
    assert one.left_out == "moved"
    assert both.left_out == ""
