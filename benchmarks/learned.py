"""What the learned detector does on a network, on images that it never learned from.

    python benchmarks/learned.py fashion-mnist fashion-mnist-vit ... --out FILE
    python benchmarks/learned.py Convnet_maxpool ... --strangers FOLDER --out FILE

It learns by itself, from clean images alone (`fit`), and is judged by attacks of other
hands: torchattacks' FGSM, PGD, APGD, CW, DeepFool and Square, and our minimal
perturbations, at the budgets of the detection benchmark. Adversarial images are those
right before and wrong after. Once it learns from all that it makes itself, and once
without each kind; noise as long as the attacks is the control. A stranger's MNIST
network learns from test images 2,000 to 2,499 and is judged by 1,000 to 1,299; ours
learn from as many of the last training images, which were left out of their training;
CIFAR-10 has 600 and 300 of its test images. With `--companions` it has the companion
that `companions.py` trained for the data set.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "detection"))

from kinds import KINDS
from networks import development_images, load_images
from protocol import attacks
from strangers import STRANGERS, load_stranger

from curvdetect import LearnedDetector, TorchModel, assess_guard
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
from curvdetect.study.networks import trained_model

RATES = (0.01, 0.05)
#: Attacked sets of fewer images say too little.
LEAST = 50
#: By the benchmark's kinds, what of the detector's own is left out.
LEFT_OUT = dict(zip(KINDS, OWN_KINDS, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--strangers", help="folder of the strangers' networks")
    parser.add_argument("--weights", help="the shipped ones by default")
    parser.add_argument("--data-dir")
    parser.add_argument("--companions", type=Path, help="folder of `companions.py`")
    parser.add_argument("--quick", action="store_true", help="without whole kinds")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for network in args.networks:
        name = (
            network if args.weights is None else f"{network} {Path(args.weights).stem}"
        )
        name += " with a companion" * (args.companions is not None)
        known[name] = measured(network, args)
        args.out.write_text(json.dumps(known, indent=1))


def loaded(network: str, args: argparse.Namespace):
    """Return a network, its like of ours, images to fit on and others to test."""
    if network in STRANGERS:
        model, data = load_stranger(network, args.strangers), STRANGERS[network][0]
    else:
        data = network
        model = trained_model(network, weights=args.weights, data_dir=args.data_dir)
    X, y = load_images(data, args.data_dir)
    if data == "cifar10":
        fit, test = slice(0, 600), slice(600, 900)
        return model, data, (X[fit], y[fit]), (X[test], y[test]), (X[900:], y[900:])
    test, more = slice(1000, 1300), slice(1300, 1500)
    if network in STRANGERS:
        fit = X[2000:2500], y[2000:2500]
    else:
        X_fit, y_fit = development_images(data, args.data_dir)
        fit = X_fit[:500], y_fit[:500]
    return model, data, fit, (X[test], y[test]), (X[more], y[more])


def companion_of(data: str, args: argparse.Namespace) -> TorchModel | None:
    """Return the companion that was trained for a data set, if one is asked for."""
    if args.companions is None:
        return None
    model = trained_model(data, data_dir=args.data_dir)
    weights = torch.load(args.companions / f"{data}.pt", weights_only=True)
    model.module.load_state_dict(weights)
    return model


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return all figures of one network."""
    model, data, fit, test, more = loaded(network, args)
    companion = companion_of(data, args)
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
    cells = {name: cell(detector, clean.score, at, s) for name, s in sets.items()}
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
        "flagged_clean": {
            f: rounded(metrics.proportion(clean.score > t)) for f, t in at.items()
        },
        "flagged_by_class": by_class(model, clean_images, clean.score > at[0.05]),
        "guarded_accuracy": guarded(detector, test, at),
        "flagged_wrong": flagged_wrong(detector, model, test, more, at),
        "cells": cells,
        "without_kind": without,
        "self_test": compared(detector, more),
        "torch": torch.__version__,
    }
    values = [c["auroc"][0] for c in cells.values()]
    print(
        f"{network}: AUROC {np.mean(values):.3f}, worst {min(values):.3f}; without a "
        f"kind {mean_without(without):.3f}; relabelled "
        f"{np.mean([c['relabelled'][0] for c in cells.values()]):.3f}; "
        f"{result['cost_clean']} FE; fit {seconds:.0f} s",
        flush=True,
    )
    return result


def attacked(model, attack, X, y) -> AdversarialSet:
    """Run an attack; where it gives NaN, as DeepFool may, the image stays."""

    def finite(images, labels):
        found = attack(images, labels)
        return torch.where(found.isfinite(), found, images).clamp(0, 1)

    return make_adversarial_set(model, finite, X, y, batch_size=128)


def cell(detector, clean, at, images: AdversarialSet) -> dict:
    """Return the figures of one attack."""
    found = detector.examine(images.adversarial)
    noise = same_norm_noise(images.clean, images.control_norms, random_state=0)
    noisy = detector.examine(noise)
    label = detector.examine(images.clean).logits.argmax(axis=1)
    kept = noisy.logits.argmax(axis=1) == label  # others fool the network themselves
    relabelled = found.recovered_label == images.original_label
    return {
        "n": len(images.adversarial),
        "success": rounded(metrics.proportion(images.fooled)),
        "norm": round(float(images.norms.mean()), 4),
        "auroc": rounded(metrics.auroc(clean, found.score)),
        "detected": {
            f: rounded(metrics.proportion(found.score > t)) for f, t in at.items()
        },
        "noise_fools": rounded(metrics.proportion(~kept)),
        "flagged_noise": {
            f: rounded(metrics.proportion(noisy.score[kept] > t)) for f, t in at.items()
        },
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


def mean_without(found: dict) -> float:
    return float(np.mean([v[0] for v in found.values()])) if found else math.nan


def flagged_wrong(detector, model, test, more, at) -> dict:
    """Return how many clean images are flagged that the network gets wrong."""
    X, y = (np.concatenate(pair) for pair in zip(test, more, strict=True))
    wrong = X[model.predict(X) != y]
    score = detector.score_samples(wrong) if len(wrong) else np.empty(0)
    return {"n": len(wrong)} | {
        str(f): rounded(metrics.proportion(score > t)) for f, t in at.items()
    }


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


def by_class(model, images, flagged) -> dict:
    """Return the share of clean images flagged, by class."""
    label = model.predict(images)
    return {
        int(c): [int(flagged[label == c].sum()), int((label == c).sum())]
        for c in np.unique(label)
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


def rounded(figure) -> list[float]:
    return [round(float(value), 4) for value in figure]


if __name__ == "__main__":
    main()
