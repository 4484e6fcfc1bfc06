"""Classifiers of torchvision: what their weights say of them."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from curvdetect._base.extras import require
from curvdetect._base.messages import one_line
from curvdetect.network.preparation import Preparation

__all__ = ["of_torchvision", "settings_of_weights"]

#: How torchvision makes these two otherwise with weights than without.
_AS_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


def of_torchvision(name: Any, weights: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network of torchvision, and its settings.

    Parameters
    ----------
    name, weights
        As in :meth:`curvdetect.TorchModel.from_torchvision`.

    Returns
    -------
    tuple of torch.nn.Module and dict
        In eval mode; the settings of a ``TorchModel``.
    """
    models = require("torchvision.models", extra="vision")
    if isinstance(name, nn.Module):
        return name.eval(), settings_of_weights(_of_module(models, weights))
    described = name
    if isinstance(name, str) and "_Weights." in name:
        described = _weight(models, name)
    if isinstance(described, models.WeightsEnum):
        name = _builder(models, described)
    else:
        described = _described(models, name, weights)
    settings = settings_of_weights(described)  # before any download: it may refuse
    return _made(models, name, None if weights is None else described), settings


def _described(models: Any, name: str, weights: Any) -> Any:
    """Return the weights that say how a network is used."""
    try:
        known = models.get_model_weights(name)
    except ValueError as error:
        close = difflib.get_close_matches(str(name), models.list_models(), n=5) or [
            "see torchvision.models.list_models()"
        ]
        raise ValueError(
            f"name must be that of a network of torchvision, such as "
            f"{', '.join(close)}; got {name!r}"
        ) from error
    if isinstance(weights, known):
        return weights
    of, _, wanted = ("DEFAULT" if weights is None else str(weights)).rpartition(".")
    try:
        if of and of != known.__name__:
            raise KeyError(of)
        return known[wanted]
    except KeyError as error:
        raise ValueError(
            f"weights must be one of {[each.name for each in known]}, 'DEFAULT' or "
            f"None for {name}; got {weights!r}"
        ) from error


def _of_module(models: Any, weights: Any) -> Any:
    if isinstance(weights, models.WeightsEnum):
        return weights
    if "_Weights." in str(weights):
        return _weight(models, weights)
    raise ValueError(
        "weights must say which the module has, such as "
        f"ResNet50_Weights.IMAGENET1K_V2; got {weights!r}"
    )


def _weight(models: Any, name: str) -> Any:
    try:
        return models.get_weight(name)
    except ValueError as error:
        raise ValueError(
            f"weights must be some of torchvision's; got {name!r} ({one_line(error)})"
        ) from error


def _builder(models: Any, weights: Any) -> str:
    """Return the name of the network that some weights belong to."""
    for name in models.list_models():
        if models.get_model_weights(name) is type(weights):
            return str(name)
    raise ValueError(f"torchvision has no network for the weights {weights}")


def _made(models: Any, name: str, weights: Any) -> nn.Module:
    options = {} if weights is not None else _AS_WITH_WEIGHTS.get(name, {})
    try:
        module: nn.Module = models.get_model(name, weights=weights, **options)
    except Exception as error:  # no way to the weights
        raise ValueError(
            f"torchvision cannot make {name!r} with weights={weights}: "
            f"{one_line(error)}. Random ones need no download: weights=None"
        ) from error
    return module.eval()


def settings_of_weights(weights: Any) -> dict[str, Any]:
    """Return the settings that weights of a classifier stand for."""
    transforms = weights.transforms()
    if type(transforms).__name__ != "ImageClassification":
        raise ValueError(
            "name must be that of an image classifier; the transforms of "
            f"{weights} are {type(transforms).__name__}"
        )
    (side,), (resize,) = transforms.crop_size, transforms.resize_size
    return {
        "input_shape": (3, side, side),
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "class_names": weights.meta.get("categories"),
        "preparation": Preparation(
            size=(side, side),
            resize=resize,
            interpolation=transforms.interpolation.value,
        ),
    }
