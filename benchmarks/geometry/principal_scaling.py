"""Time and memory of all and of the leading principal curvatures against d.

    python -m benchmarks principal-scaling

One point on a level set of a small smooth convolutional network, from 8 x 8 grey
pixels to 224 x 224 in colour, in single precision with exact products. Each
measurement is a process of its own; its memory is the peak above that before the call.
"All" is left out where its matrix does not fit into 4 GiB.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from benchmarks.common.arguments import add_out, command_parser
from benchmarks.common.processes import peak_mib, run_alone, timed
from benchmarks.common.results import write
from curvdetect.geometry import PairwiseMargin, principal_curvatures

SHAPES = [
    (1, 8, 8),
    (1, 16, 16),
    (1, 28, 28),
    (3, 32, 32),
    (3, 48, 48),
    (3, 112, 112),
    (3, 224, 224),
]
LARGEST_MATRIX = 2**30
N_THREADS = 2


def parser() -> argparse.ArgumentParser:
    parser = command_parser("principal-scaling", __doc__)
    add_out(parser, "principal_scaling.json")
    parser.add_argument(
        "--one",
        nargs=2,
        type=int,
        metavar=("SHAPE", "K"),
        help="what it runs for each, in a process of its own",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.one:
        print(json.dumps(measure(SHAPES[args.one[0]], args.one[1] or None)))
        return
    results = []
    for position, shape in enumerate(SHAPES):
        d = shape[0] * shape[1] * shape[2]
        for k in (0, 1, 10):
            if k == 0 and d**2 > LARGEST_MATRIX:
                continue
            line = run_alone("principal-scaling", "--one", str(position), str(k))
            results.append({"d": d, "k": k or "all", **json.loads(line)})
            print(json.dumps(results[-1]), flush=True)
    write(args.out, results)


def measure(shape, k):
    torch.set_num_threads(N_THREADS)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, padding=1, stride=2),
        nn.Softplus(beta=5),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.Softplus(beta=5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    ).requires_grad_(False)
    calls = Calls(module)
    margin = PairwiseMargin(calls, torch.tensor([0]), torch.tensor([1]))
    z = torch.rand(1, *shape)
    principal_curvatures(margin, z, k=1, method="autodiff", max_iter=1, tol=1e9)
    calls.rows = 0
    before = peak_mib()
    search = partial(
        principal_curvatures,
        k=k,
        method="autodiff",
        directions=k is not None,
        batch_size=64,
    )
    seconds, found = timed(search, margin, z)
    return {
        "seconds": round(seconds, 3),
        "peak_mib": round(peak_mib() - before, 1),
        "products": calls.rows - 1,  # one is for the gradient
        "converged": bool(found.converged.all()),
    }


class Calls(nn.Module):
    """Counts the rows that a module is given."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        return self.module(x)
