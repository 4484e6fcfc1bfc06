"""Every measurement: the commands that make its results, how long, and where they are.

`catalogue_report.py` makes the table of `benchmarks/README.md` and the commands of
`docs/results.md` from this. FOLDER is one of ONNX files (for `imagenet`, of
photographs), OLD a checkout of 0.1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.networks import LENETS
from benchmarks.common.results import RESULTS

__all__ = ["MEASUREMENTS", "ROOT", "Measurement"]

ROOT = Path(__file__).parents[1]
BENCHMARKS = "python -m benchmarks "
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Measurement:
    """One table or figure: its name, its page in `docs/`, and what makes it.

    `commands` are complete, but for the `python -m benchmarks` that most begin with;
    `results` are files in `benchmarks/results`, or in `docs/`.
    `readme` says in which section of the README it is shown too, `note` what else
    somebody should know who runs it.
    """

    name: str
    page: str
    commands: tuple[str, ...]
    results: tuple[str, ...]
    time: str = NOT_RECORDED
    readme: str = ""
    note: str = ""

    def lines(self) -> list[str]:
        """Return the commands as they are typed."""
        return [
            command if command.startswith("curvdetect ") else BENCHMARKS + command
            for command in self.commands
        ]

    def files(self) -> list[Path]:
        """Return the files of results."""
        return [
            ROOT / name if name.startswith("docs/") else RESULTS / name
            for name in self.results
        ]


def known(name: str) -> Any:
    """Return a committed file of results, by its path or without its .json."""
    path = ROOT / name if name.startswith("docs/") else RESULTS / f"{name}.json"
    return json.loads(path.read_text())


def recorded(*names: str) -> str:
    """Return the minutes that files of results say, one after the other."""
    return ", ".join(f"{known(name)['seconds'] / 60:.0f}" for name in names) + " min"


def more_than(name: str, key: str) -> str:
    """Return the minutes of a part of the work that a file of results has."""
    parts = [of.get(key, 0) for of in known(name).values() if isinstance(of, dict)]
    return f"more than {sum(parts) / 60:.0f} min ({key.replace('_', ' ')})"


def companions_time() -> str:
    """Return the minutes that companions of all sizes took."""
    sizes = [of for network in known("companions").values() for of in network.values()]
    return f"{sum(of['seconds'] for of in sizes) / 60:.0f} min"


def reproduction_time() -> str:
    """Return the minutes that `curvdetect reproduce` took."""
    paths = (f"docs/reproduction/{name}/results.json" for name in LENETS)
    return ", ".join(f"{known(path)['seconds'] / 60:.0f}" for path in paths) + " min"


OTHER_LENETS = tuple(
    f"assets --only fashion-mnist mnist --seed {seed}" for seed in (1, 2)
)
LENETS_TIME = "1 min a LeNet that is trained"
#: Networks that were measured.
DETECTION = sorted(path.stem for path in (RESULTS / "detection").glob("*.jsonl"))
#: Detectors that see networks met later: ours, and those that come near it.
ONLY = (
    '"learned guard" companion BEYOND "feature squeezing" "Mahalanobis, layers" '
    '"pytorch-ood RMD" "pytorch-ood MaxSoftmax" "pytorch-ood MultiMahalanobis" '
    '"pytorch-ood Gram"'
)
STRANGERS_MNIST = "Convnet_maxpool ffnnSIGMOID__Point_6x200 mnist-net_256x4"
CURE_WEIGHTS = "benchmarks/cache/cure/{}-{}-weights.pt"
DEFAULT_ALONE = '--cost-only --detectors "no detector" default'

MEASUREMENTS = (
    Measurement(
        "Every detector, attack and network",
        "detection",
        (
            *OTHER_LENETS,
            "companions fashion-mnist mnist cifar10",
            "detection all --resume --strangers FOLDER",
            f"detection later --resume --only {ONLY} --strangers FOLDER",
        ),
        tuple(f"detection/{name}.jsonl" for name in DETECTION),
        readme="What the guard reaches",
        note="With `--quick` few images, of one network.",
    ),
    Measurement(
        "The sign of the average curvature",
        "results",
        ("curvature-sign all --strangers FOLDER",),
        ("curvature_sign.json",),
    ),
    Measurement(
        "One threshold of curvature, three LeNets a data set",
        "results",
        (
            *OTHER_LENETS,
            *(
                f"main-job {network}{weights}"
                for network, file in (
                    ("fashion-mnist", "lenet_fashion_mnist.pt"),
                    ("mnist", "lenet_mnist.pt"),
                )
                for weights in (
                    "",
                    f" --weights benchmarks/cache/lenets/1/{file}",
                    f" --weights benchmarks/cache/lenets/2/{file}",
                )
            ),
        ),
        tuple(
            f"main_job-{network}-{seed}.json" for network in LENETS for seed in range(3)
        ),
        time=LENETS_TIME,
        readme="What curvature alone reaches",
    ),
    Measurement(
        "Images of another data set, beside an energy score",
        "results",
        ("other-data",),
        ("other_data.json",),
    ),
    Measurement(
        "How soon a watch over a stream raises an alarm",
        "guide/serve",
        ("monitor",),
        ("monitor.json",),
    ),
    Measurement(
        "The learned guard, on networks of ours and of others",
        "learned",
        (
            "learned fashion-mnist fashion-mnist-vit fashion-mnist-convnet mnist "
            "cifar10",
            f"learned {STRANGERS_MNIST} cifar10_large resnet_4b --strangers FOLDER",
        ),
        ("learned.json",),
        time=more_than("learned", "fit_seconds"),
    ),
    Measurement(
        "What more looking is worth",
        "learned",
        (
            "learned-curve fashion-mnist",
            "learned-curve mnist-net_256x4 cifar10_large resnet_4b --strangers FOLDER",
        ),
        ("learned_curve.json",),
    ),
    Measurement(
        "Evading the learned guard",
        "learned",
        (
            "learned-adaptive fashion-mnist --n-images 40",
            "learned-adaptive mnist --n-images 40 --quick",
            f"learned-adaptive {STRANGERS_MNIST} --n-images 40 --quick "
            "--strangers FOLDER",
        ),
        ("learned_adaptive.json",),
    ),
    Measurement(
        "Images a second, beside 0.1",
        "results",
        ("learned-speed fashion-mnist cifar10 --old OLD",),
        ("learned_speed.json",),
        readme="What it costs",
    ),
    Measurement(
        "Training companions",
        "companion",
        ("companions fashion-mnist mnist cifar10",),
        ("companions.json",),
        time=companions_time(),
    ),
    Measurement(
        "Attackers who know guard and companion",
        "companion",
        (
            "learned-adaptive fashion-mnist mnist --companions",
            "learned-adaptive Convnet_maxpool mnist-net_256x4 "
            "ffnnSIGMOID__Point_6x200 --quick --strangers FOLDER --companions",
            "learned-adaptive cifar10 --quick --light --companions",
        ),
        ("learned_adaptive-companions.json",),
        readme="Attackers who know the guard",
    ),
    Measurement(
        "Who sees decisions alone",
        "companion",
        ("decision-attack fashion-mnist --companions",),
        ("decision_attack.json",),
        readme="Attackers who know the guard",
    ),
    Measurement(
        "Attacks on the output",
        "companion",
        ("output-attacks fashion-mnist mnist --companions",),
        ("output_attacks.json",),
        readme="Attackers who know the guard",
    ),
    Measurement(
        "The guard with a companion, attackers who do not know it",
        "companion",
        (
            "learned fashion-mnist mnist cifar10 --companions",
            f"learned {STRANGERS_MNIST} --strangers FOLDER --companions",
        ),
        ("learned-companions.json",),
        time=more_than("learned-companions", "fit_seconds"),
    ),
    Measurement(
        "What votes certify",
        "companion",
        ("certified fashion-mnist mnist cifar10",),
        ("certified.json",),
        time=more_than("certified", "training_seconds"),
        readme="Attackers who know the guard",
    ),
    Measurement(
        "Photographs",
        "imagenet",
        ("imagenet FOLDER",),
        ("imagenet.json",),
        time=more_than("imagenet", "fit_seconds"),
        readme="Photographs",
    ),
    Measurement(
        "Evading the threshold of curvature",
        "adaptive",
        (
            "adaptive fashion-mnist --cache --n-images 30 --steps 20",
            "adaptive mnist --cache --n-images 20 --steps 20",
            f"adaptive cifar10 --n-images 12 --steps 15 {DEFAULT_ALONE}",
        ),
        tuple(f"adaptive-{n}.json" for n in ("fashion-mnist", "mnist", "cifar10")),
        readme="Attackers who know the threshold of curvature",
        note="Nothing is measured that the file has already: remove it first, or give "
        "`--out`.",
    ),
    Measurement(
        "Evading it on networks that were trained to be flatter, or against PGD",
        "adaptive",
        (
            "cure fashion-mnist",
            "cure mnist",
            *(
                f"adaptive {network} --weights {CURE_WEIGHTS.format(network, way)} "
                f"--n-images 20 --steps 20 {DEFAULT_ALONE}"
                for network in LENETS
                for way in ("CURE", "PGD-training")
            ),
        ),
        tuple(
            f"adaptive-{network}-{way}.json"
            for network in LENETS
            for way in ("cure", "pgd-training")
        ),
        readme="Attackers who know the threshold of curvature",
    ),
    Measurement(
        "Probes within the bounds",
        "bounds",
        (
            "clamping --networks fashion-mnist mnist cifar10",
            "clamping --strangers FOLDER --settings default",
        ),
        ("clamping.json", "clamping-strangers.json"),
    ),
    Measurement(
        "Cost, beside other ways to the number",
        "cost",
        ("cost --networks LeNet ResNet-20 EfficientNet-Lite0",),
        ("cost.json",),
        readme="What it costs",
    ),
    Measurement(
        "Three boundaries instead of all",
        "cost",
        (
            *OTHER_LENETS,
            "few-boundaries --lenets benchmarks/cache/lenets/1 "
            "benchmarks/cache/lenets/2",
        ),
        ("few_boundaries.json",),
        time=LENETS_TIME,
    ),
    Measurement("Precision", "cost", ("precision",), ("precision.json",)),
    Measurement("Many images", "cost", ("scale",), ("scale.json",)),
    Measurement(
        "A guard over HTTP, under load", "guide/serve", ("serving",), ("serving.json",)
    ),
    Measurement(
        "A guard as a program of torch.export",
        "guide/serve",
        ("exported --strangers FOLDER",),
        ("exported.json",),
    ),
    Measurement(
        "The report's experiment",
        "reproduction",
        tuple(
            f"curvdetect reproduce --dataset {name} --out docs/reproduction/{name}"
            for name in LENETS
        ),
        tuple(f"docs/reproduction/{name}/results.json" for name in LENETS),
        time=reproduction_time(),
        readme="What curvature alone reaches",
    ),
    Measurement(
        "Profiles of curvature",
        "results",
        ("curvature-profile fashion-mnist", "curvature-profile mnist"),
        tuple(f"curvature_profile-{n}.json" for n in LENETS),
        time=recorded("curvature_profile-fashion-mnist", "curvature_profile-mnist"),
    ),
    Measurement(
        "Robustness and regions",
        "results",
        ("robustness fashion-mnist", "robustness mnist", "robustness cifar10"),
        tuple(f"robustness-{n}.json" for n in ("fashion-mnist", "mnist", "cifar10")),
        time=recorded(
            "robustness-fashion-mnist",
            "robustness-mnist",
            "robustness-cifar10",
        ),
    ),
    Measurement(
        "Training against curvature",
        "results",
        ("cure fashion-mnist", "cure mnist"),
        ("cure-fashion-mnist.json", "cure-mnist.json"),
    ),
    Measurement(
        "Estimators of the average curvature",
        "results",
        ("curvature-estimators",),
        ("curvature_estimators.json",),
    ),
    Measurement(
        "Principal curvatures in many dimensions",
        "results",
        ("principal-scaling",),
        ("principal_scaling.json",),
    ),
)
