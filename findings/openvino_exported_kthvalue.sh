#!/bin/sh
# openvino 2026.4.1 (torch 2.14.1, CPU): `kthvalue` of an exported program (`torch.export`) answers with the first row of
# its values alone, without a word: `(2, 3, 7)` becomes `(3, 7)`. The same network converted from a trace is right, and
# `topk` of the exported one too, so it is not the export. In a network that goes on with a mean, only values tell.
# Prints the versions and both shapes; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "openvino==2026.4.1" "numpy==2.4.6" "packaging==25.0"
HOME="$home" "$home/venv/bin/python" - <<'PY'
import openvino as ov
import torch


class Third(torch.nn.Module):
    def forward(self, x):
        return x.kthvalue(3, -1)[0]


class Least(torch.nn.Module):
    def forward(self, x):
        return x.topk(3, -1, largest=False)[0]


def answer(model, x):
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled([x.numpy()])[0].copy())


print("torch", torch.__version__, "openvino", ov.__version__)
x = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
expected = Third()(x)
exported = answer(ov.convert_model(torch.export.export(Third().eval(), (x,))), x)
traced = answer(ov.convert_model(Third().eval(), example_input=x), x)
topk = answer(ov.convert_model(torch.export.export(Least().eval(), (x,))), x)
print("torch", tuple(expected.shape), " traced", tuple(traced.shape), " exported", tuple(exported.shape))
print("mean  torch", float(expected.mean()), " exported", float(exported.mean()))
assert torch.equal(traced, expected)
assert torch.equal(topk, Least()(x))
assert exported.shape == expected.shape[1:], "the behaviour has changed"
assert torch.equal(exported, expected[0]), "the behaviour has changed"
PY
