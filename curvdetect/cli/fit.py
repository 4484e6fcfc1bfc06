"""``curvdetect fit``: calibrate a guard for a network of your own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curvdetect.cli._network import (
    add_companion,
    add_model,
    add_weights,
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
        help="make a guard for a network of your own",
        description=(
            "Learn a guard from clean images that the network was not trained on and "
            "gets right, and save it. Says on standard error which images were refused."
        ),
    )
    add_model(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    add_weights(parser)
    parser.add_argument(
        "--target-fpr",
        type=float,
        default=0.01,
        help="share of clean images that may be flagged (default: %(default)s)",
    )
    parser.add_argument(
        "--detector",
        choices=("learned", "threshold"),
        default="learned",
        help="what flags images (default: %(default)s)",
    )
    add_companion(parser)
    parser.add_argument(
        "--companion-weights",
        type=Path,
        help="its state dict, as curvdetect companion writes it",
    )
    parser.add_argument(
        "--n-boundaries",
        type=int,
        help="of the threshold: only the nearest so many (default: all)",
    )
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, help="file of the guard")
    return parser


def run_fit(
    factory: str,
    images: str | Path,
    *,
    out: str | Path,
    input_shape: tuple[int, int, int],
    weights: str | Path | None = None,
    weights_key: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    target_fpr: float = 0.01,
    detector: Literal["learned", "threshold"] = "learned",
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    n_boundaries: int | None = None,
    resize: bool = False,
    device: str | None = None,
    seed: int = 0,
) -> GuardedClassifier:
    """Calibrate a guard on clean images and save it; say on stderr what was done.

    Parameters
    ----------
    factory, weights, weights_key
        As in :func:`curvdetect.network.load_module`.
    images : str or Path
        Clean images that the network was not trained on, and gets right.
    out : str or Path
        The file of the guard, see :func:`curvdetect.storage.save`.
    input_shape : (int, int, int)
        Channels, height and width.
    mean, std : tuple of float, optional
        Normalisation of the network, a number for each channel or one for all.
    target_fpr : float, default=0.01
        Share of clean images that may be flagged.
    detector : {"learned", "threshold"}, default="learned"
        As in :class:`~curvdetect.GuardedClassifier`.
    companion, companion_weights
        The same as `factory` and `weights`, for a second classifier that takes the same
        images with the same normalisation.
    n_boundaries : int, optional
        Of the threshold, as in :class:`~curvdetect.CurvatureFeaturizer`; all by
        default.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`.
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
    if companion_weights is not None and companion is None:
        raise ValueError(
            f"companion_weights needs companion; got {str(companion_weights)!r} alone"
        )
    if companion is not None and detector != "learned":
        raise ValueError(
            "companion must be left out with a threshold: only a learned detector asks "
            f"it; got {companion!r}"
        )
    check_folder(out)
    model = loaded_model(
        factory,
        weights,
        weights_key=weights_key,
        input_shape=input_shape,
        mean=mean,
        std=std,
        device=device,
    )
    second = None
    if companion is not None:
        second = loaded_model(
            companion,
            companion_weights,
            weights_key=None,
            input_shape=input_shape,
            mean=mean,
            std=std,
            device=device,
        )
    X = read_all(images, input_shape, resize=resize)
    settings: dict[str, Any] = {"detector": detector, "target_fpr": target_fpr}
    if detector == "threshold":
        n_allowed_above(len(X), target_fpr)
        settings["featurizer"] = CurvatureFeaturizer(
            model, n_boundaries=n_boundaries, random_state=seed, verbose=1
        )
    else:
        settings |= {"random_state": seed, "verbose": 1, "companion": second}
    guard = GuardedClassifier(model, **settings).fit(X)
    save(guard, out)
    if guard.self_test_ is not None:
        print(guard.self_test_, file=sys.stderr)
    print(
        f"{len(X)} images; scores above {guard.detector_.threshold_:.4g} are flagged; "
        f"the guard is in {out}",
        file=sys.stderr,
    )
    return guard
