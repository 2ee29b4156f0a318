#!/bin/sh
# opencv-python-headless 5.0.0.93 reading ONNX (onnx 1.23.2, onnxruntime 1.32.0 beside it): recurrent layers over the frames of
# a clip are read wrong in three ways, without a word. A GRU of `direction="reverse"` runs forwards in time. A GRU whose
# states of all frames are used alone (`Y`, not also `Y_h`) gives the last state in their place, so a mean over time is
# none. An LSTM of `direction="reverse"` gives as its last state the one that has seen the last frame alone. Both engines.
# A forward or two-way LSTM, and a forward or two-way GRU with both outputs in use, are right.
# Prints the versions and the answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "opencv-python-headless==5.0.0.93" "onnx==1.23.2" "onnxruntime==1.32.0" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" - <<'PY'
import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

frames, states, features = 6, 4, 3
rng = np.random.default_rng(0)
clip = rng.standard_normal((frames, 1, features)).astype(np.float32)


def network(cell, gates, direction, last, length=frames):
    """The mean over time of all states; `last` puts the last state behind it as a second output."""
    ways = 2 if direction == "bidirectional" else 1
    random = np.random.default_rng(1)
    weights = {
        name: random.uniform(-0.8, 0.8, (ways, *shape)).astype(np.float32)
        for name, shape in (("w", (gates * states, features)), ("r", (gates * states, states)), ("b", (2 * gates * states,)))
    }
    more = {"linear_before_reset": 1} if cell == "GRU" else {}
    nodes = [
        helper.make_node(cell, ["x", "w", "r", "b"], ["y", "h"] if last else ["y"], hidden_size=states, direction=direction, **more),
        helper.make_node("ReduceMean", ["y"], ["mean"], axes=[0], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [ways, 1, states])]
    if last:
        nodes.append(helper.make_node("Identity", ["h"], ["last"]))
        outputs.append(helper.make_tensor_value_info("last", TensorProto.FLOAT, [ways, 1, states]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [length, 1, features])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def answers(model, x):
    right = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    found = []
    for engine in (cv2.dnn.ENGINE_NEW, cv2.dnn.ENGINE_CLASSIC):
        net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8), engine)
        net.setInput(x, "x")
        found.append([np.asarray(part) for part in net.forward(["mean", "last"][: len(right)])])
    return right, found


def same(a, b):
    return np.allclose(np.ravel(a), np.ravel(b), atol=1e-5)


print("opencv", cv2.__version__, "onnxruntime", onnxruntime.__version__)
for cell, gates in (("LSTM", 4), ("GRU", 3)):
    for direction in ("forward", "reverse", "bidirectional"):
        for last in (True, False) if direction != "bidirectional" else (True,):
            right, found = answers(network(cell, gates, direction, last), clip)
            fits = [[same(a, b) for a, b in zip(right, parts)] for parts in found]
            for k, name in enumerate(("mean of states", "last state")[: len(right)]):
                told = [part[k].ravel()[:2].tolist() for part in (right, found[0])]
                label = f"{cell} {direction}, {name}{', one of two outputs' if last else ', the only output'}"
                text = [" ".join(f"{v:7.4f}" for v in values) for values in told]
                print(f"{label:53} onnxruntime {text[0]}  opencv {text[1]}  {'' if fits[0][k] else '<- differs'}")
            if cell == "GRU" and direction == "reverse" and last:
                expected = [False, False]
                forwards, _ = answers(network(cell, gates, "forward", True), clip)
                assert all(same(a, b) for parts in found for a, b in zip(forwards, parts)), "the behaviour has changed"
            elif cell == "GRU" and not last:
                expected = [False]
                both, ran = answers(network(cell, gates, direction, True), clip)
                assert all(same(one[0], two[1]) for one, two in zip(found, ran)), "the behaviour has changed"
            elif cell == "LSTM" and direction == "reverse" and last:
                expected = [True, False]
                alone, _ = answers(network(cell, gates, direction, True, 1), clip[-1:])  # the last frame, no other
                assert all(same(parts[1], alone[1]) for parts in found), "the behaviour has changed"
            else:
                expected = [True] * len(right)
            assert fits == [expected] * 2, "the behaviour has changed"
PY
