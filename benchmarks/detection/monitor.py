"""How rarely the monitor of a stream is wrong, and how soon it is right.

    python -m benchmarks monitor

False alarms: streams of random scores, exchangeable with their calibration, with ties
and without. The rest is on Fashion-MNIST and the shipped LeNet, with a guard of default
settings that learned from the first 500 development images (training images that the
network was not trained on). Of 2,000 other images, in a random order, the first are the
monitor's calibration, and up to 1,000 others the stream; from some image on a share of
them is replaced by attacked ones (torchattacks' PGD, 16/255, ten steps, right before
and wrong after), or all are darker, blurred or noisy. The bets were chosen on 2,000
development images, "development"; what they do on test images 1,000 to 2,999, "test",
was looked at afterwards. Beside them is the Simple Jumper of Vovk et al. (2021).
Intervals are over random orders of the same images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.results import rounded, write
from curvdetect import GuardedClassifier, GuardMonitor
from curvdetect.study import metrics
from curvdetect.study.datasets import load_dataset
from curvdetect.study.networks import load_lenet

LEVEL, WITHIN = 0.01, 200
N_DEVELOPMENT, N_LEARNED, N_IMAGES, LONGEST = 5_000, 500, 2_000, 1_000
EPS, STEP = 16 / 255, 2 / 255


class Stream(NamedTuple):
    """What comes: a share of some kind, from an image on."""

    kind: str
    share: float = 1.0
    start: int = 0
    n_calibration: int = 1_000

    @property
    def name(self) -> str:
        return (
            f"{self.share:.0%} {self.kind} after {self.start} clean, calibration of "
            f"{self.n_calibration}"
        )


STREAMS = (
    Stream("clean", 0.0),
    Stream("clean", 0.0, n_calibration=300),
    *(Stream("pgd", share) for share in (0.02, 0.05, 0.1, 1.0)),
    Stream("pgd", 0.1, n_calibration=300),
    Stream("pgd", 0.1, start=500),
    Stream("darker"),
    Stream("darker", start=500),
    Stream("blurred"),
    Stream("blurred more"),
    Stream("noisy"),
)


def parser() -> argparse.ArgumentParser:
    parser = command_parser("monitor", __doc__)
    add_data_dir(parser)
    parser.add_argument("--scores", type=Path, help="file that keeps them (.npz)")
    parser.add_argument("--n-streams", type=int, default=1_000)
    parser.add_argument("--n-images", type=int, default=10_000)
    add_out(parser, "monitor.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    scores = kept(args.scores, lambda: measured(args.data_dir))
    result = {
        "level": LEVEL,
        "within": WITHIN,
        "n_streams": args.n_streams,
        "false_alarms": {
            kind: false_alarms(draw, args.n_streams, args.n_images)
            for kind, draw in RANDOM.items()
        },
    }
    for part in ("development", "test"):
        own = {k.partition("/")[2]: v for k, v in scores.items() if k.startswith(part)}
        result[part] = {
            "images": described(own),
            "streams": {
                stream.name: watched(own, stream, args.n_streams) for stream in STREAMS
            },
        }
    own = {k.partition("/")[2]: v for k, v in scores.items() if k[0] == "d"}
    result["development"]["simple jumper"] = {
        stream.name: watched(own, stream, min(args.n_streams, 200), by=simple_jumper)
        for stream in STREAMS
    }
    write(args.out, result)


# Random scores ----------------------------------------------------------------

RANDOM: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "continuous": lambda rng, n: rng.standard_normal(n),
    "five values": lambda rng, n: rng.integers(5, size=n).astype(float),
}


def false_alarms(draw, n_streams: int, n_images: int) -> dict:
    """Return how many exchangeable streams raise an alarm, ever."""
    alarms, start = [], time.perf_counter()
    for seed in range(n_streams):
        scores = draw(np.random.default_rng(seed), 1_000 + n_images)
        monitor = GuardMonitor(level=LEVEL, random_state=seed).fit(scores[:1_000])
        alarms.append(monitor.update(scores[1_000:]).alarm)
    cell = {
        "n_images": n_images,
        "n_alarms": sum(alarm is not None for alarm in alarms),
        "share": rounded(metrics.proportion([a is not None for a in alarms])),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(cell), flush=True)
    return cell


# Scores of images -------------------------------------------------------------


def kept(path: Path | None, make: Callable[[], dict]) -> dict[str, np.ndarray]:
    """Return what a file holds, or make it and the file."""
    if path is not None and path.exists():
        with np.load(path) as file:
            return dict(file)
    scores = make()
    if path is not None:
        np.savez(path, **scores)
    return scores


def measured(data_dir: str | None) -> dict[str, np.ndarray]:
    """Return the scores of all images, whole and changed, and the guard's flags."""
    X, y = (
        part[-N_DEVELOPMENT:]
        for part in load_dataset("fashion-mnist", data_dir=data_dir, train=True)
    )
    guard = GuardedClassifier(load_lenet("fashion-mnist"), random_state=0)
    guard.fit(X[:N_LEARNED], y[:N_LEARNED])
    more = slice(N_LEARNED, N_LEARNED + N_IMAGES)
    X_test, y_test = load_dataset("fashion-mnist", data_dir=data_dir)
    test = slice(1_000, 1_000 + N_IMAGES)
    scores = {}
    for part, images, labels in (
        ("development", X[more], y[more]),
        ("test", X_test[test], y_test[test]),
    ):
        for name, changed in all_changed(images, labels).items():
            found = guard.assess(changed)
            scores[f"{part}/{name}"] = found.score
            scores[f"{part}/{name} flagged"] = found.flagged
            scores[f"{part}/{name} right"] = found.model_label == labels
    return scores


def all_changed(X: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images, and what becomes of them."""
    from torchattacks import PGD

    attack = PGD(load_lenet("fashion-mnist"), eps=EPS, alpha=STEP, steps=10)
    noise = 0.1 * np.random.default_rng(0).standard_normal(X.shape)
    torch.manual_seed(0)
    return {
        "clean": X,
        "pgd": np.concatenate(
            [
                attack(torch.from_numpy(x), torch.from_numpy(label)).numpy()
                for x, label in zip(np.split(X, 20), np.split(y, 20), strict=True)
            ]
        ),
        "darker": X * np.float32(0.5),
        "blurred": gaussian_filter(X, (0, 0, 1, 1)),
        "blurred more": gaussian_filter(X, (0, 0, 2, 2)),
        "noisy": np.clip(X + noise, 0, 1).astype(np.float32),
    }


def described(scores: dict[str, np.ndarray]) -> dict:
    """Return what is known of each kind of images."""
    clean = scores["clean"]
    cells = {}
    for kind in ("clean", "pgd", "darker", "blurred", "blurred more", "noisy"):
        used = np.ones(len(clean), dtype=bool)
        if kind == "pgd":
            used = scores["clean right"] & ~scores["pgd right"]
        cells[kind] = {
            "n": int(used.sum()),
            "right": rounded(metrics.proportion(scores[f"{kind} right"][used])),
            "flagged": rounded(metrics.proportion(scores[f"{kind} flagged"][used])),
        }
        if kind != "clean":
            cells[kind]["auroc"] = rounded(metrics.auroc(clean, scores[kind][used]))
    return cells


# Streams ----------------------------------------------------------------------


def monitored(calibration: np.ndarray, stream: np.ndarray, seed: int):
    """Return after how many images there is an alarm, or None, and which."""
    monitor = GuardMonitor(level=LEVEL, random_state=seed).fit(calibration)
    state = monitor.update(stream)
    return state.alarm_at, state.alarm


def simple_jumper(calibration: np.ndarray, stream: np.ndarray, seed: int):
    """Do the same by linear bets between which capital jumps, 1 % an image."""
    monitor = GuardMonitor(level=LEVEL, random_state=seed).fit(calibration)
    bets, jump = np.array([-1.0, 0.0, 1.0]), 0.01
    capital = np.full(3, 1 / 3)
    for number, p in enumerate(monitor.update(stream).p_values, start=1):
        capital = (1 - jump) * capital + jump * capital.mean()
        capital *= 1 + bets * (p - 0.5)
        if capital.sum() >= 1 / LEVEL:
            return number, "drift"
    return None, None


def drawn(
    scores: dict[str, np.ndarray], stream: Stream, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of a calibration and of a stream, in a random order."""
    order = rng.permutation(len(scores["clean"]))
    known, coming = np.split(order, [stream.n_calibration])
    coming = coming[:LONGEST]
    out = scores["clean"][coming]
    changed = np.flatnonzero(
        (np.arange(len(coming)) >= stream.start)
        & (rng.random(len(coming)) < stream.share)
    )
    instead = coming[changed]
    if stream.kind == "pgd":  # some of the others: not all attacks fool the network
        fooled = scores["clean right"] & ~scores["pgd right"]
        instead = rng.permutation(coming[fooled[coming]])[: len(changed)]
        if len(instead) < len(changed):
            out = out[: changed[len(instead)]]
            changed = changed[: len(instead)]
    out[changed] = scores[stream.kind][instead]
    return scores["clean"][known], out


def watched(
    scores: dict[str, np.ndarray], stream: Stream, n_streams: int, by=monitored
) -> dict:
    """Return how soon there is an alarm."""
    at, which = [], []
    for seed in range(n_streams):
        calibration, coming = drawn(scores, stream, np.random.default_rng(seed))
        found, alarm = by(calibration, coming, seed)
        at.append(np.inf if found is None else found - stream.start)
        which.append(alarm)
    waited = np.array(at)
    right = waited > 0  # the others are false alarms, before anything has changed
    cell = {
        "n": n_streams,
        "within": rounded(metrics.proportion(right & (waited <= WITHIN))),
        "ever": rounded(metrics.proportion(np.isfinite(waited))),
        "before": int((~right).sum()),
        "images": [
            quantile if np.isfinite(quantile) else None
            for quantile in np.quantile(waited, [0.5, 0.95], method="higher").tolist()
        ],
        "burst": which.count("burst"),
        "drift": which.count("drift"),
    }
    print(by.__name__, stream.name, json.dumps(cell), flush=True)
    return cell
