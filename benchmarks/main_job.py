"""Measure the main job: detection and relabelling with default settings.

    python benchmarks/main_job.py fashion-mnist --weights lenet.pt \
        --out benchmarks/results/main_job-fashion-mnist-0.json

Of the first 400 test images, those that the network gets right set the threshold
(clean ones alone, 5 % false positives) and the finite step; the next 600 test images
give the figures and nothing else. PGD runs at the budget of the report, and the minimal
perturbation at 1.02 times its norm; noise of the norm of each perturbation is the
control.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from networks import SMALL, load_images, smallest_eps

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
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
N_CALIBRATION, N_TEST = 400, 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=SMALL)
    parser.add_argument("--weights", help="the shipped ones by default")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()

    model = trained_model(args.dataset, weights=args.weights)
    X, y = load_images(args.dataset, args.data_dir)
    accuracy = float(np.mean(model.predict(X) == y))

    calibration = X[:N_CALIBRATION][
        model.predict(X[:N_CALIBRATION]) == y[:N_CALIBRATION]
    ]
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(calibration)
    detector = CurvatureThresholdDetector(target_fpr=TARGET_FPR)
    detector.fit(featurizer.transform(calibration))

    test = slice(N_CALIBRATION, N_CALIBRATION + N_TEST)
    results = {
        "dataset": args.dataset,
        "network_accuracy": accuracy,
        "step": featurizer.step_,
        "target_fpr": TARGET_FPR,
        "n_calibration": len(calibration),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    attacks = {
        "pgd": pgd(model, eps=smallest_eps(args.dataset)),
        "minimal_norm_1.02": MinimalNormAttack(model),
    }
    for name, attack in attacks.items():
        results[name] = evaluate(model, featurizer, detector, attack, X[test], y[test])
        print(args.dataset, args.weights, name, json.dumps(results[name]), flush=True)
    Path(args.out).write_text(json.dumps(results, indent=2))


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
    rounded = {key: [round(v, 4) for v in figure] for key, figure in figures.items()}
    return {"n_clean": len(clean), "n_adversarial": len(adversarial), **rounded}


if __name__ == "__main__":
    main()
