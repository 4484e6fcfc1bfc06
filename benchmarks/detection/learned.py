r"""What the learned detector does on a network, on images that it never learned from.

    python -m benchmarks learned fashion-mnist fashion-mnist-vit
    python -m benchmarks learned Convnet_maxpool --strangers FOLDER
    python -m benchmarks learned fashion-mnist --companions

It learns by itself, from clean images alone (`fit`), and is judged by attacks of other
hands: torchattacks' FGSM, PGD, APGD, CW, DeepFool and Square, and our minimal
perturbations, at the budgets of each network. Adversarial images are those
right before and wrong after. Once it learns from all that it makes itself, and once
without each kind; noise as long as the attacks is the control. Which images are for
what, `common/splits.py` says. With `--companions` it has the companion that the command
of that name trained for the data set. Needs the extra attacks, and onnx for networks of
others.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.arguments import (
    add_companions,
    add_data_dir,
    add_networks,
    add_out,
    command_parser,
)
from benchmarks.common.results import RESULTS, known, rounded, shares, write
from benchmarks.common.splits import RATES, load_companion, load_subject, many_clean
from benchmarks.detection.attacks import attacks
from benchmarks.detection.corrupted import flagged_corrupted
from benchmarks.detection.kinds import KINDS
from curvdetect import LearnedDetector, assess_guard
from curvdetect.attacks import (
    KINDS as OWN_KINDS,
)
from curvdetect.attacks import (
    AdversarialSet,
    make_adversarial_set,
    same_norm_noise,
)
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.study import metrics

#: Attacked sets of fewer images say too little.
LEAST = 50
#: By the benchmark's kinds, what of the detector's own is left out.
LEFT_OUT = dict(zip(KINDS, OWN_KINDS, strict=False))


def parser() -> argparse.ArgumentParser:
    parser = command_parser("learned", __doc__)
    add_networks(parser)
    parser.add_argument("--weights", help="the shipped ones by default")
    add_data_dir(parser)
    add_companions(parser)
    parser.add_argument("--quick", action="store_true", help="without whole kinds")
    add_out(parser, "learned.json, or {learned-companions}.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    which = "learned" if args.companions is None else "learned-companions"
    out = args.out or RESULTS / f"{which}.json"
    results = known(out, {})
    for network in args.networks:
        name = network
        if args.weights is not None:
            name += f" {Path(args.weights).stem}"
        if args.companions is not None:
            name += " with a companion"
        results[name] = measured(network, args)
        write(out, results)


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return all figures of one network."""
    model, data, fit, test, more = load_subject(
        network,
        strangers=args.strangers,
        weights=args.weights,
        data_dir=args.data_dir,
    )
    companion = load_companion(data, args.companions, args.data_dir)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = LearnedDetector(
            model, companion=companion, target_fpr=0.01, random_state=0
        ).fit(*fit)
    seconds = time.perf_counter() - start
    at = {fpr: conformal_threshold(detector.clean_scores_, fpr) for fpr in RATES}
    sets = {
        name: kept
        for name, attack in attacks(model, data).items()
        if len((kept := attacked(model, attack, *test)).adversarial) >= LEAST
    }
    clean_images = next(iter(sets.values())).clean
    clean = detector.examine(clean_images)
    cells = {name: of_attack(detector, clean.score, at, s) for name, s in sets.items()}
    without = {}
    if not args.quick:
        without = left_out(model, companion, fit, sets, clean_images)
    result = {
        "accuracy": rounded(metrics.proportion(model.predict(test[0]) == test[1])),
        "n_fit": len(fit[0]),
        "n_clean": len(clean_images),
        "fit_seconds": round(seconds, 1),
        "warnings": sorted({str(w.message) for w in caught}),
        "passes": round(detector.passes_, 2),
        "cost_clean": round(detector.cost(clean_images), 2),
        "stages_clean": np.bincount(clean.stage, minlength=3).tolist(),
        "flagged_clean": shares(clean.score, at),
        "flagged_by_class": by_class(detector, *many_clean(data, args.data_dir), at),
        "corrupted": flagged_corrupted(detector, *test, at),
        "guarded_accuracy": guarded(detector, test, at),
        "flagged_wrong": flagged_wrong(detector, model, test, more, at),
        "cells": cells,
        "without_kind": without,
        "self_test": compared(detector, more),
        "torch": torch.__version__,
    }
    say(network, result)
    return result


def say(network: str, result: dict) -> None:
    """Print the most important figures."""
    cells = result["cells"].values()
    areas = [cell["auroc"][0] for cell in cells]
    without = [area for area, _, _ in result["without_kind"].values()]
    print(
        f"{network}: AUROC {np.mean(areas):.3f}, worst {min(areas):.3f}; without a "
        f"kind {np.mean(without) if without else math.nan:.3f}; relabelled "
        f"{np.mean([cell['relabelled'][0] for cell in cells]):.3f}; "
        f"{result['cost_clean']} FE; fit {result['fit_seconds']:.0f} s",
        flush=True,
    )


def attacked(model, attack, X, y) -> AdversarialSet:
    """Run an attack; where it gives NaN, as DeepFool may, the image stays."""

    def finite(images, labels):
        found = attack(images, labels)
        return torch.where(found.isfinite(), found, images).clamp(0, 1)

    return make_adversarial_set(model, finite, X, y, batch_size=128)


def of_attack(detector, clean, at, images: AdversarialSet) -> dict:
    """Return the figures of one attack."""
    found = detector.examine(images.adversarial)
    noise = same_norm_noise(images.clean, images.control_norms, random_state=0)
    noisy = detector.examine(noise)
    # Other noise fools the network itself: clean images are those it gets right.
    kept = noisy.logits.argmax(axis=1) == images.clean_label
    relabelled = found.recovered_label == images.original_label
    return {
        "n": len(images.adversarial),
        "success": rounded(metrics.proportion(images.fooled)),
        "norm": round(float(images.norms.mean()), 4),
        "auroc": rounded(metrics.auroc(clean, found.score)),
        "detected": shares(found.score, at),
        "noise_fools": rounded(metrics.proportion(~kept)),
        "flagged_noise": shares(noisy.score[kept], at),
        "relabelled": rounded(metrics.proportion(relabelled)),
        "right": {  # flagged and relabelled right
            f: rounded(metrics.proportion(relabelled & (found.score > t)))
            for f, t in at.items()
        },
        "cost": round(detector.cost(images.adversarial), 2),
    }


def left_out(model, companion, fit, sets, clean_images) -> dict:
    """Return AUROC of the attacks of a kind, nothing of which was learned from."""
    found = {}
    for kind, names in KINDS.items():
        if kind not in LEFT_OUT:
            continue  # it makes none of this kind: nothing is to be left out
        rest = tuple(k for k in OWN_KINDS if k != LEFT_OUT[kind])
        other = LearnedDetector(
            model,
            companion=companion,
            target_fpr=0.01,
            kinds=rest,
            self_test=False,
            random_state=0,
        ).fit(*fit)
        clean = other.score_samples(clean_images)
        for name, images in sets.items():
            if name.startswith(names):
                score = other.score_samples(images.adversarial)
                found[name] = rounded(metrics.auroc(clean, score))
    return found


def flagged_wrong(detector, model, test, more, at) -> dict:
    """Return how many clean images are flagged that the network gets wrong."""
    X, y = (np.concatenate(pair) for pair in zip(test, more, strict=True))
    wrong = X[model.predict(X) != y]
    score = detector.score_samples(wrong) if len(wrong) else np.empty(0)
    return {"n": len(wrong)} | shares(score, at)


def guarded(detector, test, at) -> dict:
    """Return the accuracy on all clean images, where flagged ones are relabelled."""
    X, y = test
    found = detector.examine(X)
    own = found.logits.argmax(axis=1)
    return {
        f: rounded(
            metrics.proportion(
                np.where(found.score > t, found.recovered_label, own) == y
            )
        )
        for f, t in at.items()
    }


def by_class(detector, X, y, at) -> dict:
    """Return how many images that the network gets right are flagged, by class."""
    found = detector.examine(X)
    right = found.logits.argmax(axis=1) == y
    return {
        str(f): {
            int(c): [
                int((found.score > t)[right & (y == c)].sum()),
                int((right & (y == c)).sum()),
            ]
            for c in np.unique(y)
        }
        for f, t in at.items()
    }


def compared(detector, more) -> dict:
    """Return how often the self-test and fresh images tell the same, and its cells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh = {r.attack: r for r in assess_guard(detector, *more, random_state=1)}
    same = []
    for row in detector.self_test_:
        if (other := fresh.get(row.attack)) is None:
            continue
        # Half widths of 95 % intervals add in squares; each resampled its own clean.
        half = math.hypot(
            row.auroc_high - row.auroc_low, other.auroc_high - other.auroc_low
        )
        same.append(abs(row.auroc - other.auroc) <= half / 2)
    return {"cells": len(same), "same": int(sum(same)), "n_fresh": len(more[0])}
