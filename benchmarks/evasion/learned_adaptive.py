r"""What it costs to evade the learned detector, for attackers who know it.

    python -m benchmarks learned-adaptive fashion-mnist mnist cifar10
    python -m benchmarks learned-adaptive mnist-net_256x4 --strangers FOLDER
    python -m benchmarks learned-adaptive mnist --companions

It learns from the images of `learned` and is attacked on the first of its test images
that the network gets right and that are not flagged; with `--companions` it has the
one that the command of that name trained for the data set. For each image the smallest
L2 norm at which it is wrong and not flagged counts, over all attacks:

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
Upper bounds: a better attack would find shorter ones. Needs adv-lib, but for `--quick`.
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
from benchmarks.common.results import RESULTS, known, write
from benchmarks.evasion.figures import evasion_cost
from benchmarks.evasion.guarded import Guarded, as_list, load_guarded
from benchmarks.evasion.stand_ins import shortest_ways, taught
from curvdetect import LearnedDetector, TorchModel
from curvdetect.evasion import JointModule, NeighbourhoodMarginAttack, StandIn
from curvdetect.evasion.searches import (
    Budgeted,
    Search,
    agreement_attacks,
    within_budgets,
)
from curvdetect.evasion.shortest import (
    Succeeds,
    further_on,
    lengths,
    on_the_network,
    unflagged,
)

Norms = dict[str, list[float]]


def parser() -> argparse.ArgumentParser:
    parser = command_parser("learned-adaptive", __doc__)
    add_guards(parser, n_images=60)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="the short way alone")
    parser.add_argument(
        "--light", action="store_true", help="shorter searches, on one class each"
    )
    add_out(parser, "learned_adaptive.json, or {learned_adaptive-companions}.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # `learned` keeps what is said
    end = "" if args.companions is None else "-companions"
    out = args.out or RESULTS / f"learned_adaptive{end}.json"
    results = known(out, {})
    for network in args.networks:
        results[network] = found = measured(network, args)
        write(out, results)
        for fpr, norms in found["evading"].items():
            cost = evasion_cost(norms, found["fooling"])
            print(network, fpr, f"cost {cost:.2f}", flush=True)


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return the smallest norms of each image, by attack."""
    guarded = load_guarded(network, args)
    x, label = guarded.attackable(args.n_images, guarded.strictest)
    least = guarded.smallest(x)
    unit = float(least.norms.median())
    stand_ins = taught(guarded, unit, Search(args.steps, args.light))
    budgeted = {} if args.quick else within(guarded, stand_ins[-1], unit, args.steps)
    images = x, label, least.points
    fooling = {
        "smallest": as_list(least.norms),
        "shortest way": as_list(on_the_network(guarded.network, x, label, unit)),
        **searched(budgeted, guarded.network, *images, fools(guarded.network)),
    }
    evading = {
        str(rate): evaded(guarded, threshold, images, unit, stand_ins, budgeted, args)
        for rate, threshold in guarded.thresholds.items()
    }
    return {
        "n": len(x),
        "steps": args.steps,
        "attacks": "light" if args.light else "quick" if args.quick else "all",
        "unit": round(unit, 4),
        "companion": None if args.companions is None else guarded.data,
        "stand_in": [round(each.correlation, 3) for each in stand_ins],
        **on_clean_images(guarded),
        "fooling": fooling,
        "evading": evading,
    }


def evaded(
    guarded: Guarded, threshold: float, images, unit: float, stand_ins, budgeted, args
) -> Norms:
    """Return the smallest norms that get past one threshold, by attack."""
    x, label, points = images
    evades = partial(unflagged, guarded.detector, threshold)
    norms = searched(budgeted, guarded.network, x, label, points, evades)
    search = Search(args.steps, args.light)
    for name, stand_in in zip(("shortest way", "again"), stand_ins, strict=True):
        attack = shortest_ways(guarded, stand_in, threshold, unit, search)
        found = lengths(x, attack(x, label), evades, label)
        norms[f"{name}, a stand-in"] = as_list(found)
    if not args.quick:
        joint = JointModule(
            guarded.detector, stand_in=stand_ins[-1], threshold=threshold
        )
        norms |= of_adv_lib(joint, guarded.network, x, label, evades)
    return norms


def on_clean_images(guarded: Guarded) -> dict:
    """Return what is flagged of right clean images, and how often both agree."""
    X, y = guarded.test
    seen = guarded.detector.examine(X)
    right = seen.logits.argmax(1) == y
    return {
        "agreement": agreement(guarded.detector, X, right),
        "flagged_clean": {
            str(f): round(float((seen.score[right] > t).mean()), 4)
            for f, t in guarded.thresholds.items()
        },
        "n_clean": int(right.sum()),
    }


def agreement(
    detector: LearnedDetector, X: np.ndarray, right: np.ndarray
) -> float | None:
    """Return on what share of images that the network gets right both agree."""
    if detector.companion_ is None:
        return None
    own = detector.companion_.model.predict(X[right])
    return round(float(np.mean(own == detector.model_.predict(X[right]))), 4)


def fools(model: TorchModel) -> Succeeds:
    """Return what says whether images fool the network."""
    return lambda x, label: torch.from_numpy(model.predict(x) != label.numpy())


def within(
    guarded: Guarded, stand_in: StandIn, unit: float, steps: int
) -> dict[str, Budgeted]:
    """Return attacks within a budget, by name."""
    attacks = agreement_attacks(guarded.detector, stand_in, steps)
    attacks["neighbourhood margin"] = partial(
        NeighbourhoodMarginAttack,
        guarded.network,
        radius=unit,
        norm="L2",
        steps=steps,
    )
    return attacks


def of_adv_lib(
    joint: JointModule, model: TorchModel, x: Tensor, label: Tensor, evades: Succeeds
) -> Norms:
    """Return what adv-lib's attacks find, on two classes, judged by the detector."""
    from adv_lib.attacks import alma, ddn, fmn

    attacks = {
        "ALMA (adv-lib)": partial(alma, num_steps=300),
        "DDN (adv-lib)": partial(ddn, steps=200, levels=None),
        "FMN (adv-lib)": partial(fmn, norm=2, steps=200),
    }
    logits = torch.from_numpy(model.predict_logits(x))
    targets = logits.scatter(1, label[:, None], -torch.inf).topk(2, dim=1).indices.T
    norms = {}
    for name, attack in attacks.items():
        best = torch.full((len(x),), torch.inf)
        for target in targets:
            found = attack(joint, x, target, targeted=True).detach().clamp(0, 1)
            for further in (1.0, 1.03, 1.1):  # a stand-in is not the detector
                ahead = (x + further * (found - x)).clamp(0, 1)
                best = best.minimum(lengths(x, ahead, evades, label))
        norms[name] = as_list(best)
    return norms


def searched(
    attacks: dict[str, Budgeted],
    model: TorchModel,
    x: Tensor,
    label: Tensor,
    points: Tensor,
    succeeds: Succeeds,
) -> Norms:
    """Return the smallest norms that each attack found; infinity where none."""
    unit = float((points - x).flatten(1).norm(dim=1).median())
    found = {
        name: as_list(within_budgets(attack, succeeds, x, label, unit).norms)
        for name, attack in attacks.items()
    }
    ahead = further_on(model, x, label, points, succeeds)
    found["further on"] = as_list(ahead.norms)
    return found
