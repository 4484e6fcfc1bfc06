"""What it costs to evade the learned detector, for attackers who know it.

    python benchmarks/learned_adaptive.py fashion-mnist mnist cifar10 --out FILE
    python benchmarks/learned_adaptive.py mnist-net_256x4 --strangers DIR --out FILE

It learns from the images of `learned.py` and is attacked on the first of its test
images that the network gets right and that are not flagged. For each image the smallest
L2 norm at which it is wrong and not flagged counts, over all attacks: making the
network agree on a wrong class wherever the detector looks, on three classes; making it
wrong at random neighbours; and going on where the smallest perturbation led. As a
control the same attacks look for the smallest norm that fools the network alone. Upper
bounds: a better attack would find shorter ones.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from learned import RATES, loaded
from torch import Tensor

from curvdetect import LearnedDetector
from curvdetect.attacks import MinimalNormAttack
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.evasion import (
    AgreementAttack,
    NeighbourhoodMarginAttack,
    minimal_evasion,
)
from curvdetect.geometry import adversarial_perturbation

#: Budgets, in medians of the smallest perturbations.
BUDGETS = (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 6, 10)
#: As multiples of an image's own smallest perturbation.
FACTORS = np.geomspace(1.02, 12, 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--strangers", help="folder of the strangers' networks")
    parser.add_argument("--data-dir")
    parser.add_argument("--n-images", type=int, default=60)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.weights = None
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # `learned.py` keeps what is said
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for network in args.networks:
        known[network] = measured(network, args)
        args.out.write_text(json.dumps(known, indent=1))
        for fpr, found in known[network]["evading"].items():
            print(
                network,
                fpr,
                f"cost {cost(found, known[network]['fooling']):.2f}",
                flush=True,
            )


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return the smallest norms of each image, by attack."""
    model, _, fit, (X, y), _ = loaded(network, args)
    detector = LearnedDetector(model, target_fpr=0.01, self_test=False, random_state=0)
    detector.fit(*fit)
    thresholds = {f: conformal_threshold(detector.clean_scores_, f) for f in RATES}
    seen = detector.examine(X)
    kept = (seen.logits.argmax(1) == y) & (seen.score <= min(thresholds.values()))
    x = torch.from_numpy(X[kept][: args.n_images])
    label = torch.from_numpy(y[kept][: args.n_images])
    clamped = detector.model_
    with clamped.evaluating():
        least = adversarial_perturbation(clamped.logits, x, bounds=clamped.bounds)
    unit = float(least.norms.median())
    attacks = {
        f"agreement, class {rank}": partial(
            AgreementAttack, detector, rank=rank, steps=args.steps
        )
        for rank in (1, 2, 3)
    }
    attacks["neighbourhood margin"] = partial(
        NeighbourhoodMarginAttack, clamped, radius=unit, norm="L2", steps=args.steps
    )
    search = partial(searched, attacks, clamped, x, label, least.points)

    def fools(images: Tensor, labels: Tensor) -> Tensor:
        return torch.from_numpy(clamped.predict(images) != labels.numpy())

    def evades(threshold: float, images: Tensor, labels: Tensor) -> Tensor:
        found = detector.examine(images)
        wrong = found.logits.argmax(axis=1) != labels.numpy()
        return torch.from_numpy(wrong & (found.score <= threshold))

    return {
        "n": len(x),
        "steps": args.steps,
        "unit": round(unit, 4),
        "fooling": {"smallest": rounded(least.norms)} | search(fools),
        "evading": {str(f): search(partial(evades, t)) for f, t in thresholds.items()},
    }


def searched(
    attacks: dict[str, Callable],
    model,
    x: Tensor,
    label: Tensor,
    points: Tensor,
    succeeds: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, list[float]]:
    """Return the smallest norms that each attack found; infinity where none."""
    found = {}
    unit = float((points - x).flatten(1).norm(dim=1).median())
    budgets = [unit * share for share in BUDGETS]
    for name, attack in attacks.items():
        norms = minimal_evasion(
            lambda eps, attack=attack: attack(eps=eps),
            succeeds,
            x,
            label,
            budgets=budgets,
        ).norms
        found[name] = rounded(norms)
    best = torch.full((len(x),), torch.inf)
    for factor in FACTORS:
        ahead = MinimalNormAttack(model, factor=float(factor)).along(x, points)
        norms = (ahead - x).flatten(1).norm(dim=1)
        ok = succeeds(ahead, label) & (norms < best)
        best = torch.where(ok, norms, best)
    found["further on"] = rounded(best)
    return found


def rounded(norms: Tensor) -> list[float]:
    return [round(float(n), 4) for n in norms]


def cost(evading: dict, fooling: dict) -> float:
    """Return the ratio of the medians of the smallest norms."""
    to_evade, to_fool = (
        np.median(np.min(list(of.values()), axis=0)) for of in (evading, fooling)
    )
    return float(to_evade / to_fool)


if __name__ == "__main__":
    main()
