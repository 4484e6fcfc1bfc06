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
from benchmarks.common.settings import FEW
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.attacks import make_adversarial_set, pgd
from curvdetect.network import nearest_boundaries
from curvdetect.report.goldman import goldman_features
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
#: As many as ours has by default.
N_DIRECTIONS = CurvatureFeaturizer(None).n_directions
#: Boundaries that are measured with 1,000 classes.
N_OF_MANY = 5
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
        nearest = nearest_boundaries(model, X)
        return {"clean": X, "step": np.float64(nearest.distances.median())}
    X, y = load_images(OURS[network], data_dir)
    n_images = 400 if network == "LeNet" else 150
    attack = pgd(model, eps=smallest_eps(OURS[network]))
    images = make_adversarial_set(model, attack, X[:n_images], y[:n_images])
    nearest = nearest_boundaries(model, X[-200:])
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


# Ways to the number -----------------------------------------------------------


def ways(network: str) -> dict[str, tuple[Callable, int]]:
    """Return features(model, X, step), and for how many images there is time."""
    if network == "EfficientNet-Lite0":
        return {
            "curvdetect, 5 boundaries": (ours(n_boundaries=N_OF_MANY), 8),
            "curvdetect, 3 boundaries": (ours(**FEW), 8),
            "double backward, 5 boundaries": (double_backward, 8),
            "curvlinops, 5 boundaries": (curvlinops_trace, 1),
        }
    everything, reference = 10**6, ours(n_directions=256, tol=1e-4)
    small = network == "LeNet"
    found = {
        "curvdetect": (ours(), everything),
        "curvdetect, 3 boundaries": (ours(**FEW), everything),
        "curvdetect, 256 directions": (reference, everything if small else 60),
        "the report's five steps": (report, 60 if small else 1),
        "double backward": (double_backward, everything if small else 60),
        "curvlinops": (curvlinops_trace, 4 if small else 2),
    }
    if small:  # with others it would take tens of GiB
        found["torch.func.hessian"] = (dense_hessian, 4)
    return found


def ours(**settings) -> Callable:
    def features(model, X, step):
        featurizer = CurvatureFeaturizer(model, step=step, random_state=0, **settings)
        return featurizer.fit(X[:4]).transform(X)

    return features


def report(model, X, step):
    return goldman_features(model, X)


def dense_hessian(model, X, step):
    """Goldman's formula from all second derivatives of all logits, at the image."""
    rows = []
    for x in torch.from_numpy(X):
        logits = lambda v: model.logits(v[None])[0]
        f, d = logits(x), x.numel()
        jacobian = torch.func.jacrev(logits)(x).reshape(len(f), d)
        hessian = torch.func.hessian(logits)(x).reshape(len(f), d, d)
        own = int(f.argmax())
        g, H = jacobian[own] - jacobian, hessian[own] - hessian
        square = g.square().sum(1)
        along = torch.einsum("ci,cij,cj->c", g, H, g)
        trace = H.diagonal(dim1=1, dim2=2).sum(1)
        rows.append((along - trace * square) / ((d - 1) * square**1.5))
    return torch.stack(rows).detach().numpy()


def double_backward(model, X, step):
    """Average curvature from v^T H v of random tangents, at the image."""
    generator = torch.Generator().manual_seed(0)
    columns = []
    x = torch.from_numpy(X).requires_grad_()
    order = model.logits(x.detach()).argsort(dim=1, descending=True)
    for rank in range(1, 1 + n_measured(order.shape[1])):
        f = model.logits(x * 1)  # FlopCounterMode takes no leaf
        margin = f.gather(1, order[:, :1]) - f.gather(1, order[:, rank : rank + 1])
        (g,) = torch.autograd.grad(margin.sum(), x, create_graph=True)
        slope = g.detach().flatten(1).norm(dim=1)
        normal = g.detach().flatten(1) / slope[:, None]
        total = torch.zeros(len(x))
        for _ in range(N_DIRECTIONS):
            v = torch.randn(normal.shape, generator=generator)
            v = v - (v * normal).sum(1, keepdim=True) * normal
            v = (v / v.norm(dim=1, keepdim=True)).reshape(x.shape)
            (product,) = torch.autograd.grad(
                (g * v).sum(), x, retain_graph=True, materialize_grads=True
            )
            total -= (product * v).flatten(1).sum(1)
        columns.append((total / N_DIRECTIONS / slope).detach())
    return torch.stack(columns, dim=1).numpy()


def curvlinops_trace(model, X, step):
    """Goldman's formula with curvlinops' trace of the Hessian in the image."""
    from curvlinops import HessianLinearOperator, hutchinson_trace

    rows = []
    for x in torch.from_numpy(X).split(1):
        of_image = OfImage(model, x)
        row = []
        for rank in range(1, 1 + n_measured(model.n_classes)):
            of_image.rank = rank
            operator = HessianLinearOperator(
                of_image,
                Itself(),
                [of_image.x],
                [(torch.zeros(1, 1), torch.zeros(1, 1))],
                check_deterministic=False,
            )
            g = torch.autograd.grad(of_image(None).sum(), of_image.x)[0].flatten()
            trace = hutchinson_trace(operator, num_matvecs=N_DIRECTIONS)
            along = g @ (operator @ g)
            d = x.numel()
            kappa = (along - trace * g.square().sum()) / ((d - 1) * g.norm() ** 3)
            row.append(float(kappa))
        rows.append(row)
    return np.asarray(rows)


class OfImage(torch.nn.Module):
    """A margin as a function of its parameter, the image."""

    def __init__(self, model: TorchModel, x: torch.Tensor) -> None:
        super().__init__()
        self.logits = model.logits
        self.x = torch.nn.Parameter(x.clone())
        self.order = model.logits(x).argsort(dim=1, descending=True)[0]
        self.rank = 1

    def forward(self, _):
        f = self.logits(self.x * 1)  # FlopCounterMode takes no leaf
        return f[:, self.order[0]] - f[:, self.order[self.rank]]


class Itself(torch.nn.Module):
    """The margin instead of a loss, as curvlinops wants it."""

    reduction = "sum"

    def forward(self, margin, _):
        return margin.sum()


def n_measured(n_classes: int) -> int:
    return n_classes - 1 if n_classes <= 10 else N_OF_MANY


# Measuring --------------------------------------------------------------------


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
        if features in (double_backward, curvlinops_trace, dense_hessian):
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
