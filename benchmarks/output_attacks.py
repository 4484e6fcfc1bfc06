"""How far it is to a wrong output of a guard, and to a false alarm.

    python benchmarks/output_attacks.py fashion-mnist mnist --companions DIR --out FILE

On the images of `learned_adaptive.py`, which the network gets right and which are not
flagged: the smallest L2 norms found at which the network alone is wrong; at which the
guard flags an image that the network still gets right, so that "relabel" gives it
another label and "reject" none; at which what "relabel" gives is wrong, in whatever
way; and at which what "reject" gives is wrong: misclassified and not flagged. By the
shortest way under the conditions of each, with a stand-in of the guard, and by going on
where the smallest perturbation led; all judged by the guard itself. Upper bounds.
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
from learned import RATES, companion_of, loaded
from learned_adaptive import (
    FACTORS,
    attackers_images,
    in_lines,
    lengths,
    on_the_network,
    rounded,
    searches,
    taught,
    unflagged,
)
from torch import Tensor

from curvdetect import LearnedDetector
from curvdetect.attacks import MinimalNormAttack
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.evasion import JointAttack, JointModule
from curvdetect.geometry import find_adversarial_perturbation, find_joint_perturbation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--strangers", help="folder of the strangers' networks")
    parser.add_argument("--data-dir")
    parser.add_argument("--companions", type=Path, help="folder of `companions.py`")
    parser.add_argument("--n-images", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.weights, args.steps, args.light = None, 30, False
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # `learned.py` keeps what is said
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for network in args.networks:
        name = network + " with a companion" * (args.companions is not None)
        known[name] = measured(network, args)
        args.out.write_text(in_lines(known))
        medians = {
            rate: {of: round(float(np.median(n)), 3) for of, n in norms.items()}
            for rate, norms in known[name]["norms"].items()
        }
        print(name, medians, flush=True)


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return the smallest norms of each image, by what they lead to."""
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
    kept = (seen.logits.argmax(1) == y) & (seen.score <= min(thresholds.values()))
    x = torch.from_numpy(X[kept][: args.n_images])
    label = torch.from_numpy(y[kept][: args.n_images])
    clamped = detector.model_
    with clamped.evaluating():
        least = find_adversarial_perturbation(clamped.logits, x, bounds=clamped.bounds)
    unit = float(least.norms.median())
    starts = torch.from_numpy(X_more[clamped.predict(X_more) == y_more])
    own = attackers_images(detector, *fit, unit, args)
    _, stand_in = taught(detector, own, fit, starts, min(thresholds.values()), args)
    alone = [
        least.norms,
        *map(torch.tensor, on_the_network(clamped, x, label, unit).values()),
    ]
    found = {}
    for rate, threshold in thresholds.items():
        attack = JointAttack(
            detector,
            radius=1.5 * unit,
            stand_in=stand_in,
            threshold=threshold,
            **searches(starts[detector.score_samples(starts) <= threshold], args),
        )
        passes = partial(unflagged, detector, threshold)
        evade = torch.tensor(lengths(x, attack(x, label), passes, label))
        alarm = false_alarm(detector, stand_in, threshold, x, label, unit)
        wrong = further(
            detector, x, least.points, partial(mislabelled, detector, threshold, label)
        )
        found[str(rate)] = {
            "network wrong": rounded(torch.stack(alone).amin(0)),
            "right and flagged": rounded(alarm),
            "relabel wrong": rounded(torch.stack([evade, alarm, wrong]).amin(0)),
            "reject wrong": rounded(evade),
        }
    return {"n": len(x), "norms": found}


def mislabelled(detector, threshold: float, label: Tensor, images: Tensor) -> Tensor:
    """Say of which images "relabel" gives another label."""
    found = detector.examine(images)
    own = found.logits.argmax(axis=1)
    given = np.where(found.score > threshold, found.recovered_label, own)
    return torch.from_numpy(given != label.numpy())


def false_alarm(detector, stand_in, threshold, x, label, unit) -> Tensor:
    """Return the smallest norms at which a right image is flagged."""
    joint = JointModule(detector, stand_in=stand_in, threshold=threshold)
    place = label[:, None, None]

    def conditions(z: Tensor, of: int) -> Tensor:
        """Return the margin, and what is above the limit of the companion or all."""
        found = joint.conditions(z)
        found = found.gather(2, place.expand(*found.shape[:2], 1))[..., 0]
        return torch.stack([found[:, 0], -found[:, of]], dim=1)

    def holds(z: Tensor) -> Tensor:
        found = detector.examine(z)
        right = found.logits.argmax(axis=1) == label.numpy()
        return torch.from_numpy(right & (found.score > threshold))

    best = torch.full((len(x),), torch.inf)
    n_conditions = 2 if detector.companion_ is None else 3
    for of in range(1, n_conditions):
        found = find_joint_perturbation(
            partial(conditions, of=of),
            x,
            radius=0.5 * unit,
            holds=holds,
            bounds=detector.model_.bounds,
        )
        best = best.minimum(found.norms)
    return best


def further(
    detector, x: Tensor, points: Tensor, succeeds: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the smallest norms where the smallest perturbation leads, farther on."""
    best = torch.full((len(x),), torch.inf)
    for factor in FACTORS:
        ahead = MinimalNormAttack(detector.model_, factor=float(factor)).along(
            x, points
        )
        norms = (ahead - x).flatten(1).norm(dim=1)
        best = norms.where(succeeds(ahead) & (norms < best), best)
    return best


if __name__ == "__main__":
    main()
