r"""What it costs an attacker who knows the detector of curvature to evade it.

    python -m benchmarks adaptive fashion-mnist

Thresholds are set on clean images; attacks are on others that the network gets right.
First, attacks within L-infinity budgets: the share of images that are misclassified,
and misclassified without being flagged, at 5 % and at 1 % false positives. Then the
evasion cost in L2: the median norm of the smallest perturbation found that evades, over
that of the smallest that fools the network alone; for the default detector and others.
What the file of results has already is not measured again. `--weights` takes others,
such as of a LeNet that `cure` trained. With `--cache`, that of `detection`, the learned
model of that benchmark is attacked too, which needs its extras; what is not kept there
is made.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.batches import attack_in_batches
from benchmarks.common.networks import NETWORKS, load_images, smallest_eps
from benchmarks.common.results import CACHE, RESULTS, known, write
from benchmarks.evasion.detectors import detectors, learned
from curvdetect import TorchModel
from curvdetect.attacks import pgd
from curvdetect.evasion import (
    EvasionAttack,
    LogitMatchingAttack,
    NeighbourhoodMarginAttack,
    find_minimal_evasion,
)
from curvdetect.geometry import find_adversarial_perturbation
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model

BUDGETS = (0.5, 1, 2, 4)
STEPS = (5, 20, 80)
#: L2 budgets, in medians of the smallest perturbations.
L2_BUDGETS = (1, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 3, 5)
#: Images that are attacked at a time: scores keep a graph of all their probes.
BATCH_SIZE = 32


def parser() -> argparse.ArgumentParser:
    parser = command_parser("adaptive", __doc__)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    add_data_dir(parser)
    parser.add_argument(
        "--cache",
        nargs="?",
        const=CACHE / "detection",
        metavar="FOLDER",
        help="the learned model too, from images that `detection` keeps there",
    )
    add_out(parser, "adaptive-{NETWORK, or the name of --weights}.json")
    parser.add_argument("--n-images", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cost-only", action="store_true", help="no budgets")
    parser.add_argument("--detectors", nargs="+", help="all by default")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.cache and (args.weights or args.network == "cifar10"):
        parser().error("--cache is for the shipped networks as they are")
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)

    model, calibration, x, label = load(args)
    of = detectors(model, calibration)
    if args.cache:
        of["learned"] = lambda: learned(args.network, args.cache, args.data_dir)
    out = args.out or RESULTS / f"adaptive-{name_of(args)}.json"
    results = begun(out, args, n_calibration=len(calibration), n_images=len(x))
    if not args.cost_only and "budgets" not in results:
        default = of["default"]()
        results["budgets"] = within_budgets(model, args, default, calibration, x, label)
        results["by_steps"] = by_steps(model, args, default, x, label)
        write(out, results)
    with model.evaluating():
        smallest = find_adversarial_perturbation(
            model.logits, x, label=label, bounds=(0, 1), batch_size=256
        ).norms
    results["median_norm_to_fool"] = float(smallest.median())
    costs = results.setdefault("evasion", {})
    wanted = [name for name in of if name in (args.detectors or of)]
    if set(wanted) <= set(costs):
        print(f"{out} has all of it: remove it, or give another --out")
    for name in wanted:
        if name not in costs:
            costs[name] = evasion_cost(model, args, of[name](), x, label, smallest)
            print(name, costs[name], flush=True)
            write(out, results)


def begun(out: Path, args: argparse.Namespace, **sizes: int) -> dict[str, Any]:
    """Return what a file has already, which must be of the same settings."""
    settings = {
        "network": args.network,
        "weights": args.weights.name if args.weights else "as shipped",
        **sizes,
        "steps": args.steps,
        "torch": torch.__version__,
    }
    results = known(out, settings)
    for key, value in settings.items():
        if results.get(key) != value:
            parser().error(
                f"{out} is of {key} {results.get(key)}, this run of {value}: remove "
                "the file, or give another --out"
            )
    return results


def name_of(args: argparse.Namespace) -> str:
    """Return what the file of results is called by: "mnist", or "mnist-cure"."""
    if args.weights is None:
        return args.network
    return args.weights.stem.removesuffix("-weights").lower()


def load(args) -> tuple[TorchModel, Tensor, Tensor, Tensor]:
    """Return a network, clean images, and images to attack with their labels."""
    X, y = load_images(args.network, args.data_dir)
    model = trained_model(args.network, weights=args.weights, data_dir=args.data_dir)
    right = model.predict(X[:1000]) == y[:1000]
    clean, test = np.flatnonzero(right[:600]), 600 + np.flatnonzero(right[600:])
    test = test[: args.n_images]
    return (
        model,
        torch.from_numpy(X[clean]),
        torch.from_numpy(X[test]),
        torch.from_numpy(y[test]),
    )


# Attacks --------------------------------------------------------------------


def within_budgets(model, args, detector, clean, x, label):
    """Return what each attack reaches within each L-infinity budget."""
    clean_scores = detector.excess(clean, 0.05)
    rows = []
    for factor in BUDGETS:
        eps = factor * smallest_eps(args.network)
        common = {"eps": eps, "steps": args.steps}
        ways = {
            "PGD": pgd(model, **common),
            "neighbourhood margin": NeighbourhoodMarginAttack(
                model, radius=NETWORKS[args.network].radius, **common
            ),
            "logit matching": LogitMatchingAttack(model, references=clean, **common),
            "orthogonal PGD": evasion(model, detector, 0.05, **common),
        }
        for name, attack in ways.items():
            row = {"attack": name, "eps": eps}
            found = attack_in_batches(attack, x, label, BATCH_SIZE)
            row |= outcome(model, detector, found, label)
            scores = row.pop("scores")
            if len(scores) > 1:
                row["auroc"] = metrics.auroc(clean_scores, scores)
            rows.append(row)
            print(row, flush=True)
    return rows


def by_steps(model, args, detector, x, label):
    """Return whether more steps help the attacker, at the report's budget."""
    rows = []
    for steps in STEPS:
        eps = smallest_eps(args.network)
        attack = evasion(model, detector, 0.05, eps=eps, steps=steps)
        found = attack_in_batches(attack, x, label, BATCH_SIZE)
        row = outcome(model, detector, found, label)
        del row["scores"]
        rows.append({"steps": steps, **row})
    return rows


def evasion(model, detector, fpr, margin=0.0, **common):
    """Return orthogonal PGD against a detector."""
    limits = (detector.thresholds[fpr] - margin).tolist()
    return EvasionAttack(model, detector.of_attacker, limits, **common)


def outcome(model, detector, x: Tensor, label: Tensor) -> dict:
    """Return who is misclassified, who evades, and the scores of the former."""
    wrong = model.predict(x) != label.numpy()
    row = {"misclassified": metrics.proportion(wrong)}
    for fpr in (0.05, 0.01):
        evades = wrong & (detector.excess(x, fpr) <= 0)
        row[f"evades_at_{fpr:.0%}"] = metrics.proportion(evades)
    scores = detector.excess(x[wrong], 0.05) if wrong.any() else np.zeros(0)
    return row | {"scores": scores}


def evasion_cost(model, args, detector, x, label, smallest):
    """Return the smallest norms of two attackers, the better of them for each image."""
    unit = float(smallest.median())

    def evades(z: Tensor, of: Tensor) -> Tensor:
        wrong = model.predict(z) != of.numpy()
        passed = np.zeros(len(z), dtype=bool)
        if wrong.any():
            passed[wrong] = detector.excess(z[wrong], 0.05) <= 0
        return torch.from_numpy(passed)

    budgets = [unit * b for b in L2_BUDGETS]

    def smallest_by(attack: Callable) -> Tensor:
        parts = zip(x.split(BATCH_SIZE), label.split(BATCH_SIZE), strict=True)
        at = lambda eps: attack(eps=eps, norm="L2", steps=args.steps)
        found = [find_minimal_evasion(at, evades, *p, budgets=budgets) for p in parts]
        return torch.cat([each.norms for each in found])

    orthogonal = [
        smallest_by(partial(evasion, model, detector, 0.05, margin))
        for margin in detector.margins
    ]
    radius = NETWORKS[args.network].radius
    neighbourhood = smallest_by(
        partial(NeighbourhoodMarginAttack, model, radius=radius)
    )
    norms = {
        "orthogonal PGD": torch.stack(orthogonal).amin(0),
        "neighbourhood margin": neighbourhood,
    }
    best = torch.stack(list(norms.values())).amin(0)
    return {
        "median_norm_to_evade": float(best.median()),
        "evasion_cost": float(best.median() / unit),
        "median_ratio": float((best / smallest).median()),
        "evasion_cost_by_attack": {
            name: float(values.median() / unit) for name, values in norms.items()
        },
        "not_evaded": metrics.proportion(best.isinf().numpy()),
    }
