"""A served guard under load: whether every answer is right, and what HTTP costs.

    python -m benchmarks serving

`curvdetect serve` in a process of its own, with the shipped Fashion-MNIST LeNet and a
guard that learned from 200 images; this process asks it, over the loopback: 200 clients
with a picture (PNG) each time, then 16 clients with arrays of 32 images, 5 % of the
bodies broken. Every answer is compared with `guard.assess`, called directly. In turns
with the arrays, in this process: the guard in a loop over batches of 32, and the bare
network. At last SIGTERM while 200 clients ask: the monitor that the service saves says
how many images it has assessed, the clients know how many were answered.

Rates are those of the machine, and of what else it does; their ratios are less so.
Needs aiohttp and psutil.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.common.arguments import add_out, command_parser
from benchmarks.common.results import significant, write
from curvdetect import (
    Assessment,
    GuardedClassifier,
    GuardMonitor,
    LearnedDetector,
    TorchModel,
)
from curvdetect.storage import load, save
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import LeNet, load_lenet

N_LEARNED, N_WATCHED, BATCH, ROUNDS = 200, 100, 32, 3
BROKEN = 0.05
SETTLED = 15  # seconds after which memory should not grow
NETWORK = "curvdetect.study.networks:LeNet"


class Request(NamedTuple):
    """A body, and which images it holds; none if it is broken."""

    body: bytes
    images: range


class Seen:
    """What clients were told."""

    def __init__(self, expected: Assessment) -> None:
        self.expected = expected
        self.status: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.n_answered = self.n_wrong = 0

    def note(self, request: Request, status: int, text: str, seconds: float) -> None:
        self.status[str(status)] += 1
        if status in (503, 504):
            return
        if not request.images:
            self.n_wrong += status not in (400, 422)
            return
        self.seconds.append(seconds)
        told = json.loads(text)["images"] if status == 200 else []
        self.n_answered += len(told)
        self.n_wrong += [self._of(row) for row in told] != [
            tuple(getattr(self.expected, name)[k].item() for name in self.columns)
            for k in request.images
        ]

    columns = ("label", "model_label", "recovered_label", "flagged", "score")

    def _of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.columns)

    def summary(self, seconds: float) -> dict[str, Any]:
        p50, p99 = np.percentile(self.seconds or [np.nan], [50, 99])
        return {
            "seconds": seconds,
            "requests_by_status": dict(sorted(self.status.items())),
            "images": self.n_answered,
            "images_per_second": self.n_answered / seconds,
            "wrong_answers": self.n_wrong,
            "latency_p50_seconds": float(p50),
            "latency_p99_seconds": float(p99),
        }


# Asking --------------------------------------------------------------------------


def requests(bytes_: np.ndarray, n_images: int) -> list[Request]:
    """Return bodies of pictures, or arrays, and broken ones among them."""
    made = []
    for start in range(0, len(bytes_) - n_images + 1, n_images):
        file = io.BytesIO()
        if n_images == 1:
            Image.fromarray(bytes_[start, 0]).save(file, "png")
        else:
            np.save(file, bytes_[start : start + n_images])
        made.append(Request(file.getvalue(), range(start, start + n_images)))
    n_broken = max(round(BROKEN * len(made)), 1)
    broken = [request.body[: len(request.body) // 2] for request in made[:n_broken]]
    return made + [Request(body, range(0)) for body in broken]


async def ask(
    url: str, bodies: list[Request], seen: Seen, n_clients: int, until: asyncio.Event
) -> float:
    """Let clients ask, one request after the other each; return how long they did."""
    begun = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def client(number: int) -> None:
            rng = np.random.default_rng(number)
            while not until.is_set():
                request = bodies[rng.integers(len(bodies))]
                start = time.perf_counter()
                try:
                    async with session.post(url, data=request.body) as answer:
                        text = await answer.text()
                except aiohttp.ClientError:  # after the end: nobody listens
                    seen.status["no connection"] += 1
                    return
                seconds = time.perf_counter() - start
                seen.note(request, answer.status, text, seconds)
                if answer.status == 503:
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(client(number) for number in range(n_clients)))
    return time.perf_counter() - begun


async def asked_for(
    seconds: float, url: str, bodies: list[Request], expected: Assessment, n: int
) -> dict[str, Any]:
    """Let n clients ask for some time."""
    seen, until = Seen(expected), asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, until.set)
    return seen.summary(await ask(url, bodies, seen, n, until))


async def interrupted(
    process: subprocess.Popen[str],
    seconds: float,
    url: str,
    bodies: list[Request],
    expected: Assessment,
) -> Seen:
    """End the service while 200 clients ask; they go on until nobody listens."""
    seen = Seen(expected)
    later = asyncio.get_running_loop().call_later
    later(seconds, process.send_signal, signal.SIGTERM)
    await ask(url, bodies, seen, 200, asyncio.Event())
    return seen


async def watched_memory(pid: int, found: list[tuple[float, int]]) -> None:
    process, begun = psutil.Process(pid), time.perf_counter()
    while True:
        found.append((time.perf_counter() - begun, process.memory_info().rss))
        await asyncio.sleep(0.5)


# Measuring -----------------------------------------------------------------------


def fitted() -> GuardedClassifier:
    X, y = load_fashion_mnist_sample()
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    quick = LearnedDetector(target_fpr=0.05, self_test=False, random_state=0)
    return GuardedClassifier(model, detector=quick).fit(X[:N_LEARNED], y[:N_LEARNED])


def in_a_loop(call: Any, X: np.ndarray, seconds: float) -> float:
    """Return images a second of a function that is given batches."""
    n, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = n % (len(X) - BATCH)
        call(X[start : start + BATCH])
        n += BATCH
    return n / (time.perf_counter() - begun)


def directly(guard: GuardedClassifier, X: np.ndarray, seconds: float) -> np.ndarray:
    """Return images a second: of the guard, and of its network alone."""
    alone = guard.model_.predict_logits
    return np.array(
        [in_a_loop(guard.assess, X, seconds), in_a_loop(alone, X, seconds / 4)]
    )


def served(guard_file: Path, monitor_file: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "curvdetect", "serve", str(guard_file)),
            *("--model", NETWORK, "--monitor", str(monitor_file)),
            *("--port", "0", "--timeout", "600", "--queue", "1024"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    if " at http://" not in said:
        raise RuntimeError(f"the service did not start: {said}{process.stderr.read()}")
    return process, said.split()[-1] + "/score"


async def measured(guard: GuardedClassifier, folder: Path, seconds: float) -> dict:
    sample, _ = load_fashion_mnist_sample()
    watched = guard.assess(sample[N_LEARNED : N_LEARNED + N_WATCHED])
    save(GuardMonitor(random_state=0).fit(watched), folder / "monitor.skops")
    bytes_ = np.round(255 * sample[N_LEARNED + N_WATCHED :]).astype(np.uint8)
    X = bytes_.astype(np.float32) / 255
    expected = guard.assess(X)
    pictures, arrays = requests(bytes_, 1), requests(bytes_, BATCH)

    process, url = served(folder / "guard.skops", folder / "monitor.skops")
    memory: list[tuple[float, int]] = []
    watching = asyncio.create_task(watched_memory(process.pid, memory))
    of_pictures = await asked_for(seconds, url, pictures, expected, 200)
    rounds, direct = [], []
    for _ in range(ROUNDS):  # in turns: the machine is now faster, now slower
        direct.append(directly(guard, X, seconds / ROUNDS / 2))
        rounds.append(await asked_for(seconds / ROUNDS, url, arrays, expected, 16))
    watching.cancel()
    ending = await interrupted(process, seconds / 3, url, pictures, expected)
    _, said = process.communicate()

    n_answered = ending.n_answered + of_pictures["images"]
    n_answered += sum(each["images"] for each in rounds)
    n_assessed = load(folder / "monitor.skops").n_images_
    of_guard, of_network = np.array(direct).T
    shares = [r["images_per_second"] for r in rounds] / of_guard
    settled = next(rss for at, rss in memory if at >= min(SETTLED, memory[-1][0] / 2))
    return {
        "direct": {
            "guard_images_per_second": of_guard.tolist(),
            "network_images_per_second": of_network.tolist(),
        },
        "served": {"pictures, 200 clients": of_pictures, "arrays, 16 clients": rounds},
        "share_of_the_loop": {"median": float(np.median(shares)), "each": [*shares]},
        "memory_bytes": {"settled": settled, "at_the_end": memory[-1][1]},
        "sigterm": {
            "exit_code": process.returncode,
            "images_answered_by_then": n_answered,
            "images_assessed": n_assessed,
            "wrong_answers": ending.n_wrong,
            "requests_by_status": dict(sorted(ending.status.items())),
        },
        "standard_error": said.splitlines()[:5],
    }


def parser() -> argparse.ArgumentParser:
    parser = command_parser("serving", __doc__)
    add_out(parser, "serving.json")
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    parser.add_argument("--guard", type=Path, help="a file of an earlier run's guard")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guard = load(options.guard, LeNet()) if options.guard else fitted()
        save(guard, folder / "guard.skops")
        found = asyncio.run(measured(guard, folder, options.seconds))
    found["cpus"], found["load_average"] = os.cpu_count(), os.getloadavg()[1]
    write(options.out, significant(found))
