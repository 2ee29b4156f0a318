#!/bin/sh
# opencv-python-headless 5.0.0.93 reading ONNX (onnx 1.23.2): a MatMul with a matrix of constants for each head or group,
# `(batch, heads, tokens, n) @ (heads, n, m)`, is right for a batch of 1 and wrong for every larger one, without a word:
# of 3 heads, head 0 has its own matrix, head 2 that of head 1, and head 1 a mixture of two. So a network that passes its
# check with one picture answers otherwise with two. The same product with the matrices as an input, with one matrix for
# all, or with the matrices repeated for the batch is right. Both engines.
# Prints the version and the error of each batch; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "opencv-python-headless==5.0.0.93" "onnx==1.23.2" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" - <<'PY'
import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

heads, tokens, n, m = 3, 4, 5, 6
rng = np.random.default_rng(0)
weights = rng.standard_normal((heads, n, m)).astype(np.float32)


def answers(x, w, constant):
    """The product by both engines of OpenCV and by ONNX's own reference."""
    given = {"x": x} if constant else {"x": x, "w": w}
    inputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in given.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (x @ w).shape)]
    held = [numpy_helper.from_array(w, "w")] if constant else []
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    found = []
    for engine in (cv2.dnn.ENGINE_NEW, cv2.dnn.ENGINE_CLASSIC):
        net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8), engine)
        for name, value in given.items():
            net.setInput(value, name)
        found.append(net.forward().reshape(x.shape[:2] + (tokens, m)))
    return found, ReferenceEvaluator(model).run(None, given)[0]


print("opencv", cv2.__version__)
for batch in (1, 2, 3, 8):
    x = rng.standard_normal((batch, heads, tokens, n)).astype(np.float32)
    repeated = np.broadcast_to(weights, (batch, heads, n, m)).copy()
    errors = {}
    for name, w, constant in (("each head", weights, True), ("as an input", weights, False), ("one for all", weights[0], True), ("repeated", repeated, True)):
        found, right = answers(x, w, constant)
        assert np.allclose(right, x @ w, atol=1e-4)
        errors[name] = max(float(np.abs(part - right).max()) for part in found)
        if name == "each head" and batch == 2:
            for part in found:
                assert np.allclose(part[:, 0], x[:, 0] @ weights[0], atol=1e-4), "the behaviour has changed"
                assert np.allclose(part[:, 2], x[:, 2] @ weights[1], atol=1e-4), "the behaviour has changed"
    print(f"  batch {batch}: greatest error {({k: round(v, 4) for k, v in errors.items()})}")
    assert all(error < 1e-4 for name, error in errors.items() if name != "each head"), "the behaviour has changed"
    assert (errors["each head"] > 1) == (batch > 1), "the behaviour has changed"
PY
