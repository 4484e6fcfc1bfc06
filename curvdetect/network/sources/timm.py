"""Networks of timm: shape, normalisation and preparation of their configurations."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from curvdetect._base.extras import require
from curvdetect._base.messages import one_line
from curvdetect.network.preparation import Preparation

__all__ = ["of_timm", "settings_of_config"]


def of_timm(
    name: str | nn.Module,
    *,
    pretrained: bool = True,
    input_shape: Sequence[int] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network of timm, and its settings.

    Parameters
    ----------
    name, pretrained, input_shape
        As in :meth:`curvdetect.TorchModel.from_timm`.

    Returns
    -------
    tuple of torch.nn.Module and dict
        In eval mode; the settings of a ``TorchModel``.
    """
    timm = require("timm", extra="timm")
    module = name if isinstance(name, nn.Module) else _made(timm, name, pretrained)
    if not isinstance(getattr(module, "pretrained_cfg", None), Mapping):
        raise ValueError(
            "name must be a network of timm, by its name or as timm.create_model "
            f"returned it; got a {type(module).__name__}"
        )
    if getattr(module, "num_classes", None) == 0:
        raise ValueError(
            "name must be that of a classifier; this network of timm gives features, "
            f"no logits (num_classes=0); got {name!s:.60}"
        )
    size = tuple(input_shape or ())
    wanted = {"input_size": size} if len(size) == 3 else {}
    data = require("timm.data", extra="timm")
    config = data.resolve_data_config(wanted, model=module)
    return module.eval(), {
        **settings_of_config(config),
        "class_names": _class_names(module),
    }


def settings_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a data configuration of timm stands for."""
    channels, *size = config["input_size"]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    scaled = [math.floor(length / config["crop_pct"]) for length in size]
    crop = config["crop_mode"]
    proportional = crop == "center" and scaled[0] == scaled[1]
    preparation = Preparation(
        size=(size[0], size[1]),
        resize=scaled[0] if proportional else (scaled[0], scaled[1]),
        interpolation=config["interpolation"],
        crop=crop,
        fill=tuple(round(255 * value) for value in mean) if crop == "border" else 0,
    )
    return {
        "input_shape": (channels, *size),
        "mean": mean,
        "std": std,
        "preparation": preparation,
    }


def _made(timm: Any, name: str, pretrained: bool) -> nn.Module:
    at_home = ":" not in name and not name.startswith(("/", "."))  # no hub, no folder
    if at_home and not timm.is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=5) or [
            "see timm.list_models()"
        ]
        raise ValueError(
            f"name must be that of a network of timm, such as {', '.join(close)}; got "
            f"{name!r}"
        )
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # no such weights, or no way to them
        raise ValueError(
            f"timm cannot make {name!r} with pretrained={pretrained}: {one_line(error)}"
        ) from error
    return module


def _class_names(module: Any) -> tuple[str, ...] | None:
    """Return names where timm has one for each logit of the network it describes."""
    config = module.pretrained_cfg
    n_classes = getattr(module, "num_classes", None)
    if not n_classes or n_classes != config.get("num_classes"):
        return None
    names = config.get("label_names")
    if isinstance(names, Mapping):  # by index, as JSON has it
        names = [names[key] for key in sorted(names, key=int)]
    if names is None:
        data = require("timm.data", extra="timm")
        subset = data.infer_imagenet_subset(config)
        names = data.ImageNetInfo(subset).label_descriptions() if subset else ()
    return tuple(map(str, names)) if len(names) == n_classes else None
