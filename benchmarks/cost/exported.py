"""A guard as one program of torch.export, against the guard itself.

    python benchmarks/exported_guard.py --out benchmarks/results/exported.json

A learned guard of the Fashion-MNIST LeNet, fitted on 500 of the last 5,000 training
images, judges 1,000 test images: 500 as they are, and 500 others after torchattacks'
PGD at 16/255. The program is asked in a process that cannot import curvdetect for the
same images, in batches of several sizes; then both are timed in turns, in one process,
on one torch thread. With and without a companion (the convolutional network beside it).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchattacks
from sklearn.metrics import roc_auc_score

from curvdetect import GuardedClassifier, LearnedDetector
from curvdetect.storage import export_guard
from curvdetect.study.datasets import load_dataset
from curvdetect.study.networks import trained_model

N_FITTED, N_CLEAN, N_ATTACKED = 500, 500, 500
BUDGET = 16 / 255
BATCHES = (1, 2, 7, 100, 256)
#: Of these, batches of one and two are asked for the first images alone.
N_IN_SMALL = 100
ROUNDS = 9
#: What runs without this package: argv holds the program, images, batch sizes, answers.
ALONE = """
import sys
import numpy, torch

class Refuses:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "curvdetect":
            raise ImportError(name)

sys.meta_path.insert(0, Refuses())
torch.set_num_threads(1)
program = torch.export.load(sys.argv[1]).module()
images = torch.from_numpy(numpy.load(sys.argv[2]))
out = {}
for size, n in zip(eval(sys.argv[3]), eval(sys.argv[4])):
    answers = [program(batch) for batch in images[:n].split(size)]
    for name in answers[0]:
        out[f"{name} {size}"] = torch.cat([each[name] for each in answers]).numpy()
numpy.savez(sys.argv[5], **out)
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    X, y = load_dataset("fashion-mnist", data_dir=args.data_dir, train=True)
    order = np.random.default_rng(0).permutation(5000)[:N_FITTED]
    X, y = X[-5000:][order], y[-5000:][order]
    images, attacked = judged(args.data_dir)
    results = {
        "machine": f"{platform.machine()}, one torch thread, torch {torch.__version__}",
        "images": [len(images) - int(attacked.sum()), int(attacked.sum())],
    }
    for name, companion in (("alone", None), ("companion", "fashion-mnist-convnet")):
        guard = GuardedClassifier(
            trained_model("fashion-mnist"),
            companion=companion and trained_model(companion),
            detector=LearnedDetector(target_fpr=0.05, self_test=False, random_state=0),
        ).fit(X, y)
        results[name] = compared(guard, images, attacked, args.rounds)
        print(name, json.dumps(results[name], indent=1), flush=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n")


def judged(data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return test images, clean and attacked, in a random order; and which were."""
    X, y = load_dataset("fashion-mnist", data_dir=data_dir, train=False)
    model = trained_model("fashion-mnist")
    rng = np.random.default_rng(1)
    chosen = rng.permutation(np.flatnonzero(model.predict(X) == y))
    chosen = chosen[: N_CLEAN + N_ATTACKED]
    X, y = X[chosen], y[chosen]
    torch.manual_seed(0)
    pgd = torchattacks.PGD(model.as_module(), eps=BUDGET, alpha=BUDGET / 4, steps=10)
    X[N_CLEAN:] = pgd(torch.from_numpy(X[N_CLEAN:]), torch.from_numpy(y[N_CLEAN:]))
    mixed = rng.permutation(len(X))
    return X[mixed], np.arange(len(X))[mixed] >= N_CLEAN


def compared(
    guard: GuardedClassifier, images: np.ndarray, attacked: np.ndarray, rounds: int
) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guard.pt2"
        start = time.perf_counter()
        about = export_guard(guard, path)
        seconds = time.perf_counter() - start
        answers = asked_alone(path, images)
        result = {
            "early_exit": about["early_exit"],
            "export_seconds": round(seconds, 1),
            "file_bytes": path.stat().st_size,
            "stages": np.bincount(guard.detector_.examine(images).stage).tolist(),
            "agreement": agreement(guard, images, attacked, answers),
            "seconds": timed(guard, path, images, rounds),
        }
        every = Path(folder) / "every.pt2"
        export_guard(guard, every, early_exit=False)
        result["every_stage_seconds"] = timed(guard, every, images, rounds)
        return result


def asked_alone(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Ask the program in a process that lacks this package."""
    given, out = path.with_name("images.npy"), path.with_name("answers.npz")
    np.save(given, images)
    n_asked = [N_IN_SMALL if size < 3 else len(images) for size in BATCHES]
    argv = [path, given, list(BATCHES), n_asked, out]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, argv)], check=True)
    with np.load(out) as answers:
        return dict(answers)


def agreement(
    guard: GuardedClassifier,
    images: np.ndarray,
    attacked: np.ndarray,
    answers: dict[str, np.ndarray],
) -> dict:
    found, p_values = guard.assess(images), guard.p_values(images)
    auroc = roc_auc_score(attacked, found.score)
    result: dict = {"auroc": round(float(auroc), 5)}
    for size in BATCHES:
        score, flagged = answers[f"score {size}"], answers[f"flagged {size}"]
        n = len(score)
        of_batches = {
            "images": n,
            "same_flags": float((flagged == found.flagged[:n]).mean()),
            "same_labels": float((answers[f"label {size}"] == found.label[:n]).mean()),
            "score_difference": float(np.abs(score - found.score[:n]).max()),
            "p_value_difference": float(
                np.abs(answers[f"p_value {size}"] - p_values[:n]).max()
            ),
        }
        if n == len(images):
            of_batches["auroc"] = round(float(roc_auc_score(attacked, score)), 5)
        result[f"batches of {size}"] = of_batches
    return result


def timed(
    guard: GuardedClassifier, path: Path, images: np.ndarray, rounds: int
) -> dict:
    """Return seconds for all images, median of rounds in which all take turns.

    Of the CPU, which other processes on the machine change less than the clock's.
    """
    program, tensors = torch.export.load(path).module(), torch.from_numpy(images)
    ways = {"guard, all at once": lambda: guard.assess(images)}
    for size in (100, 256):
        ways[f"guard, batches of {size}"] = lambda size=size: [
            guard.assess(batch.numpy()) for batch in tensors.split(size)
        ]
        ways[f"program, batches of {size}"] = lambda size=size: [
            program(batch) for batch in tensors.split(size)
        ]
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first, of which some is set up, does not count
        for name, way in ways.items():
            start = time.process_time()
            way()
            spent[name].append(time.process_time() - start)
    return {name: round(statistics.median(of[1:]), 4) for name, of in spent.items()}


if __name__ == "__main__":
    main()
