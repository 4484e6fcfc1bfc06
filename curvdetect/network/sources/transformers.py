"""Image classifiers of transformers: what their processors do, and their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from curvdetect._base.extras import require
from curvdetect._base.messages import one_line
from curvdetect.network.preparation import Preparation
from curvdetect.network.sources.timm import settings_of_config

__all__ = ["of_transformers"]

#: Steps that a Preparation and a normalisation can say, and one that is for labels.
_KNOWN_STEPS = {
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
    "do_reduce_labels",
}
#: What transformers calls what is guarded here; None is understood as this.
_PROBLEM = "single_label_classification"
#: ConvNeXt's processor squashes pictures from this size on, and crops smaller ones.
_SQUASHED_FROM = 384
#: In levels of 255: torch and Pillow round resized bytes each in their own way.
_MOST, _MEAN = 3.0, 0.5


def of_transformers(
    name: Any, processor: Any = None, *, pretrained: bool = True
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a classifier of transformers, and its settings.

    Parameters
    ----------
    name, processor, pretrained
        As in :meth:`curvdetect.TorchModel.from_transformers`.

    Returns
    -------
    tuple of torch.nn.Module and dict
        In eval mode; the settings of a ``TorchModel``.
    """
    library = require("transformers", extra="transformers")
    if isinstance(name, nn.Module):
        module, config = name, getattr(name, "config", None)
        source = getattr(config, "name_or_path", "")
    else:
        module, source = _made(library, str(name), pretrained), str(name)
    if not hasattr(module, "config"):
        raise ValueError(
            "name must be a classifier of transformers, by its name or folder or as it "
            f"was loaded; got a {type(module).__name__}"
        )
    if processor is None and not source:
        raise ValueError(
            "processor must be given for a network that was not loaded by a name; got "
            "None"
        )
    if processor is None or isinstance(processor, str | Path):
        processor = _processor(library, str(processor or source))
    _check_problem(module.config)
    settings = _settings(processor, getattr(module.config, "num_channels", 3) or 3)
    return module.eval(), {**settings, "class_names": _class_names(module.config)}


def _made(library: Any, name: str, pretrained: bool) -> nn.Module:
    auto = library.AutoModelForImageClassification
    try:
        if pretrained:
            module, report = auto.from_pretrained(
                name, trust_remote_code=False, output_loading_info=True
            )
        else:
            config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
            module, report = auto.from_config(config, trust_remote_code=False), {}
        # From version 5 in what they were saved, where differences drown in rounding.
        made: nn.Module = module.float()
    except Exception as error:  # no such folder, no way to the hub, no classifier
        raise ValueError(
            "name must be a folder of save_pretrained, or a name on the hub, of an "
            f"image classifier; {name!r} cannot be loaded: {one_line(error)}"
        ) from error
    if lacking := sorted(report.get("missing_keys", ())):  # random ones by now
        raise ValueError(
            f"name must be that of a network with all of its weights; {name!r} lacks "
            f"{', '.join(lacking)}. Is it one to be fine-tuned, without a last layer?"
        )
    return made


def _check_problem(config: Any) -> None:
    """Refuse a network whose largest logit is not its answer."""
    problem = getattr(config, "problem_type", None)
    if problem not in (None, _PROBLEM):
        raise ValueError(
            "name must be that of a classifier into one class each "
            f"(problem_type={_PROBLEM!r}); got one with problem_type={problem!r}"
        )


def _processor(library: Any, name: str) -> Any:
    try:
        return library.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # no such file, no way to the hub, an unknown kind
        raise ValueError(
            "processor must be an image processor, or a folder or name with one; none "
            f"can be loaded from {name!r}: {one_line(error)}"
        ) from error


def _class_names(config: Any) -> tuple[str, ...] | None:
    """Return the labels in order; None where they are made up, or some are missing."""
    labels = {int(key): str(label) for key, label in config.id2label.items()}
    made_up = {number: f"LABEL_{number}" for number in range(len(labels))}
    if labels == made_up or labels.keys() != made_up.keys():
        return None
    return tuple(labels[number] for number in made_up)


# What a processor does ---------------------------------------------------


def _settings(processor: Any, n_channels: int) -> dict[str, Any]:
    """Return what a processor does; refuse it if it then does something else."""
    if isinstance(config := getattr(processor, "data_config", None), Mapping):
        return settings_of_config(config)  # of a network of timm in transformers
    name = type(processor).__name__
    if not callable(getattr(processor, "to_dict", None)):
        raise ValueError(f"processor must be an image processor; got a {name}")
    does = processor.to_dict()
    _check_steps(name, does)
    mean, std = _normalisation(does)
    differences = []
    for preparation in _preparations(name, does):
        most = _difference(processor, preparation, mean, std, n_channels)
        if most is None:
            return {
                "input_shape": (n_channels, *preparation.size),
                "mean": mean,
                "std": std,
                "preparation": preparation,
            }
        differences.append(most)
    raise ValueError(
        f"processor must resize, crop, rescale and normalise, and no more; what {name} "
        f"makes of a picture is {min(differences):.3g} levels of 255 away from that"
    )


def _check_steps(name: str, does: Mapping[str, Any]) -> None:
    """Refuse steps that are not understood, by their names."""
    others = [
        step
        for step, switched_on in does.items()
        if step.startswith("do_") and switched_on and step not in _KNOWN_STEPS
    ]
    others += ["rescale_offset"] if does.get("rescale_offset") else []
    if others:
        raise ValueError(
            "processor must resize, crop, rescale and normalise, and no more; "
            f"{name} has {', '.join(f'{step}={does[step]!r}' for step in others)}"
        )


def _normalisation(does: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """Return mean and std for pictures in [0, 1]."""
    scale = 255 * (does.get("rescale_factor", 1 / 255) if does.get("do_rescale") else 1)
    mean, std = np.zeros(1), np.ones(1)
    if does.get("do_normalize"):
        mean = np.atleast_1d(np.asarray(does["image_mean"], dtype=float))
        std = np.atleast_1d(np.asarray(does["image_std"], dtype=float))
        if does.get("include_top"):  # EfficientNet's divides twice
            std = std**2
    return tuple((mean / scale).tolist()), tuple((std / scale).tolist())


def _preparations(name: str, does: Mapping[str, Any]) -> Iterator[Preparation]:
    """Say how it prepares pictures: in either way of rounding that there is."""
    size = {k: v for k, v in (does.get("size") or {}).items() if v is not None}
    crop = does.get("crop_size") or {}
    cut = (
        (crop.get("height"), crop.get("width")) if does.get("do_center_crop") else None
    )
    resize: int | tuple[int, int] | None
    if not does.get("do_resize"):
        resize = None
    elif set(size) == {"height", "width"}:
        resize = (size["height"], size["width"])
        cut = cut or resize
    elif set(size) == {"shortest_edge"} and does.get("crop_pct"):
        side = size["shortest_edge"]
        squashed = side >= _SQUASHED_FROM and cut is None
        resize = (side, side) if squashed else int(side / does["crop_pct"])
        cut = cut or (side, side)
    elif set(size) == {"shortest_edge"}:
        resize = size["shortest_edge"]
    else:
        raise ValueError(
            "processor must resize to height and width, or to a shortest_edge; "
            f"{name} has size={size}"
        )
    if cut is None or None in cut:
        raise ValueError(
            "processor must give inputs of one size; "
            f"{name} has size={size} and no center crop"
        )
    for rounding in ("down", "even"):
        yield Preparation(
            size=cut,  # type: ignore[arg-type]  # checked there
            resize=resize,
            interpolation=_interpolation(name, does.get("resample")),
            crop="squash" if isinstance(resize, tuple) else "center",
            rounding=rounding,
        )


def _interpolation(name: str, resample: Any) -> Any:
    pillow = require("PIL.Image", extra="vision")
    if resample is None:
        return "bilinear"
    try:
        return pillow.Resampling(resample).name.lower()
    except ValueError as error:
        raise ValueError(
            f"processor must resample as Pillow does; {name} has resample={resample!r}"
        ) from error


def _difference(
    processor: Any,
    preparation: Preparation,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    n_channels: int,
) -> float | None:
    """Compare with the processor on some pictures; None where they do the same."""
    shape = (-1, 1, 1)
    for picture in _pictures(preparation, n_channels):
        try:
            made = processor(images=[picture], return_tensors="np")["pixel_values"][0]
        except Exception as error:  # three means for a network of grey pictures
            raise ValueError(
                f"processor must take pictures of {n_channels} channels, as the "
                f"network does; {type(processor).__name__} raises {one_line(error)}"
            ) from error
        own = np.asarray(preparation.apply(picture), dtype=np.float64)
        own = own.reshape(*own.shape[:2], n_channels).transpose(2, 0, 1)
        theirs = np.asarray(made) * np.reshape(std, shape) + np.reshape(mean, shape)
        if theirs.shape != own.shape:
            return float("inf")
        levels = np.abs(255 * theirs - own)
        if levels.max() > _MOST or levels.mean() > _MEAN:
            return float(levels.max())
    return None


def _pictures(preparation: Preparation, n_channels: int) -> Iterator[Any]:
    """Make some: landscape, portrait, smaller than the input, with odd rests.

    The two ways of rounding differ where 3 pixels are to be cut off, and not by 1 or 2.

    Of noise around grey: where black and white are cut off, torch and Pillow do so at
    different stages of a resizing, which makes up to 20 levels.
    """
    pillow = require("PIL.Image", extra="vision")
    rng = np.random.default_rng(0)
    height, width = preparation.size
    side = preparation.resize
    whole = side if isinstance(side, int) else max(height, width)  # is not resized
    for rows, columns in (
        (int(1.3 * height) + 1, int(2.1 * width)),
        (int(1.9 * height), int(1.2 * width) + 1),
        (height // 2 + 1, width // 3 + 1),
        (whole, width + 3 + 4 * whole),
        (height + 3 + 4 * whole, whole),
    ):
        noise: npt.NDArray[np.uint8]
        noise = rng.integers(88, 168, (rows, columns, n_channels), np.uint8)
        yield pillow.fromarray(noise.squeeze(-1) if n_channels == 1 else noise)
