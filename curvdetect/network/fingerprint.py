"""A digest of a network: its weights, buffers, code and settings.

The same in every copy and process, another for whatever could give other logits. What
cannot be taken into it is an error that names the place: joblib's hash passes over some
of that in silence (an OrderedDict with a lock in it hashes as an empty one), and two
networks would share a cache.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterable, Mapping
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["changed_by", "fingerprint", "weights_digest", "weights_token"]

#: What torch keeps in a module besides what users put there. Hooks are read by
#: themselves: they are code, but their numbers are counted from the process's start.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_HELD = ("_parameters", "_buffers", "_modules")
_INNER = {
    *vars(nn.Module()),
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_compiled_call_impl",
    "_compiler_config",
}
_MANGLED = re.compile(r"___torch_mangle_\d+\.")
#: Of what is hashed: some seconds.
_MOST_PIECES = 1_000_000
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype)


def fingerprint(
    module: nn.Module, *, without: Mapping[str, set[str]] | None = None
) -> str:
    """Return a digest of a network.

    Parameters
    ----------
    module : torch.nn.Module
        The network. Its mode, the devices of its weights and ``requires_grad`` do not
        count.
    without : mapping of str to set of str, optional
        For names of submodules, attributes that do not count: what a call leaves
        behind, see :func:`changed_by`.

    Returns
    -------
    str
        Hexadecimal.

    Raises
    ------
    PicklingError
        If something in it cannot be hashed; the message names it.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.network.fingerprint import fingerprint
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    >>> before = fingerprint(net)
    >>> _ = net[0].weight.data.add_(1)
    >>> fingerprint(net) == before
    False
    """
    digest = _Digest(without or {})
    digest.add(module, type(module).__name__)
    return digest.hexdigest()


def weights_digest(
    module: nn.Module, *, without: Mapping[str, set[str]] | None = None
) -> str:
    """Return a digest of the weights and buffers of a network alone, by their names.

    Parameters
    ----------
    module, without
        As in :func:`fingerprint`.

    Returns
    -------
    str
        Hexadecimal; the same for the same values in another number format.
    """
    without = without or {}
    digest = _Digest({})
    for name, tensor in module.state_dict().items():
        path, _, last = name.rpartition(".")
        if last not in without.get(path, set()) and isinstance(tensor, Tensor):
            exact = tensor.double() if tensor.is_floating_point() else tensor
            digest.add((name, exact), name)
    return digest.hexdigest()


def weights_token(module: nn.Module) -> object:
    """Return what changes when weights do: quick to ask, and of this process alone."""
    tensors = [*module.parameters(), *module.buffers()]
    places = tuple((t.data_ptr(), t._version, t.dtype) for t in tensors)
    # A change of ``weight.data`` counts up no version.
    sums = [t.detach().sum(dtype=torch.float64) for t in tensors if not t.is_complex()]
    return places, float(torch.stack(sums).sum()) if sums else 0.0


def changed_by(module: nn.Module, call: Callable[[], object]) -> dict[str, set[str]]:
    """Return which attributes of a network a call of it changes, sets or deletes.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    call : callable
        Calls it.

    Returns
    -------
    dict of str to set of str
        By the name of the submodule.
    """
    before = _attributes(module)
    call()
    after = _attributes(module)
    changed: dict[str, set[str]] = {}
    for path, name in before.keys() | after.keys():
        old, new = before.get((path, name)), after.get((path, name))
        if old is None or new is None or old[1] != new[1] or _another(old[0], new[0]):
            changed.setdefault(path, set()).add(name)
    return changed


def _another(old: Any, new: Any) -> bool:
    """Return whether something was put in the place of an equal one."""
    return old is not new and not isinstance(old, _PLAIN)


def _attributes(module: nn.Module) -> dict[tuple[str, str], tuple[Any, object]]:
    """Return each attribute and buffer of each submodule, with its digest."""
    found: dict[tuple[str, str], tuple[Any, object]] = {}
    for path, part in module.named_modules():
        for name, value in (*_own(part), *part._buffers.items()):
            digest = _Digest({})
            try:
                digest.add(value, name)
                found[path, name] = value, digest.hexdigest()
            except PicklingError:
                found[path, name] = value, id(value)
    return found


def _own(module: nn.Module) -> list[tuple[str, Any]]:
    """Return what users put into a module, less parameters, buffers and submodules.

    Of a graph only tensors: what else it holds is its code in another form, nodes that
    all know each other, and would take hours.
    """
    graph = isinstance(module, torch.fx.GraphModule)
    return sorted(
        (name, value)
        for name, value in vars(module).items()
        if name not in _INNER and (isinstance(value, Tensor) or not graph)
    )


class _Digest:
    """Hashes values of many kinds, each with its kind, so that none is another's."""

    def __init__(self, without: Mapping[str, set[str]]) -> None:
        self._hash = hashlib.blake2b(digest_size=20)
        self._without = without
        self._called: dict[int, tuple[types.FunctionType, str]] = {}
        self._open: list[int] = []  # what is being hashed: a circle comes back to it
        self._left = _MOST_PIECES

    def hexdigest(self) -> str:
        self._functions_called()
        return self._hash.hexdigest()

    def _functions_called(self) -> None:
        """Hash each function that was called by its name, once, however often it was.

        Where each call stands, the methods of a network of transformers came to 31,000.
        """
        done: set[int] = set()
        while pending := self._called.keys() - done:
            done |= pending
            self._unordered((self._function, *self._called[key]) for key in pending)

    def _write(self, kind: str, *parts: object) -> None:
        for part in (kind, *parts):
            data = part if isinstance(part, bytes) else repr(part).encode()
            self._hash.update(len(data).to_bytes(8, "little"))
            self._hash.update(data)

    def add(self, value: Any, path: str) -> None:
        """Hash anything; `path` says where it is."""
        if isinstance(value, _PLAIN):
            self._write("plain", type(value).__name__, value)
            return
        if isinstance(value, _NAMED):
            self._write("named", str(value))
            return
        self._left -= 1
        if self._left < 0:
            raise PicklingError(
                f"{path} is part of something with over {_MOST_PIECES:,} pieces, each "
                "counted as often as others refer to it: too entangled to be hashed. "
                "Leave it out of the network, or give its class a __reduce__"
            )
        if id(value) in self._open:
            self._write("circle", len(self._open) - self._open.index(id(value)))
            return
        self._open.append(id(value))
        try:
            self._add(value, path)
        finally:
            self._open.pop()

    def _add(self, value: Any, path: str) -> None:
        if isinstance(value, nn.Module):
            self._module(value, path)
        elif isinstance(value, Tensor):
            self._tensor(value, path)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._write("array", str(value.dtype), value.shape, value.tobytes())
        elif isinstance(value, dict):
            self._write("dict", _name(type(value)), len(value))
            self._unordered((self._pair, item, path) for item in value.items())
        elif isinstance(value, set | frozenset):
            self._write("set", _name(type(value)), len(value))
            self._unordered((self.add, held, path) for held in value)
        elif type(value) in (list, tuple, torch.Size):
            self._write("sequence", _name(type(value)), len(value))
            for position, held in enumerate(value):
                self.add(held, f"{path}[{position}]")
        elif isinstance(value, enum.Enum):
            self._write("enum", _name(type(value)), value.name)
        elif isinstance(value, type):
            self._class(value, path)
        elif isinstance(value, types.FunctionType):
            self._function(value, path)
        elif isinstance(value, types.MethodType):
            self.add((value.__func__, value.__self__), path)
        elif isinstance(value, functools.partial):
            self.add((value.func, value.args, value.keywords), path)
        elif isinstance(value, contextlib._GeneratorContextManagerBase):
            # A decorator, which is begun anew in every call, by these.
            self.add((value.func, value.args, value.kwds), path)
        elif isinstance(value, types.BuiltinFunctionType | types.ModuleType):
            self._write("builtin", getattr(value, "__module__", ""), value.__name__)
        else:
            self._reduced(value, path)

    def _pair(self, item: tuple[Any, Any], path: str) -> None:
        key, held = item
        self.add(key, path)
        self.add(held, f"{path}[{key!r}]")

    def _unordered(self, parts: Iterable[tuple[Callable[..., None], Any, str]]) -> None:
        """Hash each part alone, then all in the order of what they hash to."""
        digests = []
        for add, held, path in parts:
            whole, self._hash = self._hash, hashlib.blake2b(digest_size=20)
            try:
                add(held, path)
                digests.append(self._hash.digest())
            finally:
                self._hash = whole
        self._write("unordered", *sorted(digests))

    # Networks ---------------------------------------------------------------

    def _module(self, module: nn.Module, path: str) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            self._script(module, path)
            return
        left_out = self._without.get(path.partition(".")[2], set())
        if isinstance(module, torch.fx.GraphModule):  # its class is made for it alone
            self._write("graph", module.code)
        else:
            self._class(type(module), path)
        for name in (name for name, _ in _own(module) if name not in left_out):
            self._write("attribute", name)
            self.add(vars(module)[name], f"{path}.{name}")
        for held in _HELD:
            for name, value in vars(module)[held].items():
                if name not in left_out:
                    self._write(held, name)
                    self.add(value, f"{path}.{name}")
        for kind in _HOOKS:
            for hook in vars(module)[kind].values():
                self._write(kind)
                self.add(hook, f"{path}.{kind}")

    def _script(self, module: torch.jit.ScriptModule, path: str) -> None:
        """Hash a program, and what a frozen one holds instead of weights."""
        graph: Any = module.inlined_graph
        # Without paths of files, and numbers that are counted from the process's start.
        self._write("script", _MANGLED.sub("", graph.str(False)))
        for node in graph.findAllNodes("prim::Constant"):
            if isinstance(constant := node.output().toIValue(), Tensor):
                self.add(constant, path)
        self.add(dict(module.state_dict()), path)

    def _tensor(self, tensor: Tensor, path: str) -> None:
        if is_lazy(tensor) or (tensor.is_meta and _is_plain(tensor)):
            raise PicklingError(
                f"{path} has no values yet (a lazy layer, or one on the meta device); "
                "load its weights, and call it once, before it is measured"
            )
        plain = tensor.detach().cpu()
        if plain.layout != torch.strided or plain.is_quantized:
            plain = plain.to_dense() if not plain.is_quantized else plain.dequantize()
        plain = plain.contiguous().reshape(-1).view(torch.uint8)
        self._write("tensor", str(tensor.dtype), tuple(tensor.shape))
        self._write("values", plain.numpy().tobytes())

    # Code -------------------------------------------------------------------

    def _class(self, cls: type, path: str) -> None:
        """Hash a class by its name and, where it is not torch's, by its code."""
        self._write("class", _name(cls))
        for base in cls.__mro__:
            if base is object or base.__module__.partition(".")[0] in _KNOWN:
                continue
            self._write("base", _name(base))
            for name, value in sorted(vars(base).items()):
                value = getattr(value, "__func__", value)
                if isinstance(value, property):
                    value = value.fget
                if isinstance(value, types.FunctionType):
                    self._write("method", name)
                    self._function(value, f"{path}.{name}")

    def _function(self, function: types.FunctionType, path: str) -> None:
        self._write("function", function.__module__, function.__qualname__)
        # functools.wraps gives a decorator of anybody's the module of what it wraps.
        modules = function.__module__, function.__globals__.get("__name__", "")
        if all(module.partition(".")[0] in _KNOWN for module in modules):
            return
        self._code(function.__code__)
        for cell in function.__closure__ or ():
            if getattr(cell, "cell_contents", None) is not function:
                self.add(cell.cell_contents, path)
        self.add(function.__defaults__, path)
        self.add(function.__kwdefaults__, path)
        # Functions of the same package that it calls: half of a network may be there.
        package = function.__module__.partition(".")[0]
        for name in function.__code__.co_names:
            called = function.__globals__.get(name)
            if (
                isinstance(called, types.FunctionType)
                and called.__module__.partition(".")[0] == package
            ):
                self._write("calls", called.__module__, called.__qualname__)
                self._called.setdefault(id(called), (called, f"{path}.{name}"))

    def _code(self, code: types.CodeType) -> None:
        self._write("code", code.co_code, code.co_names, code.co_varnames)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            else:
                self._write("constant", constant)

    # Anything else ----------------------------------------------------------

    def _reduced(self, value: Any, path: str) -> None:
        """Hash an object by what a pickle of it would hold."""
        try:
            parts = value.__reduce_ex__(4)
        except Exception as error:
            raise PicklingError(  # not a TypeError: joblib's hash passes over those
                f"{path} is a {type(value).__name__}, which cannot be hashed "
                f"({error}): caches and shards could not tell one network from "
                "another. Leave it out of the network, or give its class a __reduce__"
            ) from error
        if isinstance(parts, str):
            self._write("global", type(value).__module__, parts)
            return
        make, arguments, state, listed, mapped = (*parts, None, None, None)[:5]
        self._write("object", _name(type(value)))
        self.add(make, path)
        self.add(arguments, path)
        self.add(state, path)
        self.add(None if listed is None else list(listed), path)
        self.add(None if mapped is None else dict(mapped), path)


#: Packages whose code is known by its name: another version is another environment.
_KNOWN = {
    "builtins",
    "copyreg",
    "functools",
    "numpy",
    "onnx2torch",
    "timm",
    "torch",
    "torchvision",
    "transformers",
    "typing",
}


def _is_plain(tensor: Tensor) -> bool:
    """Say whether a tensor is torch's own: subclasses may hold values elsewhere."""
    return type(tensor) in (Tensor, nn.Parameter)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
