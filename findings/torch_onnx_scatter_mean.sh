#!/bin/sh
# torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0 (CPU): `scatter_reduce(..., "mean")`, the mean of features over a
# superpixel or a segment, is exported with reduction "none": the last value written wins. "sum", "prod", "amax" and "amin"
# come out right. ONNX's ScatterElements has no mean, and neither export nor checker says a word.
# Prints the versions and both answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "onnx==1.23.2" "onnxscript==0.7.2" "onnxruntime==1.32.0" "numpy==2.4.6"
"$home/venv/bin/python" -W ignore - "$home/net.onnx" <<'PY'
import sys

import onnx
import onnxruntime
import torch

print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)


class Pooled(torch.nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, features, segment):
        return torch.zeros(2).scatter_reduce(0, segment, features, self.how, include_self=False)


features, segment = torch.tensor([1.0, 3.0, 8.0, 5.0]), torch.tensor([0, 0, 0, 1])
right = {"mean": [4, 5], "sum": [12, 5], "prod": [24, 5], "amax": [8, 5], "amin": [1, 5]}
for how, expected in right.items():
    net = Pooled(how).eval()
    torch.onnx.export(net, (features, segment), sys.argv[1], dynamo=True, verbose=False)
    onnx.checker.check_model(sys.argv[1], full_check=True)
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    given = {i.name: t.numpy() for i, t in zip(session.get_inputs(), (features, segment))}
    found = session.run(None, given)[0].tolist()
    print(f"{how:5} torch {net(features, segment).tolist()}  onnxruntime {found}")
    assert net(features, segment).tolist() == expected
    assert found == (expected if how != "mean" else [8, 5]), "the behaviour has changed"
PY
