"""``curvdetect companion``: train the second network of a guard."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._network import add_input, add_model, add_weights, loaded_model
from curvdetect.cli._options import (
    add_command,
    add_device,
    add_seed,
    check_folder,
)
from curvdetect.cli._pictures import add_pictures, read_all

if TYPE_CHECKING:
    from curvdetect.study.training import TrainedCompanion

__all__ = ["run_companion"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "companion",
        run_companion,
        help="train a second, flatter network that the guard also asks",
        description=(
            "Fine-tune a copy of a network against curvature (CURE), and save its "
            "state dict for curvdetect fit --companion. --images should be thousands "
            "of the images that the network was trained on; their labels are those "
            "that the network gives. Prints how often the two agree, and how hard they "
            "are to fool."
        ),
    )
    add_model(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    add_weights(parser)
    add_input(parser)
    parser.add_argument(
        "--strength",
        type=float,
        nargs="+",
        default=[0.03],
        help="strength of the penalty; the best of several is kept (default: 0.03)",
    )
    parser.add_argument(
        "--epochs", type=int, default=4, help="epochs to train (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="file from which an interrupted training continues",
    )
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, help="file for the weights")
    return parser


def run_companion(
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
    strength: list[float] | tuple[float, ...] = (0.03,),
    epochs: int = 4,
    checkpoint: str | Path | None = None,
    resize: bool = False,
    device: str | None = None,
    seed: int = 0,
) -> TrainedCompanion:
    """Train a companion and save its state dict; say on stderr what it reached.

    Parameters
    ----------
    factory, weights, weights_key
        As in :func:`curvdetect.network.load_module`; `factory` is None for a preset.
    images : str or Path
        Thousands, best those that the network was trained on.
    out : str or Path
        The file of the weights.
    preset, input_shape, mean, std
        As in :func:`curvdetect.cli.fit.run_fit`.
    strength : sequence of float, default=(0.03,)
        Of :class:`~curvdetect.study.training.CURE`; of several, the best is kept.
    epochs, checkpoint
        As in :func:`~curvdetect.study.training.train_companion`.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`; a network that has a preparation
        of its own resizes pictures as that says.
    device : str, optional
        torch device; the CPU by default.
    seed : int, default=0
        Of everything random.

    Returns
    -------
    TrainedCompanion
        The companion, and what it reached.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    import torch

    from curvdetect._base.files import written_at_once
    from curvdetect.study.training import CURE, train_companion

    check_folder(out)
    losses = [CURE(strength=each) for each in strength]
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
    X = read_all(images, model, resize=resize)
    trained = train_companion(
        model,
        X,
        loss=losses,
        n_epochs=epochs,
        checkpoint=checkpoint,
        random_state=seed,
    )
    with written_at_once(out) as partial, partial.open("wb") as file:
        torch.save(trained.model.module.state_dict(), file)
    print(f"the weights are in {out}", file=sys.stderr)
    return trained
