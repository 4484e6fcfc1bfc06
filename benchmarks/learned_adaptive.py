"""What it costs to evade the learned detector, for attackers who know it.

    python benchmarks/learned_adaptive.py fashion-mnist mnist cifar10 --out FILE
    python benchmarks/learned_adaptive.py mnist-net_256x4 --strangers DIR --out FILE

It learns from the images of `learned.py` and is attacked on the first of its test
images that the network gets right and that are not flagged. For each image the smallest
L2 norm at which it is wrong and not flagged counts, over all attacks: making the
network agree on a wrong class wherever the detector looks, evenly or not, on two
classes; the same with a smooth stand-in of the detector, taught on the attacker's own
images, clean and attacked; making it wrong at random neighbours; and going on where the
smallest perturbation led. As a control the same attacks look for the smallest norm that
fools the network alone. Upper bounds: a better attack would find shorter ones.
"""

from __future__ import annotations

import argparse
import json
import re
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
    StandIn,
    minimal_evasion,
)
from curvdetect.geometry import adversarial_perturbation

#: Budgets, in medians of the smallest perturbations.
BUDGETS = (1, 1.2, 1.5, 2, 3, 4, 6, 10)
#: As multiples of an image's own smallest perturbation.
FACTORS = np.geomspace(1.02, 12, 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--strangers", help="folder of the strangers' networks")
    parser.add_argument("--data-dir")
    parser.add_argument("--n-images", type=int, default=40)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.weights = None
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # `learned.py` keeps what is said
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for network in args.networks:
        known[network] = measured(network, args)
        args.out.write_text(in_lines(known))
        for fpr, found in known[network]["evading"].items():
            print(
                network,
                fpr,
                f"cost {cost(found, known[network]['fooling']):.2f}",
                flush=True,
            )


def in_lines(known: dict) -> str:
    """Return JSON with each list in a line of its own."""
    return re.sub(
        r"\[[^\[\]]*\]", lambda of: " ".join(of[0].split()), json.dumps(known, indent=1)
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
    stand_in = StandIn(detector, attackers_images(detector, *fit, unit, args.steps))
    attacks = {
        name: partial(AgreementAttack, detector, steps=args.steps, **settings)
        for name, settings in {
            "agreement": {"evenness": 0.0},
            "even agreement": {},
            "even agreement, second class": {"rank": 2},
            "stand-in": {"evenness": 0.0, "stand_in": stand_in},
            "stand-in, second class": {"rank": 2, "stand_in": stand_in},
        }.items()
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
        "stand_in": round(stand_in.correlation, 3),
        "fooling": {"smallest": rounded(least.norms)} | search(fools),
        "evading": {str(f): search(partial(evades, t)) for f, t in thresholds.items()},
    }


def attackers_images(detector, X, y, unit: float, steps: int) -> Tensor:
    """Return what the stand-in is taught: clean images, and attacks on them."""
    right = detector.model_.predict(X) == y
    x, label = torch.from_numpy(X[right][:200]), torch.from_numpy(y[right][:200])
    found = [x]
    found += [
        MinimalNormAttack(detector.model_, factor=factor)(x, label)
        for factor in (1.02, 1.5, 3)
    ]
    for evenness in (0.0, 0.5):
        for share in (1.2, 1.5, 2, 3, 4):
            attack = AgreementAttack(
                detector, eps=unit * share, evenness=evenness, steps=steps // 2
            )
            ahead = attack(x, label)
            found += [ahead, torch.lerp(x, ahead, 0.6)]
    return torch.cat(found)


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
