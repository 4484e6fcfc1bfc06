r"""What it costs an attacker who knows the detector of curvature to evade it.

    python -m benchmarks adaptive fashion-mnist

Thresholds are set on clean images; attacks are on others that the network gets right.
First, attacks within L-infinity budgets: the share of images that are misclassified,
and misclassified without being flagged, at 5 % and at 1 % false positives. Then the
evasion cost in L2: the median norm of the smallest perturbation found that evades, over
that of the smallest that fools the network alone; for the default detector and others.
What the file of results has already is not measured again. `--weights` takes others,
such as of a LeNet that `cure` trained. With `--cache`, that of `detection`, the learned
model of that benchmark is attacked too, which needs its extras.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.batches import attack_in_batches, in_batches
from benchmarks.common.networks import NETWORKS, load_images, smallest_eps
from benchmarks.common.results import CACHE, RESULTS, known, write
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.attacks import pgd
from curvdetect.evasion import (
    EvasionAttack,
    LogitMatchingAttack,
    NeighbourhoodMarginAttack,
    SignalScore,
    minimal_evasion,
)
from curvdetect.geometry import adversarial_perturbation
from curvdetect.signals import FirstOrder
from curvdetect.study import metrics
from curvdetect.study.networks import trained_model

BUDGETS = (0.5, 1, 2, 4)
STEPS = (5, 20, 80)
#: L2 budgets, in medians of the smallest perturbations.
L2_BUDGETS = (1, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 3, 5)
SCALES = (1.0, 2.0, 4.0)
#: In log-odds: how far below the threshold of the learned model to aim.
LEARNED_MARGINS = (0.0, 3.0)
#: Images that are attacked at a time: scores keep a graph of all their probes.
BATCH_SIZE = 32


@dataclass(frozen=True)
class Detector:
    """Scores with a gradient, and their thresholds: flagged if any is above its own.

    `of_attacker` is what the attacker differentiates: the same scores, but where they
    are drawn at random or have no gradient. Then it may help to aim below the
    thresholds, by one of the `margins`.
    """

    scores: Callable[[Tensor], Tensor]
    of_attacker: Callable[[Tensor], Tensor]
    thresholds: dict[float, np.ndarray]
    margins: tuple[float, ...] = (0.0,)

    def excess(self, x: Tensor, fpr: float) -> np.ndarray:
        """Return how far the largest score is above its threshold."""
        values = without_gradients(self.scores, x)
        return (values - self.thresholds[fpr]).max(axis=1)


def parser() -> argparse.ArgumentParser:
    parser = command_parser("adaptive", __doc__)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    add_data_dir(parser)
    parser.add_argument(
        "--cache",
        nargs="?",
        const=CACHE / "detection",
        metavar="FOLDER",
        help="of `detection`: the learned model too",
    )
    add_out(parser, "adaptive-{NETWORK, or the name of --weights}.json")
    parser.add_argument("--n-images", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cost-only", action="store_true", help="no budgets")
    parser.add_argument("--detectors", nargs="+", help="all by default")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.cache and (args.weights or args.network == "cifar10"):
        parser().error("--cache is for the shipped networks as they are")
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)

    model, calibration, x, label = load(args)
    of = detectors(model, calibration)
    if args.cache:
        of["learned"] = lambda: learned(args)
    results = {
        "network": args.network,
        "weights": args.weights.name if args.weights else "as shipped",
        "n_calibration": len(calibration),
        "n_images": len(x),
        "steps": args.steps,
        "torch": torch.__version__,
    }
    out = args.out or RESULTS / f"adaptive-{name_of(args)}.json"
    before = known(out, results)
    if any(before.get(key) != value for key, value in results.items()):
        parser().error(f"{out} has other settings; give another --out, or the same")
    results = before
    if not args.cost_only and "budgets" not in results:
        default = of["default"]()
        results["budgets"] = within_budgets(model, args, default, calibration, x, label)
        results["by_steps"] = by_steps(model, args, default, x, label)
        write(out, results)
    with model.evaluating():
        smallest = adversarial_perturbation(
            model.logits, x, label=label, bounds=(0, 1), batch_size=256
        ).norms
    results["median_norm_to_fool"] = float(smallest.median())
    results.setdefault("evasion", {})
    for name, make in of.items():
        left_out = args.detectors is not None and name not in args.detectors
        if left_out or name in results["evasion"]:
            continue
        results["evasion"][name] = evasion_cost(model, args, make(), x, label, smallest)
        print(name, results["evasion"][name], flush=True)
        write(out, results)


def name_of(args: argparse.Namespace) -> str:
    """Return what the file of results is called by: "mnist", or "mnist-cure"."""
    if args.weights is None:
        return args.network
    return args.weights.stem.removesuffix("-weights").lower()


def load(args) -> tuple[TorchModel, Tensor, Tensor, Tensor]:
    """Return a network, clean images, and images to attack with their labels."""
    X, y = load_images(args.network, args.data_dir)
    model = trained_model(args.network, weights=args.weights, data_dir=args.data_dir)
    right = model.predict(X[:1000]) == y[:1000]
    clean, test = np.flatnonzero(right[:600]), 600 + np.flatnonzero(right[600:])
    test = test[: args.n_images]
    return (
        model,
        torch.from_numpy(X[clean]),
        torch.from_numpy(X[test]),
        torch.from_numpy(y[test]),
    )


# Detectors ------------------------------------------------------------------


def detectors(model: TorchModel, clean: Tensor) -> dict[str, Callable[[], Detector]]:
    """Return what makes the default, and what might be harder to evade."""
    one = CurvatureFeaturizer(model, random_state=0).fit(clean)
    scale = one.step_
    three = CurvatureFeaturizer(
        model, random_state=0, step=(scale / 2, scale, 2 * scale)
    ).fit(clean)
    default, scales = SignalScore(one), SignalScore(three)
    # An attacker who does not know the directions averages over many others.
    secret = CurvatureFeaturizer(model, random_state=1, step=scale).fit(clean)
    guessed = CurvatureFeaturizer(
        model, random_state=2, step=scale, n_directions=32
    ).fit(clean)
    laplacian = score_of(model, clean, ("laplacian",), laplacian_step=SCALES)
    distance = score_of(model, clean, [FirstOrder(n_nearest=1)])

    def with_laplacian(x: Tensor) -> Tensor:
        return torch.cat([scales(x), laplacian(x)], dim=1)

    def with_distance(x: Tensor) -> Tensor:
        return torch.cat([scales(x), -distance(x)], dim=1)

    ways = {
        "default": (default, default),
        "secret directions": (SignalScore(secret), SignalScore(guessed)),
        "three scales": (scales, scales),
        "three scales and laplacian": (with_laplacian, with_laplacian),
        "three scales and distance": (with_distance, with_distance),
    }

    def made(scores: Callable, of_attacker: Callable) -> Detector:
        values = without_gradients(scores, clean)
        limits = {fpr: thresholds(values, fpr) for fpr in (0.01, 0.05)}
        return Detector(scores, of_attacker, limits)

    nothing = Detector(no_score, no_score, {0.05: np.array([np.inf], np.float32)})
    makers = {name: partial(made, *way) for name, way in ways.items()}
    return {"no detector": lambda: nothing, **makers}


def score_of(
    model: TorchModel, clean: Tensor, features: Sequence, **settings
) -> SignalScore:
    """Return other features with a gradient, in the same directions."""
    featurizer = CurvatureFeaturizer(
        model, features=features, random_state=0, **settings
    )
    return SignalScore(featurizer.fit(clean))


def learned(args) -> Detector:
    """Return the learned model of the detection benchmark."""
    # It needs that benchmark's extras, which nothing else here does.
    from benchmarks.evasion.learned_model import learned_model

    found = learned_model(args.network, args.cache, args.data_dir)
    return Detector(*found, margins=LEARNED_MARGINS)


def no_score(x: Tensor) -> Tensor:
    """Score nothing: the control, what the attacks need where nothing is flagged."""
    return 0 * x.flatten(1).sum(1, keepdim=True)


def thresholds(values: np.ndarray, fpr: float) -> np.ndarray:
    """Return a threshold a score, all at one level, that together flag `fpr`."""
    for level in np.linspace(fpr, fpr / (2 * values.shape[1]), 50):
        limits = np.quantile(values, 1 - level, axis=0, method="higher")
        if (values > limits).any(axis=1).mean() <= fpr:
            break
    return limits.astype(np.float32)


def without_gradients(scores: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Score images, without a graph of all their probes."""
    with torch.no_grad():
        return in_batches(scores, x, 64)


# Attacks --------------------------------------------------------------------


def within_budgets(model, args, detector, clean, x, label):
    """Return what each attack reaches within each L-infinity budget."""
    clean_scores = detector.excess(clean, 0.05)
    rows = []
    for factor in BUDGETS:
        eps = factor * smallest_eps(args.network)
        common = {"eps": eps, "steps": args.steps}
        ways = {
            "PGD": pgd(model, **common),
            "neighbourhood margin": NeighbourhoodMarginAttack(
                model, radius=NETWORKS[args.network].radius, **common
            ),
            "logit matching": LogitMatchingAttack(model, references=clean, **common),
            "orthogonal PGD": evasion(model, detector, 0.05, **common),
        }
        for name, attack in ways.items():
            row = {"attack": name, "eps": eps}
            found = attack_in_batches(attack, x, label, BATCH_SIZE)
            row |= outcome(model, detector, found, label)
            scores = row.pop("scores")
            if len(scores) > 1:
                row["auroc"] = metrics.auroc(clean_scores, scores)
            rows.append(row)
            print(row, flush=True)
    return rows


def by_steps(model, args, detector, x, label):
    """Return whether more steps help the attacker, at the report's budget."""
    rows = []
    for steps in STEPS:
        eps = smallest_eps(args.network)
        attack = evasion(model, detector, 0.05, eps=eps, steps=steps)
        found = attack_in_batches(attack, x, label, BATCH_SIZE)
        row = outcome(model, detector, found, label)
        del row["scores"]
        rows.append({"steps": steps, **row})
    return rows


def evasion(model, detector, fpr, margin=0.0, **common):
    """Return orthogonal PGD against a detector."""
    limits = (detector.thresholds[fpr] - margin).tolist()
    return EvasionAttack(model, detector.of_attacker, limits, **common)


def outcome(model, detector, x: Tensor, label: Tensor) -> dict:
    """Return who is misclassified, who evades, and the scores of the former."""
    wrong = model.predict(x) != label.numpy()
    row = {"misclassified": metrics.share(wrong)}
    for fpr in (0.05, 0.01):
        evades = wrong & (detector.excess(x, fpr) <= 0)
        row[f"evades_at_{fpr:.0%}"] = metrics.share(evades)
    scores = detector.excess(x[wrong], 0.05) if wrong.any() else np.zeros(0)
    return row | {"scores": scores}


def evasion_cost(model, args, detector, x, label, smallest):
    """Return the smallest norms of two attackers, the better of them for each image."""
    unit = float(smallest.median())

    def evades(z: Tensor, of: Tensor) -> Tensor:
        wrong = model.predict(z) != of.numpy()
        passed = np.zeros(len(z), dtype=bool)
        if wrong.any():
            passed[wrong] = detector.excess(z[wrong], 0.05) <= 0
        return torch.from_numpy(passed)

    def smallest_by(attack: Callable) -> Tensor:
        budgets = [unit * b for b in L2_BUDGETS]
        parts = zip(x.split(BATCH_SIZE), label.split(BATCH_SIZE), strict=True)
        return torch.cat(
            [
                minimal_evasion(attack, evades, *part, budgets=budgets).norms
                for part in parts
            ]
        )

    common = {"norm": "L2", "steps": args.steps}
    orthogonal = [
        smallest_by(
            lambda eps, margin=margin: evasion(
                model, detector, 0.05, margin, eps=eps, **common
            )
        )
        for margin in detector.margins
    ]
    neighbourhood = smallest_by(
        lambda eps: NeighbourhoodMarginAttack(
            model, eps=eps, radius=NETWORKS[args.network].radius, **common
        )
    )
    norms = {
        "orthogonal PGD": torch.stack(orthogonal).amin(0),
        "neighbourhood margin": neighbourhood,
    }
    best = torch.stack(list(norms.values())).amin(0)
    return {
        "median_norm_to_evade": float(best.median()),
        "evasion_cost": float(best.median() / unit),
        "median_ratio": float((best / smallest).median()),
        "evasion_cost_by_attack": {
            name: float(values.median() / unit) for name, values in norms.items()
        },
        "not_evaded": metrics.share(best.isinf().numpy()),
    }
