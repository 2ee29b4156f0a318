#!/bin/sh
# openvino 2026.4.1 (torch 2.14.1, CPU): `//` and `torch.div(rounding_mode="floor")` of integers round towards zero once they
# are converted: -5 // 2 is -2, and -1 // 3 is 0. `%` of the same numbers stays as in torch, so q * b + r no longer gives
# the number back. Cells, offsets and windows left of an origin come out one too far right, without a word.
# Prints the versions and the answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "openvino==2026.4.1" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" -W ignore - <<'PY'
import openvino as ov
import torch

print("torch", torch.__version__, "openvino", ov.__version__)


class Cells(torch.nn.Module):
    def forward(self, a, b):
        return a // b, torch.div(a, b, rounding_mode="floor"), a % b


a, b = torch.tensor([-5, 5, -4, -1, 7]), torch.tensor([2, -2, 2, 3, 2])
net = Cells().eval()
right = [v.tolist() for v in net(a, b)]
program = ov.Core().compile_model(ov.convert_model(net, example_input=(a, b)), "CPU")([a.numpy(), b.numpy()])
found = [program[k].tolist() for k in range(3)]
for name, r, f in zip(("//", "floor", "%"), right, found):
    print(f"{name:5} torch {r}  openvino {f}")
assert right == [[-3, -3, -2, -1, 3], [-3, -3, -2, -1, 3], [1, -1, 0, 2, 1]]
assert found == [[-2, -2, -2, 0, 3], [-2, -2, -2, 0, 3], [1, -1, 0, 2, 1]], "the behaviour has changed"
PY
