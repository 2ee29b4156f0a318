#!/bin/sh
# opencv-python-headless 5.0.0.93 reading ONNX (onnx 1.23.2): ReduceMean, ReduceSum, ReduceMax and ReduceL2 over
# three or more axes with one left free between them read the first slice of the first axis once, its second slice in
# place of all others, and no other at all, without a word: the mean of each channel over a batch (axes 0, 2, 3) of 16 is
# that of pictures 0 and 1 alone; so are the mean of each frame of a clip (1, 3, 4) and that of each channel of it (0, 2, 3, 4).
# The number of values is right, so on noise the answer looks plausible. Two axes, axes in a row, batches of 1 or 2 and
# the same mean taken axis by axis are right. Prints the version and two means; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cat > "$home/reduce.py" <<'PY'
import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

truths = {"ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceL2": lambda x, a: np.sqrt((x * x).sum(a))}


def network(kind, shape, steps):
    """Reductions one after the other, each over the axes of one step."""
    nodes, given, ends = [], [], list(shape)
    for k, axes in enumerate(steps):
        nodes.append(helper.make_node(kind, [f"x{k}", f"axes{k}"], [f"x{k + 1}"], keepdims=1))
        given.append(numpy_helper.from_array(np.int64(axes), f"axes{k}"))
        ends = [1 if i in axes else n for i, n in enumerate(ends)]
    inputs = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(f"x{len(steps)}", TensorProto.FLOAT, ends)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, given), opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def answer(model, x):
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
    net.setInput(x)
    return np.ravel(net.forward())


print("opencv", cv2.__version__)
cases = [  # shape, axes, right
    ((1, 8, 16, 7, 7), (3, 4), True), ((4, 8, 7, 7), (0, 1), True), ((1, 3, 8, 8), (0, 2, 3), True), ((2, 3, 8, 8), (0, 2, 3), True),
    ((4, 3, 8, 8), (0, 2, 3), False), ((16, 64, 14, 14), (0, 2, 3), False), ((1, 8, 16, 7, 7), (1, 3, 4), False),
    ((1, 16, 8, 7, 7), (2, 3, 4), True), ((1, 16, 8, 7, 7), (0, 2, 3, 4), False),
]
rng = np.random.default_rng(0)
for shape, axes, fine in cases:
    x = rng.random(shape).astype(np.float32)
    for kind, truth in truths.items():
        model = network(kind, shape, [axes])
        right = np.ravel(truth(x.astype(np.float64), axes))
        assert np.allclose(np.ravel(ReferenceEvaluator(model).run(None, {"x0": x})[0]), right, rtol=1e-4)
        assert np.allclose(answer(model, x), right, rtol=1e-3) == fine, "the behaviour has changed"
    slowly = answer(network("ReduceMean", shape, [[axis] for axis in axes]), x)
    assert np.allclose(slowly, np.ravel(x.mean(axes)), rtol=1e-3), "the behaviour has changed"
for shape, axes, name in (((8, 3, 6, 6), (0, 2, 3), "pictures of a batch"), ((1, 8, 4, 7, 7), (1, 3, 4), "channels of a clip")):
    levels = np.arange(8, dtype=np.float32).reshape([8 if i == axes[0] else 1 for i in range(len(shape))])
    x = np.ascontiguousarray(np.broadcast_to(levels, shape))  # values 0 to 7, their mean is 3.5
    found = answer(network("ReduceMean", shape, [axes]), x)
    print(f"  {name} worth 0 to 7, shape {shape}, mean over axes {axes}: {found.round(3).tolist()}, right 3.5")
    assert np.allclose(found, (0 + 7 * 1) / 8), "the behaviour has changed"  # slice 0 once, slice 1 seven times
PY
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "opencv-python-headless==5.0.0.93" "onnx==1.23.2" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" "$home/reduce.py"
