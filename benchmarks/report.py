"""Write every page, table and picture of the documentation from the results.

    python -m benchmarks report
    python -m benchmarks report --check

Whole pages of `docs/` are made, and in pages that are written by hand what stands
between `<!-- benchmarks: NAME -->` and `<!-- end -->`. `--check` writes nothing: it
names what is not as the results have it, and fails if there is anything.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import catalogue_report
from benchmarks.common.arguments import IMAGES, command_parser
from benchmarks.cost import exported_report, serving_report
from benchmarks.cost import report as cost
from benchmarks.defaults import clamping_report
from benchmarks.detection import (
    imagenet_report,
    learned_report,
    main_job_report,
    monitor_report,
    other_data_report,
    reproduction_report,
)
from benchmarks.evasion import (
    adaptive_report,
    companion_pictures,
    companion_report,
)
from benchmarks.evasion import short_report as evasion
from benchmarks.evidence import picture
from benchmarks.evidence import report as detection
from benchmarks.geometry import curvature_sign_report
from benchmarks.geometry import report as geometry
from benchmarks.training import report as training

__all__ = ["BLOCKS", "PAGES", "PICTURES", "changed", "main", "parser"]

ROOT = Path(__file__).parents[1]
#: Pages that are made as a whole, by their names in docs/.
PAGES: dict[str, Callable[[], str]] = {
    "detection": detection.page,
    "learned": learned_report.page,
    "imagenet": imagenet_report.page,
    "adaptive": adaptive_report.page,
    "companion": companion_report.page,
    "cost": cost.page,
    "bounds": clamping_report.page,
}
#: What makes pictures for docs/images; measuring commands make the others.
PICTURES: tuple[Callable[[], dict[str, Figure]], ...] = (
    picture.pictures,
    learned_report.pictures,
    imagenet_report.pictures,
    adaptive_report.pictures,
    companion_pictures.pictures,
)
#: Parts of pages that are written by hand, by the names of their marks.
BLOCKS: dict[str, Callable[[], str]] = {
    "detectors, what": detection.what,
    "detectors": detection.short_table,
    "detectors, where not": detection.where_not,
    "detectors, ahead": detection.ahead,
    "detectors, later": detection.later_in_short,
    "detectors, corrupted": detection.met_in_short,
    "learned, passes": learned_report.passes,
    "learned, long attacks": learned_report.long_attacks,
    "learned, one large step": learned_report.hardest,
    "photographs": imagenet_report.short,
    "photographs, alone": imagenet_report.relabelled_alone,
    "photographs, fit": imagenet_report.fit_minutes,
    "main job": main_job_report.short_table,
    "reproduction": reproduction_report.short_table,
    "other data": other_data_report.by_detector,
    "other data, in short": other_data_report.in_short,
    "monitor": monitor_report.alarms,
    "evasion": evasion.evasion,
    "evasion, other ways": evasion.other_ways,
    "certified": evasion.certified,
    "threshold": adaptive_report.short_table,
    "threshold, trained": adaptive_report.trained_against,
    "cost": cost.short_table,
    "speed": cost.speed,
    "serving": serving_report.under_load,
    "exported": exported_report.beside_the_guard,
    "curvature sign": curvature_sign_report.by_network,
    "curvature sign, in short": curvature_sign_report.in_short,
    "profiles": geometry.profiles,
    "regions": geometry.regions,
    "estimators": geometry.estimators,
    "scaling": geometry.scaling,
    "training": training.by_training,
    "commands": catalogue_report.commands,
    "figures": catalogue_report.figures,
}
#: Where blocks may be.
BY_HAND = ("README.md", "benchmarks/README.md", "docs/*.md", "docs/guide/*.md")
MARK = re.compile(r"(<!-- benchmarks: (.+?) -->)(.*?)(<!-- end -->)", re.DOTALL)


def parser() -> argparse.ArgumentParser:
    parser = command_parser("report", __doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--no-pictures", action="store_true", help="texts alone")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return 1 where something is to be written and must not be."""
    args = parser().parse_args(argv)
    found = changed()
    for path, text in found.items():
        print(path.relative_to(ROOT), "differs" if args.check else "is written")
        if not args.check:
            path.write_text(text)
    if not args.check and not args.no_pictures:
        for pictures in PICTURES:
            for name, figure in pictures().items():
                figure.savefig(IMAGES / name)
    return int(args.check and bool(found))


def changed() -> dict[Path, str]:
    """Return what files would hold that are not as the results have it."""
    made = {ROOT / "docs" / f"{name}.md": page() for name, page in PAGES.items()}
    by_hand = [path for pattern in BY_HAND for path in sorted(ROOT.glob(pattern))]
    made |= {
        path: filled(path.read_text(), path) for path in by_hand if path not in made
    }
    return {
        path: text
        for path, text in made.items()
        if not path.exists() or path.read_text() != text
    }


def filled(text: str, path: Path) -> str:
    """Return a page whose blocks are made anew."""

    def block(mark: re.Match[str]) -> str:
        start, name, before, end = mark.groups()
        if name not in BLOCKS:
            raise ValueError(
                f"{path} has a block {name!r}; there are {', '.join(BLOCKS)}"
            )
        made = BLOCKS[name]()
        # Within a line where it is, else a paragraph of its own.
        around = "\n\n" if before.startswith("\n") else ""
        return f"{start}{around}{made}{around}{end}"

    return MARK.sub(block, text)
