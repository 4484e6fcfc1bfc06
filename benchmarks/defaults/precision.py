"""What rounding does to average curvature, over the step and the number format.

    python -m benchmarks precision

The same boundary points and directions in every format; the figures are the median
error over the median size of the curvatures in double precision. With bfloat16 and
float16 the network runs under autocast.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence

import torch

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import NETWORKS, load_images
from benchmarks.common.results import known, write
from curvdetect import TorchModel
from curvdetect.geometry import (
    PairwiseMargin,
    margin_value_and_gradient,
    mean_curvature,
    random_directions,
)
from curvdetect.network import find_nearest_boundaries
from curvdetect.study.networks import trained_model

STEPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def parser() -> argparse.ArgumentParser:
    parser = command_parser("precision", __doc__)
    parser.add_argument(
        "--networks", nargs="+", choices=sorted(NETWORKS), default=list(NETWORKS)
    )
    add_data_dir(parser)
    parser.add_argument("--n-images", type=int, default=20)
    add_out(parser, "precision.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    before = known(args.out, [])
    results = [cell for cell in before if cell["dataset"] not in args.networks]
    for dataset in args.networks:
        model = trained_model(dataset, data_dir=args.data_dir)
        X, _ = load_images(dataset, args.data_dir)
        nearest = find_nearest_boundaries(model, X[: args.n_images], n_boundaries=3)
        logits = in_every_format(model)
        for step in STEPS:
            of = {name: curvature(*way, nearest, step) for name, way in logits.items()}
            exact = of.pop("float64")
            size = float(exact.abs().median())
            cell = {"dataset": dataset, "step": step, "curvature": size}
            for name, values in of.items():
                cell[name] = float((values - exact).abs().median()) / size
            results.append(cell)
            print(json.dumps(cell), flush=True)
    write(args.out, results)


def in_every_format(model: TorchModel):
    """Return logits computed in every format, and the format of their inputs."""
    exact = TorchModel(
        copy.deepcopy(model.module).double(),
        input_shape=model.input_shape,
        mean=model.mean,
        std=model.std,
    )

    channels = (-1, *[1] * (len(model.input_shape) - 1))
    mean = torch.tensor(model.mean or 0.0).reshape(channels)
    std = torch.tensor(model.std or 1.0).reshape(channels)

    def autocast(dtype):
        def logits(x):
            # Not model.logits, which switches autocast off.
            with torch.autocast("cpu", dtype=dtype):
                return model.module((x - mean) / std).float()

        return logits

    return {
        "float64": (exact.logits, torch.float64),
        "float32": (model.logits, torch.float32),
        "bfloat16": (autocast(torch.bfloat16), torch.float32),
        "float16": (autocast(torch.float16), torch.float32),
    }


def curvature(logits, dtype, nearest, step):
    z = nearest.points.to(dtype)
    margin = PairwiseMargin(logits, nearest.margin.predicted, nearest.margin.other)
    directions = random_directions(
        16, z.shape[1:], generator=torch.Generator().manual_seed(0), dtype=z.dtype
    )
    return mean_curvature(
        margin,
        z,
        n_directions="all",
        directions=directions,
        step=step,
        evaluated=margin_value_and_gradient(margin, z),
        batch_size=128,
    ).double()
