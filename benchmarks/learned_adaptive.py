"""What it costs to evade the learned detector, for attackers who know it.

    python benchmarks/learned_adaptive.py fashion-mnist mnist cifar10 --out FILE
    python benchmarks/learned_adaptive.py mnist-net_256x4 --strangers DIR --out FILE
    python benchmarks/learned_adaptive.py mnist --companions DIR --out FILE

It learns from the images of `learned.py` and is attacked on the first of its test
images that the network gets right and that are not flagged; with `--companions` it has
the one that `companions.py` trained for the data set. For each image the smallest L2
norm at which it is wrong and not flagged counts, over all attacks:

- making the network, and the companion, agree on a wrong class wherever the detector
  looks, evenly or not, on two classes; the same with a smooth stand-in of the detector,
  taught on the attacker's own images, clean and attacked;
- the shortest way to where all hold, on three classes and from the nearest unflagged
  image of another class, with a stand-in, and again with one that was taught what the
  first search found;
- adv-lib's ALMA, DDN and FMN on network and guard as one module, on two classes;
- making the network wrong at random neighbours; and going on where the smallest
  perturbation led.

As a control the same attacks look for the smallest norm that fools the network alone.
Upper bounds: a better attack would find shorter ones. Needs adv-lib.
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
from learned import RATES, companion_of, loaded
from torch import Tensor

from curvdetect import LearnedDetector, TorchModel
from curvdetect.attacks import MinimalNormAttack
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.evasion import (
    AgreementAttack,
    JointAttack,
    JointModule,
    NeighbourhoodMarginAttack,
    StandIn,
    find_minimal_evasion,
)
from curvdetect.geometry import (
    RegionMargin,
    find_adversarial_perturbation,
    find_joint_perturbation,
)

#: Budgets, in medians of the smallest perturbations.
BUDGETS = (1, 1.2, 1.5, 2, 3, 4, 6, 10)
#: As multiples of an image's own smallest perturbation.
FACTORS = np.geomspace(1.02, 12, 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--strangers", help="folder of the strangers' networks")
    parser.add_argument("--data-dir")
    parser.add_argument("--companions", type=Path, help="folder of `companions.py`")
    parser.add_argument("--n-images", type=int, default=60)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="the short way alone")
    parser.add_argument(
        "--light", action="store_true", help="shorter searches, on one class each"
    )
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
    model, data, fit, (X, y), (X_more, y_more) = loaded(network, args)
    detector = LearnedDetector(
        model,
        companion=companion_of(data, args),
        target_fpr=0.01,
        self_test=False,
        random_state=0,
    ).fit(*fit)
    thresholds = {f: conformal_threshold(detector.clean_scores_, f) for f in RATES}
    seen = detector.examine(X)
    right = seen.logits.argmax(1) == y
    kept = right & (seen.score <= min(thresholds.values()))
    x = torch.from_numpy(X[kept][: args.n_images])
    label = torch.from_numpy(y[kept][: args.n_images])
    clamped = detector.model_
    with clamped.evaluating():
        least = find_adversarial_perturbation(clamped.logits, x, bounds=clamped.bounds)
    unit = float(least.norms.median())
    starts = torch.from_numpy(X_more[clamped.predict(X_more) == y_more])
    own = attackers_images(detector, *fit, unit, args)
    stand_ins = taught(detector, own, fit, starts, min(thresholds.values()), args)
    attacks = {} if args.quick else budgeted(detector, stand_ins[-1], unit, args.steps)
    found = {"fooling": {"smallest": rounded(least.norms)}, "evading": {}}
    found["fooling"] |= on_the_network(clamped, x, label, unit)
    found["fooling"] |= searched(attacks, clamped, x, label, least.points, fools(model))
    for rate, threshold in thresholds.items():
        evades = partial(unflagged, detector, threshold)
        norms = searched(attacks, clamped, x, label, least.points, evades)
        for name, stand_in in zip(("shortest way", "again"), stand_ins, strict=True):
            attack = JointAttack(
                detector,
                radius=1.5 * unit,
                stand_in=stand_in,
                threshold=threshold,
                **searches(starts[detector.score_samples(starts) <= threshold], args),
            )
            norms[f"{name}, a stand-in"] = lengths(x, attack(x, label), evades, label)
        if not args.quick:
            joint = JointModule(detector, stand_in=stand_ins[-1], threshold=threshold)
            norms |= of_adv_lib(joint, clamped, x, label, evades)
        found["evading"][str(rate)] = norms
    return {
        "n": len(x),
        "steps": args.steps,
        "attacks": "light" if args.light else "quick" if args.quick else "all",
        "unit": round(unit, 4),
        "companion": None if args.companions is None else data,
        "agreement": None if args.companions is None else agreement(detector, X, right),
        "stand_in": [round(each.correlation, 3) for each in stand_ins],
        "flagged_clean": {
            str(f): round(float((seen.score[right] > t).mean()), 4)
            for f, t in thresholds.items()
        },
        "n_clean": int(right.sum()),
        **found,
    }


def agreement(detector: LearnedDetector, X: np.ndarray, right: np.ndarray) -> float:
    """Return on what share of images that the network gets right both agree."""
    own = detector.companion_.model.predict(X[right])
    return round(float(np.mean(own == detector.model_.predict(X[right]))), 4)


def fools(model: TorchModel) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what says whether images fool the network."""
    clamped = model.clamped()
    return lambda x, label: torch.from_numpy(clamped.predict(x) != label.numpy())


def unflagged(detector, threshold: float, images: Tensor, labels: Tensor) -> Tensor:
    """Say which images fool the network and are not flagged."""
    found = detector.examine(images)
    wrong = found.logits.argmax(axis=1) != labels.numpy()
    return torch.from_numpy(wrong & (found.score <= threshold))


def searches(starts: Tensor, args) -> dict:
    """Return how many searches an attack makes, and how long each is."""
    if args.light:
        return {"n_targets": 1, "n_steps": 100}
    return {"starts": starts}


def taught(detector, own: Tensor, fit, starts, threshold: float, args) -> list[StandIn]:
    """Return a stand-in, and one that knows what the first one's attack found."""
    first = StandIn(detector, own)
    X, y = (torch.from_numpy(part[:200]) for part in fit)
    kept = torch.from_numpy(detector.model_.predict(X)) == y
    n_own = 50 if args.light else 120
    x, label = X[kept][:n_own], y[kept][:n_own]
    n_targets = 1 if args.light else 2
    attack = JointAttack(
        detector, stand_in=first, threshold=threshold, n_targets=n_targets
    )
    found = attack(x, label)
    near = [torch.lerp(x, found, share) for share in (0.5, 0.7, 0.85, 0.95, 1.0, 1.1)]
    images = torch.cat([own, *near]).clamp(0, 1)
    return [first, StandIn(detector, images, steps=3000)]


def budgeted(detector, stand_in: StandIn, unit: float, steps: int) -> dict:
    """Return attacks within a budget, by name."""
    attacks = {
        name: partial(AgreementAttack, detector, steps=steps, **settings)
        for name, settings in {
            "agreement": {"evenness": 0.0},
            "even agreement": {},
            "even agreement, second class": {"rank": 2},
            "stand-in": {"evenness": 0.0, "stand_in": stand_in},
            "stand-in, second class": {"rank": 2, "stand_in": stand_in},
        }.items()
    }
    attacks["neighbourhood margin"] = partial(
        NeighbourhoodMarginAttack,
        detector.model_,
        radius=unit,
        norm="L2",
        steps=steps,
    )
    return attacks


def on_the_network(clamped, x: Tensor, label: Tensor, unit: float) -> dict:
    """Return the smallest norms that fool the network, by the short way alone."""
    with clamped.evaluating():
        right = RegionMargin(clamped.logits, label)
        found = find_joint_perturbation(
            lambda z: -right(z)[:, None], x, radius=unit, bounds=clamped.bounds
        )
    return {"shortest way": rounded(found.norms)}


def of_adv_lib(joint: JointModule, clamped, x: Tensor, label: Tensor, evades) -> dict:
    """Return what adv-lib's attacks find, on two classes, judged by the detector."""
    from adv_lib.attacks import alma, ddn, fmn

    attacks = {
        "ALMA (adv-lib)": partial(alma, num_steps=300),
        "DDN (adv-lib)": partial(ddn, steps=200, levels=None),
        "FMN (adv-lib)": partial(fmn, norm=2, steps=200),
    }
    logits = torch.from_numpy(clamped.predict_logits(x))
    targets = logits.scatter(1, label[:, None], -torch.inf).topk(2, dim=1).indices.T
    norms = {}
    for name, attack in attacks.items():
        best = np.full(len(x), np.inf)
        for target in targets:
            found = attack(joint, x, target, targeted=True).detach().clamp(0, 1)
            for further in (1.0, 1.03, 1.1):  # a stand-in is not the detector
                ahead = (x + further * (found - x)).clamp(0, 1)
                best = np.minimum(best, lengths(x, ahead, evades, label))
        norms[name] = [round(float(n), 4) for n in best]
    return norms


def lengths(x: Tensor, found: Tensor, evades, label: Tensor) -> list[float]:
    """Return the norms of what evades; infinity elsewhere."""
    norms = (found - x).flatten(1).norm(dim=1)
    return rounded(norms.where(evades(found, label), torch.inf))


def attackers_images(detector, X, y, unit: float, args) -> Tensor:
    """Return what the stand-in is taught: clean images, and attacks on them."""
    right, n_own = detector.model_.predict(X) == y, 80 if args.light else 200
    x, label = torch.from_numpy(X[right][:n_own]), torch.from_numpy(y[right][:n_own])
    found = [x]
    found += [
        MinimalNormAttack(detector.model_, factor=factor)(x, label)
        for factor in (1.02, 1.5, 3)
    ]
    for evenness in (0.0, 0.5):
        for share in (1.2, 1.5, 2, 3, 4):
            attack = AgreementAttack(
                detector, eps=unit * share, evenness=evenness, steps=args.steps // 2
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
        norms = find_minimal_evasion(
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
