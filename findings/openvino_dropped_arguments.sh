#!/bin/sh
# openvino 2026.4.1 (torch 2.14.1, CPU): conversion drops arguments of operations without a word. `softplus(x, beta=3)`
# comes out as `softplus(x)` (0.693 in place of 0.231 at 0), and `std(correction=2)` of a traced network as that with 1.
# Operations that are not known are refused; an argument that is not known is not, so only outputs tell.
# Prints the versions and both answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "openvino==2026.4.1" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" - <<'PY'
import openvino as ov
import torch


class Net(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.softplus(x, beta=3.0), x.std(1, correction=2)


print("torch", torch.__version__, "openvino", ov.__version__)
x = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 2.0]])
soft, spread = Net()(x)
model = ov.convert_model(Net().eval(), example_input=x)
compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x.numpy()])
found = [torch.from_numpy(compiled[k]) for k in (0, 1)]
print("softplus, beta 3   torch:", soft[0].tolist())
print("                openvino:", found[0][0].tolist())
print("std, correction 2  torch:", spread.tolist(), " openvino:", found[1].tolist())
assert torch.allclose(soft, torch.log1p(torch.exp(3 * x)) / 3, atol=1e-6)
assert torch.allclose(spread, (((x - x.mean()) ** 2).sum() / 3).sqrt())
assert torch.allclose(found[0], torch.nn.functional.softplus(x), atol=1e-5), "the behaviour has changed"
assert torch.allclose(found[1], x.std(1), atol=1e-5), "the behaviour has changed"
PY
