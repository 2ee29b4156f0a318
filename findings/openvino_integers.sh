#!/bin/sh
# openvino 2026.4.1 (CPU, ONNX from onnx 1.23.2): integers of a network are not the model's. uint8 and int8 stop at their ends
# where onnxruntime, onnx's reference, torch and numpy wrap (10 - 20 is 0, not 246); int32 is divided in float32
# (16777217 / 1 is 16777216, and (2^30 + 1) mod 3 is 0, not 2); int64 is computed in int32 (2^31 + 6 comes out negative).
# Differences of uint8 frames, packed labels and hashes, and time stamps inside a network change so without a word.
# Prints all answers; fails if the behaviour changes.
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
from onnx import helper
from onnx.reference import ReferenceEvaluator

print("openvino", ov.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def answers(operation, a, b):
    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    ends = [helper.make_tensor_value_info(name, kind, [len(a)]) for name in "aby"]
    graph = helper.make_graph([helper.make_node(operation, ["a", "b"], ["y"])], "integers", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    usual = session.run(None, {"a": a, "b": b})[0].tolist()
    assert usual == ReferenceEvaluator(model).run(None, {"a": a, "b": b})[0].tolist()
    other = ov.Core().compile_model(ov.convert_model(sys.argv[1]), "CPU")([a, b])[0].tolist()
    print(f"{a.dtype} {operation:3} {a.tolist()} {b.tolist()}: onnxruntime {usual}, openvino {other}")
    return usual, other


def of(kind, *numbers):
    return np.array(numbers, kind)


found = [
    answers("Sub", of("uint8", 10, 200), of("uint8", 20, 100)),
    answers("Add", of("uint8", 10, 200), of("uint8", 20, 100)),
    answers("Mul", of("int8", 100, -100), of("int8", 100, 1)),
    answers("Div", of("int32", 2**24 + 1, 7), of("int32", 1, 2)),
    answers("Mod", of("int32", 2**30 + 1, 7), of("int32", 3, 2)),
    answers("Add", of("int64", 2**31 + 5, 7), of("int64", 1, 2)),
]
assert [usual for usual, _ in found] == [[246, 100], [30, 44], [16, -100], [16777217, 3], [2, 1], [2147483654, 9]]
assert [other for _, other in found] == [
    [0, 100],
    [30, 255],
    [127, -100],
    [16777216, 3],
    [0, 1],
    [-2147483642, 9],
], "the behaviour has changed"
PY
