#!/bin/sh
# openvino 2026.4.1 (torch 2.14.1, CPU): `torch.cdist` and `pairwise_distance` with p = 1 (or 3) convert without a word and
# take no absolute value: differences of both signs cancel, so two embeddings may be at distance 0 that are 2 apart, and
# what comes out negative is raised to 1/p and is NaN. p = 2 is right. Prints the versions and the answers; fails if the
# behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "openvino==2026.4.1" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" -W ignore - <<'PY'
import openvino as ov
import torch

print("torch", torch.__version__, "openvino", ov.__version__)


class Distances(torch.nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, a, b):
        return torch.cdist(a, b, p=self.p), torch.nn.functional.pairwise_distance(a, b, p=self.p)


a, b = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[2.0, 1.0], [0.0, 5.0]])
for p in (2.0, 1.0, 3.0):
    net = Distances(p).eval()
    model = ov.convert_model(net, example_input=(a, b))
    program = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([a.numpy(), b.numpy()])
    found, right = [torch.from_numpy(program[k]) for k in (0, 1)], net(a, b)
    for name, r, f in zip(("cdist", "pairwise_distance"), right, found):
        print(f"p = {p:.0f} {name:17} torch {r.flatten().tolist()}  openvino {f.flatten().tolist()}")
    if p == 2:
        assert all(torch.allclose(r, f, atol=1e-4) for r, f in zip(right, found))
    if p == 1:
        assert right[0].tolist() == [[2, 4], [3, 9]] and right[1].tolist() == [2, 9]
        assert float(found[0][0, 0]) == float(found[1][0]) == 0, "the behaviour has changed"
    if p != 2:
        assert found[0].isnan().any() and found[1].isnan().any(), "the behaviour has changed"
PY
