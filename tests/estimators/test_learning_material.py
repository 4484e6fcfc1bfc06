"""What the forests learn from: weights, halves and intervals, counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from curvdetect import TorchModel
from curvdetect.attacks import Lesson
from curvdetect.estimators import _learning, _lessons
from curvdetect.estimators._cascade import Cascade, Decided
from curvdetect.estimators._evidence import Columns, Evidence
from curvdetect.estimators._learning import Learning
from curvdetect.estimators._lessons import CLEAN, CORRUPTED, UNKNOWN, Material
from modules import Returns

N_CLEAN = 100
#: 40 attacked images and 25 noisy ones of lesson 0; two attacked, one noisy of
#: lesson 1; 50 given, as lesson 2.
BEFORE = [CLEAN] * N_CLEAN + [1] * 40 + [CLEAN] * 25 + [0] * 2 + [CLEAN]
BEFORE += [UNKNOWN] * 50
LESSON = [CLEAN] * N_CLEAN + [0] * 65 + [1] * 3 + [2] * 50


def material(scores=None, source=None):
    n = len(BEFORE)
    values = np.zeros(n) if scores is None else np.asarray(scores, dtype=float)
    image = torch.from_numpy(values)[:, None].double()
    candidate, classes = torch.zeros(n, 1, 1), torch.ones(n, 1, dtype=torch.int64)
    columns = Columns(image, candidate.double(), classes)
    if source is None:
        source = np.arange(n) % N_CLEAN
    return Material([columns] * 3, np.array(BEFORE), np.array(LESSON), source)


def test_every_attack_counts_as_much_as_another():
    """Together twice as the clean images; noise as these; what was given, twice too."""
    weight = material().weights(np.ones(len(BEFORE), dtype=bool))
    before, lesson = np.array(BEFORE), np.array(LESSON)
    assert (weight[lesson == CLEAN] == 1).all()
    most = 1 + 0.05 * N_CLEAN  # of a lucky success
    for rows, total, n_lessons in (
        (before >= 0, 2.0, 2),
        ((before == CLEAN) & (lesson != CLEAN), 1.0, 2),
        (before == UNKNOWN, 2.0, 1),
    ):
        for number in set(lesson[rows]):
            each = weight[rows & (lesson == number)]
            expected = total * N_CLEAN / n_lessons / len(each)
            np.testing.assert_allclose(each, min(expected, most))
    # Of fewer rows, by what is among them.
    some = np.array(LESSON) != 1
    weight = material().weights(some)
    np.testing.assert_allclose(weight[N_CLEAN : N_CLEAN + 40], 5.0)


def recorded(monkeypatch, where):
    """Let no forest grow; return the rows that each would learn from."""
    rows = []

    def grown(material, stage, which, seed):
        rows.append((stage, which.copy()))
        return None, None

    monkeypatch.setattr(where, "grown", grown)
    return rows


def test_what_is_learned_without_a_kind(monkeypatch):
    """Clean images and the other kinds, with their noise."""
    rows = recorded(monkeypatch, _learning)
    kinds = ["gradient steps", "minimal norm", "given"]
    lessons = [Lesson(kind, kind, 0.1, None) for kind in kinds]
    known = SimpleNamespace(doubt="doubt", veto="veto", usual="usual")
    learning = Learning(SimpleNamespace(), None, 0.1, 0)
    found = learning.without_kinds(None, material(), lessons, known)
    assert list(found) == kinds
    lesson = np.array(LESSON)
    for number in range(3):
        for stage in range(3):
            at, which = rows[3 * number + stage]
            assert at == stage
            np.testing.assert_array_equal(which, lesson != number)
    assert all(
        (c.doubt, c.veto, c.usual) == ("doubt", "veto", "usual") for c in found.values()
    )


def test_without_the_only_kind_that_fooled_it_nothing_is_learned(monkeypatch):
    recorded(monkeypatch, _learning)
    lessons = [Lesson(name, "minimal norm", 0.1, None) for name in "ab"]
    lessons.append(Lesson("c", "given", 0.1, None))
    learning = Learning(SimpleNamespace(), None, 0.1, 0)
    known = SimpleNamespace(doubt=None, veto=None, usual=None)
    found = learning.without_kinds(None, material(), lessons, known)
    assert list(found) == ["given"]


@pytest.fixture
def by_the_first_column(monkeypatch):
    """Scores are what the first column says; return who learned for whom."""
    halves = []

    def grown(material, stage, rows, seed):
        halves.append(rows.copy())
        return None

    def forests_of(nodes, widths, device):
        assert widths == (1, 1)

    monkeypatch.setattr(_lessons, "grown", grown)
    monkeypatch.setattr(_lessons, "forests_of", forests_of)
    monkeypatch.setattr(
        _lessons, "log_odds", lambda forests, columns: (columns.image[:, 0], None)
    )
    return halves


def evidence():
    model = TorchModel(Returns(lambda x: x), input_shape=(2,), bounds=None)
    return Evidence(model, 2, 0.1, np.array([1.0, 0.0]))


def test_no_image_is_scored_by_what_was_made_of_it(by_the_first_column):
    source = np.arange(len(BEFORE)) % N_CLEAN
    values = np.random.default_rng(0).normal(size=len(BEFORE))
    made = material(values, source)
    scores = _lessons.cross_fitted(made, evidence(), 0, 0)
    np.testing.assert_array_equal(scores, values)
    first, second = by_the_first_column
    np.testing.assert_array_equal(first, ~second)
    assert not set(source[first]) & set(source[second])
    assert abs(first[:N_CLEAN].sum() - N_CLEAN / 2) <= 1


def clean_scores(attacked_at):
    """A rank for each clean or noisy image; attacked ones below or above them all."""
    attacked = np.array(BEFORE) != CLEAN
    scores = np.random.default_rng(0).permutation(len(BEFORE)) + attacked_at * attacked
    return scores, np.array(LESSON) == CLEAN, attacked


@pytest.mark.parametrize("budget", [1.0, 2.5, 3.0, 9.0])
def test_as_many_go_on_as_the_budget_allows(budget):
    """A share of (budget - 1) / 3 of the clean images, the most suspicious ones."""
    scores, clean, attacked = clean_scores(-1000.0)
    between = _lessons.doubt(material(), evidence(), None, budget, [scores] * 3)
    on = scores[clean] >= between[0, 0]
    assert on.mean() == pytest.approx(min((budget - 1) / 3, 1), abs=0.011)
    # What is above all clean and noisy images need not go on.
    assert between[0, 1] == scores[~attacked].max()
    left = max(budget - 1 - 3 * on.mean(), 0)
    further = scores[clean] >= between[1].clip(between[0])[0]
    assert further.mean() == pytest.approx(min(left / 4, on.mean()), abs=0.011)


@pytest.mark.parametrize("budget", [2.0, 9.0])
def test_what_is_below_the_attacked_images_stops(budget):
    """All but a hundredth by weight: one of the 40 counts 2.5 of 312, one given 4."""
    scores, _, attacked = clean_scores(1000.0)
    for lowest, n_below in ((-1, 0), (N_CLEAN, 1)):
        scores[lowest] = 500.0
        between = _lessons.doubt(material(), evidence(), None, budget, [scores] * 3)
        np.testing.assert_array_equal(between, np.sort(scores[attacked])[n_below])
        scores[lowest] = 1500.0


def test_quantiles_by_weight():
    values, weight = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 8.0])
    found = [_lessons._weighted_quantile(values, weight, q) for q in (0.05, 0.5, 0.95)]
    assert found == [1, 2, 3]


@pytest.mark.parametrize("pale", [0.0, 3.0])
def test_the_veto_alone_flags_no_more_of_clean_or_corrupted_images(pale):
    """At no threshold, however much the companion doubts corrupted ones."""
    random = np.random.default_rng(0)
    corrupted = np.arange(400) >= 200
    odds = random.normal(size=400) + pale * corrupted
    scores = random.normal(size=400)
    lesson = np.where(corrupted, CORRUPTED, CLEAN)
    made = Material([None] * 3, np.full(400, CLEAN), lesson, np.arange(400))
    asked = SimpleNamespace(against=lambda columns: torch.from_numpy(odds))
    veto = _lessons.veto(made, asked, scores)
    at, least = veto.T
    for group in (corrupted, ~corrupted):
        for k in range(len(veto)):
            doubted = (odds[group] > at[k]).mean()
            assert doubted <= (scores[group] >= least[k] - 0.01).mean() + 0.01
    # Without corrupted ones, those of clean images alone.
    rows = ~corrupted
    clean = Material(
        [None] * 3, *(np.array(v)[rows] for v in (made.before, lesson)), None
    )
    asked = SimpleNamespace(against=lambda columns: torch.from_numpy(odds[rows]))
    alone = _lessons.veto(clean, asked, scores[rows])
    assert (alone[:, 0] <= at).all()
    assert (alone[:, 1] >= least).all()
    assert (alone[-1, 0] < at[-1] - 2) == (pale > 0)


def test_a_cascade_asks_on_only_where_it_doubts(monkeypatch):
    """Scores by stage are given; doubt is in [-1, 1], ends included."""
    scores = torch.tensor(
        [[2.0, 9, 9], [1.0, 3, 9], [-1.0, 0.5, -4], [-1.5, 9, 9], [0.0, -2, 9]]
    ).double()
    x = torch.arange(5.0)[:, None].expand(5, 2).contiguous()
    seen = evidence()
    asked = []

    def measured(self, stage, images, logits, columns):
        number = images[:, 0].long()
        asked.append(number.tolist())
        image = scores[number, stage][:, None]
        classes = torch.tensor([[1, 0]]).expand(len(number), 2)
        # The second candidate is likelier for odd images.
        odds = torch.stack([0 * number, 2 * (number % 2) - 1], dim=1).double()
        return Columns(image, odds[:, :, None], classes)

    monkeypatch.setattr(Evidence, "measured", measured)
    monkeypatch.setattr(
        "curvdetect.estimators._cascade.forests_of", lambda nodes, widths, device: nodes
    )
    monkeypatch.setattr(
        "curvdetect.estimators._cascade.log_odds",
        lambda forests, columns: (columns.image[:, 0], columns.candidate[:, :, 0]),
    )
    cascade = Cascade(seen, [(1, 1)] * 3, np.array([[-1.0, 1.0]] * 2))
    with seen.evaluating(), torch.no_grad():
        found = cascade.decide(x)
    assert asked == [[0, 1, 2, 3, 4], [1, 2, 4], [2]]
    assert isinstance(found, Decided)
    assert found.score.tolist() == [2, 3, -4, -1.5, -2]
    assert found.stage.tolist() == [0, 1, 2, 0, 1]
    recovered = [1, 0, 1, 0, 1]
    assert found[3].tolist() == recovered
    e = np.e
    sure = 0.5 / (0.5 + 1 / (1 + e)), e / (1 + e) / (e / (1 + e) + 0.5)
    expected = torch.tensor([sure[k % 2] for k in range(5)])
    torch.testing.assert_close(found[4], expected.double())
    asked.clear()
    certain = Cascade(seen, [(1, 1)] * 3, np.array([[5.0, 6.0]] * 2))
    with seen.evaluating(), torch.no_grad():
        certain.decide(x)
    assert asked == [[0, 1, 2, 3, 4]]
