r"""AUROC of the learned detector by what a clean image may cost, beside 0.1's rule.

    python -m benchmarks learned-curve fashion-mnist
    python -m benchmarks learned-curve cifar10_large resnet_4b --strangers FOLDER

Images and attacks are those of `learned`; 0.1's rule is the largest average curvature
with its defaults, calibrated on the same clean images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.common.arguments import (
    add_data_dir,
    add_networks,
    add_out,
    command_parser,
)
from benchmarks.common.results import known, write
from benchmarks.common.splits import load_subject
from benchmarks.detection.attacks import attacks
from benchmarks.detection.learned import LEAST, attacked
from curvdetect import CurvatureFeaturizer, CurvatureThresholdDetector, LearnedDetector
from curvdetect.study import metrics

BUDGETS = (1, 2, 3, 4, 5, 6, 8)


def parser() -> argparse.ArgumentParser:
    parser = command_parser("learned-curve", __doc__)
    add_networks(parser)
    add_data_dir(parser)
    add_out(parser, "learned_curve.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    results = known(args.out, {})
    for network in args.networks:
        results[network] = curve(network, args)
        print(network, json.dumps(results[network]), flush=True)
        write(args.out, results)


def curve(network: str, args: argparse.Namespace) -> dict:
    """Return the mean AUROC over the attacks, for each budget and for 0.1's rule."""
    warnings.simplefilter("ignore")  # `learned` keeps what is said
    model, data, fit, test, _ = load_subject(
        network, strangers=args.strangers, data_dir=args.data_dir
    )
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
