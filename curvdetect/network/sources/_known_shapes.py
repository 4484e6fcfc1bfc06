"""Networks of ONNX files that torch can export: their shapes do not hang on values."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter, Node

__all__ = ["with_known_shapes"]

#: What onnx2torch calls operations that make of their input what has a certain shape.
_BY_SHAPE: dict[str, Callable[..., Tensor]] = {
    "OnnxReshape": torch.reshape,
    "OnnxSqueezeDynamicAxes": torch.reshape,
    "OnnxUnsqueezeDynamicAxes": torch.reshape,
    "OnnxExpand": torch.broadcast_to,
    "OnnxConstantOfShape": torch.broadcast_to,  # of a value of its own
}
#: The others that are told numbers.
_TOLD = (*_BY_SHAPE, "OnnxSlice", "OnnxTile", "OnnxRange")
#: How many images networks are given: the first are grey, the others noise. Of the last
#: there are many, because a part of few may be none.
_N_IMAGES = (2, 2, 3, 1, 17)

#: What ONNX says for the end of an axis of any size, in 32 bits.
_TO_THE_END = 2**31 - 1

#: A number that is a + b n for n images, as a and b.
Linear = tuple[int, int]
#: What a graph is told: a number, or what computes it from the number of images.
Number = int | Node


def with_known_shapes(module: nn.Module, one: Tensor) -> nn.Module:
    """Return a network that knows the shapes it makes before it sees an image.

    onnx2torch works out the sizes of ``Reshape``, ``Expand`` or ``Slice`` from tensors
    when it runs, and torch traces no program through the values of tensors. Here they
    are numbers, or a + b n for n images: what they are for several numbers of images,
    whose pixels differ. Those that may hang on pixels stay as they are.

    Parameters
    ----------
    module : torch.nn.Module
        Any; one without such an operation is returned as it is. Left as it is.
    one : Tensor of shape (1, *input_shape)
        An image, where the network is.

    Returns
    -------
    torch.nn.Module
        With the very weights.
    """
    graphs = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, GraphModule)
        and any(type(each).__name__ in _TOLD for each in part.children())
    ]
    if not graphs:
        return module
    first, *others = _N_IMAGES
    sets = [torch.cat([one] * first), *(_noise(one, n) for n in others)]
    given = [_given(module, images) for images in sets]
    for name, part in graphs:
        inputs = [x for x in (each.get(part) for each in given) if x is not None]
        if [x.shape[:1] for x in inputs] == [(n,) for n in _N_IMAGES]:  # all images
            path = name.split(".") if name else []
            module = _replaced(module, path, _rewritten(part, inputs))
    return module


def _noise(one: Tensor, n: int) -> Tensor:
    """Return images, and leave torch's own random numbers alone."""
    noise = torch.Generator().manual_seed(n)
    return torch.rand((n, *one.shape[1:]), generator=noise).to(one)


def _given(module: nn.Module, images: Tensor) -> dict[nn.Module, Tensor | None]:
    """Run a network; return what each graph was given, None where shapes varied."""
    found: dict[nn.Module, Tensor | None] = {}

    def note(part: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0] if len(args) == 1 and isinstance(args[0], Tensor) else None
        before = found.get(part, x)
        same = x is not None and before is not None and before.shape == x.shape
        found[part] = x if same else None

    with ExitStack() as hooks, torch.no_grad():
        for part in module.modules():
            if isinstance(part, GraphModule):
                hooks.callback(part.register_forward_pre_hook(note).remove)
        module(images)
    return found


# What there is on the way ----------------------------------------------------------


class _Run(Interpreter):
    """A graph as it runs: it keeps the shapes of all nodes, and the values of some."""

    def __init__(self, part: GraphModule, numbers: set[Node]) -> None:
        super().__init__(part)
        self.numbers = numbers
        self.shapes: dict[Node, Sequence[int]] = {}
        self.values: dict[Node, Sequence[int]] = {}

    def run_node(self, n: Node) -> Any:
        """Run a node."""
        made = super().run_node(n)
        if isinstance(made, Tensor):
            self.shapes[n] = made.shape
            if n in self.numbers:
                self.values[n] = made.flatten().tolist()
        return made


def _linear(found: Sequence[Sequence[int]]) -> list[Linear] | None:
    """Return what numbers are of the number of images; None if they are not linear."""
    if len({len(each) for each in found}) != 1:
        return None
    numbers = []
    for values in zip(*found, strict=True):
        at = dict(zip(_N_IMAGES, values, strict=True))
        b = at[3] - at[2]
        a = at[2] - 2 * b
        if any(x != a + b * n for x, n in zip(values, _N_IMAGES, strict=True)):
            return None
        numbers.append((a, b))
    return numbers


def _kind(part: GraphModule, node: Node) -> str:
    """Return what onnx2torch calls the operation of a node."""
    called = node.op == "call_module"
    return type(part.get_submodule(str(node.target))).__name__ if called else ""


def _numbers(part: GraphModule, node: Node) -> dict[str, Node]:
    """Return what tells an operation its numbers, by name."""
    names = inspect.signature(part.get_submodule(str(node.target)).forward).parameters
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | node.kwargs
    return {name: of for name, of in given.items() if name != "input_tensor"}


def _of_shapes(part: GraphModule) -> set[Node]:
    """Return the nodes that hang on no pixel: on shapes alone, or on nothing."""
    found: set[Node] = set()
    for node in part.graph.nodes:
        computed = node.op in ("call_module", "call_function", "get_attr")
        known = computed and found.issuperset(node.all_input_nodes)
        if known or _kind(part, node) == "OnnxShape":
            found.add(node)
    return found


# Graphs ----------------------------------------------------------------------------


def _rewritten(part: GraphModule, inputs: list[Tensor]) -> GraphModule:
    """Return a graph whose operations are told numbers."""
    copied = Graph()
    copied.output(copied.graph_copy(part.graph, {}))
    made = GraphModule(part, copied)
    made.training, graph = part.training, made.graph
    pairs = list(zip(part.graph.nodes, graph.nodes, strict=True))
    told = {
        node: _numbers(part, node)
        for node in part.graph.nodes
        if _kind(part, node) in _TOLD
    }
    runs = [_Run(part, {of for each in told.values() for of in each.values()})]
    runs += [_Run(part, runs[0].numbers) for _ in inputs[1:]]
    with torch.no_grad():
        for run, x in zip(runs, inputs, strict=True):
            run.run(x)
    n_images, no_pixels = _number_of_images(graph), _of_shapes(part)
    for node, copy in pairs:
        if node not in told or not no_pixels.issuperset(told[node].values()):
            continue
        shape = _linear([run.shapes[node] for run in runs])
        numbers = {
            name: _linear([run.values[of] for run in runs])
            for name, of in told[node].items()
        }
        with graph.inserting_before(copy):
            now = _told(copy, _kind(part, node), shape, numbers, n_images)
        if now is not None:
            copy.replace_all_uses_with(now)
    graph.eliminate_dead_code()
    made.recompile()
    return made


def _told(
    node: Node,
    kind: str,
    shape: list[Linear] | None,
    numbers: dict[str, list[Linear] | None],
    n_images: Node,
) -> Any:
    """Add what does the same and is told numbers; None where some are not known."""
    graph = node.graph
    told: dict[str, list[Number]] = {}
    for name, of in ({"shape": shape} if kind in _BY_SHAPE else numbers).items():
        if of is None:
            return None
        told[name] = [_number(graph, n_images, each) for each in of]
    if kind == "OnnxSlice":
        return _slice(node, **told)
    if kind == "OnnxRange":
        return _range(n_images, [number for (number,) in told.values()])
    x, (sizes,) = node.args[0], told.values()
    if kind == "OnnxConstantOfShape":
        value = graph.get_attr(f"{node.target}.value")
        x = graph.call_function(torch.reshape, (value, ()))
    return graph.call_function(_BY_SHAPE.get(kind, torch.tile), (x, tuple(sizes)))


def _number(graph: Graph, n_images: Node, linear: Linear) -> Number:
    a, b = linear
    if not b:
        return a
    multiple = graph.call_function(operator.mul, (n_images, b))
    return graph.call_function(operator.add, (multiple, a)) if a else multiple


def _slice(
    node: Node,
    starts: list[Number],
    ends: list[Number],
    axes: list[Number] | None = None,
    steps: list[Number] | None = None,
) -> Any:
    """Add what takes a part of a tensor; backwards, of the tensor turned round."""
    graph, x = node.graph, node.args[0]
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = (start, end, step)
        if isinstance(step, Node) or step < 0:
            numbers = [each for each in taken if isinstance(each, int)]
            if len(numbers) < 3:
                return None
            x = graph.call_function(torch.flip, (x, [axis]))
            taken = (~numbers[0], ~numbers[1], -numbers[2])
        start, end, step = taken
        to_the_end = isinstance(end, int) and end >= _TO_THE_END
        until = None if to_the_end else end  # torch would ask for fewer images
        part = (x, axis, start, until, step)
        x = graph.call_function(torch.ops.aten.slice.Tensor, part)
    return x


def _range(n_images: Node, numbers: list[Number]) -> Node | None:
    """Add whole numbers from one to another, where the images are."""
    if any(isinstance(each, float) for each in numbers):
        return None
    graph, images = n_images.graph, n_images.all_input_nodes[0].args[0]
    device = graph.call_function(getattr, (images, "device"))
    return graph.call_function(torch.arange, tuple(numbers), {"device": device})


def _number_of_images(graph: Graph) -> Node:
    """Add to a graph what asks for it."""
    images = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(images):
        shape = graph.call_function(getattr, (images, "shape"))
    with graph.inserting_after(shape):
        return graph.call_function(operator.getitem, (shape, 0))


def _replaced(module: nn.Module, path: list[str], part: nn.Module) -> nn.Module:
    """Return a module with another part; what is not on the way to it is shared."""
    if not path:
        return part
    made = object.__new__(type(module))  # not copy(): that is a pickle's
    vars(made).update(vars(module))
    first, *rest = path
    parts = module._modules
    old = parts[first]
    assert old is not None
    made.__dict__["_modules"] = {**parts, first: _replaced(old, rest, part)}
    return made
