"""Attacks, and images of another data set: our detector beside an energy score.

    python -m benchmarks other-data

On the LeNet of Fashion-MNIST, whose test images are in distribution. Out of it are
test images of MNIST, which is what detectors of pytorch-ood are for; or what PGD makes
of those of Fashion-MNIST, which is what ours are for. Needs the extra ood.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import torch
from pytorch_ood.detector import EnergyBased
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.batches import in_batches
from benchmarks.common.networks import load_images, smallest_eps
from benchmarks.common.results import write
from curvdetect.attacks import GradientStepsAttack, make_adversarial_set
from curvdetect.integrations.pytorch_ood import CurvatureDetector
from curvdetect.study.metrics import auroc
from curvdetect.study.networks import trained_model

NETWORK, OTHER = "fashion-mnist", "mnist"
#: Images that the detectors learn from; those scored come after them.
N_LEARNED = 1_500
BATCH_SIZE = 500


def parser() -> argparse.ArgumentParser:
    parser = command_parser("other-data", __doc__)
    add_data_dir(parser)
    parser.add_argument("--n-images", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_out(parser, "other_data.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    model = trained_model(NETWORK, data_dir=args.data_dir)
    X, y = load_images(NETWORK, args.data_dir)
    part = slice(N_LEARNED, N_LEARNED + args.n_images)
    attack = GradientStepsAttack(model, budget=smallest_eps(NETWORK), steps=10)
    attacked = make_adversarial_set(model, attack, X[part], y[part])
    out_of_it = {
        OTHER: load_images(OTHER, args.data_dir)[0][: args.n_images],
        "PGD": attacked.adversarial,
    }
    loader = DataLoader(
        TensorDataset(torch.from_numpy(X[:N_LEARNED]), torch.from_numpy(y[:N_LEARNED])),
        batch_size=256,
    )
    detectors = {"energy": lambda: EnergyBased(model.as_module())}
    for seed in args.seeds:
        detectors[f"learned, seed {seed}"] = lambda seed=seed: CurvatureDetector(
            model, random_state=seed
        )
        detectors[f"threshold, seed {seed}"] = lambda seed=seed: CurvatureDetector(
            model, detector="threshold", random_state=seed
        )
    results = []
    for name, make in detectors.items():
        detector = make().fit(loader)
        clean = in_batches(detector, X[part], BATCH_SIZE)
        for of, images in out_of_it.items():
            found = auroc(clean, in_batches(detector, images, BATCH_SIZE))
            cell = {"detector": name, "out": of, "auroc": found}
            results.append({**cell, "n_in": len(clean), "n_out": len(images)})
            print(json.dumps(results[-1]), flush=True)
    write(args.out, results)
