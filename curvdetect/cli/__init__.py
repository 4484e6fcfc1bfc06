"""The command line: ``curvdetect demo``, ``reproduce``, ``fit`` and ``score``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from curvdetect import __version__

__all__ = ["main"]

_EXAMPLES = """\
examples:
  curvdetect demo
  curvdetect demo --n-images 200 --out /tmp/demo
  curvdetect demo --dataset mnist --data-dir ~/data
  curvdetect reproduce --dataset mnist --data-dir ~/data

a network of your own, in net.py a function make() without arguments (or net.pt2):
  curvdetect fit --model net:make --weights w.pt --input-shape 3,32,32 \\
      --images calibration/ --target-fpr 0.01 --out guard.skops
  curvdetect score --model net:make --guard guard.skops --images new/ --out scores.csv
  curvdetect profile --model net:make --weights w.pt --input-shape 3,32,32 \\
      --images new/ --out profile
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, 1 after an error (in one line on standard error), 2 for wrong
        usage, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("curvdetect: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if args.debug:
            raise
        print(f"curvdetect: error: {error}", file=sys.stderr)
        return 1
    return 0


# Slow to import: not for --help.


def _demo(args: argparse.Namespace) -> None:
    from curvdetect.report.demo import run_demo

    run_demo(**_options(args))


def _reproduce(args: argparse.Namespace) -> None:
    from curvdetect.report.reproduce import run_reproduce

    run_reproduce(**_options(args))


def _fit(args: argparse.Namespace) -> None:
    from curvdetect.cli.own_model import run_fit

    run_fit(**_options(args))


def _profile(args: argparse.Namespace) -> None:
    from curvdetect.cli.profile import run_profile

    run_profile(**_options(args))


def _score(args: argparse.Namespace) -> None:
    from curvdetect.cli.own_model import run_score

    run_score(**_options(args))


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked of a command, by the names of its function's parameters."""
    ours = ("command", "run", "debug")
    return {name: value for name, value in vars(args).items() if name not in ours}


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(int(part) for part in text.split(","))
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise ValueError
    return shape


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="curvdetect",
        description="Detect adversarial images by the curvature of decision "
        "boundaries.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = _add_command(
        commands,
        "demo",
        _demo,
        help="attack a trained network, detect and relabel the images",
        description=(
            "Attack a trained network with PGD; detect the adversarial images and "
            "recover their labels. Prints a table, writes pictures and results.json."
        ),
    )
    demo.add_argument(
        "--dataset",
        choices=["fashion-mnist", "mnist", "digits", "cifar10"],
        default="fashion-mnist",
        help="fashion-mnist (default) and digits need no download",
    )
    _add_common(demo, out="curvdetect-demo", n_images=800)
    reproduce = _add_command(
        commands,
        "reproduce",
        _reproduce,
        help="run the report's experiment, and the same with the defaults",
        description=(
            "Run the report's experiment on a LeNet: PGD, 25 natural and 25 perturbed "
            "pictures, the best threshold, over 1,000 draws. Prints a table, writes "
            "a page with Figures 2 to 6 and results.json. Some 5 minutes on 2 cores."
        ),
    )
    reproduce.add_argument(
        "--dataset",
        choices=["fashion-mnist", "mnist"],
        default="fashion-mnist",
        help="fashion-mnist (default) needs no download",
    )
    reproduce.add_argument(
        "--train",
        action="store_true",
        dest="train_anew",
        help="train a LeNet instead of loading the one that is shipped",
    )
    _add_common(reproduce, out="curvdetect-reproduce", n_images=300)
    _add_fit(commands)
    _add_score(commands)
    _add_profile(commands)
    return parser


def _add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], **texts: str
) -> argparse.ArgumentParser:
    """Add a command, with the examples at the end of its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **texts,
    )
    parser.set_defaults(run=run)
    return parser


def _add_fit(commands: Any) -> None:
    fit = _add_command(
        commands,
        "fit",
        _fit,
        help="calibrate a guard for a network of your own",
        description=(
            "Calibrate a guard on clean images that the network was not trained on and "
            "gets right, and save it. Says on standard error which images were refused."
        ),
    )
    _add_model(fit)
    _add_weights(fit)
    fit.add_argument(
        "--target-fpr",
        type=float,
        default=0.01,
        help="share of clean images that may be flagged (default: %(default)s)",
    )
    fit.add_argument(
        "--n-boundaries", type=int, help="only the nearest so many (default: all)"
    )
    fit.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    fit.add_argument("--out", type=Path, required=True, help="file of the guard")


def _add_score(commands: Any) -> None:
    score = _add_command(
        commands,
        "score",
        _score,
        help="score images with such a guard",
        description=(
            "Score images with a guard: a line for each, with the guard's label, the "
            "network's, the recovered one, whether the image is flagged, and the score."
        ),
    )
    _add_model(score)
    score.add_argument("--guard", type=Path, required=True, help="file of the guard")
    score.add_argument(
        "--out",
        default="-",
        help="a .csv, .json or .parquet file, or - for standard output (default)",
    )


def _add_profile(commands: Any) -> None:
    profile = _add_command(
        commands,
        "profile",
        _profile,
        help="show how the boundaries around some images are curved",
        description=(
            "Measure the principal curvatures of the boundaries near some images. "
            "Prints a table, writes profile.json and profile.png."
        ),
    )
    _add_model(profile)
    _add_weights(profile)
    profile.add_argument(
        "--n-images", type=int, default=5, help="the first (default: %(default)s)"
    )
    profile.add_argument(
        "--n-boundaries", type=int, default=3, help="nearest (default: %(default)s)"
    )
    profile.add_argument(
        "--step",
        type=float,
        default=0.1,
        help="of the differences, an L2 length (default: %(default)s)",
    )
    profile.add_argument(
        "--out",
        type=Path,
        default=Path("curvdetect-profile"),
        help="folder (default: %(default)s)",
    )


def _add_weights(parser: argparse.ArgumentParser) -> None:
    """Add what a network needs that comes without a guard."""
    parser.add_argument("--weights", type=Path, help="state dict of the network")
    parser.add_argument(
        "--input-shape",
        type=_shape,
        required=True,
        metavar="C,H,W",
        help="channels (1 or 3), height and width",
    )
    parser.add_argument(
        "--mean", type=_numbers, help="of the normalisation: m or m,m,m"
    )
    parser.add_argument("--std", type=_numbers, help="of the normalisation: s or s,s,s")


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options of a network of one's own."""
    parser.add_argument(
        "--model",
        required=True,
        dest="factory",
        metavar="PACKAGE.MODULE:FACTORY",
        help="a function without arguments that returns the network, or the network; "
        "or a .pt2 file of torch.export; code of your own, which is executed",
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        help="folder of pictures, a picture, or a .npy or .npz file",
    )
    parser.add_argument(
        "--resize",
        action="store_true",
        help="resize pictures of another size instead of refusing them",
    )
    parser.add_argument("--device", help="torch device, such as cuda (default: cpu)")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )


def _add_common(parser: argparse.ArgumentParser, *, out: str, n_images: int) -> None:
    """Add the options that all experiments have."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help="folder for pictures and results.json (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--n-images",
        type=int,
        default=n_images,
        help="test images to start from (default: %(default)s)",
    )
    parser.add_argument(
        "--device", help="torch device, such as cuda (default: where the network is)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder of data sets in torchvision's layout "
        "(default: $CURVDETECT_DATA, else ~/.cache/curvdetect)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
