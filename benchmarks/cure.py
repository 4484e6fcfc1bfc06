"""What curvature regularisation and adversarial training do to a network.

    python benchmarks/cure.py fashion-mnist --weights lenet.pt --work-dir cure \
        --out benchmarks/results/cure-fashion-mnist.json \
        --pictures docs/images/cure-fashion-mnist.png

The network is trained for a few epochs more: plainly (the control), with CURE, and on
PGD images. For each: accuracy, accuracy under PGD, the norm of the smallest
perturbation, the curvature of the loss and of the boundaries, all on test images; and
what detection and relabelling become, as benchmarks/main_job.py measures them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from main_job import N_CALIBRATION, N_TEST, TARGET_FPR, evaluate
from networks import SMALL, load_images, smallest_eps, training_images
from robustness import rounded

from curvdetect import CurvatureFeaturizer, CurvatureThresholdDetector
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set, pgd
from curvdetect.geometry import (
    find_adversarial_perturbation,
    hessian_eigenvalues,
    mean_curvature,
    principal_curvatures,
)
from curvdetect.network import find_nearest_boundaries
from curvdetect.plotting import ProfileComparisonDisplay
from curvdetect.study.networks import trained_model
from curvdetect.study.training import (
    CURE,
    AdversarialTraining,
    CrossEntropy,
    cure_penalty,
    train,
)

N_EPOCHS = 5
N_PROFILE, N_NORMS = 40, 300
STEP = 0.1
BATCH_SIZE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=SMALL)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--pictures", required=True)
    args = parser.parse_args()

    args.work_dir.mkdir(parents=True, exist_ok=True)
    X, y = training_images(args.dataset, args.data_dir)
    eps = smallest_eps(args.dataset)
    losses = {
        "plain": CrossEntropy(),
        "CURE": CURE(),
        "PGD training": AdversarialTraining(eps=eps),
    }
    test = load_images(args.dataset, args.data_dir)
    results = {
        "dataset": args.dataset,
        "eps": eps,
        "n_epochs": N_EPOCHS,
        "torch": torch.__version__,
    }
    profiles = {}
    for name, loss in losses.items():
        model = trained_model(args.dataset, weights=args.weights)
        checkpoint = args.work_dir / f"{args.dataset}-{name.replace(' ', '-')}.pt"
        train(model.module, X, y, loss=loss, n_epochs=N_EPOCHS, checkpoint=checkpoint)
        weights = checkpoint.with_name(f"{checkpoint.stem}-weights.pt")
        torch.save(model.module.state_dict(), weights)  # for adaptive.py --weights
        figures, profiles[name] = measure(model, *test, eps)
        results[name] = {"loss": repr(loss), **figures}
        print(name, json.dumps(rounded(results[name]), indent=1), flush=True)
    Path(args.out).write_text(json.dumps(rounded(results), indent=2) + "\n")
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for place, ax in zip(("loss", "boundary"), axes, strict=True):
        ProfileComparisonDisplay.from_predictions(
            {name: profile[place] for name, profile in profiles.items()},
            quantity=(
                "eigenvalue of the loss Hessian (1 / input units²)"
                if place == "loss"
                else "curvature of the boundary (1 / input units)"
            ),
            ax=ax,
        )
    fig.savefig(args.pictures, dpi=110)


def measure(model, X, y, eps):
    """Return all figures of one network, and its profiles."""
    right = np.flatnonzero(model.predict(X[:1000]) == y[:1000])
    attacked = make_adversarial_set(model, pgd(model, eps=eps), X[:1000], y[:1000])
    x = torch.from_numpy(X[right[:N_NORMS]])
    label = torch.from_numpy(y[right[:N_PROFILE]])
    with model.evaluating():
        norms = find_adversarial_perturbation(
            model.logits, x, bounds=(0, 1), batch_size=BATCH_SIZE
        ).norms
        loss = hessian_eigenvalues(
            model.loss(label),
            x[:N_PROFILE],
            step=STEP,
            directions=False,
            batch_size=BATCH_SIZE,
        ).values
        nearest = find_nearest_boundaries(model, x[:N_PROFILE])
        boundary = principal_curvatures(
            nearest.margin,
            nearest.points,
            step=STEP,
            directions=False,
            batch_size=BATCH_SIZE,
        ).values
        average = mean_curvature(
            nearest.margin,
            nearest.points,
            step=STEP,
            n_directions=128,
            generator=torch.Generator().manual_seed(0),
            batch_size=BATCH_SIZE,
        )
        penalty = cure_penalty(
            model.as_module(), x, torch.from_numpy(y[right[:N_NORMS]]), step=1.0
        ).detach()
    n_right = len(right)
    figures = {
        "accuracy": float(np.mean(model.predict(X) == y)),
        "accuracy_under_pgd": (n_right - len(attacked.adversarial)) / 1000,
        "adversarial_norm_median": float(norms.median()),
        "penalty_at_h_1": float(penalty.mean()),
        "loss_largest_eigenvalue": float(loss.abs().amax(1).median()),
        "loss_largest_eigenvalue_mean": float(loss.abs().amax(1).mean()),
        "boundary_largest_curvature": float(boundary.abs().amax(1).median()),
        "boundary_average_curvature": float(average.mean()),
        "detection": detection(model, X, y, eps),
    }
    return figures, {"loss": loss.numpy(), "boundary": boundary.numpy()}


def detection(model, X, y, eps):
    """Return what the default detector and relabeler make of it."""
    calibration = X[:N_CALIBRATION]
    calibration = calibration[model.predict(calibration) == y[:N_CALIBRATION]]
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(calibration)
    detector = CurvatureThresholdDetector(target_fpr=TARGET_FPR)
    detector.fit(featurizer.transform(calibration))
    test = slice(N_CALIBRATION, N_CALIBRATION + N_TEST)
    attacks = {"pgd": pgd(model, eps=eps), "minimal_norm": MinimalNormAttack(model)}
    return {
        name: evaluate(model, featurizer, detector, attack, X[test], y[test])
        for name, attack in attacks.items()
    }


if __name__ == "__main__":
    main()
