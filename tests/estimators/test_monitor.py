"""A watch over streams: what it promises holds, and what it is for it does."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, fisher_exact, kstest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from curvdetect import CurvatureGuard, GuardedClassifier, GuardMonitor, VotingDetector
from curvdetect.estimators import _betting
from curvdetect.estimators.guard import Assessment
from curvdetect.storage import load, save
from curvdetect.study.networks import LeNet


def ready(n=300, seed=0, **settings):
    """Return a monitor of normal scores, and a generator for more."""
    rng = np.random.default_rng(seed)
    monitor = GuardMonitor(random_state=seed, **settings)
    return monitor.fit(rng.normal(-2, 1, n)), rng


def assessed(scores, flagged=None):
    scores = np.asarray(scores, dtype=float)
    label = np.zeros(len(scores), dtype=np.int64)
    flagged = scores > 0 if flagged is None else flagged
    return Assessment(label, label, label, flagged, scores)


def one_by_one(calibration, stream, theta):
    """Return p-values as the formula has them."""
    before, p_values = list(calibration), []
    for score, share in zip(stream, theta, strict=True):
        before.append(score)
        so_far = np.array(before)
        count = (so_far > score).sum() + share * (so_far == score).sum()
        p_values.append(count / len(so_far))
    return np.array(p_values)


# p-values ---------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 10**9], ids=["ties", "no ties"])
@pytest.mark.parametrize("n_before", [0, 700], ids=["few", "many"])
def test_p_values_are_those_of_the_formula(levels, n_before):
    rng = np.random.default_rng(0)
    calibration, stream = (rng.integers(levels, size=n) / levels for n in (50, 900))
    monitor = GuardMonitor(random_state=0).fit(calibration)
    theta = np.random.Generator(np.random.PCG64(monitor.seed_)).random(900)
    monitor.update(stream[:n_before])
    found = monitor.update(stream[n_before:]).p_values
    np.testing.assert_allclose(
        found, one_by_one(calibration, stream, theta)[n_before:], rtol=1e-12
    )


@pytest.mark.parametrize("levels", [1, 2, 20, 10**9])
def test_p_values_are_uniform_and_independent(levels):
    """Of 2,000 short streams: each p-value, and whether it says what the next is."""
    rng = np.random.default_rng(1)
    p = np.array(
        [
            GuardMonitor(random_state=i).fit(s[:5]).update(s[5:]).p_values
            for i, s in enumerate(rng.integers(levels, size=(2000, 9)))
        ]
    )
    assert kstest(p.ravel(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(p.T) - np.eye(4)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(p))


def test_bets_are_fair():
    """Of each density the mean is 1, it is positive, and starting times sum to 1."""
    p = (np.arange(200_000) + 0.5) / 200_000
    for bet in (bet for kind in _betting._BETS.values() for bet in kind):
        density = bet(p)
        assert density.min() > 0
        assert density.mean() == pytest.approx(1, abs=1e-9)
    none = _betting.Stakes.none()
    ones = np.full(1000, 0.5)  # linear bets are 1 there: what is staked is not lost
    won = _betting.staked(none, 0, ones).stakes
    shifts = won.won == 0
    assert shifts.sum() == 4
    rest = 1 / (1 + np.log(1001))  # not yet staked
    np.testing.assert_allclose(np.exp(won.placed[shifts]), 1 - rest, rtol=1e-12)


def test_the_capital_is_that_of_the_formula():
    p = np.random.default_rng(0).random(40)
    found = _betting.staked(_betting.Stakes.none(), 0, p)
    bets = {k: [bet(p) for bet in v] for k, v in _betting._BETS.items()}
    g = 1 / (1 + np.log(np.arange(1, 42)))
    for n in (1, 7, 40):
        capital = {
            kind: np.mean(
                [
                    sum((g[s] - g[s + 1]) * f[s:n].prod() for s in range(n)) + g[n]
                    for f in of_kind
                ]
            )
            for kind, of_kind in bets.items()
        }
        assert np.exp(found.burst[n - 1]) == pytest.approx(capital["burst"])
        assert np.exp(found.drift[n - 1]) == pytest.approx(capital["drift"])
        assert np.exp(found.total[n - 1]) == pytest.approx(np.mean([*capital.values()]))


# The promise ------------------------------------------------------------------

N_STREAMS = 1000


def exchangeable(kind, rng):
    """Return 100 scores of a calibration and 1,000 of a stream, exchangeable."""
    if kind == "continuous":
        return rng.standard_normal(1100)
    if kind == "ties":
        return rng.integers(4, size=1100).astype(float)
    # Nobody's distribution: a bag of few outliers and many equal, in random order.
    bag = np.concatenate([np.full(900, -1.0), rng.standard_cauchy(200)])
    return rng.permutation(bag)


@pytest.mark.parametrize("kind", ["continuous", "ties", "a bag"])
def test_false_alarms_are_as_rare_as_promised(kind):
    """At 1 and 10 %, of 1,000 streams; a promise kept fails once in 10^5."""
    largest = np.empty(N_STREAMS)
    for i in range(N_STREAMS):
        scores = exchangeable(kind, np.random.default_rng(i))
        monitor = GuardMonitor(random_state=i).fit(scores[:100])
        largest[i] = monitor.update(scores[100:]).path.max()
    for level in (0.01, 0.1):
        n_alarms = int((largest >= -np.log10(level)).sum())
        low = beta.ppf(1e-5, n_alarms, N_STREAMS - n_alarms + 1) if n_alarms else 0
        assert low <= level
    assert (largest >= 1).any()  # it is not that nothing is ever bet


def test_ranks_among_the_calibration_alone_would_not_keep_it():
    """What the earlier images of the stream are for: this is the naive rank."""
    n_alarms = 0
    for i in range(200):
        rng = np.random.default_rng(i)
        known, stream = np.sort(rng.random(100)), rng.random(1000)
        larger = 100 - np.searchsorted(known, stream)
        p = (larger + rng.random(1000)) / 101
        path = _betting.staked(_betting.Stakes.none(), 0, p).total
        n_alarms += path.max() >= np.log(100)
    assert n_alarms > 60


# Alarms -----------------------------------------------------------------------


def suspicious(rng, n):
    return np.where(rng.random(n) < 0.1, rng.normal(2, 1, n), rng.normal(-2, 1, n))


@pytest.mark.parametrize(
    ("alarm", "stream"),
    [
        ("burst", suspicious),
        ("burst", lambda rng, n: rng.normal(3, 1, n)),
        ("drift", lambda rng, n: rng.normal(-3, 1, n)),
        ("drift", lambda rng, n: rng.normal(-2, 0.4, n)),
        ("drift", lambda rng, n: np.full(n, -2.0)),
    ],
    ids=["a tenth", "all", "lower", "narrower", "one score"],
)
@pytest.mark.parametrize("n_quiet", [0, 2000])
def test_what_has_changed_is_said(alarm, stream, n_quiet):
    monitor, rng = ready(500, seed=2)
    before = monitor.update(rng.normal(-2, 1, n_quiet))
    assert before.alarm is None
    state = monitor.update(stream(rng, 400))
    assert state.alarm == alarm
    assert n_quiet < state.alarm_at <= n_quiet + 200
    assert alarm in str(state)
    assert state.path[state.alarm_at - n_quiet - 1] >= 2
    assert (state.path[: state.alarm_at - n_quiet - 1] < 2).all()


def test_an_alarm_stays_until_fit():
    monitor, rng = ready()
    raised = monitor.update(rng.normal(3, 1, 50))
    later = monitor.update(rng.normal(-2, 1, 50))
    assert (later.alarm, later.alarm_at) == (raised.alarm, raised.alarm_at)
    monitor.fit(rng.normal(-2, 1, 300))
    state = monitor.update(rng.normal(-2, 1, 50))
    assert (state.n_images, state.alarm, state.alarm_at) == (50, None, None)


def test_a_stricter_level_waits_longer():
    at = [
        ready(level=level)[0].update(np.full(50, 3.0)).alarm_at
        for level in (0.1, 0.01, 1e-6)
    ]
    assert at[0] <= at[1] < at[2]


# Batches and files ------------------------------------------------------------


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@given(
    cuts=st.lists(st.integers(0, 700), max_size=8),
    levels=st.sampled_from([2, 50, 10**9]),
)
def test_batches_do_not_matter(cuts, levels):
    rng = np.random.default_rng(len(cuts))
    calibration, stream = (rng.integers(levels, size=n) / levels for n in (60, 700))
    whole = GuardMonitor(random_state=3).fit(calibration)
    at_once = whole.update(stream)
    parts = GuardMonitor(random_state=3).fit(calibration)
    states = [parts.update(part) for part in np.split(stream, sorted(cuts))]
    assert same(states[-1][:5], at_once[:5])
    assert same([np.concatenate([s.p_values for s in states])], [at_once.p_values])
    assert same([np.concatenate([s.path for s in states])], [at_once.path])
    assert joblib.hash(whole) == joblib.hash(parts)


def test_one_by_one_is_the_same():
    whole, rng = ready()
    single, _ = ready()
    stream = rng.normal(-1, 1, 600)
    at_once = whole.update(stream)
    states = [single.update(stream[i : i + 1]) for i in range(len(stream))]
    assert same(states[-1][:5], at_once[:5])
    assert same([[s.log10_martingale for s in states]], [at_once.path])


def through_pickle(monitor, tmp_path):
    return pickle.loads(pickle.dumps(monitor))


def through_file(monitor, tmp_path):
    pytest.importorskip("skops")
    save(monitor, tmp_path / "monitor.skops")
    return load(tmp_path / "monitor.skops")


@pytest.mark.parametrize("through", [through_pickle, through_file])
def test_it_goes_on_as_it_was(through, tmp_path):
    monitor, rng = ready()
    monitor.update(rng.integers(-4, 1, 300))  # ties: their breaking goes on too
    read = through(monitor, tmp_path)
    assert joblib.hash(read) == joblib.hash(monitor)
    stream = rng.integers(-4, 2, 100)
    assert same(read.update(stream), monitor.update(stream))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("known_", np.zeros(3)),
        ("won_", np.zeros(2)),
        ("placed_", np.full(_betting.N_BETS, np.nan)),
        ("n_images_", -1),
        ("alarm_", "sirens"),
    ],
)
def test_files_that_were_changed_are_refused(name, value, tmp_path):
    pytest.importorskip("skops")
    monitor, _ = ready()
    setattr(monitor, name, value)
    save(monitor, tmp_path / "monitor.skops")
    with pytest.raises(ValueError, match="what the monitor keeps is not"):
        load(tmp_path / "monitor.skops")


def test_random_state():
    np.random.seed(20)
    seeds = {
        GuardMonitor(random_state=state).fit([0.0]).seed_
        for state in (0, 0, 1, np.random.RandomState(0), None)
    }
    assert len(seeds) == 3  # None: from NumPy's global generator


# Guards -----------------------------------------------------------------------


@pytest.fixture
def guard(model, images):
    X, y = images
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.1)
    return guard.fit(X[:20], y[:20])


def test_with_a_guard(guard, images, tmp_path):
    X, y = images
    monitor = GuardMonitor(guard, random_state=0).fit(X[:20], y[:20])
    alone = GuardMonitor(random_state=0, target_fpr=0.1).fit(guard.assess(X[:20]))
    found = guard.assess(X[20:30])
    state = monitor.update(found)
    assert monitor.target_fpr_ == 0.1
    assert monitor.n_calibration_ == 20  # all, whatever the labels
    assert same(state, alone.update(found))
    assert state.n_flagged == found.flagged.sum()
    assert monitor.flags() == alone.flags()
    served = CurvatureGuard(guard)(torch.from_numpy(X[30:]))
    assert same(monitor.update(served), alone.update(guard.assess(X[30:])))
    pytest.importorskip("skops")
    save(monitor, tmp_path / "both.skops", weights=True)
    read = load(tmp_path / "both.skops", LeNet())
    again = alone.update(guard.assess(X[:5]))
    assert same(read.update(read.guard.assess(X[:5])), again)


def test_with_votes(with_companion, images):
    guard, X = with_companion(fit=False)
    network, companion = guard.model, guard.companion
    voting = VotingDetector(
        network, companion, sigma=0.1, n_votes=20, target_fpr=0.2, random_state=0
    )
    guard = GuardedClassifier(network, detector=voting).fit(images[0])
    monitor = GuardMonitor(guard, random_state=0).fit(X)
    assert monitor.target_fpr_ == 0.2
    found = guard.assess(images[0])
    state = monitor.update(found)
    assert (state.n_images, state.n_flagged) == (40, found.flagged.sum())


def test_clones_share_the_guard(guard):
    monitor = GuardMonitor(guard, level=0.05).fit([0.0, 1.0])
    copy = clone(monitor)
    assert copy.guard is guard
    assert copy.level == 0.05
    with pytest.raises(NotFittedError):
        copy.update([0.0])


def test_flags_count():
    monitor = GuardMonitor(target_fpr=0.1, random_state=0)
    monitor.fit(assessed(np.zeros(100), np.arange(100) < 5))
    monitor.update(assessed(np.zeros(50), np.arange(50) < 20))
    count = monitor.flags()
    assert count[:4] == (50, 20, 100, 5)
    assert count.n_expected == pytest.approx(5)
    assert binom.cdf(count.n_allowed - 1, 50, 0.1) < 0.99
    assert binom.cdf(count.n_allowed, 50, 0.1) >= 0.99
    exact = fisher_exact([[20, 30], [5, 95]], alternative="greater")
    assert count.p_value == pytest.approx(exact.pvalue)
    none = GuardMonitor(random_state=0).fit([-1.0, -2.0]).flags()
    assert none.n_allowed is None
    assert np.isnan(none.n_expected)
    assert none.p_value == 1


# Refusals ---------------------------------------------------------------------

REFUSED = {
    "level, 0": (
        lambda m: m.set_params(level=0).fit([0.0]),
        ValueError,
        "level must be strictly between 0 and 1; got 0",
    ),
    "level, 1": (
        lambda m: m.set_params(level=1.0).update([0.0]),
        ValueError,
        "level must be strictly between 0 and 1; got 1.0",
    ),
    "rate": (
        lambda m: m.set_params(target_fpr=5).fit([0.0]),
        ValueError,
        "target_fpr must be a number between 0 and 1",
    ),
    "guard": (
        lambda m: m.set_params(guard="a guard").fit([0.0]),
        TypeError,
        "guard must have a method assess, .* got str",
    ),
    "images, no guard": (
        lambda m: m.fit(np.zeros((3, 1, 28, 28))),
        TypeError,
        "X must be an assessment, or scores .* guard is None.* got ndarray",
    ),
    "a list of images, no guard": (
        lambda m: m.fit([np.zeros((1, 28, 28))]),
        TypeError,
        "X must be an assessment, or scores",
    ),
    "none": (lambda m: m.fit([]), ValueError, "X must hold at least one clean image"),
    "NaN, fit": (
        lambda m: m.fit([0.0, np.nan]),
        ValueError,
        "X must have scores that are numbers; got NaN for 1 of 2 images",
    ),
    "NaN": (
        lambda m: m.update(assessed([0.0, np.nan, np.nan])),
        ValueError,
        "assessment must have scores that are numbers; got NaN for 2 of 3 images",
    ),
    "images": (
        lambda m: m.update(np.zeros((3, 1, 28, 28))),
        ValueError,
        r"assessment must be .* shape \(3, 1, 28, 28\).* give guard.assess",
    ),
    "words": (lambda m: m.update(["a"]), ValueError, "assessment must be .*dtype <U1"),
    "flags, two": (
        lambda m: m.update(assessed([0.0], np.array([True, False]))),
        ValueError,
        "assessment must have a flag, true or false, for each of its 1 scores",
    ),
    "flags, numbers": (
        lambda m: m.update(assessed([0.0], np.array([1.0]))),
        ValueError,
        "assessment must have a flag, .* dtype float64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    """And nothing is counted."""
    call, kind, message = REFUSED[case]
    monitor, _ = ready()
    before = joblib.hash({k: v for k, v in vars(monitor).items() if k.endswith("_")})
    with pytest.raises(kind, match=message):
        call(monitor)
    after = joblib.hash({k: v for k, v in vars(monitor).items() if k.endswith("_")})
    assert after == before


def test_not_fitted():
    for ask in (lambda m: m.update([0.0]), lambda m: m.flags()):
        with pytest.raises(NotFittedError):
            ask(GuardMonitor())


def test_a_served_module_is_pointed_to_its_guard(guard):
    with pytest.raises(TypeError, match=r"got CurvatureGuard; give its \.guard"):
        GuardMonitor(CurvatureGuard(guard)).fit([0.0])


def test_empty_batches_and_infinite_scores():
    monitor, _ = ready()
    state = monitor.update([])
    assert state[:5] == (0, 0, 0.0, None, None)
    state = monitor.update([np.inf, -np.inf, np.inf])
    assert (state.n_images, state.n_flagged) == (3, 2)
    assert (state.p_values[0] < 0.01) & (state.p_values[1] > 0.99)
