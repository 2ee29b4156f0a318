#!/bin/sh
# opencv-python-headless 5.0.0.93 reading ONNX (onnx 1.23.2, onnxruntime 1.32.0 beside it): GridSample with `mode="cubic"`, the
# name that operator set 20 gives to what was "bicubic", is read without a word and computed bilinearly. "bicubic" of set 16
# is cubic, but its answer is cut to the range of its sixteen taps, so that edges do not overshoot as the operator, torch
# and onnxruntime have it: samples with no overshoot agree, which hides it. Linear sampling is right.
# Prints the versions and the errors far from the border; fails if the behaviour changes.
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
from onnx import TensorProto, helper

size = 12
rng = np.random.default_rng(0)
picture = rng.random((1, 2, size, size)).astype(np.float32)
inner = rng.uniform(-0.5, 0.5, (1, 9, 9, 2)).astype(np.float32)  # no tap of any filter leaves the picture


def answers(mode, opset, grid):
    ends = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in (("x", picture), ("g", grid))]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2, 9, 9))
    node = helper.make_node("GridSample", ["x", "g"], ["y"], mode=mode, align_corners=0)
    model = helper.make_model(helper.make_graph([node], "g", ends, [out]), opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    model = model.SerializeToString()
    right = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": picture, "g": grid})[0]
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    net.setInput(picture, "x")
    net.setInput(grid, "g")
    return right, net.forward().reshape(right.shape)


def cubic(grid):
    """Sixteen taps with a = -0.75, as the operator defines it, and the least and greatest tap of each sample."""

    def weight(t):
        t, a = abs(t), -0.75
        return (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a

    result, least, greatest = np.zeros((3, 2, 9, 9))
    for i, j in np.ndindex(9, 9):
        u, v = ((grid[0, i, j] + 1) * size - 1) / 2
        x, y = int(np.floor(u)), int(np.floor(v))
        taps = picture[0, :, y - 1 : y + 3, x - 1 : x + 3]
        down, across = [weight(v - r) for r in range(y - 1, y + 3)], [weight(u - c) for c in range(x - 1, x + 3)]
        result[:, i, j] = np.einsum("krc,r,c->k", taps, down, across)
        least[:, i, j], greatest[:, i, j] = taps.min((1, 2)), taps.max((1, 2))
    return result, least, greatest


print("opencv", cv2.__version__, "onnxruntime", onnxruntime.__version__)
truth, least, greatest = cubic(inner)
right, linear = answers("linear", 20, inner)
assert np.allclose(linear, right, atol=1e-4)
for mode, opset in (("bicubic", 16), ("cubic", 20)):
    right, found = answers(mode, opset, inner)
    assert np.allclose(right[0], truth, atol=1e-4)
    off = np.abs(found - right)
    print(f"  {mode} of set {opset}: {int((off > 1e-3).sum())} of {off.size} samples differ, greatest error {off.max():.4f} of a range of 1")
    if mode == "cubic":
        assert np.allclose(found, linear, atol=1e-5) and off.max() > 0.1, "the behaviour has changed"
    else:
        assert np.allclose(found[0], np.clip(truth, least, greatest), atol=1e-4) and off.max() > 0.1, "the behaviour has changed"
PY
