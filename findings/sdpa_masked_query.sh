#!/bin/sh
# torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0, openvino 2026.4.1 (CPU): a query of `scaled_dot_product_attention` that
# may look at no key (padding of a shorter clip, a token that was dropped) has three answers. torch: 0. The network
# exported to ONNX: the mean of all values, those of hidden tokens too. OpenVINO: NaN, which spreads over the picture
# in the next layer. All agree wherever a query has a key. Prints the answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "onnx==1.23.2" "onnxscript==0.7.2" "onnxruntime==1.32.0" \
    "openvino==2026.4.1" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" -W ignore - "$home/net.onnx" <<'PY'
import sys

import onnxruntime
import openvino as ov
import torch

print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__, "openvino", ov.__version__)
torch.manual_seed(0)
seen = torch.tensor([[True, True, False]] * 2 + [[False] * 3])  # the last query sees no key


class Attention(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=seen)


x, net = torch.randn(1, 1, 3, 4), Attention().eval()
torch.onnx.export(net, (x,), sys.argv[1], dynamo=True, verbose=False)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
program = ov.Core().compile_model(ov.convert_model(net, example_input=x), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found = {
    "torch": net(x),
    "onnxruntime": torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]),
    "openvino": torch.from_numpy(program([x.numpy()])[0]),
}
for name, value in found.items():
    print(f"{name:12}", [round(v, 4) for v in value[0, 0, 2].tolist()])
    assert torch.allclose(value[0, 0, :2], found["torch"][0, 0, :2], atol=1e-4)
assert (found["torch"][0, 0, 2] == 0).all()
assert torch.allclose(found["onnxruntime"][0, 0, 2], x[0, 0].mean(0), atol=1e-4), "the behaviour has changed"
assert found["openvino"][0, 0, 2].isnan().all(), "the behaviour has changed"
PY
