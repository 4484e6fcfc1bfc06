r"""Robustness and topology of a network, in numbers and pictures.

    python -m benchmarks robustness fashion-mnist

Adversarial perturbations (against foolbox's DeepFool, DDN and FMN and torchattacks'
DeepFool, on the same test images), random directions, universal perturbations learned
from training images and judged on test images, paths between images of one predicted
class, and random convex combinations of such images. Needs foolbox and torchattacks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import foolbox
import matplotlib.pyplot as plt
import numpy as np
import torch
import torchattacks

from benchmarks.common.networks import NETWORKS, load_images
from benchmarks.common.results import significant
from benchmarks.geometry.pictured import keep, pictured_parser
from curvdetect.geometry import (
    convex_combinations,
    find_adversarial_perturbation,
    find_path_in_region,
    find_smallest_universal_perturbation,
    find_universal_perturbation,
    fooling_rate,
    random_direction_robustness,
    random_directions,
)
from curvdetect.plotting import (
    FoolingRateDisplay,
    RegionPathDisplay,
    RobustnessDisplay,
)
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model

TARGET_RATE = 0.9
#: Images for norms, to learn universal perturbations from, to judge them by; and steps.
SIZES = {"lenet": (200, 1000, 500, 300), "resnet": (30, 300, 150, 40)}


def parser() -> argparse.ArgumentParser:
    return pictured_parser("robustness", __doc__, sorted(NETWORKS))


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    keep("robustness", args, *measured(args))


def measured(args: argparse.Namespace) -> tuple[dict, plt.Figure]:
    """Return all figures of a network, and their picture."""
    X, y = load_images(args.network, args.data_dir)
    model = trained_model(args.network, weights=args.weights, data_dir=args.data_dir)
    n_images, n_learn, n_judge, n_steps = SIZES[
        "resnet" if args.network == "cifar10" else "lenet"
    ]
    train = load_images(args.network, args.data_dir, train=True)[0]
    # Of MNIST and Fashion-MNIST, early images served to choose the projections.
    first = 0 if args.network == "cifar10" else 1000
    images = slice(first, first + 1000)
    right = first + np.flatnonzero(model.predict(X[images]) == y[images])
    x = torch.from_numpy(X[right[:n_images]])
    learn, judge = torch.from_numpy(train[:n_learn]), torch.from_numpy(X[:n_judge])
    size = model.rows_per_batch(x[:1])
    started = time.perf_counter()
    figures = {
        "dataset": args.network,
        "accuracy": float(np.mean(model.predict(X) == y)),
    }
    fig, axes = plt.subplots(1, 4, figsize=(18, 4.2), constrained_layout=True)
    with model.evaluating():
        figures["adversarial"] = against_peers(
            model, x, torch.from_numpy(y[right[:n_images]]), size
        )
        norms, random = robustness(model, x, size)
        figures["norms"] = {
            "adversarial_median": float(norms.median()),
            "random_median": float(random.median()),
            "random_not_found": float(random.isinf().double().mean()),
            "random_over_adversarial": float(random.median() / norms.median()),
            "sqrt_d": float(np.sqrt(x[0].numel())),
        }
        RobustnessDisplay.from_predictions(
            {"adversarial": norms, "random direction": random}, ax=axes[0]
        )
        figures["universal"], curves = universal(
            model, learn, judge, norms, n_steps, size
        )
        FoolingRateDisplay.from_predictions(curves, ax=axes[1])
        figures["paths"] = paths(model, x, size, axes[2])
        figures["convex"] = convexity(model, torch.from_numpy(X[:2000]), size, axes[3])
    figures["seconds"] = round(time.perf_counter() - started, 1)
    figures["torch"], figures["foolbox"] = torch.__version__, foolbox.__version__
    return significant(figures), fig


def against_peers(model, x, label, size):
    """Return the norms of the smallest perturbations, within [0, 1], by method."""
    found = find_adversarial_perturbation(
        model.logits, x, label=label, bounds=(0, 1), batch_size=size
    )
    across = x + 1.001 * (found.points - x)
    wrong = torch.from_numpy(model.predict(across.clamp(0, 1))) != label
    norms = {"curvdetect": found.norms}
    wrapped = foolbox.PyTorchModel(model.as_module(), bounds=(0, 1))
    peers = {
        "foolbox DeepFool": foolbox.attacks.L2DeepFoolAttack(overshoot=0.001),
        "foolbox DDN, 300 steps": foolbox.attacks.DDNAttack(steps=300),
        "foolbox FMN, 500 steps": foolbox.attacks.L2FMNAttack(steps=500),
    }
    for name, attack in peers.items():
        _, adversarial, success = attack(wrapped, x, label, epsilons=None)
        norm = (adversarial - x).flatten(1).norm(dim=1)
        norms[name] = norm.where(success, torch.inf)
    if x.shape[1] == 1:  # it works image by image: too slow for the larger network
        name = "torchattacks DeepFool"
        attack = torchattacks.DeepFool(model.as_module())
        adversarial = attack(x, label).detach()
        success = torch.from_numpy(model.predict(adversarial)) != label
        norm = (adversarial - x).flatten(1).norm(dim=1)
        norms[name] = norm.where(success, torch.inf)
    best = min(
        float(norm.median()) for peer, norm in norms.items() if peer != "curvdetect"
    )
    return {
        "n_images": len(x),
        "wrong_at_1.001_times": float(wrong.double().mean()),
        "over_best_peer": float(found.norms.median()) / best,
        "methods": {
            name: {
                "median": float(norm.median()),
                "success": float(norm.isfinite().double().mean()),
            }
            for name, norm in norms.items()
        },
    }


def robustness(model, x, size):
    """Return adversarial and random-direction norms, anywhere in space."""
    v = random_directions(20, x.shape[1:], generator=torch.Generator().manual_seed(0))
    norms = find_adversarial_perturbation(model.logits, x, batch_size=size).norms
    random = random_direction_robustness(
        model.logits, x, v, max_norm=float(np.sqrt(x[0].numel())), batch_size=size
    )
    return norms, random


def universal(model, learn, judge, norms, n_steps, size):
    """Return the smallest universal perturbations, and rates by norm."""
    median = float(norms.median())
    figures = {"n_learn": len(learn), "n_judge": len(judge)}
    for name, p, first in (("l2", 2, 4 * median), ("linf", np.inf, 0.05)):
        found = find_smallest_universal_perturbation(
            model.logits,
            learn,
            judge,
            rate=TARGET_RATE,
            first_norm=first,
            p=p,
            n_steps=n_steps,
            generator=torch.Generator().manual_seed(0),
        )
        figures[name] = {"norm": found.norm, "rate": found.rate}
    grid = median * np.geomspace(0.25, 256, 11)
    v = random_directions(
        10, learn.shape[1:], generator=torch.Generator().manual_seed(1)
    )
    rates = {"adversarial": [], "universal": [], "random": []}
    for norm in grid:
        rates["adversarial"].append(float((norms <= norm).double().mean()))
        learned = find_universal_perturbation(
            model.logits,
            learn,
            norm=float(norm),
            n_steps=n_steps,
            generator=torch.Generator().manual_seed(0),
        )
        for name, vectors in (("universal", learned[None]), ("random", norm * v)):
            rate = fooling_rate(model.logits, judge, vectors.to(judge), batch_size=size)
            rates[name].append(float(rate.mean()))
    figures["curves"] = {"norm": grid.tolist(), **rates}
    reached = np.flatnonzero(np.array(rates["random"]) >= TARGET_RATE)
    if len(reached):
        at = np.interp(
            TARGET_RATE, np.maximum.accumulate(rates["random"]), np.log(grid)
        )
        figures["random_norm_for_90%"] = float(np.exp(at))
        figures["random_over_universal"] = float(np.exp(at)) / figures["l2"]["norm"]
    return figures, {name: (grid, values) for name, values in rates.items()}


def paths(model, x, size, ax):
    """Return how often there is a path between images of one predicted class."""
    label = model.predict(x)
    rng = np.random.default_rng(0)
    pairs = []
    while len(pairs) < 100:
        i, j = rng.choice(len(x), 2, replace=False)
        if label[i] == label[j]:
            pairs.append((i, j))
    i, j = (torch.tensor(part) for part in zip(*pairs, strict=True))
    found = find_path_in_region(model.logits, x[i], x[j], n_levels=6, batch_size=size)
    bent = found.found & ~found.straight
    row = int(bent.nonzero()[0]) if bool(bent.any()) else 0
    RegionPathDisplay.from_model(model, x[i[row]], x[j[row]], n_levels=6, ax=ax)
    return {
        "n_pairs": len(pairs),
        "found": float(found.found.double().mean()),
        "straight": float(found.straight.double().mean()),
        "relative_length_median": float(found.relative_length.nanmedian()),
        "relative_length_largest": float(found.relative_length.nan_to_num(0).max()),
    }


def convexity(model, x, size, ax):
    """Return how often combinations of k images stay in their region, by k."""
    figures = {}
    for k in (2, 3, 5, 10, 20, 50):
        stays = convex_combinations(
            model.logits,
            x,
            k=k,
            n_draws=2000,
            generator=torch.Generator().manual_seed(0),
            batch_size=size,
        )
        figures[k] = list(metrics.proportion(stays.numpy()))
    values = np.array(list(figures.values()))
    error = np.abs(values[:, 1:] - values[:, :1]).T
    ax.errorbar(
        list(figures), values[:, 0], np.maximum(error, 0), fmt="o-", color="#0072B2"
    )
    ax.set_xscale("log")
    ax.set_xticks(list(figures), [str(k) for k in figures])
    ax.minorticks_off()
    ax.set_ylim(0, 1)
    ax.set_xlabel("images combined")
    ax.set_ylabel("share that stays in the region")
    return figures
