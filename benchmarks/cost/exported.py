"""A guard as one program of torch.export, against the guard itself.

    python -m benchmarks exported --strangers FOLDER

Guards of the shipped LeNet (also with the shipped ConvNet as a companion) and ViT, and
of the networks of others where their files are given, each fitted on 500 images (600 of
CIFAR-10) that its network was not trained on. They judge 1,000 test images that it gets
right (of the 300 of CIFAR-10 that serve to judge, all): half as they are, half, others,
after PGD at the report's budget (AUROC is of those that it fools). The program is asked
in a process that cannot import curvdetect for the same images, in batches of several
sizes. Then program and guard take turns over these images in one process, on one torch
thread: the ratio of what they take, of the CPU, is that of each round.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import load_images, smallest_eps
from benchmarks.common.results import significant, write
from benchmarks.common.splits import Subject, load_subject
from benchmarks.common.strangers import STRANGERS
from benchmarks.cost import exported_alone
from curvdetect import GuardedClassifier, LearnedDetector
from curvdetect.attacks import pgd
from curvdetect.storage import export_guard
from curvdetect.study.networks import trained_model

#: By their names in the results: a network, and a companion.
GUARDS: dict[str, tuple[str, str | None]] = {
    "fashion-mnist": ("fashion-mnist", None),
    "fashion-mnist with a companion": ("fashion-mnist", "fashion-mnist-convnet"),
    "fashion-mnist-vit": ("fashion-mnist-vit", None),
}
#: Clean images, and attacked ones.
N_EACH = 500
CLEAN, FOOLED, WITHSTOOD = 0, 1, 2
#: Test images before these are other benchmarks' (`common/splits.py`).
FIRST = 3_000
BATCHES = (1, 7, 100, 256)
TIMED = (100, 256)
ROUNDS = 7


def parser() -> argparse.ArgumentParser:
    parser = command_parser("exported", __doc__)
    add_data_dir(parser)
    add_out(parser, "exported.json")
    parser.add_argument(
        "--strangers", metavar="FOLDER", help="of the ONNX files of networks of others"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of timing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"torch": torch.__version__, "guards": {}}
    others = {name: (name, None) for name in STRANGERS if args.strangers}
    for name, (network, companion) in {**GUARDS, **others}.items():
        subject = load_subject(
            network, strangers=args.strangers, data_dir=args.data_dir
        )
        found = measured(subject, companion, args)
        print(name, significant(found), flush=True)
        results["guards"][name] = found
        write(args.out, significant(results))


def measured(
    subject: Subject, companion: str | None, args: argparse.Namespace
) -> dict[str, Any]:
    """Return all figures of one guard."""
    images, what = judged(subject, args.data_dir)
    guard = GuardedClassifier(
        subject.model,
        companion=companion and trained_model(companion),
        detector=LearnedDetector(target_fpr=0.05, self_test=False, random_state=0),
    ).fit(*subject.fit)
    with tempfile.TemporaryDirectory() as folder:
        early, every = Path(folder) / "early.pt2", Path(folder) / "every.pt2"
        about = export_guard(guard, early)
        export_guard(guard, every, early_exit=False)
        return {
            "images": [
                int((what == kind).sum()) for kind in (CLEAN, FOOLED, WITHSTOOD)
            ],
            "early_exit": about["early_exit"],
            "file_bytes": early.stat().st_size,
            "largest_shift_by_label": np.abs(guard.detector_.usual_).max(),
            "stages": np.bincount(guard.detector_.examine(images).stage).tolist(),
            "agreement": agreement(guard, images, what, asked_alone(early, images)),
            "time_of_the_guard": timed(guard, early, images, args.rounds),
            "time_of_the_guard, every stage": timed(guard, every, images, args.rounds),
        }


def judged(subject: Subject, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return test images, clean and attacked, in a random order; and which is which.

    `CLEAN`, `FOOLED`, or `WITHSTOOD` of those that were attacked in vain.
    """
    X, y = (part[FIRST:] for part in load_images(subject.data, data_dir))
    if not len(X):  # of CIFAR-10
        X, y = subject.test
    rng = np.random.default_rng(1)
    right = rng.permutation(np.flatnonzero(subject.model.predict(X) == y))
    X, y = (part[right[: 2 * N_EACH]] for part in (X, y))
    n_clean = len(X) // 2
    attack = pgd(subject.model, eps=smallest_eps(subject.data))
    images, labels = torch.from_numpy(X[n_clean:]), torch.from_numpy(y[n_clean:])
    X[n_clean:] = attack(images, labels).numpy()
    what = np.where(subject.model.predict(X) == y, WITHSTOOD, FOOLED)
    what[:n_clean] = CLEAN
    mixed = rng.permutation(len(X))
    return X[mixed], what[mixed]


def asked_alone(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Ask the program in a process that lacks this package."""
    given, out = path.with_name("images.npy"), path.with_name("answers.npz")
    np.save(given, images)
    argv = [exported_alone.__file__, path, given, out, *BATCHES]
    subprocess.run([sys.executable, *map(str, argv)], check=True)
    with np.load(out) as answers:
        return dict(answers)


def agreement(
    guard: GuardedClassifier,
    images: np.ndarray,
    what: np.ndarray,
    answers: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Compare what the program says, in each size of batches, with the guard."""
    expected, p_values = guard.assess(images), guard.p_values(images)

    def auroc(score: np.ndarray) -> float:
        told = what != WITHSTOOD
        return roc_auc_score(what[told] == FOOLED, score[told])

    result: dict[str, Any] = {"auroc": auroc(expected.score)}
    for size in BATCHES:
        found = {
            name.removesuffix(f" {size}"): values
            for name, values in answers.items()
            if name.endswith(f" {size}")
        }
        result[f"batches of {size}"] = {
            **{
                f"same_{name}": (found[name] == getattr(expected, name)).mean()
                for name in ("label", "flagged", "recovered_label")
            },
            "score_difference": np.abs(found["score"] - expected.score).max(),
            "p_value_difference": np.abs(found["p_value"] - p_values).max(),
            "auroc": auroc(found["score"]),
        }
    return result


def timed(
    guard: GuardedClassifier, path: Path, images: np.ndarray, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return what the program takes of the guard's time, in batches of each size."""
    program, tensors = torch.export.load(path).module(), torch.from_numpy(images)
    result = {}
    for size in TIMED:
        batches = tensors.split(size)
        for way in (program, guard.assess):  # the first calls set up something
            way(batches[0])
        ratios = [
            seconds(program, batches) / seconds(guard.assess, batches)
            for _ in range(rounds)
        ]
        result[f"batches of {size}"] = {"median": np.median(ratios), "each": ratios}
    return result


def seconds(
    way: Callable[[torch.Tensor], Any], batches: Sequence[torch.Tensor]
) -> float:
    """Return CPU seconds, which other processes change less than the clock's."""
    start = time.process_time()
    for batch in batches:
        way(batch)
    return time.process_time() - start
