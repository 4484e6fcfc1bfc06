#!/usr/bin/env bash
# onnx2torch 1.5.15 (the newest): it has a converter for Slice as it was before
# opset 10, when starts and ends were attributes, but registers it as version 9. ONNX has
# no such version (there are 1, 10, 11 and 13), and onnx2torch looks for the version in
# which an operation last changed: it is never found, and a valid file of opset 9 with a
# slice is refused. Of all versions that it registers, this one alone does not exist. In
# opset 10 of onnx.version_converter the file is read, and computes the same. The
# converter could not run either: its class sets _flip_dims and asks for flip_dims.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.14.1, onnx 1.23.2:
#
#   versions of operations that onnx2torch knows and ONNX never had: Slice 9
#   opset 9: Converter is not implemented (... operation_type='Slice', version=1)
#   opset 10: read; as onnx's reference: yes
#   the converter of version 9: 'OnnxSliceV9' object has no attribute 'flip_dims'

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 \
    onnx2torch==1.5.15
export OMP_NUM_THREADS=1
cd "$work"
venv/bin/python - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import numpy as np
import onnx
import torch
from onnx.helper import make_graph, make_model, make_node, make_opsetid
from onnx.helper import make_tensor_value_info as tensor
from onnx.reference import ReferenceEvaluator
from onnx.version_converter import convert_version
from onnx2torch import convert
from onnx2torch.node_converters import registry
from onnx2torch.node_converters.slice import OnnxSliceV9

had = {}
for schema in onnx.defs.get_all_schemas_with_history():
    had.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
never = [
    (each.operation_type, each.version)
    for each in registry._CONVERTER_REGISTRY
    if each.version not in had.get((each.domain, each.operation_type), {each.version})
]
print(
    "versions of operations that onnx2torch knows and ONNX never had:",
    ", ".join(f"{name} {version}" for name, version in never),
)

graph = make_graph(
    [make_node("Slice", ["x"], ["y"], axes=[1], starts=[1], ends=[3])],
    "network",
    [tensor("x", onnx.TensorProto.FLOAT, ["n", 4])],
    [tensor("y", onnx.TensorProto.FLOAT, ["n", 2])],
)
model = make_model(graph, opset_imports=[make_opsetid("", 9)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
try:
    convert(model)
    said = "read"
except NotImplementedError as error:
    said = str(error).replace("OperationDescription(domain='', ", "... ").rstrip(")")
print(f"opset 9: {said})")

images = np.random.default_rng(0).random((3, 4)).astype(np.float32)
expected = ReferenceEvaluator(model).run(None, {"x": images})[0]
found = convert(convert_version(model, 10))(torch.from_numpy(images)).numpy()
same = np.array_equal(found, expected)
print("opset 10: read; as onnx's reference:", "yes" if same else "no")

try:
    OnnxSliceV9(starts=[1], ends=[3], axes=None)(torch.from_numpy(images))
    runs = "runs"
except AttributeError as error:
    runs = str(error)
print(f"the converter of version 9: {runs}")
assert never == [("Slice", 9)]
assert "Slice" in said and "version=1" in said
assert same
assert "no attribute" in runs
PYTHON
