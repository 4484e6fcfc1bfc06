r"""Every detector against every attack, on every network.

    python -m benchmarks detection all --resume
    python -m benchmarks detection lenet_mnist vit_fashion_mnist
    python -m benchmarks detection later --only "learned guard" --strangers FOLDER
    python -m benchmarks detection all --quick --out FOLDER

Ours beside those of other packages and papers. Detectors learn from one set of images,
their thresholds are set on a second, and the figures are those of a third
(`evidence/case.py`); those that learn from attacks do so once from all that are quick
enough, and once without each kind. Adversarial images are those right before and wrong
after. Then clean images under corruptions and of another data set, the cost of a score,
and comparisons, paired by image.

A network is one file of `evidence/networks`, an attack an entry of `evidence/attacks`,
a detector one of `evidence/detectors`. Each network has a file of results, a JSON line
for the attacks, for each detector and for the comparisons; with `--resume` nothing is
done again that is there. "later" are the networks of others that nobody had looked at
when the detectors were made; "all" are the rest. At the end the tables are printed;
`python -m benchmarks report` makes the page of what is committed. Needs the extras art,
attacks, foolbox, ood and onnx, and adv-lib; the companions are those of the command of
that name.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.arguments import add_cache, add_data_dir, command_parser
from benchmarks.common.results import RESULTS
from benchmarks.evidence import cells
from benchmarks.evidence.case import FEW, Case, Files, load_case
from benchmarks.evidence.detectors import Detector, all_detectors
from benchmarks.evidence.images import attacked, training
from benchmarks.evidence.networks import names, network
from benchmarks.evidence.report import tables
from benchmarks.evidence.results import found_in
from benchmarks.evidence.scores import Scores, scores_of

#: What `--quick` takes for "all".
QUICK = ("lenet_fashion_mnist",)


def parser() -> argparse.ArgumentParser:
    parser = command_parser("detection", __doc__)
    parser.add_argument(
        "networks",
        nargs="+",
        choices=["all", "later", *names()],
        metavar="NETWORK",
        help=f"all, later, or some of {', '.join(names())}",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on where a run was interrupted"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few images; for all, one network"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="DETECTOR",
        help="detectors whose names begin so",
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "detection", help="folder of results"
    )
    parser.add_argument(
        "--strangers", type=Path, help="folder of the ONNX files of networks of others"
    )
    add_cache(parser, "companions", "folder of companions", "--companions")
    add_data_dir(parser)
    add_cache(parser, "evidence", "of attacked images and scores")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    files = Files(args.data_dir, args.strangers, args.companions, args.cache)
    args.out.mkdir(parents=True, exist_ok=True)
    networks = chosen(args.networks, args.quick)
    for name in networks:
        case = load_case(name, network(name), files, FEW if args.quick else None)
        kept = f"{name}-quick" if args.quick else name
        Run(case, args, args.cache / kept).all()
    print(tables(found_in(args.out, networks)))


def chosen(networks: Sequence[str], quick: bool) -> Sequence[str]:
    """Return the names of networks, of "all" and "later" too."""
    if "all" in networks and quick:
        return QUICK
    kinds = {name: "later" if network(name).met_later else "all" for name in names()}
    return [name for name, kind in kinds.items() if {name, kind} & {*networks}]


class Run:
    """All of one network: what is in its file already, and what is added."""

    def __init__(self, case: Case, args: argparse.Namespace, folder: Path) -> None:
        self.case, self.only, self.folder = case, args.only, folder
        self.path = args.out / f"{case.name}.jsonl"
        if not args.resume:
            self.path.unlink(missing_ok=True)
        lines = whole_lines(self.path)
        self.path.write_text("".join(lines))
        self.added = False
        self.done = {json.loads(line)["what"] for line in lines}

    def all(self) -> None:
        """Measure attacks, then detectors, then compare them."""
        self.say("attacks")
        sets = attacked(self.case, self.folder)
        learned = training(self.case, self.folder)
        if "attacks" not in self.done:
            self.add("attacks", cells.of_attacks(self.case, sets))
        detectors, scores = {}, {}
        for detector in self.detectors():
            found = self.measured(detector, sets, learned)
            if found is not None:
                detectors[detector.name], scores[detector.name] = detector, found
        self.compare(detectors, sets, scores)

    def compare(self, detectors: Any, sets: Any, scores: Any) -> None:
        """Compare what was measured, unless this run looked at a part of it."""
        compared = "comparisons" in self.done
        known = self.done - {"attacks", "comparisons"}
        if compared and not self.added:
            return
        if not known <= {detector.name for detector in self.detectors()}:
            return
        if compared:
            lines = whole_lines(self.path)
            self.path.write_text(
                "".join(x for x in lines if json.loads(x)["what"] != "comparisons")
            )
        self.add(
            "comparisons", cells.of_comparisons(self.case, detectors, sets, scores)
        )

    def detectors(self) -> list[Detector]:
        """Return those that the network and the command line allow."""
        return [
            detector
            for detector in all_detectors()
            if detector.applies(self.case)
            and detector.name.startswith(tuple(self.only))
        ]

    def measured(self, detector: Detector, sets: Any, learned: Any) -> Scores | None:
        """Return the scores of a detector; None where it fails, which is a result."""
        safe = "".join(c if c.isalnum() else "_" for c in detector.name)
        path = self.folder / "scores" / f"{safe}.npz"
        try:
            scores = scores_of(detector, self.case, learned, sets, path)
            cell = cells.of_detector(detector, self.case, sets, scores)
        except Exception as error:
            traceback.print_exc()
            scores, cell = None, {"failed": f"{type(error).__name__}: {error}"[:200]}
        if detector.name not in self.done:
            self.add(detector.name, cell)
        return scores

    def add(self, what: str, cell: dict[str, Any]) -> None:
        """Write one line."""
        self.added = True
        line = {"network": self.case.name, "what": what, **cell}
        if what == "attacks":
            line |= {"title": self.case.network.title, "torch": torch.__version__}
            line |= {"machine": f"{platform.machine()}, one thread"}
        with self.path.open("a") as out:
            print(json.dumps(line), file=out, flush=True)
        self.say(what)

    def say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.case.name}: {what}", flush=True)


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file, without one that was cut short by a kill."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]
