r"""Images a second of the learned guard, and of 0.1's default, side by side.

    git worktree add OLD COMMIT_OF_0.1
    python -m benchmarks learned-speed fashion-mnist cifar10 --old OLD

0.1's default is its featurizer and its threshold; it runs in a process of its own, from
its own commit, and the two take turns (`cost/speed_server.py`). One torch thread. Clean
test images, which is what most served images are; the time of 1 and of 256 images too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.results import write
from benchmarks.cost import speed_server

N_IMAGES = {
    "fashion-mnist": 1000,
    "fashion-mnist-vit": 400,
    "fashion-mnist-convnet": 400,
    "mnist": 1000,
    "cifar10": 200,
}
ROUNDS = 3
HERE = Path(__file__).parents[2]


def parser() -> argparse.ArgumentParser:
    parser = command_parser("learned-speed", __doc__)
    parser.add_argument("networks", nargs="+", choices=sorted(N_IMAGES))
    parser.add_argument("--old", type=Path, required=True, help="a checkout of 0.1")
    add_data_dir(parser)
    add_out(parser, "learned_speed.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    results = {}
    for network in args.networks:
        results[network] = measured(network, args)
        print(network, json.dumps(results[network]), flush=True)
        write(args.out, results)


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return what both take, asked in turns."""
    n = N_IMAGES[network]
    servers = {which: started(which, network, args) for which in ("now", "then")}

    def each(size: int, rounds: int = 1) -> list[dict[str, float]]:
        return [
            {name: asked(server, size) for name, server in servers.items()}
            for _ in range(rounds)
        ]

    rounds = each(n, ROUNDS)
    single, batch = (
        {name: min(found[name] for found in each(size, 5)) for name in servers}
        for size in (1, 256 if n >= 256 else 128)
    )
    for server in servers.values():
        server.stdin.close()
        server.wait()
    return {
        "images": n,
        "images_per_second": {
            name: [round(n / pair[name], 1) for pair in rounds] for name in servers
        },
        "times_as_many": [round(pair["then"] / pair["now"], 1) for pair in rounds],
        "one_image_ms": {name: round(1e3 * s, 2) for name, s in single.items()},
        "batch_ms": {name: round(1e3 * s, 1) for name, s in batch.items()},
    }


def started(which: str, network: str, args: argparse.Namespace) -> subprocess.Popen:
    """Start a process that scores as many images as it is told, and says how long."""
    root = HERE if which == "now" else args.old.resolve()
    # The file itself, not as a module: 0.1's process has none of this package.
    command = [sys.executable, speed_server.__file__, which, network]
    command += [args.data_dir] if args.data_dir else []
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )


def asked(server: subprocess.Popen, n: int) -> float:
    """Return the seconds that a process takes for so many images."""
    server.stdin.write(f"{n}\n")
    server.stdin.flush()
    return float(server.stdout.readline())
