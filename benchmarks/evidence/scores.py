"""What a detector says of all images of a case, kept on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.common.processes import timed
from benchmarks.common.splits import RATES
from benchmarks.evidence.attacks import Attack
from benchmarks.evidence.attacks.base import LEARNED_AS
from benchmarks.evidence.case import Case, Training
from benchmarks.evidence.detectors import Detector
from benchmarks.evidence.detectors.base import Scorer
from benchmarks.evidence.images import corrupted_sets, of_other_data
from curvdetect._base.files import written_at_once
from curvdetect.attacks import AdversarialSet
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.study import metrics

__all__ = ["CALIBRATION", "CLEAN", "OTHER", "WITHOUT", "Scores", "scores_of"]

CLEAN, CALIBRATION, OTHER = "clean", "calibration", "other data"
#: How scores are called of a detector that was made without a kind.
WITHOUT = "without {}: {}"
N_TIMED = 100
#: Severities at which slow detectors see corrupted images.
SEVERITIES, OF_SLOW_ONES = (1, 2, 3, 4, 5), (3,)
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores by set of images, and what they took.

    Sets are `CLEAN`, `CALIBRATION`, `OTHER`, "corrupted KIND SEVERITY", names of
    attacks, and `WITHOUT` of these, where the detector was made without a kind.
    """

    of: dict[str, Values]
    cost: dict[str, float]

    def threshold(self, rate: float, without: str | None = None) -> float:
        """Return the threshold that clean images set at a rate of false positives."""
        name = CALIBRATION if without is None else WITHOUT.format(without, CALIBRATION)
        return conformal_threshold(np.sort(self.of[name]), rate)

    def thresholds(self) -> dict[float, float]:
        """Return those at 1 and 5 %."""
        return {rate: self.threshold(rate) for rate in RATES}


def scores_of(
    detector: Detector,
    case: Case,
    learned: Training,
    sets: Mapping[str, tuple[Attack, AdversarialSet]],
    path: Path,
) -> Scores:
    """Fit a detector and score all images, or find the scores again."""
    if path.exists():
        return _read(path)
    scorer, seconds = _fitted(detector, case, learned)
    found = dict(_all_scores(detector, scorer, case, sets))
    cost = {"fit_seconds": seconds, **_cost(detector, scorer, case)}
    for kind in _kinds_to_leave_out(detector, learned):
        other, _ = _fitted(detector, case, learned.without(kind))
        like = {n: s for n, s in sets.items() if LEARNED_AS[s[0].kind] == kind}
        for name, values in _scores(detector, other, case, like):
            found[WITHOUT.format(kind, name)] = values
    result = Scores({name: _checked(v, name) for name, v in found.items()}, cost)
    _write(path, result)
    return result


def _fitted(detector: Detector, case: Case, learned: Training) -> tuple[Scorer, float]:
    seconds, scorer = timed(detector.make(case).fit, learned)
    return scorer, getattr(scorer, "fit_seconds", seconds)


def _kinds_to_leave_out(detector: Detector, learned: Training) -> list[str]:
    """Return what a detector that learns from attacks is made again without."""
    if detector.own_kinds is not None:
        return list(detector.own_kinds)
    if detector.learns != "attacks":
        return []
    return sorted({learned.kinds[name] for name in learned.attacked})


def _scores(
    detector: Detector,
    scorer: Scorer,
    case: Case,
    sets: Mapping[str, tuple[Attack, AdversarialSet]],
) -> Iterator[tuple[str, Values]]:
    """Yield scores of clean and attacked images, and those that set thresholds."""
    n = detector.n_images
    own = getattr(scorer, "clean_scores", None)
    if own is None:
        own = scorer.score(case.calibrating[:n])
    yield CALIBRATION, own
    yield CLEAN, scorer.score(case.right[:n])
    for name, (_, images) in sets.items():
        rows = images.source < (n or len(images.clean))
        if rows.any():
            yield name, scorer.score(images.adversarial[rows])


def _all_scores(
    detector: Detector,
    scorer: Scorer,
    case: Case,
    sets: Mapping[str, tuple[Attack, AdversarialSet]],
) -> Iterator[tuple[str, Values]]:
    """Yield these, and scores of corrupted images and of other data."""
    yield from _scores(detector, scorer, case, sets)
    severities = SEVERITIES if detector.n_images is None else OF_SLOW_ONES
    for name, X in corrupted_sets(case, severities):
        yield f"corrupted {name}", scorer.score(X)
    other = of_other_data(case)
    if other is not None:
        yield OTHER, scorer.score(other[: detector.n_images])


def _cost(detector: Detector, scorer: Scorer, case: Case) -> dict[str, float]:
    """Time scores of images that were not seen before: mirrored ones.

    Beside it, at the same time, the network alone.
    """
    mirrored = np.ascontiguousarray(case.right[:N_TIMED, ..., ::-1])
    scorer.score(mirrored[:2])  # what is made once is not what an image costs
    with ExitStack() as stack:
        passes = [
            stack.enter_context(metrics.count_passes(module))
            for module in getattr(scorer, "networks", detector.networks(case))
        ]
        scorer.score(mirrored)
        counted = sum(each.forward_equivalents for each in passes)
    own, bare = [], []
    for _ in range(3):  # in turns
        own.append(timed(scorer.score, mirrored)[0])
        bare.append(timed(case.model.predict_logits, mirrored)[0])
    return {
        "fe": counted / len(mirrored),
        "ms": 1000 * min(own) / len(mirrored),
        "bare_ms": 1000 * min(bare) / len(mirrored),
    }


def _checked(values: npt.ArrayLike, name: str) -> Values:
    checked = np.asarray(values, dtype=np.float64)
    if np.isnan(checked).any():
        raise ValueError(f"NaN among the scores of {name}")
    return checked


def _read(path: Path) -> Scores:
    with np.load(path) as file:
        cost = {k[5:]: float(file[k]) for k in file.files if k.startswith("cost:")}
        of = {k: file[k] for k in file.files if not k.startswith("cost:")}
    return Scores(of, cost)


def _write(path: Path, scores: Scores) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cost = {f"cost:{name}": value for name, value in scores.cost.items()}
    with written_at_once(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **scores.of, **cost)
