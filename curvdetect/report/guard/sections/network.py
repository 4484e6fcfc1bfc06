"""The guarded network, and its companion: which they are, to the last weight."""

from __future__ import annotations

from typing import Any, NamedTuple

from curvdetect.network import TorchModel
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import figure

__all__ = ["TITLE", "build"]

TITLE = "The network"
#: Names of classes that are written out.
_N_NAMES = 20


class _Network(NamedTuple):
    """A network and the rows of its table."""

    caption: str
    rows: list[tuple[str, str]]


def build(facts: Facts) -> dict[str, Any]:
    """Return the rows of a table for each network."""
    networks = [
        _Network("The guarded network", _rows(facts.model, facts.origin.network))
    ]
    detector = facts.guard.detector_
    companion = getattr(detector, "companion_", None)
    if companion is not None:
        rows = _rows(companion.model, facts.origin.companion)
        passes = f"{figure(detector.passes_)} FE (1 is one of the guarded network)"
        networks.append(_Network("Its companion", [*rows, ("A forward pass", passes)]))
    return {"networks": networks}


def _rows(model: TorchModel, source: str) -> list[tuple[str, str]]:
    shape = tuple(model.input_shape or ())
    n_parameters = sum(each.numel() for each in model.module.parameters())
    rows = [
        ("Module", type(model.module).__name__),
        ("Made by", source or "not said"),
        ("Input", _input(shape, model.bounds)),
        ("Normalisation", _normalisation(model)),
        ("Classes", _classes(model)),
        ("Parameters", f"{n_parameters:,} numbers"),
        ("Fingerprint of the weights", model.weights_digest()),
    ]
    return rows


def _input(shape: tuple[int, ...], bounds: tuple[float, float] | None) -> str:
    sides = " x ".join(map(str, shape))
    what = " (channels x height x width)" if len(shape) == 3 else ""
    values = "any values"
    if bounds is not None:
        values = f"values from {bounds[0]:g} to {bounds[1]:g}, the input units"
    return f"{sides}{what}; {values}"


def _normalisation(model: TorchModel) -> str:
    if model.mean is None and model.std is None:
        return "none"
    return f"mean {_listed(model.mean)}, standard deviation {_listed(model.std)}"


def _listed(values: Any) -> str:
    if values is None:
        return "not given"
    try:
        return ", ".join(f"{float(value):g}" for value in values)
    except TypeError:  # one number
        return f"{float(values):g}"


def _classes(model: TorchModel) -> str:
    names = model.class_names
    if names is None:
        return f"{model.n_classes}, without names"
    more = len(names) - _N_NAMES
    shown = ", ".join(names[:_N_NAMES]) + (f" and {more:,} more" if more > 0 else "")
    return f"{len(names):,}: {shown}"
