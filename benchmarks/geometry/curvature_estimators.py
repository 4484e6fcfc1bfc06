"""Which stochastic estimate of the average curvature is best at equal cost.

    python -m benchmarks curvature-estimators

Root mean squared errors over 20 draws, at boundary points of the shipped LeNets: with
softplus and average pooling (exact products, against all principal curvatures), and as
they are (differences of gradients at the median distance to the boundary, against
20,000 random tangents); `--networks` takes others. Cost is the number of Hessian-vector
products. "orthogonal" takes the tangents from a random orthonormal frame, "hutch++" is
that of Meyer, Musco, Musco and Woodruff (2021); the package has the other two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import torch

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import LENETS, SMALL, load_images
from benchmarks.common.results import write
from benchmarks.geometry.smoothed import smoothed
from curvdetect import TorchModel
from curvdetect.geometry import mean_curvature, principal_curvatures
from curvdetect.geometry._differences import Differences
from curvdetect.geometry._operators import Operator
from curvdetect.network import find_nearest_boundaries
from curvdetect.study.networks import trained_model

N_IMAGES, N_DRAWS = 8, 20
N_PRODUCTS = (8, 16, 32, 64, 128)
BATCH_SIZE = 512


def parser() -> argparse.ArgumentParser:
    parser = command_parser("curvature-estimators", __doc__)
    parser.add_argument("--networks", nargs="+", choices=SMALL, default=LENETS)
    add_data_dir(parser)
    add_out(parser, "curvature_estimators.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    results = []
    for dataset in args.networks:
        images = load_images(dataset, args.data_dir)[0][:N_IMAGES]
        relu = trained_model(dataset)
        smooth = TorchModel(smoothed(relu.module), input_shape=(1, 28, 28))
        for name, model in (("relu", relu), ("softplus", smooth)):
            with model.evaluating():
                results += compare(model, images, exact=name == "softplus")
            for result in results[-len(N_PRODUCTS) :]:
                result |= {"dataset": dataset, "network": name}
                print(json.dumps(result), flush=True)
    write(args.out, results)


def compare(model, images, exact):
    nearest = find_nearest_boundaries(model, images)
    margin, z = nearest.margin, nearest.points
    settings = {"method": "autodiff"}
    if not exact:
        step = float(nearest.distances.median())
        settings = {"method": "gradient", "step": step}
    settings["batch_size"] = BATCH_SIZE
    if exact:
        profile = principal_curvatures(margin, z, directions=False, **settings)
        truth = profile.values.mean(1)
    else:
        truth = mean_curvature(
            margin, z, n_directions=20_000, generator=seeded(0), **settings
        )
    differences = Differences.at(margin, z, evaluated=None, **{"step": 0.1, **settings})
    operator = Operator(differences, tangent=True)
    rows = []
    for m in N_PRODUCTS:
        row = {
            "n_products": m,
            "mean_abs_curvature": round(float(truth.abs().mean()), 5),
        }
        estimates = {
            "hutchinson": lambda g, m=m: mean_curvature(
                margin, z, n_directions=m, generator=g, **settings
            ),
            "orthogonal": lambda g, m=m: orthogonal(operator, m, g),
            "hutch++": lambda g, m=m: hutchpp(operator, m, g),
            "xtrace": lambda g, m=m: mean_curvature(
                margin, z, n_directions=m, estimator="xtrace", generator=g, **settings
            ),
        }
        for name, estimate in estimates.items():
            draws = torch.stack([estimate(seeded(1 + s)) for s in range(N_DRAWS)])
            rms = (draws - truth).square().mean().sqrt()
            bias = (draws.mean(0) - truth).mean()
            row[name] = {"rms": round(float(rms), 6), "bias": round(float(bias), 6)}
        rows.append(row)
    return rows


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def frames(operator, m, generator):
    """Draw m vectors for each row, orthonormal and tangent."""
    n, d = operator.points.shape
    draws = torch.randn(n, m, d, generator=generator, dtype=torch.float64)
    normal = operator.normal[:, None].double()
    draws -= (draws * normal).sum(2, keepdim=True) * normal
    return torch.linalg.qr(draws.mT)[0].mT.to(operator.points)


def orthogonal(operator, m, generator):
    rows = torch.arange(len(operator.points))
    V = frames(operator, m, generator)
    return (V * operator.on_blocks(rows, V)).sum(2).mean(1)


def hutchpp(operator, m, generator):
    rows, N, k = torch.arange(len(operator.points)), operator.dimension, m // 3
    sketch = operator.on_blocks(rows, frames(operator, k, generator))
    Q = torch.linalg.qr(sketch.mT)[0].mT
    G = frames(operator, m - 2 * k, generator)
    G = G - (G @ Q.mT) @ Q
    G = G / G.norm(dim=2, keepdim=True)
    exact = (Q * operator.on_blocks(rows, Q)).sum((1, 2))
    rest = (G * operator.on_blocks(rows, G)).sum(2).mean(1) * (N - k)
    return (exact + rest) / N
