r"""What curvature regularisation and adversarial training do to a network.

    python -m benchmarks cure fashion-mnist

The network is trained for a few epochs more: plainly (the control), with CURE, and on
PGD images. For each: accuracy, accuracy under PGD, the norm of the smallest
perturbation, the curvature of the loss and of the boundaries, all on test images; and
what detection and relabelling become, as `main-job` measures them. The weights go to
`--work`, for `adaptive --weights`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.common.arguments import (
    IMAGES,
    add_cache,
    add_data_dir,
    add_out,
    add_picture,
    command_parser,
)
from benchmarks.common.networks import (
    SMALL,
    load_images,
    smallest_eps,
    training_images,
)
from benchmarks.common.results import RESULTS, significant, write
from benchmarks.detection.main_job import TEST, default_detector, evaluate
from curvdetect import TorchModel
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


def parser() -> argparse.ArgumentParser:
    parser = command_parser("cure", __doc__)
    parser.add_argument("network", choices=SMALL)
    parser.add_argument("--weights", help="to begin with; the shipped ones by default")
    add_data_dir(parser)
    add_cache(parser, "cure", "of checkpoints and weights", "--work")
    add_out(parser, "cure-{NETWORK}.json")
    add_picture(parser, "cure-{NETWORK}.png")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    eps = smallest_eps(args.network)
    test = load_images(args.network, args.data_dir)
    results = {
        "dataset": args.network,
        "eps": eps,
        "n_epochs": N_EPOCHS,
        "torch": torch.__version__,
    }
    losses = {
        "plain": CrossEntropy(),
        "CURE": CURE(),
        "PGD training": AdversarialTraining(eps=eps),
    }
    profiles = {}
    for name, loss in losses.items():
        model = retrained(args, name, loss)
        figures, profiles[name] = measure(model, *test, eps)
        results[name] = significant({"loss": repr(loss), **figures})
        print(name, json.dumps(results[name], indent=1), flush=True)
    write(args.out or RESULTS / f"cure-{args.network}.json", significant(results))
    picture = args.picture or IMAGES / f"cure-{args.network}.png"
    draw(profiles).savefig(picture, dpi=110)


def retrained(args: argparse.Namespace, name: str, loss: Callable) -> TorchModel:
    """Return the network, trained further, whose weights are kept."""
    model = trained_model(args.network, weights=args.weights)
    checkpoint = args.work / f"{args.network}-{name.replace(' ', '-')}.pt"
    X, y = training_images(args.network, args.data_dir)
    train(model.module, X, y, loss=loss, n_epochs=N_EPOCHS, checkpoint=checkpoint)
    weights = checkpoint.with_name(f"{checkpoint.stem}-weights.pt")
    torch.save(model.module.state_dict(), weights)
    return model


def draw(profiles: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    """Draw the curvature of the loss and of the boundaries, of every network."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    quantities = {
        "loss": "eigenvalue of the loss Hessian (1 / input units²)",
        "boundary": "curvature of the boundary (1 / input units)",
    }
    for (place, quantity), ax in zip(quantities.items(), axes, strict=True):
        ProfileComparisonDisplay.from_predictions(
            {name: profile[place] for name, profile in profiles.items()},
            quantity=quantity,
            ax=ax,
        )
    return fig


def measure(model, X, y, eps):
    """Return all figures of one network, and its profiles."""
    right = np.flatnonzero(model.predict(X[:1000]) == y[:1000])
    attacked = make_adversarial_set(model, pgd(model, eps=eps), X[:1000], y[:1000])
    x = torch.from_numpy(X[right[:N_NORMS]])
    label = torch.from_numpy(y[right[:N_NORMS]])
    with model.evaluating():
        norms = find_adversarial_perturbation(
            model.logits, x, bounds=(0, 1), batch_size=BATCH_SIZE
        ).norms
        loss, boundary, average = curvatures(model, x[:N_PROFILE], label[:N_PROFILE])
        penalty = cure_penalty(model.as_module(), x, label, step=1.0).detach()
    figures = {
        "accuracy": float(np.mean(model.predict(X) == y)),
        "accuracy_under_pgd": (len(right) - len(attacked.adversarial)) / 1000,
        "adversarial_norm_median": float(norms.median()),
        "penalty_at_h_1": float(penalty.mean()),
        "loss_largest_eigenvalue": float(loss.abs().amax(1).median()),
        "loss_largest_eigenvalue_mean": float(loss.abs().amax(1).mean()),
        "boundary_largest_curvature": float(boundary.abs().amax(1).median()),
        "boundary_average_curvature": float(average.mean()),
        "detection": detection(model, X, y, eps),
    }
    return figures, {"loss": loss.numpy(), "boundary": boundary.numpy()}


def curvatures(model, x, label):
    """Return eigenvalues of the loss, curvatures of the boundary, and their average."""
    settings = {"step": STEP, "batch_size": BATCH_SIZE}
    loss = hessian_eigenvalues(model.loss(label), x, directions=False, **settings)
    nearest = find_nearest_boundaries(model, x)
    boundary = principal_curvatures(
        nearest.margin, nearest.points, directions=False, **settings
    )
    average = mean_curvature(
        nearest.margin,
        nearest.points,
        n_directions=128,
        generator=torch.Generator().manual_seed(0),
        **settings,
    )
    return loss.values, boundary.values, average


def detection(model, X, y, eps):
    """Return what the default detector and relabeler make of it."""
    featurizer, detector, _ = default_detector(model, X, y)
    attacks = {"pgd": pgd(model, eps=eps), "minimal_norm": MinimalNormAttack(model)}
    return {
        name: evaluate(model, featurizer, detector, attack, X[TEST], y[TEST])
        for name, attack in attacks.items()
    }
