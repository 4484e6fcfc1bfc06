"""A network of your own, or of a library: its options, and how it is loaded."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._options import check_device
from curvdetect.cli._streams import results_alone

if TYPE_CHECKING:
    from torch import nn

    from curvdetect import TorchModel
    from curvdetect.signals import Companion

__all__ = [
    "add_companion",
    "add_companion_weights",
    "add_input",
    "add_model",
    "add_weights",
    "check_companion_weights",
    "loaded_companion",
    "loaded_model",
    "loaded_module",
    "source_of",
]

#: Where networks come from that are used as their libraries say.
_LIBRARIES = ("timm", "torchvision", "transformers", "onnx")
_PRESETS = "timm:NAME, torchvision:NAME, transformers:NAME_OR_FOLDER or onnx:FILE"


# Options -----------------------------------------------------------------------


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add where the network comes from."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model",
        dest="factory",
        metavar="PACKAGE.MODULE:FACTORY",
        help="your network: a function without arguments that returns it, or the "
        "module itself; or a .pt2 file of torch.export (both execute code, so use only "
        "your own); or an .onnx file",
    )
    source.add_argument(
        "--preset",
        metavar="LIBRARY:NAME",
        help="a network from a library, with the library's input shape, normalisation "
        f"and class names: {_PRESETS}",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add where weights come from."""
    parser.add_argument(
        "--weights",
        type=Path,
        help="file with the network's state dict, or a checkpoint that contains it",
    )
    parser.add_argument(
        "--weights-key",
        metavar="KEY",
        help="key of the state dict to use, such as state_dict_ema, if several in a "
        "checkpoint fit the network",
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add what a network takes, where no library or file says it."""
    parser.add_argument(
        "--input-shape",
        type=_shape,
        metavar="C,H,W",
        help="channels (1 or 3), height and width of an input; needed with --model "
        "unless it is an .onnx file",
    )
    parser.add_argument(
        "--mean",
        type=_numbers,
        help="mean that the network expects to be subtracted: m or m,m,m",
    )
    parser.add_argument(
        "--std",
        type=_numbers,
        help="standard deviation that it expects to be divided by: s or s,s,s",
    )


def add_companion(parser: argparse.ArgumentParser) -> None:
    """Add where the second network of a guard comes from."""
    parser.add_argument(
        "--companion",
        metavar="PACKAGE.MODULE:FACTORY",
        help="a second network that the guard asks about every image, given as for "
        "--model or --preset",
    )


def add_companion_weights(parser: argparse.ArgumentParser) -> None:
    """Add the weights of the second network."""
    parser.add_argument(
        "--companion-weights",
        type=Path,
        help="state dict of the companion, as curvdetect companion writes it",
    )


def check_companion_weights(
    companion: str | None, companion_weights: str | Path | None
) -> None:
    """Refuse weights of no network."""
    if companion_weights is not None and companion is None:
        raise ValueError(
            f"companion_weights needs companion; got {str(companion_weights)!r} alone"
        )


# Networks ----------------------------------------------------------------------


def loaded_model(
    factory: str | None = None,
    preset: str | None = None,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    pretrained: bool = True,
    device: str | None = None,
) -> TorchModel:
    """Load the network that these options describe, to where it is to compute.

    What its code prints goes to stderr. With `pretrained` false, or `weights`, a preset
    is made without its own: nothing is downloaded that is overwritten.
    """
    from curvdetect import TorchModel
    from curvdetect.network.weights import load_weights

    preset = _preset_of(factory, preset)
    check_device(device)
    settings: dict[str, Any] = {"input_shape": input_shape, "mean": mean, "std": std}
    if preset is None:
        if input_shape is None:
            raise ValueError(
                "input_shape must be given with model; only presets and .onnx files "
                "say it"
            )
        module = loaded_module(
            factory, weights=weights, weights_key=weights_key, device=device
        )
        return TorchModel(module, **settings)
    _check_weights(preset, weights, weights_key)
    given = {name: value for name, value in settings.items() if value is not None}
    with results_alone():
        model = _of_preset(preset, given, pretrained and weights is None)
        if weights is not None:
            load_weights(model.module, weights, key=weights_key)
        model.module.to(device or "cpu")
    return model


def loaded_module(
    factory: str | None = None,
    preset: str | None = None,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    pretrained: bool = True,
    device: str | None,
) -> nn.Module:
    """Load a network whose settings are known, such as those of a saved guard."""
    from curvdetect.network import load_module

    if _preset_of(factory, preset) is not None:
        return loaded_model(
            factory,
            preset,
            weights=weights,
            weights_key=weights_key,
            pretrained=pretrained,
            device=device,
        ).module
    check_device(device)
    with results_alone():
        module = load_module(str(factory), weights, weights_key=weights_key)
        return module.to(device or "cpu")


def loaded_companion(
    companion: str,
    weights: str | Path | None,
    *,
    model: TorchModel,
    device: str | None,
) -> TorchModel | Companion:
    """Load a companion: a preset has its own settings, a function the network's."""
    source = source_of(companion)
    if _preset_of(source.get("factory"), source.get("preset")) is not None:
        second = loaded_model(**source, weights=weights, device=device)
        return _matched(second, model)
    return loaded_model(
        companion,
        weights=weights,
        input_shape=model.input_shape,  # type: ignore[arg-type]
        mean=model.mean,
        std=model.std,
        device=device,
    )


def source_of(companion: str) -> dict[str, Any]:
    """Return a companion as one of the options of a network: `preset` or `factory`."""
    of_library = companion.partition(":")[0] in _LIBRARIES
    return {"preset" if of_library else "factory": companion}


def _preset_of(factory: str | None, preset: str | None) -> str | None:
    """Return a preset, for an .onnx file too; None for a function of one's own."""
    if (factory is None) == (preset is None):
        raise ValueError(
            "a network needs either model or preset; got "
            f"model={factory!r} and preset={preset!r}"
        )
    if factory is not None and factory.endswith(".onnx"):
        return f"onnx:{factory}"
    return preset


def _of_preset(preset: str, given: dict[str, Any], pretrained: bool) -> TorchModel:
    from curvdetect import TorchModel

    library, _, name = preset.partition(":")
    if library not in _LIBRARIES or not name:
        raise ValueError(f"preset must be one of {_PRESETS}; got {preset!r}")
    if library == "timm":
        return TorchModel.from_timm(name, pretrained=pretrained, **given)
    if library == "torchvision":
        weights = "DEFAULT" if pretrained else None
        return TorchModel.from_torchvision(name, weights=weights, **given)
    if library == "transformers":
        return TorchModel.from_transformers(name, pretrained=pretrained, **given)
    return TorchModel.from_onnx(name, **given)


def _check_weights(
    preset: str, weights: str | Path | None, weights_key: str | None
) -> None:
    if weights_key is not None and weights is None:
        raise ValueError(f"weights_key needs weights; got {weights_key!r} alone")
    if preset.startswith("onnx:") and weights is not None:
        raise ValueError(
            "weights must be left out where the network is an .onnx file, which has "
            f"its own; got {weights}"
        )


def _matched(second: TorchModel, model: TorchModel) -> TorchModel | Companion:
    """Bring the classes of a companion into the network's order, by their names."""
    from curvdetect.signals import Companion, matched_classes

    names, own = model.class_names, second.class_names
    if names is None or own is None or names == own:
        return second
    try:
        return Companion(second, classes=matched_classes(names, own))
    except ValueError as error:
        if len(names) != len(own) or _in_another_order(names, own):
            raise ValueError(
                "companion must have the network's classes; by their names it lacks "
                f"some ({error})"
            ) from error
        print(
            "curvdetect: the companion's classes have other names; they are taken to "
            "be in the network's order",
            file=sys.stderr,
        )
        return second


def _in_another_order(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Say whether most names that both have are in other places.

    Not any: of ImageNet's two kinds of crane, libraries call another one "crane" alone.
    """
    known = set(names) & set(others)
    n_elsewhere = sum(names.index(name) != others.index(name) for name in known)
    return n_elsewhere > len(known) / 2


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number, or one for each channel as in 0.5,0.5,0.5; got {text!r}"
        ) from None


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise argparse.ArgumentTypeError(
            f"must be channels (1 or 3), height and width as in 3,224,224; got {text!r}"
        )
    return shape
