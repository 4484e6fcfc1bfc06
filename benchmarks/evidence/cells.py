"""The lines of the results: attacks, detectors and comparisons on a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common.results import significant
from benchmarks.common.splits import RATES
from benchmarks.evidence.attacks import Attack
from benchmarks.evidence.attacks.base import LEARNED_AS
from benchmarks.evidence.case import Case
from benchmarks.evidence.detectors import Detector
from benchmarks.evidence.detectors.ours import GUARD, GUARD_WITH_COMPANION
from benchmarks.evidence.scores import CALIBRATION, CLEAN, OTHER, WITHOUT, Scores
from benchmarks.evidence.statistics import (
    Resampled,
    auroc,
    compared,
    holm,
    resampled,
    share,
    weights,
)
from curvdetect.attacks import AdversarialSet
from curvdetect.study import metrics

__all__ = ["LEAST", "of_attacks", "of_comparisons", "of_detector"]

#: Attacks that succeeded on fewer images are in no mean.
LEAST = 20
Sets = Mapping[str, tuple[Attack, AdversarialSet]]
Values = npt.NDArray[np.float64]
Cell = dict[str, Any]


def of_attacks(case: Case, sets: Sets) -> Cell:
    """Return what each attack is: its kind, success, norm and number of images."""
    return {
        "n_clean": max(len(images.clean) for _, images in sets.values()),
        "accuracy": significant(
            metrics.proportion(case.model.predict(case.test.X) == case.test.y)
        ),
        "attacks": {
            name: {
                "kind": attack.kind,
                "success": significant(metrics.proportion(images.fooled)),
                "norm": significant(float(images.norms.mean()))
                if images.source.size
                else None,
                "n": len(images.adversarial),
                "learned_from": attack.learned_from,
            }
            for name, (attack, images) in sets.items()
        },
    }


def of_detector(detector: Detector, case: Case, sets: Sets, scores: Scores) -> Cell:
    """Return the figures of one detector.

    Of each attack a list: AUROC with its interval, the shares that are flagged at 1 and
    at 5 %, and AUROC and the share at 5 % where the kind of attack was left out.
    """
    at = scores.thresholds()
    attacks = {}
    for name, of in figures(scores, sets).items():
        flagged = float((scores.of[name] > at[RATES[0]]).mean())
        rest = of["detected"], of["unseen"], of["unseen_detected"]
        area = Resampled(float(of["auroc"][0]), of["auroc"][1:]).estimate()
        attacks[name] = significant([*area, flagged, *(float(v[0]) for v in rest)])
    return {
        "learns": detector.learns,
        "source": detector.source,
        "ours": detector.ours,
        "n_calibration": len(scores.of[CALIBRATION]),
        "cost": significant(scores.cost),
        "clean": _flagged(scores.of[CLEAN], at),
        "attacks": attacks,
        "corrupted": _corrupted(case, scores),
        "other_data": _flagged(scores.of[OTHER], at) if OTHER in scores.of else None,
    }


def figures(
    scores: Scores, sets: Sets, n_clean: int | None = None
) -> dict[str, dict[str, Values]]:
    """Return four figures by attack, on the images at hand and on each resample.

    "auroc", "detected" (at 5 %), and both where the kind was left out: "unseen",
    "unseen_detected". Of the first `n_clean` clean images, by default all that were
    scored, and of what was made of them.
    """
    n_clean = n_clean or len(scores.of[CLEAN])
    drawn, found = weights(n_clean), {}
    for name, (attack, images) in sets.items():
        source = images.source[images.source < n_clean]
        if not len(source):
            continue
        clean, attacked = scores.of[CLEAN][:n_clean], scores.of[name][: len(source)]
        found[name] = {
            "auroc": auroc(clean, attacked, source, drawn),
            "detected": share(attacked > scores.threshold(RATES[1]), source, drawn),
        }
        clean, attacked, threshold = _unseen(attack, name, scores)
        clean, attacked = clean[:n_clean], attacked[: len(source)]
        found[name] |= {
            "unseen": auroc(clean, attacked, source, drawn),
            "unseen_detected": share(attacked > threshold, source, drawn),
        }
    return found


def _unseen(attack: Attack, name: str, scores: Scores) -> tuple[Values, Values, float]:
    """Return clean and attacked scores, and the threshold at 5 %, without the kind.

    Those of the detector itself, where nothing of the kind was learned.
    """
    kind = LEARNED_AS[attack.kind]
    left_out = WITHOUT.format(kind, name)
    if left_out not in scores.of:
        return scores.of[CLEAN], scores.of[name], scores.threshold(RATES[1])
    clean = scores.of[WITHOUT.format(kind, CLEAN)]
    return clean, scores.of[left_out], scores.threshold(RATES[1], kind)


def _flagged(values: Values, at: Mapping[float, float]) -> list[list[float]]:
    """Return the shares of clean images that are flagged, at 1 and at 5 %."""
    return [significant(metrics.proportion(values > t)) for t in at.values()]


def _corrupted(case: Case, scores: Scores) -> dict[str, list[int]]:
    """Return counts by kind and severity of corrupted images.

    How many the network still gets right, of these flagged at 1 and 5 %; how many it
    gets wrong, of these flagged.
    """
    found, at = {}, scores.thresholds().values()
    for name, (_, _, right) in case.corrupted.items():
        if (values := scores.of.get(f"corrupted {name}")) is None:
            continue
        found[name] = [
            number
            for of in (right, ~right)
            for number in (
                int(of.sum()),
                *(int((values[of] > threshold).sum()) for threshold in at),
            )
        ]
    return found


# Means over attacks, and who is ahead ---------------------------------------------


def of_comparisons(
    case: Case,
    detectors: Mapping[str, Detector],
    sets: Sets,
    scores: Mapping[str, Scores],
) -> Cell:
    """Return means over attacks of every detector, and how far ours is ahead.

    The learned guard is compared with every peer, by AUROC with the kind of attack left
    out, on the images that the peer scored: with the companion where the peer has it.
    """
    rows: dict[str, dict[str, Any]] = {}
    guards: dict[tuple[str, int], dict[str, Resampled]] = {}
    for name, of in scores.items():
        n = len(of.of[CLEAN])
        means = _means(figures(of, sets), sets)
        rows[name] = {key: significant(each.estimate()) for key, each in means.items()}
        guard = GUARD_WITH_COMPANION if detectors[name].asks_companion(case) else GUARD
        if detectors[name].ours or guard not in scores:
            continue
        if (guard, n) not in guards:
            guards[guard, n] = _means(figures(scores[guard], sets, n), sets)
        ahead = compared(guards[guard, n]["unseen"], means["unseen"])
        rows[name] |= {
            "ahead": significant(ahead.difference),
            "p": significant(ahead.p),
        }
        rows[name]["guard"] = guard
    peers = [name for name, row in rows.items() if "p" in row]
    for name, p in zip(peers, holm([rows[n]["p"] for n in peers]), strict=True):
        rows[name]["p_holm"] = significant(p)
    return {"means": rows}


def _means(
    of_attacks: Mapping[str, Mapping[str, Values]], sets: Sets
) -> dict[str, Resampled]:
    """Return the means over attacks that succeeded often enough."""
    kept = [n for n in of_attacks if len(sets[n][1].adversarial) >= LEAST]
    kinds = {name: sets[name][0].kind for name in kept}
    return {
        key: resampled({name: of_attacks[name][key] for name in kept}, kinds)
        for key in ("auroc", "unseen", "detected", "unseen_detected")
    }
