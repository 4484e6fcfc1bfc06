#!/usr/bin/env bash
# onnx2torch 1.5.15 and torch 2.14: of small networks that flatten, view or average what a
# convolution gives, torch.onnx.export writes files that onnx2torch refuses, by its default
# exporter all of them. Their operations are of version 20 of ONNX; of Constant, Shape,
# Reshape and ReduceMean the converter knows earlier versions alone. onnx.version_converter
# (of the onnx package itself) writes them in version 17, and that is not enough: since
# torch marks every view with allowzero=1, which onnx2torch refuses whatever the sizes
# are. Without the mark, which matters to tensors without values alone, all are read, and
# compute what the network does.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.14.1, onnx 1.23.2, onnxscript 0.7.2:
#
#   x.flatten(1), by default: refused; in version 17: refused; unmarked: read
#   x.flatten(1), dynamo=False: read; in version 17: read; unmarked: read
#   x.view(-1, 144), by default: refused; in version 17: refused; unmarked: read
#   x.view(-1, 144), dynamo=False: refused; in version 17: read; unmarked: read
#   x.view(len(x), -1), by default: refused; in version 17: refused; unmarked: read
#   x.view(len(x), -1), dynamo=False: refused; in version 17: read; unmarked: read
#   x.mean((2, 3)), by default: refused; in version 17: read; unmarked: read
#   x.mean((2, 3)), dynamo=False: refused; in version 17: read; unmarked: read

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 \
    onnxscript==0.7.2 onnx2torch==1.5.15
export OMP_NUM_THREADS=1
cd "$work"
venv/bin/python - <<'PYTHON'
import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import onnx
import onnx2torch
import torch
from onnx.version_converter import convert_version
from torch import nn


class Network(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.convolution, self.rows = nn.Conv2d(1, 4, 3), rows
        self.linear = nn.Linear(rows(torch.zeros(1, 4, 6, 6)).shape[1], 5)
        self.eval()

    def forward(self, x):
        return self.linear(self.rows(self.convolution(x).relu()))


networks = {
    "x.flatten(1)": lambda x: x.flatten(1),
    "x.view(-1, 144)": lambda x: x.view(-1, 144),
    "x.view(len(x), -1)": lambda x: x.view(x.size(0), -1),
    "x.mean((2, 3))": lambda x: x.mean((2, 3)),
}
exporters = {
    "by default": {"dynamic_shapes": ({0: "n"},), "external_data": False},
    "dynamo=False": {
        "dynamo": False,
        "dynamic_axes": {"x": {0: "n"}},
        "input_names": ["x"],
    },
}


def unmarked(model):
    for node in model.graph.node:
        kept = [each for each in node.attribute if each.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    return model


def said(model, network, images):
    try:
        read = onnx2torch.convert(model)
    except NotImplementedError:
        return "refused"
    torch.testing.assert_close(read(images), network(images))
    return "read"


images, seen = torch.rand(3, 1, 8, 8), {}
for name, rows in networks.items():
    torch.manual_seed(0)
    network = Network(rows)
    for exporter, settings in exporters.items():
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            torch.onnx.export(network, (images[:2],), "network.onnx", **settings)
        model = onnx.load("network.onnx")
        assert [of.version for of in model.opset_import if not of.domain] == [20]
        older = convert_version(model, 17)
        found = said(model, network, images), said(older, network, images)
        seen[name, exporter] = *found, said(unmarked(older), network, images)
        print(
            f"{name}, {exporter}: {found[0]}; in version 17: {found[1]}; unmarked: "
            + seen[name, exporter][2]
        )
refused, helped, fine = (
    ("refused", "refused", "read"),
    ("refused", "read", "read"),
    ("read", "read", "read"),
)
assert list(seen.values()) == [refused, fine, *[refused, helped] * 2, helped, helped]
PYTHON
