#!/bin/sh
# openvino 2026.4.1 reading ONNX (onnx 1.23.2, CPU): `antialias=1` of Resize is dropped without a word. A network that carries
# its own preprocessing (torchvision's Resize exports so) sees fine black and white stripes as white when they are made
# smaller, where onnxruntime and onnx's own reference see grey. Prints the answers; fails if the behaviour changes.
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
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("openvino", ov.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
stripes = np.zeros((1, 1, 16, 16), np.float32)
stripes[..., 1::4] = stripes[..., 2::4] = 1  # two columns of white, two of black
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, s, s]) for n, s in (("x", 16), ("y", 4))]
size = numpy_helper.from_array(np.array([1, 1, 4, 4]), "size")


def model(antialias):
    node = helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="linear", antialias=antialias)
    graph = helper.make_graph([node], "resize", ends[:1], ends[1:], [size])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def answers(antialias):
    onnx.save(model(antialias), sys.argv[1])
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    program = ov.Core().compile_model(ov.convert_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {
        "onnxruntime": session.run(None, {"x": stripes})[0],
        "reference": ReferenceEvaluator(model(antialias)).run(None, {"x": stripes})[0],
        "openvino": program([stripes])[0],
    }
    for name, value in found.items():
        print(f"antialias={antialias} {name:12}", value[0, 0, 1].round(4).tolist())
    return found


plain, smooth = answers(0), answers(1)
assert np.allclose(plain["openvino"], plain["onnxruntime"], atol=1e-5)
assert np.allclose(smooth["onnxruntime"], smooth["reference"], atol=1e-5)
assert np.abs(smooth["onnxruntime"] - plain["onnxruntime"]).max() > 0.3
assert np.array_equal(smooth["openvino"], plain["openvino"]), "the behaviour has changed"
PY
