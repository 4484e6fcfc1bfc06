"""Attacks, and images of another data set: our detector beside an energy score.

    python benchmarks/other_data.py --out benchmarks/results/other_data.json

On the LeNet of Fashion-MNIST, whose test images are in distribution. Out of it are
test images of MNIST, which is what detectors of pytorch-ood are for; or what PGD makes
of those of Fashion-MNIST, which is what ours are for.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from networks import load_images, smallest_eps
from pytorch_ood.detector import EnergyBased
from torch.utils.data import DataLoader, TensorDataset

from curvdetect.attacks import GradientStepsAttack, make_adversarial_set
from curvdetect.integrations.pytorch_ood import CurvatureDetector
from curvdetect.study.metrics import auroc
from curvdetect.study.networks import trained_model

NETWORK, OTHER = "fashion-mnist", "mnist"
#: Images that the detectors learn from; those scored come after them.
N_LEARNED = 1_500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--n-images", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
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
        clean = scores(detector, X[part])
        for of, images in out_of_it.items():
            found = auroc(clean, scores(detector, images))
            cell = {"detector": name, "out": of, "auroc": found}
            results.append({**cell, "n_in": len(clean), "n_out": len(images)})
            print(json.dumps(results[-1]), flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


def scores(detector, X: np.ndarray) -> np.ndarray:
    """Score images in batches."""
    parts = [detector(x).detach().numpy() for x in torch.from_numpy(X).split(500)]
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
