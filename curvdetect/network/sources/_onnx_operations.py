"""ONNX graphs in the operations that onnx2torch knows.

It knows few of the newest, in which torch.onnx.export writes today, not all of the
oldest, and not all that may be said of those it knows. Nothing here changes what a
network computes.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from curvdetect._base.extras import require

__all__ = ["converted"]

#: Versions of ONNX's operations to write a network in.
_VERSIONS = (18, 17, 16, 13)
#: Functions whose bodies take the square of a mean from a mean of squares: in single
#: precision, logits were wrong by 4e-4 where torch's own are by 2e-6.
_INEXACT = ("GroupNormalization", "MeanVarianceNormalization")


def converted(read: Any) -> nn.Module:
    """Convert a network; one in operations that are not known, by way of others.

    Parameters
    ----------
    read : onnx.ModelProto
        Of a file. Left as it is.

    Returns
    -------
    torch.nn.Module
        As onnx2torch makes it.

    Raises
    ------
    Exception
        What onnx2torch says of the network as it is, if no version helps.
    """
    convert = require("onnx2torch", extra="onnx").convert
    written_in = require("onnx.version_converter", extra="onnx").convert_version
    try:
        module: nn.Module = convert(_plain(read))
    except Exception:
        plain = _plain(_expanded(read))
        version = _version(plain)
        for other in (version, *_nearest(version)):
            try:
                module = convert(written_in(plain, other))
            except Exception:  # what was said first says more
                continue
            return module
        raise
    return module


def _version(model: Any) -> int:
    """Return the version of ONNX's operations that a network is in."""
    versions = (of.version for of in model.opset_import if not of.domain)
    return max(versions, default=1)


def _nearest(version: int) -> list[int]:
    """Return what else to write a network in, the nearest first: it changes least."""
    others = (each for each in _VERSIONS if each != version)
    return sorted(others, key=lambda each: abs(each - version))


def _expanded(read: Any) -> Any:
    """Return a network with the bodies of functions that onnx2torch does not know.

    ONNX says of some operations (Gelu, Mish, Swish) of which others they are made, and
    a file may bring functions of its own.
    """
    onnx = require("onnx", extra="onnx")
    inline = require("onnx.inliner", extra="onnx").inline_selected_functions
    functions = [(each.domain, each.name) for each in read.functions] + [
        (schema.domain, schema.name)
        for schema in onnx.defs.get_all_schemas()
        if (schema.has_function or schema.has_context_dependent_function)
        and not (schema.name in _INEXACT or _is_known(schema.name))
    ]
    called = {(node.domain, node.op_type) for node in read.graph.node}
    if called.isdisjoint(functions):
        return read
    return inline(read, functions, inline_schema_functions=True)


def _is_known(operation: str) -> bool:
    """Say whether onnx2torch knows an operation in the newest version to write in."""
    known = require("onnx2torch.node_converters", extra="onnx").get_converter
    try:
        known(operation, max(_VERSIONS))
    except NotImplementedError:
        return False
    return True


def _plain(read: Any) -> Any:
    """Return a copy without what onnx2torch stumbles over.

    Weights that are other weights by name get copies of their own; and a ``Reshape``
    with ``allowzero`` is as it would be without: a size of zero is one of no values.
    """
    made = type(read)()
    made.CopyFrom(read)
    graph = made.graph
    weights = {each.name: each for each in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Identity" and not node.domain and node.input[0] in weights:
            weight = graph.initializer.add()
            weight.CopyFrom(weights[node.input[0]])
            weight.name = node.output[0]
            weights[weight.name] = weight
            graph.node.remove(node)
        elif node.op_type == "Reshape" and not node.domain:
            kept = [each for each in node.attribute if each.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return made
