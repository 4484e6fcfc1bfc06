r"""Measure detectors against attacks, a JSON line for each pair.

    python -m benchmarks detection mnist
    python -m benchmarks detection cifar10 --limit 100

Ours beside those of other packages, on the shipped LeNets and the ResNet-20, after nine
attacks. Lines that are in the file already are not measured again, so that an
interrupted run goes on where it was: give `--out` another file to measure all of it.
With `--adaptive` the attacks are two that know the default detector, from which nothing
learns. Needs the extras art, attacks and ood.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common.arguments import add_cache, add_data_dir, add_out, command_parser
from benchmarks.common.networks import NETWORKS
from benchmarks.common.processes import timed
from benchmarks.common.results import RESULTS, rounded
from benchmarks.common.splits import Split
from benchmarks.detection.attacks import attacks
from benchmarks.detection.detectors import Training, detectors
from benchmarks.detection.protocol import (
    ADAPTIVE,
    Protocol,
    load_protocol,
    thresholds,
)
from benchmarks.detection.sets import judged_by, learned_from, memory_of, noisy
from curvdetect.study import metrics

N_TIMED = 100


def parser() -> argparse.ArgumentParser:
    parser = command_parser("detection", __doc__)
    parser.add_argument("network", choices=sorted(NETWORKS))
    add_out(parser, "detection-{NETWORK}.jsonl")
    add_cache(parser, "detection", "of sets and features")
    add_data_dir(parser)
    parser.add_argument("--scale", type=float, default=1, help="of the sets of images")
    parser.add_argument("--only", help="detectors whose names begin so")
    parser.add_argument("--adaptive", action="store_true")
    parser.add_argument(
        "--limit", type=int, help="clean images of each set that are measured"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    path = args.out or RESULTS / f"detection-{args.network}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done = {(cell["detector"], cell["attack"]) for cell in map(json.loads, lines)}
    protocol = load_protocol(args.network, args.data_dir, args.scale)
    if args.limit is not None:
        images = protocol.calibration
        shorter = Split(images.X[: 2 * args.limit], images.y[: 2 * args.limit])
        protocol = replace(protocol, calibration=shorter)
    n_new = 0
    with path.open("a") as out:
        for name, cell in measured(protocol, args, done):
            cell = {"network": args.network, "detector": name, **cell}
            print(json.dumps(rounded(cell)), file=out, flush=True)
            n_new += 1
    if not n_new:
        print(f"{path} has all of it: remove it, or give another --out")


def measured(protocol: Protocol, args: argparse.Namespace, done: set):
    """Yield the cells of every detector that are not done yet."""
    names = list(attacks(protocol.model, args.network))
    memory = memory_of(args.cache, args.network, args.scale)
    everything = None
    for name, make in detectors(protocol.model, args.network, memory).items():
        if args.only is not None and not name.startswith(args.only):
            continue
        if args.adaptive and "without" in name:
            continue
        wanted = ADAPTIVE if args.adaptive else (*names, "none", "cost")
        if {(name, attack) for attack in wanted} <= done:
            continue
        if everything is None:
            everything = (
                learned_from(protocol, memory, args.limit),
                judged_by(protocol, memory, args.limit, adaptive=args.adaptive),
            )
        for cell in measure(make(), protocol, *everything):
            if (name, cell["attack"]) not in done:
                yield name, cell
        print(f"{time.strftime('%H:%M:%S')} {args.network}: {name}", flush=True)


def measure(detector, protocol: Protocol, training: Training, test):
    """Yield a cell for each attack, one for clean and noisy images, one for cost."""
    model = protocol.model
    detector.fit(training)
    limits, n_calibration = thresholds(protocol, detector.score)
    clean = next(iter(test.values())).clean
    clean_scores = detector.score(clean)
    for name, images in test.items():
        if not len(images.adversarial):
            continue
        yield of_attack(detector, name, images, clean_scores, limits[0.05])
    if set(test) <= set(ADAPTIVE):
        return
    noise = {
        f"noise as long as {name}": metrics.proportion(detector.score(X) > limits[0.05])
        for name, X in noisy(test, seed=1).items()  # other noise than was learned
    }
    yield {
        "attack": "none",
        "n_reference": len(training.reference.X),
        "n_fit": len(training.clean.X),
        "n_calibration": n_calibration,
        "n_clean": len(clean),
        "flagged_at_1%": metrics.proportion(clean_scores > limits[0.01]),
        "flagged_at_5%": metrics.proportion(clean_scores > limits[0.05]),
        **noise,
    }
    yield {"attack": "cost", **cost(detector, model, clean[:N_TIMED])}


def of_attack(detector, name, images, clean_scores, limit):
    """Return the figures of one attack."""
    scores = detector.score(images.adversarial)
    cell = {
        "attack": name,
        "success": metrics.proportion(images.fooled),
        "norm": metrics.mean_norm(images.norms),
        "n_clean": len(images.clean),
        "n_adversarial": len(images.adversarial),
        "auroc": metrics.auroc(clean_scores, scores),
        "tpr_at_1%": metrics.tpr_at_fpr(clean_scores, scores, 0.01),
        "tpr_at_5%": metrics.tpr_at_fpr(clean_scores, scores, 0.05),
        "flagged": metrics.proportion(scores > limit),
    }
    if hasattr(detector, "relabel"):
        right = detector.relabel(images.adversarial) == images.original_label
        cell["relabelled"] = metrics.proportion(right)
        cell["guarded_accuracy"] = metrics.proportion(right & (scores > limit))
    return cell


def cost(detector, model, X: np.ndarray) -> dict[str, float]:
    """Time scores of images that were not seen before: mirrored ones."""
    mirrored = np.ascontiguousarray(X[..., ::-1])
    with metrics.count_passes(model.module) as passes:
        seconds, _ = timed(getattr(detector, "alone", detector.score), mirrored)
    return {
        "ms_per_image": 1000 * seconds / len(X),
        "fe_per_image": passes.forward_equivalents / len(X),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, one thread",
    }
