r"""What the average curvature of an image's boundaries costs, here and elsewhere.

    python -m benchmarks cost

The same images, network and machine for every way to the number, each in a process of
its own. FE are forward-equivalents an image (a backward pass counts as two; for exact
second derivatives, whose passes cannot be told apart, floating-point operations over
those of a forward pass), peak memory that above what the network and forward passes
take. Needs the extras attacks and cost. The AUROC is that of the largest curvature, PGD
against clean images; it is left out for the network of ImageNet's size, and for ways
too slow for 60 images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.networks import efficientnet, load_images, smallest_eps
from benchmarks.common.processes import peak_mib, run_alone, timed
from benchmarks.common.results import known, rounded, write
from benchmarks.cost.ways import EXACT, ways
from curvdetect import TorchModel
from curvdetect.attacks import make_adversarial_set, pgd
from curvdetect.network import find_nearest_boundaries
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model

#: Names here, and in `common/networks.py`.
OURS = {
    "LeNet": "fashion-mnist",
    "ViT": "fashion-mnist-vit",
    "ConvNet": "fashion-mnist-convnet",
    "ResNet-20": "cifar10",
}
NETWORKS = (*OURS, "EfficientNet-Lite0")
#: What takes less than so many seconds is timed again; the best counts, as of forward
#: passes.
SHORT, N_REPEATS = 10, 4


def parser() -> argparse.ArgumentParser:
    parser = command_parser("cost", __doc__)
    add_out(parser, "cost.json")
    add_data_dir(parser)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument(
        "--one",
        nargs=3,
        metavar=("NETWORK", "WAY", "IMAGES"),
        help="what it runs for each, in a process of its own",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    if args.one:
        print(json.dumps(measure(*args.one, args.data_dir)))
        return
    before = known(args.out, [])
    results = [cell for cell in before if cell["network"] not in args.networks]
    data = ["--data-dir", args.data_dir] if args.data_dir else []
    with tempfile.TemporaryDirectory() as folder:
        for network in args.networks:
            images = Path(folder) / "images.npz"
            np.savez(images, **prepare(network, args.data_dir))
            for way in ways(network):
                line = run_alone("cost", "--one", network, way, str(images), *data)
                results.append({"network": network, "way": way} | json.loads(line))
                print(json.dumps(results[-1]), flush=True)
                write(args.out, results)


def load(network: str, data_dir: str | None) -> TorchModel:
    if network == "EfficientNet-Lite0":
        return efficientnet(0)
    return trained_model(OURS[network], data_dir=data_dir)


def prepare(network: str, data_dir: str | None) -> dict[str, np.ndarray]:
    """Return images to measure, clean and perturbed, and the step of curvature."""
    model = load(network, data_dir)
    if network == "EfficientNet-Lite0":
        X = photographs()
        nearest = find_nearest_boundaries(model, X)
        return {"clean": X, "step": np.float64(nearest.distances.median())}
    X, y = load_images(OURS[network], data_dir)
    n_images = 400 if network == "LeNet" else 150
    attack = pgd(model, eps=smallest_eps(OURS[network]))
    images = make_adversarial_set(model, attack, X[:n_images], y[:n_images])
    nearest = find_nearest_boundaries(model, X[-200:])
    return {
        "clean": images.clean,
        "adversarial": images.adversarial,
        "step": np.float64(nearest.distances.median()),
    }


def photographs() -> np.ndarray:
    """Return eight crops of the two photographs that scikit-learn ships."""
    from sklearn.datasets import load_sample_images

    crops = [
        photograph[top : top + 224, left : left + 224]
        for photograph in load_sample_images().images
        for top in (0, 200)
        for left in (100, 350)
    ]
    return np.float32(np.stack(crops).transpose(0, 3, 1, 2) / 255)


def measure(network: str, way: str, images: str, data_dir: str | None) -> dict:
    """Return the cost of one way, and the AUROC that it reaches."""
    model = load(network, data_dir)
    data = np.load(images)
    features, n_images = ways(network)[way]
    clean, step = data["clean"][:n_images], float(data["step"])
    model.predict(clean[:64])
    with model.evaluating():
        forward = time_of_forward(model, clean)
    before = peak_mib()
    with model.evaluating():
        features(model, clean[:1], step)  # warm up
        with metrics.count_passes(model.module) as passes:
            seconds, of_clean = timed(features, model, clean, step)
        for _ in range(N_REPEATS if seconds < SHORT else 0):
            seconds = min(seconds, timed(features, model, clean, step)[0])
        after = peak_mib()
        cost = passes.forward_equivalents / len(clean)
        if features in EXACT:
            cost = operations(model, lambda: features(model, clean[:1], step))
    result = {
        "n_images": len(clean),
        "fe": round(cost, 1),
        "ms": round(1000 * seconds / len(clean), 3),
        "forward_ms": round(1000 * forward, 4),
        "in_forwards": round(seconds / len(clean) / forward, 1),
        "peak_mib": round(after - before, 1),
    }
    if "adversarial" in data and len(clean) >= 60:
        attacked = features(model, data["adversarial"][:n_images], step)
        scores = (np.nanmax(values, axis=1) for values in (of_clean, attacked))
        result["auroc"] = rounded(metrics.auroc(*scores))
    return result


def operations(model: TorchModel, work: Callable) -> float:
    """Return floating-point operations, in those of a forward pass."""
    with FlopCounterMode(display=False) as of_one, torch.no_grad():
        model.logits(torch.zeros(1, *model.input_shape))
    with FlopCounterMode(display=False) as counted:
        work()
    return counted.get_total_flops() / of_one.get_total_flops()


@torch.no_grad()
def time_of_forward(model: TorchModel, X: np.ndarray) -> float:
    """Return the seconds of a forward pass of one image, at the best batch size."""
    best = np.inf
    for size in (4, 8, 16, 32, 64, 128, 256):
        if size * X[0].size > 2**21:  # would take more memory than what is measured
            break
        x = torch.from_numpy(X[np.arange(size) % len(X)])
        model.logits(x)
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < 0.5:
            model.logits(x)
            n += size
        best = min(best, (time.perf_counter() - started) / n)
    return best
