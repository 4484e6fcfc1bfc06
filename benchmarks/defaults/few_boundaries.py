r"""What is lost with three boundaries and three directions.

    python -m benchmarks assets --only fashion-mnist mnist --seed 1
    python -m benchmarks assets --only fashion-mnist mnist --seed 2
    python -m benchmarks few-boundaries \\
        --lenets benchmarks/cache/lenets/1 benchmarks/cache/lenets/2

The cheap setting, the default and 256 directions, on the test images 2000 to 2150 and
what PGD makes of them; for the LeNets that are shipped and others. Three directions are
few, so the cheap setting is drawn three times.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import LENETS, SMALL, load_images, smallest_eps
from benchmarks.common.results import write
from benchmarks.common.settings import FEW
from benchmarks.training.assets import MADE
from curvdetect import CurvatureFeaturizer, CurvatureRelabeler, TorchModel
from curvdetect.attacks import AdversarialSet, make_adversarial_set, pgd
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model

IMAGES = slice(2000, 2150)
SETTINGS = {
    "256 directions": {"n_directions": 256, "tol": 1e-4, "random_state": 0},
    "default": {"random_state": 0},
    **{f"3 boundaries, draw {k}": {**FEW, "random_state": k} for k in range(3)},
}


def parser() -> argparse.ArgumentParser:
    parser = command_parser("few-boundaries", __doc__)
    parser.add_argument("--networks", nargs="+", choices=SMALL, default=LENETS)
    parser.add_argument(
        "--lenets", nargs="*", type=Path, default=[], help="folders of others"
    )
    add_data_dir(parser)
    add_out(parser, "few_boundaries.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    results = []
    for dataset in args.networks:
        file, _ = MADE[dataset]
        X, y = load_images(dataset, args.data_dir)
        for weights in (None, *(folder / file for folder in args.lenets)):
            model = trained_model(dataset, weights=weights)
            torch.manual_seed(0)  # PGD starts at random
            attack = pgd(model, eps=smallest_eps(dataset))
            images = make_adversarial_set(model, attack, X[IMAGES], y[IMAGES])
            scale = CurvatureFeaturizer(model, random_state=0).fit(X[:200]).step_
            for setting, parameters in SETTINGS.items():
                found = measure(model, images, step=scale, **parameters)
                name = weights.parent.name if weights else "as shipped"
                results.append(
                    {"dataset": dataset, "weights": name, "setting": setting, **found}
                )
                print(json.dumps(results[-1]), flush=True)
    write(args.out, results)


def measure(model: TorchModel, images: AdversarialSet, **parameters) -> dict:
    """Return cost, detection and relabelling of one setting."""
    featurizer = CurvatureFeaturizer(model, **parameters).fit(images.clean[:5])
    with metrics.count_passes(model.module) as passes:
        clean = featurizer.transform(images.clean)
    attacked = featurizer.transform(images.adversarial)
    largest = (np.nanmax(F, axis=1) for F in (clean, attacked))
    recovered = CurvatureRelabeler().fit(clean).predict(attacked)
    return {
        "n_clean": len(clean),
        "n_adversarial": len(attacked),
        "success": round(images.success_rate, 4),
        "fe": round(passes.forward_equivalents / len(clean), 1),
        "auroc": round(metrics.auroc(*largest).value, 4),
        "relabelled": round(float((recovered == images.original_label).mean()), 4),
    }
