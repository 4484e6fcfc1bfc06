"""Time and memory of all and of the leading principal curvatures against d.

    python benchmarks/principal_scaling.py \
        --out benchmarks/results/principal_scaling.json

One point on a level set of a small smooth convolutional network, from 8 x 8 grey
pixels to 224 x 224 in colour, in single precision with exact products. Each
measurement is a process of its own; its memory is the peak above that before the call.
"All" is left out where its matrix does not fit into 4 GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out")
    parser.add_argument("--one", nargs=2, type=int, metavar=("SHAPE", "K"))
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(SHAPES[args.one[0]], args.one[1] or None)))
        return
    results = []
    for position, shape in enumerate(SHAPES):
        d = shape[0] * shape[1] * shape[2]
        for k in (0, 1, 10):
            if k == 0 and d**2 > LARGEST_MATRIX:
                continue
            command = [sys.executable, __file__, "--one", str(position), str(k)]
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append({"d": d, "k": k or "all", **json.loads(out.stdout)})
            print(json.dumps(results[-1]), flush=True)
    Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    found = principal_curvatures(
        margin, z, k=k, method="autodiff", directions=k is not None, batch_size=64
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": round(seconds, 3),
        "peak_mib": round((after - before) / 1024, 1),
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


if __name__ == "__main__":
    main()
