"""Measure detectors against attacks, a JSON line for each pair.

    python benchmarks/detection/run.py mnist \
        --out benchmarks/results/detection-mnist.jsonl --cache /tmp/detection

Lines that are there already are not measured again, so an interrupted run goes on where
it was. With `--adaptive` the attacks are two that know the default detector, from which
nothing learns. Tables and pictures are made by `report.py`. Needs the extras art,
attacks and ood.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import torch
from detectors import Training, detectors
from protocol import (
    ADAPTIVE,
    Protocol,
    Split,
    adaptive_attacks,
    attacks,
    load_protocol,
)

from curvdetect import metrics
from curvdetect.attacks import AdversarialSet, make_adversarial_set, same_norm_noise

#: Noise as long as the perturbations of these attacks: the control.
CONTROLS = ("PGD", "minimal norm x 1.02", "minimal norm x 2")
N_TIMED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=["cifar10", "fashion-mnist", "mnist"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="of sets, features")
    parser.add_argument("--data-dir")
    parser.add_argument("--scale", type=float, default=1, help="of the sets of images")
    parser.add_argument("--only", help="detectors whose names begin so")
    parser.add_argument("--adaptive", action="store_true")
    parser.add_argument(
        "--limit", type=int, help="clean images of each set that are measured"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)

    known = args.out.read_text().splitlines() if args.out.exists() else []
    done = {(cell["detector"], cell["attack"]) for cell in map(json.loads, known)}
    protocol = load_protocol(args.network, args.data_dir, args.scale)
    if args.limit is not None:
        images = protocol.calibration
        shorter = Split(images.X[: 2 * args.limit], images.y[: 2 * args.limit])
        protocol = replace(protocol, calibration=shorter)
    names = list(attacks(protocol.model, args.network))
    memory = str(args.cache / f"{args.network}-{args.scale}")
    everything = None
    with args.out.open("a") as out:
        for name, make in detectors(protocol.model, args.network, memory).items():
            if args.only is not None and not name.startswith(args.only):
                continue
            if args.adaptive and "without" in name:
                continue
            wanted = ADAPTIVE if args.adaptive else (*names, "none", "cost")
            if {(name, attack) for attack in wanted} <= done:
                continue
            if everything is None:
                everything = prepare(protocol, args, memory)
            for cell in measure(make(), protocol, *everything):
                if (name, cell["attack"]) not in done:
                    cell = {"network": args.network, "detector": name, **cell}
                    print(json.dumps(rounded(cell)), file=out, flush=True)
            print(f"{time.strftime('%H:%M:%S')} {args.network}: {name}", flush=True)


def prepare(protocol: Protocol, args, memory: str):
    """Make, or find again, what detectors learn from and are judged by."""
    network = args.network
    attack_set, evading_set = (
        joblib.Memory(memory, verbose=0).cache(make, ignore=["protocol", "X", "y"])
        for make in (attacked, evading)
    )
    parts = {"fit": protocol.fit, "test": protocol.test}
    sets: dict[str, dict[str, AdversarialSet]] = {
        part: {
            name: first(
                args.limit,
                attack_set(network, part, name, protocol, split.X, split.y),
            )
            for name in attacks(protocol.model, network)
        }
        for part, split in parts.items()
    }
    any_set = next(iter(sets["fit"].values()))
    training = Training(
        protocol.reference,
        Split(any_set.clean, any_set.clean_label),
        noisy(sets["fit"], seed=0),
        sets["fit"],
    )
    if not args.adaptive:
        return training, sets["test"]
    test = protocol.test
    return training, {
        name: first(args.limit, evading_set(network, name, protocol, test.X, test.y))
        for name in ADAPTIVE
    }


def first(limit: int | None, images: AdversarialSet) -> AdversarialSet:
    """Keep the first clean images, and what was made of them."""
    rows = images.source < (limit or len(images.clean))
    return AdversarialSet(
        clean=images.clean[:limit],
        clean_label=images.clean_label[:limit],
        adversarial=images.adversarial[rows],
        original_label=images.original_label[rows],
        predicted_label=images.predicted_label[rows],
        source=images.source[rows],
    )


def attacked(
    network: str,
    part: str,
    name: str,
    protocol: Protocol,
    X: np.ndarray,
    y: np.ndarray,
) -> AdversarialSet:
    """Run one attack; `part` is there to be looked up by."""
    attack = attacks(protocol.model, network)[name]
    return make_adversarial_set(protocol.model, attack, X, y, batch_size=128)


def evading(
    network: str, name: str, protocol: Protocol, X: np.ndarray, y: np.ndarray
) -> AdversarialSet:
    """Run one attack that knows the default detector."""
    attack = adaptive_attacks(protocol)[name]
    return make_adversarial_set(protocol.model, attack, X, y, batch_size=32)


def noisy(sets: dict[str, AdversarialSet], seed: int) -> dict[str, np.ndarray]:
    """Add noise of the norms of some attacks to the clean images."""
    return {
        name: same_norm_noise(images.clean, images.control_norms, random_state=seed)
        for name, images in sets.items()
        if name.startswith(CONTROLS)
    }


def measure(detector, protocol: Protocol, training: Training, test):
    """Yield a cell for each attack, one for clean and noisy images, one for cost."""
    model = protocol.model
    detector.fit(training)
    calibration = protocol.calibration
    right = model.predict(calibration.X) == calibration.y
    thresholds = {
        fpr: threshold(detector.score(calibration.X[right]), fpr)
        for fpr in (0.01, 0.05)
    }
    clean = next(iter(test.values())).clean
    clean_scores = detector.score(clean)
    for name, images in test.items():
        if not len(images.adversarial):
            continue
        yield of_attack(detector, name, images, clean_scores, thresholds[0.05])
    if set(test) <= set(ADAPTIVE):
        return
    noise = {
        f"noise as long as {name}": metrics.share(detector.score(X) > thresholds[0.05])
        for name, X in noisy(test, seed=1).items()  # other noise than was learned
    }
    yield {
        "attack": "none",
        "n_reference": len(training.reference.X),
        "n_fit": len(training.clean.X),
        "n_calibration": int(right.sum()),
        "n_clean": len(clean),
        "flagged_at_1%": metrics.share(clean_scores > thresholds[0.01]),
        "flagged_at_5%": metrics.share(clean_scores > thresholds[0.05]),
        **noise,
    }
    yield {"attack": "cost", **cost(detector, model, clean[:N_TIMED])}


def of_attack(detector, name, images, clean_scores, limit):
    """Return the figures of one attack."""
    scores = detector.score(images.adversarial)
    cell = {
        "attack": name,
        "success": metrics.share(images.fooled),
        "norm": metrics.mean_norm(images.norms),
        "n_clean": len(images.clean),
        "n_adversarial": len(images.adversarial),
        "auroc": metrics.auroc(clean_scores, scores),
        "tpr_at_1%": metrics.tpr_at_fpr(clean_scores, scores, 0.01),
        "tpr_at_5%": metrics.tpr_at_fpr(clean_scores, scores, 0.05),
        "flagged": metrics.share(scores > limit),
    }
    if hasattr(detector, "relabel"):
        right = detector.relabel(images.adversarial) == images.original_label
        cell["relabelled"] = metrics.share(right)
        cell["guarded_accuracy"] = metrics.share(right & (scores > limit))
    return cell


def threshold(scores: np.ndarray, fpr: float) -> float:
    """Return the conformal threshold: a new clean score is above it with prob. fpr."""
    k = int(np.ceil((len(scores) + 1) * (1 - fpr)))
    return float(np.sort(scores)[k - 1]) if k <= len(scores) else np.inf


def cost(detector, model, X: np.ndarray) -> dict[str, float]:
    """Time scores of images that were not seen before: mirrored ones."""
    mirrored = np.ascontiguousarray(X[..., ::-1])
    with metrics.count_passes(model.module) as passes:
        started = time.perf_counter()
        getattr(detector, "alone", detector.score)(mirrored)
        seconds = time.perf_counter() - started
    return {
        "ms_per_image": 1000 * seconds / len(X),
        "fe_per_image": passes.forward_equivalents / len(X),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, one thread",
    }


def rounded(value):
    """Round what is printed to four decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, tuple | list):
        return [rounded(v) for v in value]
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return value


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
