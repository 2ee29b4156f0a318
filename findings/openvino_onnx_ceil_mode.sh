#!/bin/sh
# openvino 2026.4.1 reading ONNX (onnx 1.23.2, CPU): two answers for pooling with `ceil_mode=1` that no other runtime gives.
# A MaxPool window that would start in the padding on the right is made all the same, and answers -3.4e38: the output has a
# cell more than the model declares. An AveragePool with `count_include_pad=1` divides the last window by its whole size,
# also where it reaches beyond the padding: 2 in place of 3. onnxruntime, onnx's own reference and torch agree on the other.
# Conversion says nothing, the checker accepts both models. Prints all answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "openvino==2026.4.1" "onnx==1.23.2" "onnxruntime==1.32.0" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" - "$home/net.onnx" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino as ov
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

print("openvino", ov.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def answers(kind, length, declared, **pooling):
    x = np.arange(1, length + 1, dtype=np.float32)[None, None]
    node = helper.make_node(kind, ["x"], ["y"], ceil_mode=1, pads=[1, 1], **pooling)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, s]) for n, s in (("x", length), ("y", declared))]
    graph = helper.make_graph([node], "pooling", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    program = ov.Core().compile_model(ov.convert_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {
        "onnxruntime": session.run(None, {"x": x})[0],
        "reference": ReferenceEvaluator(model).run(None, {"x": x})[0],
        "openvino": program([x])[0],
    }
    for name, value in found.items():
        print(f"{kind:12} {name:12}", value.ravel().tolist())
    return [found[name].ravel().tolist() for name in ("onnxruntime", "reference", "openvino")]


largest = answers("MaxPool", 7, 3, kernel_shape=[2], strides=[3])
mean = answers("AveragePool", 6, 4, kernel_shape=[3], strides=[2], count_include_pad=1)
assert largest[0] == largest[1] == [1, 4, 7] and mean[0] == mean[1] == [1, 3, 5, 3]
assert largest[2][:3] == [1, 4, 7] and len(largest[2]) == 4 and largest[2][3] < -3e38, "the behaviour has changed"
assert mean[2] == [1, 3, 5, 2], "the behaviour has changed"
PY
