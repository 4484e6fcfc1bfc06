"""Weights from files: found in whatever they are wrapped in, or an error that says why.

A file is taken for a table of weights, with names such as
"state_dict.model.conv.weight", whether a part of a name is a key of the file or a
prefix that a wrapper gave. A network fits wherever its own names follow one prefix: at
one place, or it is an error.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from curvdetect._base.extras import require
from curvdetect._base.messages import one_line
from curvdetect._base.stand_ins import check_file

__all__ = ["load_weights"]

#: Parts of names that say how a network was run, and nothing of what it is.
_RUNNERS = {
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_orig_mod",
    "module",
}
#: What a class for training calls its network: what else it holds is for training.
_NETWORKS = ("model", "net", "network")
#: Counters that old files lack, or that averages of weights have besides.
_COUNTERS = ("n_averaged", "num_batches_tracked")
_ENOUGH = 5  # names in a message


class _Weight(NamedTuple):
    """A tensor in a file: the keys that lead to where it is, its name there, itself."""

    place: str
    name: str
    value: Any


def load_weights(
    module: nn.Module, path: str | Path, *, key: str | None = None
) -> None:
    """Give a network the weights of a file.

    Parameters
    ----------
    module : torch.nn.Module
        Gets them; as it was if they cannot be used.
    path : str or Path
        A state dict, or a checkpoint with one inside, of torch or of safetensors.
        Nothing in it is executed.
    key : str, optional
        Which of several, such as "state_dict_ema"; "a.b" for b within a, "" for what
        is at the top.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, nothing in it fits, or more than one thing does.
    ImportError
        If it is a file of safetensors, and that is not installed.
    """
    _check_values(module)
    weights = _chosen(module, _read(Path(path)), path, key)
    before = copy.deepcopy(module.state_dict())
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        module.load_state_dict(before)  # some may have been taken over by then
        raise ValueError(
            f"weights do not fit the network: {one_line(error)}"
        ) from error


# Reading ---------------------------------------------------------------


def _read(path: Path) -> Any:
    check_file("weights", path)
    if path.suffix == ".safetensors" or _is_safetensors(path):
        load = require("safetensors.torch", extra="safetensors").load_file
    else:
        load = _load_torch
    try:
        return load(path)
    except Exception as error:  # whatever a broken file makes of a reader
        reason = one_line(error)
        if "Unsupported global" in reason:
            reason = (
                "it holds more than weights. Save those alone, by torch.save("
                f"net.state_dict(), path). torch says: {reason}"
            )
        raise ValueError(f"weights: {path} cannot be read: {reason}") from error


def _load_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_safetensors(path: Path) -> bool:
    """Say whether a file begins as safetensors do: a length, and JSON as long."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        start = file.read(10)
    length = int.from_bytes(start[:8], "little")
    return start[8:10] == b'{"' and length < path.stat().st_size


# Finding ---------------------------------------------------------------


def _weights_in(held: Any, keys: tuple[str, ...] = ()) -> Iterator[_Weight]:
    """Find all tensors, but for those of optimisers, which are numbered."""
    if not isinstance(held, Mapping) or not all(isinstance(k, str) for k in held):
        return
    for name, value in held.items():
        if isinstance(value, Tensor) or name.endswith("_extra_state"):
            yield _Weight(".".join(keys), name, value)
        else:
            yield from _weights_in(value, (*keys, name))


class _Names:
    """The names of a network, and how they are compared with those of a file."""

    def __init__(self, module: nn.Module) -> None:
        names = list(module.state_dict())
        # A network may have parts of these names itself.
        self._strip = len({_without_runners(name) for name in names}) == len(names)
        self.own = {self.plain(name): name for name in names}
        self.needed = [name for name in self.own if not _counts(name)]

    def plain(self, name: str) -> str:
        return _without_runners(name) if self._strip else name

    def full(self, weight: _Weight) -> str:
        return self.plain(".".join(filter(None, (weight.place, weight.name))))

    def prefixes(self, table: Mapping[str, _Weight]) -> list[str]:
        """Return all prefixes under which the table has every name of the network."""
        if not self.needed:
            return []
        first = self.needed[0]
        ending = (name.removesuffix(first) for name in table if name.endswith(first))
        return [
            prefix
            for prefix in ending
            if (not prefix or prefix.endswith("."))
            and all(prefix + name in table for name in self.needed)
        ]


def _without_runners(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _RUNNERS)


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _chosen(
    module: nn.Module, held: Any, path: str | Path, key: str | None
) -> dict[str, Any]:
    """Return the weights in a file that are the network's, by its names."""
    names = _Names(module)
    table = _table(held, names, path)
    fitting = names.prefixes(table)
    if not fitting:
        raise ValueError(_why_not(names, table, path))
    if key is not None:
        fitting = _of_key(names.plain(key), fitting, path)
    if len(fitting) > 1:
        places = _places(fitting)
        raise ValueError(
            f"weights: {path} has more than one set of weights that fits the network, "
            f"{_quoted(places)}: choose by weights_key, such as "
            f"weights_key={places[0]!r}"
        )
    (prefix,) = fitting
    _check_surplus(prefix, names, table, path, chosen=key is not None)
    if key is None:
        _check_beside(prefix, names, table, path)
    return {
        own: table[prefix + name].value
        for name, own in names.own.items()
        if prefix + name in table
    }


def _table(held: Any, names: _Names, path: str | Path) -> dict[str, _Weight]:
    """Return all weights in a file by their names, keys and prefixes included."""
    table: dict[str, _Weight] = {}
    for weight in _weights_in(held):
        name = names.full(weight)
        if name in table:
            raise ValueError(
                f'weights: {path} has {name!r} twice, with and without "module." or '
                "the like"
            )
        table[name] = weight
    if not table:
        what = f"a {type(held).__name__}"
        if isinstance(held, Mapping) and held:
            what += f" of {_quoted([str(name) for name in held])}"
        raise ValueError(
            f"weights do not fit the network: {path} must hold a state dict; got {what}"
        )
    return table


def _of_key(key: str, fitting: list[str], path: str | Path) -> list[str]:
    """Return the prefix that a key means: itself, the end of it, or what is within."""
    exact = [p for p in fitting if p.removesuffix(".") == key]
    ending = [p for p in fitting if key and p.endswith(f".{key}.")]
    within = [p for p in fitting if key and p.startswith(f"{key}.")]
    found = exact or ending or within
    if not found:
        raise ValueError(
            "weights_key must lead to weights that fit the network; those of "
            f"{_quoted(_places(fitting))} in {path} do; got {key!r}"
        )
    return found


def _check_surplus(
    prefix: str,
    names: _Names,
    table: Mapping[str, _Weight],
    path: str | Path,
    *,
    chosen: bool,
) -> None:
    """Refuse weights for which the network has no place: it is another one."""
    place = table[prefix + names.needed[0]].place
    surplus = [
        name
        for name, weight in table.items()
        if name.startswith(prefix)
        and name.removeprefix(prefix) not in names.own
        and not _counts(name)
        and (weight.place == place or not chosen)
    ]
    if surplus:
        raise ValueError(
            f"weights do not fit the network: {path} has {_quoted(surplus)}, which it "
            "lacks"
        )


def _check_beside(
    prefix: str, names: _Names, table: Mapping[str, _Weight], path: str | Path
) -> None:
    """Refuse to take a part of a network for the whole unasked.

    What a class for training has beside its network is of no interest.
    """
    place = table[prefix + names.needed[0]].place
    part = prefix.removeprefix(names.plain(place)).strip(".").partition(".")[0]
    if not part or part in _NETWORKS:
        return
    beside = [
        name
        for name, weight in table.items()
        if weight.place == place and not name.startswith(prefix) and not _counts(name)
    ]
    if beside:
        key = prefix.removesuffix(".")
        raise ValueError(
            f"weights: {path} has weights beside {key!r}, which fits the network: "
            f"{_quoted(beside)}. If you want that part alone, choose it by "
            f"weights_key={key!r}"
        )


# Saying ----------------------------------------------------------------


def _places(prefixes: list[str]) -> list[str]:
    return [prefix.removesuffix(".") for prefix in prefixes]


def _quoted(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_ENOUGH]))
    more = len(names) - _ENOUGH
    return f"{shown} and {more} more" if more > 0 else shown


def _why_not(names: _Names, table: Mapping[str, _Weight], path: str | Path) -> str:
    """Say what is missing, and what is there, where the network comes nearest."""
    near = _nearest(names, table)
    lacking = [near + name for name in names.needed if near + name not in table]
    others = [
        name
        for name in table
        if name.startswith(near) and name.removeprefix(near) not in names.own
    ]
    said = f"{path} lacks {_quoted(lacking)}" if lacking else "it has no weights"
    also = f"; {path} has {_quoted(others)}" if others else ""
    return f"weights do not fit the network: {said}{also}"


def _nearest(names: _Names, table: Mapping[str, _Weight]) -> str:
    """Return the prefix under which most of the network's names are."""
    prefixes = {
        name.removesuffix(needed)
        for needed in names.needed
        for name in table
        if f".{name}".endswith(f".{needed}")
    }

    def n_found(prefix: str) -> int:
        return sum(prefix + name in table for name in names.needed)

    return max(sorted(prefixes), key=n_found, default="")


def _check_values(module: nn.Module) -> None:
    """Refuse a network that has the shapes of its weights, and no values."""
    empty = [
        name
        for name, held in module.state_dict().items()
        if isinstance(held, Tensor) and held.is_meta
    ]
    if empty:
        raise ValueError(
            "model must be made on a device that holds values; on the meta device "
            f"there is no place for weights ({_quoted(empty)})"
        )
