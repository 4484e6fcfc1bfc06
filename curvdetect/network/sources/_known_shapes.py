"""Networks of ONNX files that torch can export: their shapes do not hang on values."""

from __future__ import annotations

import operator
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

__all__ = ["with_known_shapes"]

#: What onnx2torch calls the operation.
_RESHAPE = "OnnxReshape"
#: By module: the shape that a reshape made, and the shape of what a graph was given.
Shapes = dict[nn.Module, torch.Size]


def with_known_shapes(module: nn.Module, one: Tensor) -> nn.Module:
    """Return a network that knows the shapes it makes before it sees an image.

    onnx2torch works out the sizes of a ``Reshape`` from a tensor when it runs, and
    torch traces no program through the values of tensors. Here they are numbers, and
    multiples of the number of images: what they are for two images and for three.

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
        if isinstance(part, GraphModule) and any(map(_is_reshape, part.children()))
    ]
    if not graphs:
        return module
    two, three = (_shapes(module, torch.cat([one] * n)) for n in (2, 3))
    for name, part in graphs:
        if two[part][:1] + three[part][:1] == (2, 3):  # it is given all images
            path = name.split(".") if name else []
            module = _replaced(module, path, _rewritten(part, two, three))
    return module


def _is_reshape(part: nn.Module) -> bool:
    return type(part).__name__ == _RESHAPE


def _shapes(module: nn.Module, images: Tensor) -> Shapes:
    """Run a network; return which shapes there were on the way."""
    found: Shapes = {}

    def given(part: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[part] = args[0].shape

    def made(part: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found[part] = output.shape

    with ExitStack() as hooks, torch.no_grad():
        for part in module.modules():
            if _is_reshape(part):
                hooks.callback(part.register_forward_hook(made).remove)
            elif isinstance(part, GraphModule):
                hooks.callback(part.register_forward_pre_hook(given).remove)
        module(images)
    return found


def _rewritten(part: GraphModule, two: Shapes, three: Shapes) -> GraphModule:
    """Return a graph whose reshapes are given numbers."""
    copied = Graph()
    copied.output(copied.graph_copy(part.graph, {}))
    made = GraphModule(part, copied)
    made.training, graph = part.training, made.graph
    n_images = _number_of_images(graph)
    for node in graph.nodes:
        called = node.op == "call_module" and part.get_submodule(str(node.target))
        if not called or not _is_reshape(called):
            continue
        pairs = list(zip(two[called], three[called], strict=True))
        if all(a == b or 3 * a == 2 * b for a, b in pairs):
            with graph.inserting_before(node):
                times = partial(graph.call_function, operator.mul)
                shape = [a if a == b else times((n_images, a // 2)) for a, b in pairs]
            node.op, node.target = "call_function", torch.reshape
            node.args, node.kwargs = (node.args[0], tuple(shape)), {}
    graph.eliminate_dead_code()
    made.recompile()
    return made


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
