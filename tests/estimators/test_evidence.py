"""What a learned detector looks at: every column, against its meaning in NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from curvdetect import TorchModel
from curvdetect.estimators._evidence import Evidence
from curvdetect.signals import Companion
from modules import Returns

SIDE = 6
DIRECTION = np.random.default_rng(3).normal(size=(SIDE, SIDE))
DIRECTION /= np.linalg.norm(DIRECTION)
SCALE = 0.7


def curved(n_classes, seed):
    """Smooth logits of all pixels, in double precision."""
    weights = torch.from_numpy(np.random.default_rng(seed).normal(size=(36, n_classes)))
    return TorchModel(
        Returns(lambda x: (x.double().flatten(1) @ weights / 2).sin() * 3),
        input_shape=(SIDE, SIDE),
        bounds=None,
    )


@pytest.fixture
def x():
    return np.random.default_rng(0).random((7, SIDE, SIDE))


def evidence(n_classes, companion=None, passes=0.0):
    return Evidence(
        curved(n_classes, 1), n_classes, SCALE, DIRECTION, companion, passes
    )


def stages_of(evidence, x):
    """Return what each of the three stages adds to the columns of an image."""
    x, columns, found, before = torch.from_numpy(x), None, [], (0, 0)
    with evidence.evaluating():
        logits = evidence.model.logits(x)
        for stage in range(3):
            columns = evidence.measured(stage, x, logits, columns)
            now = evidence.n_columns(stage)
            assert now == (columns.image.shape[1], columns.candidate.shape[2])
            found.append(
                (
                    columns.image[:, before[0] :].numpy(),
                    columns.candidate[:, :, before[1] :].numpy(),
                )
            )
            before = now
    return found, columns.classes.numpy()


def shifted(x, by):
    """Move pictures down and to the right; the edges are repeated."""
    places = np.clip(np.arange(SIDE) - by, 0, SIDE - 1)
    return x[:, places][:, :, places]


def blurred(x):
    for axis in (1, 2):
        ends = [(0, 0)] * 3
        ends[axis] = (1, 1)
        padded = np.pad(x, ends, "edge")
        part = lambda first, p=padded, a=axis: np.take(
            p, np.arange(first, first + SIDE), axis=a
        )
        x = (part(0) + 2 * part(1) + part(2)) / 4
    return x


def two_levels(x):
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    return np.where(x - low > high - x, high, low)


def questions(model, x):
    """Return the logits of the neighbours, those of each question averaged."""
    of = model.predict_logits
    step = SCALE * DIRECTION
    first = [of(shifted(x, 1)), of(x[:, :, ::-1].copy()), of(two_levels(x))]
    both = (of(x + step) + of(x - step)) / 2
    return first, [of(shifted(x, -1)), of(blurred(x)), both]


def alone(f, candidates):
    """Return the columns of the logits of one image and of its candidates."""
    order = np.argsort(-f)
    gaps = f[order[0]] - f[order]
    image = [f[order[0]], *gaps[1:5], logsumexp(-gaps), *(f - f[order[0]])]
    place = {c: rank for rank, c in enumerate(order)}
    return image, [[place[c] - 1, f[order[0]] - f[c], c, order[0]] for c in candidates]


def beside(f, near, candidates):
    """Return the columns of how the logits of one image change to a neighbour."""
    own, *others = np.argsort(-f)
    fall = lambda c: (f[own] - f[c]) - (near[own] - near[c])
    image = [
        *[fall(c) for c in others[:3]],
        max(fall(c) for c in (own, *others)),
        min(near[own] - near[c] for c in others),
        near[own] - f[own],
        max(near[c] for c in others) - f[others[0]],
    ]
    falls = np.array([fall(c) for c in candidates])
    close = near[candidates]
    return image, [
        [
            falls[k],
            falls[k] - falls.max(),
            (falls > falls[k]).sum(),
            near[c] - near[own],
            close[k] - close.max(),
        ]
        for k, c in enumerate(candidates)
    ]


def check(found, expected):
    for part, (image, candidate) in zip(found, expected, strict=True):
        np.testing.assert_allclose(part[0], image, rtol=0, atol=1e-10)
        np.testing.assert_allclose(part[1], candidate, rtol=0, atol=1e-10)


def by_image(rows):
    """Turn what was found image by image into one array a kind."""
    image, candidate = zip(*rows, strict=True)
    return np.array(image), np.array(candidate, dtype=float)


def test_columns_of_all_stages(x):
    seen = evidence(5)
    found, classes = stages_of(seen, x)
    logits = seen.model.predict_logits(x)
    order = np.argsort(-logits, axis=1)
    np.testing.assert_array_equal(classes, order[:, 1:])
    expected = [by_image([alone(f, c) for f, c in zip(logits, classes, strict=True)])]
    for stage in questions(seen.model, x):
        parts = [
            by_image([beside(*row) for row in zip(logits, near, classes, strict=True)])
            for near in stage
        ]
        images, candidates = zip(*parts, strict=True)
        expected.append(
            (np.concatenate(images, axis=1), np.concatenate(candidates, axis=2))
        )
    check(found, expected)


def test_columns_of_a_companion(x):
    other = curved(5, 2)
    found, classes = stages_of(evidence(5, Companion(other), passes=2.0), x)
    logits, log_q = (m.predict_logits(x) for m in (curved(5, 1), other))
    log_p, log_q = log_softmax(logits, axis=1), log_softmax(log_q, axis=1)
    for row in range(len(x)):
        label = logits[row].argmax()
        q, p = np.exp(log_q[row]), np.exp(log_p[row])
        others = np.delete(log_q[row], label)
        image = [others.max(), (p * (log_p[row] - log_q[row])).sum(), *log_q[row]]
        image.append(np.log((1 - q[label]) / q[label]))
        # Rounded for a companion in single precision, as it has no weights.
        np.testing.assert_allclose(found[0][0][row, -8:], image, atol=5e-5)
        own = log_q[row][classes[row]]
        candidate = np.stack([own, own - log_q[row, label], own - log_q[row].max()], 1)
        np.testing.assert_allclose(found[0][1][row, :, -3:], candidate, atol=5e-5)


def test_costs_and_odds_of_a_companion(x):
    seen = evidence(5, Companion(curved(5, 2)), passes=2.0)
    assert seen.costs() == (3.0, 3.0, 4.0)
    assert evidence(5).costs() == (1.0, 3.0, 4.0)
    tensor = torch.from_numpy(x)
    with seen.evaluating():
        logits = seen.model.logits(tensor)
        columns = seen.measured(0, tensor, logits, None)
    q = torch.from_numpy(curved(5, 2).predict_logits(x)).softmax(1)
    own = q.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    expected = torch.log((1 - own) / own)
    torch.testing.assert_close(seen.against(columns), expected, rtol=0, atol=5e-5)
    assert evidence(5).against(columns) is None


def test_a_companion_names_some_of_many_classes(x):
    """Nine of forty: the five next largest logits, and the four it thinks likeliest."""
    found, classes = stages_of(evidence(40, Companion(curved(40, 2))), x)
    logits, other = (curved(40, seed).predict_logits(x) for seed in (1, 2))
    for row in range(len(x)):
        order = np.argsort(-logits[row])
        rest = [c for c in np.argsort(-other[row]) if c not in order[:6]]
        assert classes[row].tolist() == [*order[1:6], *rest[:4]]
    assert found[0][0].shape[1] == 6 + 3  # no column for each class
    _, classes = stages_of(evidence(40), x)
    np.testing.assert_array_equal(classes, np.argsort(-logits, axis=1)[:, 1:10])


def test_values_are_rounded_to_what_the_largest_logit_can_tell(x):
    """To 64 units in its last place, up to the next power of two."""
    seen = evidence(5)
    (stage, *_), _ = stages_of(seen, x)
    logits = np.abs(seen.model.predict_logits(x)).max(axis=1)
    grid = 2.0 ** np.ceil(np.log2(64 * 2.0**-52 * logits))
    units = stage[0] / grid[:, None]
    np.testing.assert_array_equal(units, np.round(units))
    finer = stage[0] / (2 * grid[:, None])
    assert (finer != np.round(finer)).any(axis=1).all()
