"""The commands of the benchmarks: ``python -m benchmarks COMMAND ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["COMMANDS", "main"]

#: By subject: name, module, what it is about. Modules are imported when they are run.
COMMANDS: dict[str, tuple[str, str]] = {
    "detection": ("evidence.table", "every detector, attack and network"),
    "learned": (
        "detection.learned",
        "the learned guard, on networks of ours and others",
    ),
    "learned-curve": ("detection.learned_curve", "what more looking is worth to it"),
    "imagenet": ("detection.imagenet", "the learned guard on photographs"),
    "main-job": ("detection.main_job", "one threshold of curvature, by default"),
    "other-data": ("detection.other_data", "images of another data set, beside energy"),
    "monitor": ("detection.monitor", "how soon a watch over a stream raises an alarm"),
    "adaptive": ("evasion.adaptive", "attackers who know the threshold of curvature"),
    "learned-adaptive": (
        "evasion.learned_adaptive",
        "attackers who know the learned guard, and its companion",
    ),
    "output-attacks": ("evasion.output_attacks", "how far a false alarm is"),
    "decision-attack": ("evasion.decision_attack", "attackers who see decisions alone"),
    "certified": ("evasion.certified", "what votes certify"),
    "cost": ("cost.table", "average curvature, beside other ways to it"),
    "learned-speed": ("cost.learned_speed", "the learned guard beside 0.1's default"),
    "serving": ("cost.serving", "a guard over HTTP, under load"),
    "exported": ("cost.exported", "a guard as a program of torch, beside the guard"),
    "scale": ("cost.scale", "memory by images, speed by workers"),
    "few-boundaries": ("defaults.few_boundaries", "three boundaries instead of all"),
    "precision": ("defaults.precision", "rounding, by step and number format"),
    "clamping": ("defaults.clamping", "probes within the bounds of images"),
    "curvature-estimators": (
        "geometry.curvature_estimators",
        "stochastic estimates at equal cost",
    ),
    "curvature-sign": ("geometry.curvature_sign", "its sign, on every network"),
    "curvature-profile": (
        "geometry.curvature_profile",
        "principal curvatures, shared directions",
    ),
    "principal-scaling": (
        "geometry.principal_scaling",
        "principal curvatures in many dimensions",
    ),
    "robustness": ("geometry.robustness", "smallest perturbations, paths, regions"),
    "assets": ("training.assets", "train the networks that are shipped, or others"),
    "companions": ("training.companions", "train companions of networks"),
    "cure": ("training.cure", "train networks to be flatter, and measure them"),
    "report": ("report", "write every page and table from the results"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; say which there are where none of them is asked for."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"there is no command {name!r}; there are {known}", file=sys.stderr)
        return 2
    module, _ = COMMANDS[name]
    return import_module(f"benchmarks.{module}").main(rest) or 0


def usage() -> str:
    """Return the table of commands."""
    lines = [f"  {name:<22}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m benchmarks COMMAND ...",
            "",
            *lines,
            "",
            "python -m benchmarks COMMAND --help says what it measures, on what.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
