r"""What detection gains or loses by clamping probes to the bounds of an image.

    python -m benchmarks clamping
    python -m benchmarks clamping --strangers FOLDER --settings default

The default setting and the cheap one, with and without ``TorchModel(clamp=True)``. The
attacks do not leave the bounds, so both are shown the same images: development images
of ours, training images of the ResNet-20; with --strangers, test images of five
networks that nobody here trained (``common/strangers.py``). Boundaries of the clamped
network are farther away, and ``step="auto"`` is longer: so also without a clamp at that
step. Directions are drawn anew for each of --draws; --networks, --settings and
--n-images make a part.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import NETWORKS, SMALL, development_images
from benchmarks.common.results import RESULTS, rounded, write
from benchmarks.common.settings import FEW
from benchmarks.common.strangers import STRANGERS, images_of, load_stranger
from curvdetect import CurvatureFeaturizer, CurvatureRelabeler, TorchModel
from curvdetect.attacks import (
    AdversarialSet,
    MinimalNormAttack,
    make_adversarial_set,
    pgd,
    same_norm_noise,
)
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model

#: PGD's budget, times 255; lengths of minimal perturbations; images of each purpose.
ATTACKS = {
    **{name: (NETWORKS[name].budgets[0], (1.02, 2), 200) for name in SMALL},
    "cifar10": (2, (1.02,), 100),
    **{
        name: (16 if stranger.data == "mnist" else 2, (1.02, 2), 150)
        for name, stranger in STRANGERS.items()
    },
}
SETTINGS: dict[str, dict[str, Any]] = {"default": {}, "three boundaries": FEW}


def parser() -> argparse.ArgumentParser:
    parser = command_parser("clamping", __doc__)
    parser.add_argument("--networks", nargs="*", choices=list(ATTACKS))
    parser.add_argument(
        "--strangers", metavar="FOLDER", help="of the ONNX files of networks of others"
    )
    parser.add_argument(
        "--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS)
    )
    parser.add_argument("--n-images", type=int, help="images of each purpose")
    parser.add_argument("--draws", type=int, default=1)
    add_data_dir(parser)
    add_out(parser, "clamping.json, or {clamping-strangers}.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    end = "" if args.strangers is None else "-strangers"
    out = args.out or RESULTS / f"clamping{end}.json"
    results = []
    ours = [name for name in ATTACKS if name not in STRANGERS]
    for network in args.networks or (STRANGERS if args.strangers else ours):
        for row in of_network(network, args):
            results.append(row)
            print(json.dumps(row), flush=True)
            write(out, results)


def of_network(network: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of every setting, draw, clamp and attack."""
    budget, factors, n_default = ATTACKS[network]
    n = args.n_images or n_default
    if network in STRANGERS:
        plain = load_stranger(network, args.strangers)
        X, y = images_of(network, args.data_dir)
    else:
        plain = trained_model(network, data_dir=args.data_dir)
        X, y = development_images(network, args.data_dir)
    known = X[:n][plain.predict(X[:n]) == y[:n]]
    attacks: dict[str, Callable] = {f"PGD {budget}/255": pgd(plain, eps=budget / 255)}
    for factor in factors:
        attacks[f"minimal norm x {factor}"] = MinimalNormAttack(plain, factor=factor)
    test = {
        name: make_adversarial_set(plain, attack, X[n : 2 * n], y[n : 2 * n])
        for name, attack in attacks.items()
    }
    clamping = TorchModel(
        plain.module,
        input_shape=plain.input_shape,
        mean=plain.mean,
        std=plain.std,
        clamp=True,
    )
    steps = [learned_step(model, known) for model in (plain, clamping)]
    variants = ((plain, steps[0]), (clamping, steps[1]), (plain, steps[1]))
    for setting, parameters in ((s, SETTINGS[s]) for s in args.settings):
        for draw in range(args.draws):
            for model, step in variants:
                settings = {**parameters, "random_state": draw, "layout": "class"}
                featurizer = CurvatureFeaturizer(model, step=step, **settings)
                cell = {
                    "network": network,
                    "setting": setting,
                    "draw": draw,
                    "clamp": model.clamp,
                    "step": round(step, 4),
                }
                for found in measured(featurizer.fit(known), test):
                    yield {**cell, **found}


def learned_step(model: TorchModel, known: np.ndarray) -> float:
    """Return what step="auto" is, with a clamp or without."""
    return float(CurvatureFeaturizer(model, random_state=0).fit(known).step_)


def measured(
    featurizer: CurvatureFeaturizer, test: dict[str, AdversarialSet]
) -> Iterator[dict[str, Any]]:
    """Yield cost, detection, relabelling and what becomes of noise, for each attack."""
    clean = next(iter(test.values())).clean
    with metrics.count_passes(featurizer.model_.module) as passes:
        features = featurizer.transform(clean)
    fe = passes.forward_equivalents / len(clean)
    relabeler, clean_scores = CurvatureRelabeler().fit(features), largest(features)
    for name, images in test.items():
        attacked = featurizer.transform(images.adversarial)
        noise = same_norm_noise(images.clean, images.control_norms, random_state=1)
        noise_scores = largest(featurizer.transform(noise))
        recovered = relabeler.predict(attacked) == images.original_label
        scores = largest(attacked)
        yield {
            "attack": name,
            "n_clean": len(images.clean),
            "n_adversarial": len(images.adversarial),
            "fe": round(fe, 1),
            "auroc": rounded(metrics.auroc(clean_scores, scores)),
            "detected_at_5%": rounded(metrics.tpr_at_fpr(clean_scores, scores, 0.05)),
            "relabelled": rounded(metrics.proportion(recovered)),
            "noise_flagged_at_5%": rounded(
                metrics.tpr_at_fpr(clean_scores, noise_scores, 0.05)
            ),
        }


def largest(features: np.ndarray) -> np.ndarray:
    """Return the largest curvature of each image, 0 where there is none."""
    none = np.isnan(features).all(axis=1, keepdims=True)
    return np.nanmax(np.where(none, 0, features), axis=1)
