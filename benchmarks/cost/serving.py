"""A served guard under load: whether every answer is right, and what HTTP costs.

    python -m benchmarks serving
    python -m benchmarks serving --clients 50 --seconds 10

`curvdetect serve` in a process of its own, with the shipped Fashion-MNIST LeNet and the
default guard (without its self-test), fitted to 300 images; in another process the same
service, but the bare network in the guard's place. This process asks them, over the
loopback, for clean images that the guard was not fitted to, 5 % of the bodies broken in
one way or another. First 200 clients with a picture (PNG) each time: half the time the
bare network, then the guard, whose memory is watched, then the bare network again. Then
in turns, three times: the guard and the network called in a loop over batches of 32 in
this process, and 16 clients with arrays of 32 images at each service. Every answer is
compared with `guard.assess`, called directly. At last SIGTERM while the clients ask:
the monitor that the service saves says how many images it has assessed, the clients
know how many were answered.

Rates are those of the machine, and of what else it does; their ratios are less so. The
slope of memory is that of a line through the means of ten stretches of the load after
its first quarter, with a 95 % t-interval: single samples are not independent.
Needs aiohttp and psutil.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import io
import itertools
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
from scipy import stats

from benchmarks.common.arguments import add_out, command_parser
from benchmarks.common.results import significant, write
from curvdetect import (
    Assessment,
    GuardedClassifier,
    GuardMonitor,
    LearnedDetector,
    TorchModel,
)
from curvdetect.serving import Limits, create_app, run_server
from curvdetect.storage import load, save
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import LeNet, load_lenet

N_LEARNED, N_WATCHED, BATCH, ROUNDS = 300, 100, 32, 3
#: What is asked of a guard: of the images a second of the network alone, and of a loop
#: over batches.
OF_NETWORK, OF_LOOP = 1 / 20, 0.8
N_STRETCHES = 10  # of a load, of which memory's slope is that of the means
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
            self.n_wrong += status not in (400, 413, 422)
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


def requests(bytes_: np.ndarray, n_images: int, broken: float) -> list[Request]:
    """Return bodies of pictures, or arrays, and a share of broken ones among them."""
    made = []
    for start in range(0, len(bytes_) - n_images + 1, n_images):
        file = io.BytesIO()
        if n_images == 1:
            Image.fromarray(bytes_[start, 0]).save(file, "png")
        else:
            np.save(file, bytes_[start : start + n_images])
        made.append(Request(file.getvalue(), range(start, start + n_images)))
    n_broken = round(len(made) * broken / (1 - broken))
    ways = itertools.cycle(broken_bodies(made[0].body, bytes_))
    return made + [Request(body, range(0)) for body in itertools.islice(ways, n_broken)]


def broken_bodies(body: bytes, bytes_: np.ndarray) -> list[bytes]:
    """Return a body cut short, and others that no guard can take."""
    header = b"\x93NUMPY\x01\x00\x03\x00{'("
    found = [body[: len(body) // 2], b"", b"no picture", header]
    for array in (bytes_[:1, :, :5], np.full((1, 28, 28), np.nan, np.float32)):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


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
    seconds: float,
    url: str,
    bodies: list[Request],
    expected: Assessment,
    n: int,
    watch: int | None = None,
) -> dict[str, Any]:
    """Let n clients ask for some time; watch the memory of a process meanwhile."""
    seen, until = Seen(expected), asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, until.set)
    memory: list[tuple[int, int]] = []
    if watch is not None:
        watching = asyncio.create_task(watched_memory(watch, seen, memory))
    found = seen.summary(await ask(url, bodies, seen, n, until))
    if watch is None:
        return found
    watching.cancel()
    return found | {"memory": growth(memory)}


async def interrupted(
    process: subprocess.Popen[str],
    seconds: float,
    url: str,
    bodies: list[Request],
    expected: Assessment,
    n: int,
) -> Seen:
    """End the service while n clients ask; they go on until nobody listens."""
    seen = Seen(expected)
    later = asyncio.get_running_loop().call_later
    later(seconds, process.send_signal, signal.SIGTERM)
    await ask(url, bodies, seen, n, asyncio.Event())
    return seen


async def watched_memory(pid: int, seen: Seen, found: list[tuple[int, int]]) -> None:
    """Note how many requests were answered, and the memory of a process."""
    process = psutil.Process(pid)
    while True:
        found.append((seen.status.total(), process.memory_info().rss))
        await asyncio.sleep(0.2)


def growth(memory: list[tuple[int, int]]) -> dict[str, Any]:
    """Say how memory grew with requests, after the first quarter of a load."""
    requests, mib = np.array(memory[len(memory) // 4 :], dtype=float).T
    stretches = zip(
        np.array_split(requests / 1000, N_STRETCHES),
        np.array_split(mib / 2**20, N_STRETCHES),
        strict=True,
    )
    x, y = np.array([(r.mean(), m.mean()) for r, m in stretches]).T
    line = stats.linregress(x, y)
    wide = stats.t.ppf(0.975, N_STRETCHES - 2) * line.stderr
    return {
        "mib_settled": mib[0] / 2**20,
        "mib_at_the_end": mib[-1] / 2**20,
        "mib_per_1000_requests": [line.slope, line.slope - wide, line.slope + wide],
    }


# Measuring -----------------------------------------------------------------------


def fitted() -> GuardedClassifier:
    X, y = load_fashion_mnist_sample()
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    default = LearnedDetector(self_test=False, random_state=0)
    return GuardedClassifier(model, detector=default).fit(X[:N_LEARNED], y[:N_LEARNED])


def network_alone(guard: GuardedClassifier, X: np.ndarray) -> Assessment:
    """Return what a service answers that only asks the network."""
    label = guard.model_.predict_logits(X).argmax(1)
    none = np.zeros(len(X), dtype=bool)
    return Assessment(label, label, label, none, none.astype(np.float64))


def serve_network(guard_file: Path) -> None:
    """Serve the network of a guard, by the same service."""
    guard = load(guard_file, LeNet())
    guard.assess = functools.partial(network_alone, guard)
    app = create_app(guard, limits=Limits(timeout=600, queue=1024))
    run_server(
        app,
        port=0,
        started=lambda url: print(f"the network at {url}", file=sys.stderr, flush=True),
    )


def in_a_loop(call: Any, X: np.ndarray, seconds: float) -> float:
    """Return images a second of a function that is given batches."""
    n, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = n % (len(X) - BATCH)
        call(X[start : start + BATCH])
        n += BATCH
    return n / (time.perf_counter() - begun)


def directly(guard: GuardedClassifier, X: np.ndarray, seconds: float) -> np.ndarray:
    """Return images a second: of the guard, and of its network alone.

    Parameters
    ----------
    seconds : float
        For the guard; the network takes less. In turns, four times.
    """
    alone = guard.model_.predict_logits
    return np.mean(
        [
            (in_a_loop(guard.assess, X, seconds / 4), in_a_loop(alone, X, seconds / 16))
            for _ in range(4)
        ],
        axis=0,
    )


class Served:
    """A service in a process of its own."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        if " at http://" not in said:
            rest = self.process.stderr.read()
            raise RuntimeError(f"the service did not start: {said}{rest}")
        self.url = said.split()[-1] + "/score"


async def measured(
    guard: GuardedClassifier, folder: Path, options: argparse.Namespace
) -> dict:
    """Serve the guard and the network, and ask both."""
    sample, _ = load_fashion_mnist_sample()
    watched = guard.assess(sample[N_LEARNED : N_LEARNED + N_WATCHED])
    save(GuardMonitor(random_state=0).fit(watched), folder / "monitor.skops")
    bytes_ = np.round(255 * sample[N_LEARNED + N_WATCHED :]).astype(np.uint8)
    X = bytes_.astype(np.float32) / 255
    pictures, arrays = (requests(bytes_, n, options.broken) for n in (1, BATCH))
    services = Services(guard, folder, X)
    try:
        of_pictures = await with_pictures(services, pictures, options)
        of_arrays, shares = await with_arrays(services, arrays, guard, X, options)
        ending = await interrupted(
            services.guarded.process,
            options.seconds / 3,
            services.guarded.url,
            pictures,
            services.expected,
            options.clients,
        )
        _, said = services.guarded.process.communicate()
    finally:
        services.end()
    n_answered = ending.n_answered + of_pictures["guard"]["images"]
    n_answered += sum(each["images"] for each in of_arrays["guard"])
    return {
        "pictures": of_pictures,
        "arrays, 16 clients": of_arrays,
        "shares": shares,
        "sigterm": {
            "exit_code": services.guarded.process.returncode,
            "images_answered_by_then": n_answered,
            "images_assessed": load(folder / "monitor.skops").n_images_,
            "wrong_answers": ending.n_wrong,
            "requests_by_status": dict(sorted(ending.status.items())),
        },
        "standard_error": said.splitlines()[:5],
    }


class Services:
    """A guard and its network, served, and what they should answer."""

    def __init__(self, guard: GuardedClassifier, folder: Path, X: np.ndarray) -> None:
        self.expected, self.of_network = guard.assess(X), network_alone(guard, X)
        self.guarded = Served(
            *("curvdetect", "serve", str(folder / "guard.skops")),
            *("--model", NETWORK, "--monitor", str(folder / "monitor.skops")),
            *("--port", "0", "--timeout", "600", "--queue", "1024"),
        )
        self.bare = Served(
            "benchmarks", "serving", "--bare", str(folder / "guard.skops")
        )

    async def ask_guard(
        self, seconds: float, bodies: list[Request], n: int, *, watch: bool = False
    ) -> dict[str, Any]:
        pid = self.guarded.process.pid if watch else None
        return await asked_for(seconds, self.guarded.url, bodies, self.expected, n, pid)

    async def ask_network(
        self, seconds: float, bodies: list[Request], n: int
    ) -> dict[str, Any]:
        return await asked_for(seconds, self.bare.url, bodies, self.of_network, n)

    def end(self) -> None:
        for served in (self.guarded, self.bare):
            served.process.kill()
            served.process.wait()


async def with_pictures(
    services: Services, pictures: list[Request], options: argparse.Namespace
) -> dict[str, Any]:
    """Ask with a picture at a time; the network before and after the guard."""
    half, n = options.seconds / 2, options.clients
    before = await services.ask_network(half, pictures, n)
    guarded = await services.ask_guard(options.seconds, pictures, n, watch=True)
    after = await services.ask_network(half, pictures, n)
    return {"network, before": before, "guard": guarded, "network, after": after}


async def with_arrays(
    services: Services,
    arrays: list[Request],
    guard: GuardedClassifier,
    X: np.ndarray,
    options: argparse.Namespace,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask with arrays, in turns with calls; return what came, and the ratios."""
    direct, guarded, bare = [], [], []
    each = options.seconds / ROUNDS
    for _ in range(ROUNDS):  # in turns: the machine is now faster, now slower
        direct.append(directly(guard, X, each / 2))
        guarded.append(await services.ask_guard(each, arrays, 16))
        bare.append(await services.ask_network(each / 2, arrays, 16))
    loop, alone = np.array(direct).T
    rate, bare_rate = (
        np.array([one["images_per_second"] for one in rounds])
        for rounds in (guarded, bare)
    )
    found = {
        "guard": guarded,
        "network": bare,
        "called, images_per_second": {"guard": [*loop], "network": [*alone]},
    }
    return found, {
        "guard of network, called": share(loop / alone, OF_NETWORK),
        "guard of network, served": share(rate / bare_rate, OF_NETWORK),
        "served of called": share(rate / loop, OF_LOOP),
    }


def share(found: np.ndarray, asked: float) -> dict[str, Any]:
    """Return a ratio, and what it should be at least."""
    return {"median": float(np.median(found)), "each": [*found], "asked": asked}


def parser() -> argparse.ArgumentParser:
    parser = command_parser("serving", __doc__)
    add_out(parser, "serving.json")
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    parser.add_argument("--clients", type=int, default=200, help="that send a picture")
    parser.add_argument(
        "--broken", type=float, default=0.05, help="share of the bodies"
    )
    parser.add_argument("--guard", type=Path, help="a file of an earlier run's guard")
    parser.add_argument(
        "--keep", type=Path, help="where to save the guard for a later run"
    )
    parser.add_argument(
        "--bare",
        type=Path,
        metavar="GUARD",
        help="what it runs in a process of its own: the network served",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    torch.set_num_threads(1)
    if options.bare:
        serve_network(options.bare)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guard = load(options.guard, LeNet()) if options.guard else fitted()
        if options.keep:
            save(guard, options.keep)
        save(guard, folder / "guard.skops")
        found = asyncio.run(measured(guard, folder, options))
    said = {name: getattr(options, name) for name in ("seconds", "clients", "broken")}
    machine = {"cpus": os.cpu_count(), "load_average": os.getloadavg()[1]}
    write(options.out, significant({**said, **found, **machine}))
