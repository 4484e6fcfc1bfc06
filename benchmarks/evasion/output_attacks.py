r"""How far it is to a wrong output of a guard, and to a false alarm.

    python -m benchmarks output-attacks fashion-mnist mnist --companions

On the images of `learned-adaptive`, which the network gets right and which are not
flagged: the smallest L2 norms found at which the network alone is wrong; at which the
guard flags an image that the network still gets right, so that "relabel" gives it
another label and "reject" none; at which what "relabel" gives is wrong, in whatever
way; and at which what "reject" gives is wrong: misclassified and not flagged. By the
shortest way under the conditions of each, with a stand-in of the guard, and by going on
where the smallest perturbation led; all judged by the guard itself. Upper bounds.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.arguments import add_guards, add_out, command_parser
from benchmarks.common.results import known, write
from benchmarks.evasion.guarded import Guarded, as_list, load_guarded
from benchmarks.evasion.stand_ins import shortest_ways, taught
from curvdetect import LearnedDetector
from curvdetect.evasion import JointModule, StandIn
from curvdetect.evasion.searches import Search
from curvdetect.evasion.shortest import (
    further_on,
    lengths,
    on_the_network,
    unflagged,
)
from curvdetect.geometry import find_joint_perturbation


def parser() -> argparse.ArgumentParser:
    parser = command_parser("output-attacks", __doc__)
    add_guards(parser, n_images=60)
    add_out(parser, "output_attacks.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # `learned` keeps what is said
    results = known(args.out, {})
    for network in args.networks:
        name = network + " with a companion" * (args.companions is not None)
        results[name] = measured(network, args)
        write(args.out, results)
        medians = {
            rate: {of: round(float(np.median(n)), 3) for of, n in norms.items()}
            for rate, norms in results[name]["norms"].items()
        }
        print(name, medians, flush=True)


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return the smallest norms of each image, by what they lead to."""
    guarded = load_guarded(network, args)
    detector = guarded.detector
    x, label = guarded.attackable(args.n_images, guarded.strictest)
    least = guarded.smallest(x)
    unit = float(least.norms.median())
    _, stand_in = taught(guarded, unit, Search())
    alone = least.norms.minimum(on_the_network(guarded.network, x, label, unit))
    found = {}
    for rate, threshold in guarded.thresholds.items():
        attack = shortest_ways(guarded, stand_in, threshold, unit, Search())
        passes = partial(unflagged, detector, threshold)
        evade = lengths(x, attack(x, label), passes, label)
        alarm = false_alarm(guarded, stand_in, threshold, x, label, unit)
        wrong = further_on(
            guarded.network,
            x,
            label,
            least.points,
            partial(mislabelled, detector, threshold),
        ).norms
        found[str(rate)] = {
            "network wrong": as_list(alone),
            "right and flagged": as_list(alarm),
            "relabel wrong": as_list(torch.stack([evade, alarm, wrong]).amin(0)),
            "reject wrong": as_list(evade),
        }
    return {"n": len(x), "norms": found}


def mislabelled(
    detector: LearnedDetector, threshold: float, images: Tensor, label: Tensor
) -> Tensor:
    """Say of which images "relabel" gives another label."""
    found = detector.examine(images)
    own = found.logits.argmax(axis=1)
    given = np.where(found.score > threshold, found.recovered_label, own)
    return torch.from_numpy(given != label.numpy())


def false_alarm(
    guarded: Guarded,
    stand_in: StandIn,
    threshold: float,
    x: Tensor,
    label: Tensor,
    unit: float,
) -> Tensor:
    """Return the smallest norms at which a right image is flagged."""
    detector = guarded.detector
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
