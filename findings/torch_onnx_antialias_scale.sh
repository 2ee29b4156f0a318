#!/bin/sh
# torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0 (CPU): a resize by `scale_factor` changes its meaning on export when
# `antialias=True` stands beside it. torch samples at steps of 1 / scale_factor; the exported network at steps of the two sizes'
# ratio, which is another where they do not divide: its values are those of `size=...`. Without antialias the export is right.
# Prints the versions and the answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "onnx==1.23.2" "onnxscript==0.7.2" "onnxruntime==1.32.0" "numpy==2.4.6"
"$home/venv/bin/python" - "$home/net.onnx" <<'PY'
import sys

import onnxruntime
import torch

print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)
x = torch.arange(7.0).square().expand(1, 1, 7, 7).contiguous()


class Resize(torch.nn.Module):
    def __init__(self, antialias, **to):
        super().__init__()
        self.options = {"mode": "bilinear", "antialias": antialias, **to}

    def forward(self, x):
        return torch.nn.functional.interpolate(x, **self.options)


def exported(net):
    torch.onnx.export(net, (x,), sys.argv[1], dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


for antialias in (False, True):
    by_scale, by_size = Resize(antialias, scale_factor=0.6).eval(), Resize(antialias, size=(4, 4)).eval()
    found = exported(by_scale)
    print(f"antialias={antialias}")
    for name, value in (("torch, scale 0.6", by_scale(x)), ("exported", found), ("torch, size 4", by_size(x))):
        print(f"    {name:17}", [round(v, 3) for v in value[0, 0, 0].tolist()])
    assert not torch.allclose(by_scale(x), by_size(x), atol=0.1)
    assert torch.allclose(found, (by_size if antialias else by_scale)(x), atol=1e-3), "the behaviour has changed"
PY
