r"""What votes certify, and whether attacks within the radii fail as often as stated.

    python -m benchmarks certified fashion-mnist mnist cifar10

A copy of each network is trained with Gaussian noise on its training images; votes are
calibrated at 5 % on 500 images that neither was trained on, those of `learned`, and
certify the first 300 of its test images that the network gets right. Beside the share
certified at half, one and two medians of the smallest norm that fools the network: what
of those images is flagged, and what of all attacks within the radius passes - the
smallest perturbation, and from there as far as the radius; and as far as that towards
where network and companion agree on another class, at the image and at eight noisy
copies.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import NETWORKS, training_images
from benchmarks.common.results import known, rounded, write
from benchmarks.common.splits import load_subject
from curvdetect import TorchModel, VotingDetector
from curvdetect.geometry import find_adversarial_perturbation, find_joint_perturbation
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model
from curvdetect.study.training import GaussianNoise, train

N_IMAGES, N_ATTACKED, N_COPIES = 300, 60, 8
FACTORS = (0.5, 1.0, 2.0)
TARGET_FPR, LEVEL, CONFIDENCE = 0.05, 0.001, 0.999


def parser() -> argparse.ArgumentParser:
    parser = command_parser("certified", __doc__)
    parser.add_argument(
        "networks", nargs="+", choices=NETWORKS, metavar="NETWORK", help="of ours"
    )
    add_data_dir(parser)
    parser.add_argument("--n-votes", type=int, default=100)
    add_out(parser, "certified.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    results = known(args.out, {})
    for network in args.networks:
        results[network] = measured(network, args)
        write(args.out, results)
        print(network, json.dumps(results[network]), flush=True)


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return all figures of one network."""
    model, _, fit, (X, y), _ = load_subject(network, data_dir=args.data_dir)
    start = time.perf_counter()
    companion = trained_companion(network, args)
    trained = time.perf_counter() - start
    detector = VotingDetector(
        model,
        companion,
        sigma=NETWORKS[network].sigma,
        n_votes=args.n_votes,
        target_fpr=TARGET_FPR,
        level=LEVEL,
        random_state=0,
    ).fit(*fit)
    right = model.predict(X) == y
    x, label = X[right][:N_IMAGES], y[right][:N_IMAGES]
    clamped = model.clamped()
    with clamped.evaluating():
        least = find_adversarial_perturbation(
            clamped.logits, torch.from_numpy(x), bounds=clamped.bounds, batch_size=100
        )
    unit = float(least.norms.median())
    found = detector.certify(x, confidence=CONFIDENCE)
    flagged = detector.predict(x)
    return {
        "sigma": NETWORKS[network].sigma,
        "n_votes": args.n_votes,
        "least_votes": detector.least_votes_,
        "limit": round(detector.limit_, 4),
        "level": LEVEL,
        "confidence": CONFIDENCE,
        "n": len(x),
        "companion_right": rounded(metrics.proportion(companion.predict(X) == y)),
        "norm": round(unit, 4),
        "certified": {
            str(f): rounded(metrics.proportion(found.radius >= f * unit))
            for f in FACTORS
        },
        "radius": rounded(found.radius.tolist()),
        "norms": rounded(least.norms.tolist()),
        "flagged_clean": rounded(metrics.proportion(flagged == 1)),
        "attacked": attacked(detector, companion, x, label, found.radius, least.points),
        "cost": round(detector.cost(), 1),
        "training_seconds": round(trained),
    }


def trained_companion(network: str, args: argparse.Namespace) -> TorchModel:
    """Return a copy of the network that was trained with noise."""
    model = trained_model(network, data_dir=args.data_dir)
    train(
        model.as_module(trainable=True),
        *training_images(network, args.data_dir),
        loss=GaussianNoise(sigma=NETWORKS[network].sigma),
        n_epochs=10,
        max_lr=2e-3,
        verbose=False,
    )
    return model


def attacked(detector, companion, x, label, radius, points) -> dict:
    """Return how many attacks within the radius fool the network, and pass."""
    some = np.flatnonzero(radius > 0)[:N_ATTACKED]
    x, label = torch.from_numpy(x[some]), torch.from_numpy(label[some])
    points, radius = points[some], torch.from_numpy(radius[some]).float()
    way = points - x
    length = way.flatten(1).norm(dim=1)

    def as_far(way: Tensor) -> Tensor:
        """Go 0.999 of the radius."""
        norms = way.flatten(1).norm(dim=1).clamp(min=1e-6)
        return (x + (0.999 * radius / norms)[:, None, None, None] * way).clamp(0, 1)

    tries = {
        "smallest perturbation": (x + 1.02 * way).clamp(0, 1),
        "as far as the radius": as_far(way),
        "network and companion": as_far(
            joint(detector, companion, x, label, length) - x
        ),
    }
    counts = {}
    for name, images in tries.items():
        within = (images - x).flatten(1).norm(dim=1) <= radius
        wrong = torch.from_numpy(detector.model_.predict(images)) != label
        tried = (within & wrong).numpy()
        passed = detector.predict(images[tried]) == 0 if tried.any() else np.empty(0)
        counts[name] = {"tried": int(tried.sum()), "passed": int(np.sum(passed))}
    return counts


def joint(detector, companion, x: Tensor, label: Tensor, length: Tensor) -> Tensor:
    """Return the shortest way to where both say another class, also with noise."""
    model, sigma = detector.model_, detector.sigma
    noise = sigma * torch.randn((N_COPIES, *x.shape[1:]))
    with model.evaluating(), companion.evaluating():
        target = model.logits(x).scatter(1, label[:, None], -torch.inf).argmax(1)

        def margins(of: TorchModel, z: Tensor) -> Tensor:
            logits = of.logits(z.clamp(0, 1))
            own = target.repeat(len(z) // len(target))[:, None]
            others = logits.scatter(1, own, -torch.inf).amax(1)
            return logits.gather(1, own)[:, 0] - others

        def conditions(z: Tensor) -> Tensor:
            copies = torch.cat([z + each for each in noise])
            votes = margins(companion, copies).reshape(N_COPIES, -1).mean(0)
            return torch.stack([margins(model, z), votes], dim=1)

        found = find_joint_perturbation(
            conditions, x, radius=float(length.median()), bounds=(0, 1), n_steps=100
        )
    return found.points
