"""ONNX graphs in the operations that onnx2torch knows.

It knows few of the newest, in which torch.onnx.export writes today, and not all that
may be said of those it knows. Nothing here changes what a network computes.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from curvdetect._base.extras import require

__all__ = ["converted"]

#: Versions of ONNX's operations to write a network in, the nearest first.
_OLDER = (18, 17, 16, 13)


def converted(read: Any) -> nn.Module:
    """Convert a network; one in newer operations than are known, by way of older.

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
    older = require("onnx.version_converter", extra="onnx").convert_version
    plain = _plain(read)
    try:
        module: nn.Module = convert(plain)
    except Exception:
        versions = [of.version for of in read.opset_import if not of.domain]
        for version in _OLDER:
            if version >= max(versions, default=0):
                continue
            try:
                module = convert(older(plain, version))
            except Exception:  # what was said first says more
                continue
            return module
        raise
    return module


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
