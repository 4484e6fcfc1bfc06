r"""Measure the main job of curvature: one threshold, and relabelling, by default.

    python -m benchmarks main-job fashion-mnist
    python -m benchmarks main-job fashion-mnist \\
        --weights benchmarks/cache/lenets/1/lenet_fashion_mnist.pt

Of the first 400 test images, those that the network gets right set the threshold
(clean ones alone, 5 % false positives) and the finite step; the next 600 test images
give the figures and nothing else. PGD runs at the budget of the report, and the minimal
perturbation at 1.02 times its norm; noise of the norm of each perturbation is the
control. Weights of other seeds are made by `assets`; their folder names the results.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import SMALL, load_images, smallest_eps
from benchmarks.common.results import RESULTS, rounded, write
from curvdetect import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    TorchModel,
)
from curvdetect.attacks import (
    MinimalNormAttack,
    make_adversarial_set,
    pgd,
    same_norm_noise,
)
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model

TARGET_FPR = 0.05
N_CALIBRATION = 400
#: Of the test images, those that give the figures.
TEST = slice(N_CALIBRATION, N_CALIBRATION + 600)


def parser() -> argparse.ArgumentParser:
    parser = command_parser("main-job", __doc__)
    parser.add_argument("network", choices=SMALL)
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    add_data_dir(parser)
    add_out(parser, "main_job-{NETWORK}-{0, or the folder of --weights}.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    model = trained_model(args.network, weights=args.weights)
    X, y = load_images(args.network, args.data_dir)
    featurizer, detector, n_calibration = default_detector(model, X, y)
    results = {
        "dataset": args.network,
        "network_accuracy": float(np.mean(model.predict(X) == y)),
        "step": featurizer.step_,
        "target_fpr": TARGET_FPR,
        "n_calibration": n_calibration,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    attacks = {
        "pgd": pgd(model, eps=smallest_eps(args.network)),
        "minimal_norm_1.02": MinimalNormAttack(model),
    }
    for name, attack in attacks.items():
        results[name] = evaluate(model, featurizer, detector, attack, X[TEST], y[TEST])
        print(args.network, args.weights, name, json.dumps(results[name]), flush=True)
    seed = args.weights.parent.name if args.weights else 0
    write(args.out or RESULTS / f"main_job-{args.network}-{seed}.json", results)


def default_detector(
    model: TorchModel, X: np.ndarray, y: np.ndarray
) -> tuple[CurvatureFeaturizer, CurvatureThresholdDetector, int]:
    """Return it as it comes, and how many of the first test images set it."""
    first = X[:N_CALIBRATION]
    calibration = first[model.predict(first) == y[:N_CALIBRATION]]
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(calibration)
    detector = CurvatureThresholdDetector(target_fpr=TARGET_FPR)
    detector.fit(featurizer.transform(calibration))
    return featurizer, detector, len(calibration)


def evaluate(model, featurizer, detector, attack, X, y):
    """Return all figures of one attack."""
    images = make_adversarial_set(model, attack, X, y)
    clean, adversarial = (
        featurizer.transform(images.clean),
        featurizer.transform(images.adversarial),
    )
    noisy = featurizer.transform(
        same_norm_noise(images.clean, images.control_norms, random_state=0)
    )
    relabeler = CurvatureRelabeler().fit(clean)
    scores = detector.score_samples(clean), detector.score_samples(adversarial)
    figures = {
        "success": metrics.proportion(images.fooled),
        "norm": metrics.mean_norm(images.norms),
        "auroc": metrics.auroc(*scores),
        "tpr_at_1%_fpr": metrics.tpr_at_fpr(*scores, 0.01),
        "tpr_at_5%_fpr": metrics.tpr_at_fpr(*scores, 0.05),
        "flagged_adversarial": metrics.proportion(detector.predict(adversarial)),
        "flagged_clean": metrics.proportion(detector.predict(clean)),
        "flagged_noisy": metrics.proportion(detector.predict(noisy)),
        "relabel": metrics.proportion(
            relabeler.predict(adversarial) == images.original_label
        ),
    }
    sizes = {"n_clean": len(clean), "n_adversarial": len(adversarial)}
    return sizes | rounded(figures)
