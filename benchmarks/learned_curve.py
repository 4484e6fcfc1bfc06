"""AUROC of the learned detector by what a clean image may cost, beside 0.1's rule.

    python benchmarks/learned_curve.py fashion-mnist --out FILE
    python benchmarks/learned_curve.py cifar10_large ... --strangers FOLDER --out FILE

Images and attacks are those of `learned.py`; 0.1's rule is the largest average
curvature with its defaults, calibrated on the same clean images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from learned import LEAST, attacked, loaded
from protocol import attacks

from curvdetect import CurvatureFeaturizer, CurvatureThresholdDetector, LearnedDetector
from curvdetect.study import metrics

BUDGETS = (1, 2, 3, 4, 5, 6, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--strangers", help="folder of the strangers' networks")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.weights = None
    torch.set_num_threads(1)
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for network in args.networks:
        known[network] = curve(network, args)
        print(network, json.dumps(known[network]), flush=True)
        args.out.write_text(json.dumps(known, indent=1))


def curve(network: str, args: argparse.Namespace) -> dict:
    """Return the mean AUROC over the attacks, for each budget and for 0.1's rule."""
    warnings.simplefilter("ignore")  # `learned.py` keeps what is said
    model, data, fit, test, _ = loaded(network, args)
    found = {
        name: attacked(model, attack, *test)
        for name, attack in attacks(model, data).items()
    }
    sets = {name: s for name, s in found.items() if len(s.adversarial) >= LEAST}
    points = []
    with tempfile.TemporaryDirectory() as folder:  # each attack is made once
        for budget in BUDGETS:
            detector = LearnedDetector(
                model,
                target_fpr=0.01,
                budget=budget,
                self_test=False,
                memory=folder,
                random_state=0,
            ).fit(*fit)
            cost = detector.cost(next(iter(sets.values())).clean)
            points.append({"cost": round(cost, 2), **areas(detector, sets)})
    featurizer = CurvatureFeaturizer(model, random_state=0)
    right = fit[0][model.predict(fit[0]) == fit[1]]
    rule = CurvatureThresholdDetector(target_fpr=0.05).fit(
        featurizer.fit_transform(right)
    )

    class Threshold:
        """The rule, of images."""

        def score_samples(self, X):
            return rule.score_samples(featurizer.transform(X))

    clean = next(iter(sets.values())).clean
    with metrics.count_passes(model.module) as passes:
        featurizer.transform(clean)
    cost = passes.forward_equivalents / len(clean)
    then = {"cost": round(cost, 2), **areas(Threshold(), sets)}
    return {"attacks": list(sets), "learned": points, "threshold": then}


def areas(detector, sets) -> dict[str, float]:
    """Return the mean AUROC over the attacks, and the worst."""
    clean = detector.score_samples(next(iter(sets.values())).clean)
    each = [
        metrics.auroc(clean, detector.score_samples(s.adversarial)).value
        for s in sets.values()
    ]
    return {
        "auroc": round(float(np.mean(each)), 4),
        "worst": round(float(min(each)), 4),
    }


if __name__ == "__main__":
    main()
