"""``curvdetect fit``: calibrate a guard for a network of your own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curvdetect.cli._network import (
    add_companion,
    add_companion_weights,
    add_input,
    add_model,
    add_weights,
    check_companion_weights,
    loaded_companion,
    loaded_model,
)
from curvdetect.cli._options import (
    add_command,
    add_device,
    add_seed,
    check_folder,
)
from curvdetect.cli._pictures import add_pictures, read_all

if TYPE_CHECKING:
    from curvdetect import GuardedClassifier

__all__ = ["run_fit"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "fit",
        run_fit,
        help="make a guard for a network of your own, and save it",
        description=(
            "Learn a guard from clean images, and save it. The network must not have "
            "been trained on these images, and should get them right. The default "
            "rate of 0.01 takes at least 249 images. Images that were refused are "
            "named on standard error. Needs the extra skops, and vision for pictures."
        ),
    )
    add_model(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    add_weights(parser)
    add_input(parser)
    parser.add_argument(
        "--target-fpr",
        type=float,
        default=0.01,
        help="false-positive rate: the share of clean images that may be flagged "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--detector",
        choices=("learned", "threshold"),
        default="learned",
        help="what flags images: learned from attacks on the network, or a threshold "
        "on the largest curvature (default: %(default)s)",
    )
    add_companion(parser)
    add_companion_weights(parser)
    parser.add_argument(
        "--n-boundaries",
        type=_number_or_all,
        metavar="N",
        help='with --detector threshold: measure the N nearest boundaries, or "all" '
        "(default: all with up to 100 classes, 5 with more)",
    )
    parser.add_argument(
        "--without-weights",
        action="store_true",
        help="save only a digest of the weights: the file is small, but curvdetect "
        "score then needs a network with exactly these weights",
    )
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, help="file for the guard")
    return parser


def _number_or_all(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be a number or "all"; got {text!r}')
    return text if text == "all" else int(text)


def run_fit(
    factory: str | None,
    images: str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    target_fpr: float = 0.01,
    detector: Literal["learned", "threshold"] = "learned",
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    n_boundaries: int | Literal["all"] | None = None,
    without_weights: bool = False,
    resize: bool = False,
    device: str | None = None,
    seed: int = 0,
) -> GuardedClassifier:
    """Calibrate a guard on clean images and save it; say on stderr what was done.

    Parameters
    ----------
    factory, weights, weights_key
        As in :func:`curvdetect.network.load_module`; `factory` is None for a preset.
    images : str or Path
        Clean images that the network was not trained on, and gets right.
    out : str or Path
        The file of the guard, see :func:`curvdetect.storage.save`.
    preset : str, optional
        Instead of `factory`: timm:NAME, torchvision:NAME,
        transformers:NAME_OR_FOLDER or onnx:FILE, used as its library says.
    input_shape : (int, int, int), optional
        Channels, height and width; needed for `factory`. For a preset, instead of
        the library's.
    mean, std : tuple of float, optional
        Normalisation of the network, a number for each channel or one for all; that of
        the library for a preset.
    target_fpr : float, default=0.01
        Share of clean images that may be flagged.
    detector : {"learned", "threshold"}, default="learned"
        As in :class:`~curvdetect.GuardedClassifier`.
    companion, companion_weights
        The same as `factory` and `weights`, for a second classifier that takes the same
        images with the same normalisation; or a preset, with its own size and
        normalisation, whose classes are matched by their names where both have any.
    n_boundaries : int or "all", optional
        Of the threshold, as in :class:`~curvdetect.CurvatureFeaturizer`.
    without_weights : bool, default=False
        Whether the file names weights by their digest instead of holding them.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`; a network that has a preparation
        of its own resizes pictures as that says.
    device : str, optional
        torch device; the CPU by default.
    seed : int, default=0
        Of everything random.

    Returns
    -------
    GuardedClassifier
        Fitted.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    from curvdetect import CurvatureFeaturizer, GuardedClassifier
    from curvdetect._base.checks import check_choice, check_share
    from curvdetect._base.extras import require
    from curvdetect.estimators.detector import n_allowed_above
    from curvdetect.storage import save

    require("skops.io", extra="skops")  # before any long work
    check_share("target_fpr", target_fpr)
    check_choice("detector", detector, ("learned", "threshold"))
    if n_boundaries is not None and detector != "threshold":
        raise ValueError(
            "n_boundaries must be left out with a learned detector, which chooses its "
            f'own; give detector="threshold" with it; got {n_boundaries!r}'
        )
    check_companion_weights(companion, companion_weights)
    if companion is not None and detector != "learned":
        raise ValueError(
            "companion must be left out with a threshold: only a learned detector asks "
            f"it; got {companion!r}"
        )
    check_folder(out)
    model = loaded_model(
        factory,
        preset,
        weights=weights,
        weights_key=weights_key,
        input_shape=input_shape,
        mean=mean,
        std=std,
        device=device,
    )
    second = None
    if companion is not None:
        second = loaded_companion(
            companion, companion_weights, model=model, device=device
        )
    X = read_all(images, model, resize=resize)
    settings: dict[str, Any] = {"detector": detector, "target_fpr": target_fpr}
    if detector == "threshold":
        n_allowed_above(len(X), target_fpr)
        settings["featurizer"] = CurvatureFeaturizer(
            model, n_boundaries=n_boundaries, random_state=seed, verbose=1
        )
    else:
        settings |= {"random_state": seed, "verbose": 1, "companion": second}
    guard = GuardedClassifier(model, **settings).fit(X)
    _silence(guard)
    save(guard, out, weights=not without_weights)
    if guard.self_test_ is not None:
        print(guard.self_test_, file=sys.stderr)
    print(
        f"{len(X)} images; positive scores are flagged; the guard is in {out}",
        file=sys.stderr,
    )
    return guard


def _silence(guard: GuardedClassifier) -> None:
    """Let whoever loads the guard see no progress bars but of their own asking."""
    parts: list[Any] = [guard.featurizer, guard.detector_, guard.featurizer_]
    for part in [guard, *parts]:
        if hasattr(part, "verbose"):
            part.verbose = 0
