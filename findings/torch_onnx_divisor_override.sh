#!/bin/sh
# torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0 (CPU): `torch.onnx.export` (the exporter of torch.export, the
# default) drops `divisor_override` of an average pooling. With divisor 1, a sum over windows, the exported network
# answers the mean: a quarter. Neither export nor checker complains; ONNX has no such attribute.
# Prints the versions and both answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "onnx==1.23.2" "onnxscript==0.7.2" "onnxruntime==1.32.0" "numpy==2.4.6"
"$home/venv/bin/python" - "$home/net.onnx" <<'PY'
import sys

import onnx
import onnxruntime
import torch

print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)
x = torch.arange(16.0).reshape(1, 1, 4, 4)
net = torch.nn.AvgPool2d(2, divisor_override=1).eval()  # the sum of each window
torch.onnx.export(net, (x,), sys.argv[1], dynamo=True, verbose=False)
onnx.checker.check_model(sys.argv[1])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
print("torch      :", net(x).flatten().tolist())
print("onnxruntime:", found.flatten().tolist())
assert torch.equal(net(x).flatten(), torch.tensor([10.0, 18, 42, 50]))
assert torch.allclose(found * 4, net(x)), "the behaviour has changed"
PY
