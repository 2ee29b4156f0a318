#!/bin/sh
# opencv-python-headless 5.0.0.93 reading ONNX (onnx 1.23.2, onnxruntime 1.32.0 beside it): `auto_pad=SAME_UPPER` (what
# TensorFlow calls "same") begins with (kernel - 1) / 2 pixels of padding whatever stride and size are. For a stride above
# 1 that is too much: the first layer of a MobileNet or EfficientNet (3 x 3, stride 2, even size) sees the picture one pixel
# off, patches of 16 at stride 16 begin 7 pixels before the picture. Convolution and both poolings; the output has the right
# size, so only values tell. SAME_LOWER gets the same rule. Explicit pads are right, and so is SAME_UPPER in OpenCV 4.14.0.
# Prints the versions and where each layer begins; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cat > "$home/same.py" <<'PY'
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

new = sys.argv[1] == "5"
print("opencv", cv2.__version__, "onnxruntime", onnxruntime.__version__)


def network(kind, size, kernel, stride, **padding):
    """One layer; the convolution has ones as its weights, so that it is the sum over its window."""
    padding = {"strides": [stride, stride], **padding}
    if kind != "Conv":
        padding["kernel_shape"] = [kernel, kernel]
    node = helper.make_node(kind, ["x", "w"] if kind == "Conv" else ["x"], ["y"], **padding)
    steps = -(-size // stride)
    given = [numpy_helper.from_array(np.ones((1, 1, kernel, kernel), np.float32), "w")] if kind == "Conv" else []
    ends = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [1, 1, n, n]) for k, n in (("x", size), ("y", steps))]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], given), opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def windows(x, before, kernel, stride, fill):
    """Every window of a picture that has `before` pixels of padding in front and as many as it takes behind."""
    steps = -(-len(x) // stride)
    padded = np.pad(x, (before, 2 * kernel), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel))[::stride, ::stride][:steps, :steps]


for mode in ("SAME_UPPER", "SAME_LOWER"):
    for size, kernel, stride in ((224, 3, 1), (224, 3, 2), (225, 3, 2), (224, 7, 2), (224, 4, 4), (224, 16, 16), (224, 2, 1)):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)  # the ONNX definition of SAME
        right = total // 2 if mode == "SAME_UPPER" else total - total // 2
        x = np.random.default_rng(0).standard_normal((1, 1, size, size)).astype(np.float32)
        begins = {}
        for kind in ("Conv", "MaxPool", "AveragePool"):
            model = network(kind, size, kernel, stride, auto_pad=mode)
            net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
            net.setInput(x, "x")
            found = net.forward()[0, 0]
            truth = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0][0, 0]
            fill, measure = {"Conv": (0, np.sum), "MaxPool": (-np.inf, np.max), "AveragePool": (np.nan, np.nanmean)}[kind]

            def fits(values, before):
                return np.allclose(values, measure(windows(x[0, 0], before, kernel, stride, fill), axis=(2, 3)), atol=1e-3)

            assert fits(truth, right), "onnxruntime is not the definition"
            begins[kind] = [before for before in range(kernel) if fits(found, before)]
            explicit = network(kind, size, kernel, stride, pads=[right, right, total - right, total - right])
            net = cv2.dnn.readNetFromONNX(np.frombuffer(explicit, np.uint8))
            net.setInput(x, "x")
            assert np.allclose(net.forward()[0, 0], truth, atol=1e-3), "the behaviour has changed"
        expected = (kernel - 1) // 2 if new else total // 2
        assert all(value == [expected] for value in begins.values()), "the behaviour has changed"
        note = "" if expected == right else "  <- differs"
        print(f"  {mode}, size {size}, kernel {kernel:2}, stride {stride:2}: pixels before the picture {expected}, by definition {right}{note}")
PY
for version in 5.0.0.93 4.14.0.94; do
    python3 -m venv "$home/$version"
    "$home/$version/bin/pip" install --quiet "opencv-python-headless==$version" "onnx==1.23.2" "onnxruntime==1.32.0" "numpy==2.4.6"
    HOME="$home" "$home/$version/bin/python" "$home/same.py" "${version%%.*}"
done
