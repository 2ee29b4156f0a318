#!/bin/sh
# openvino 2026.4.1 (torch 2.14.1, torchvision 0.29.1, CPU): `roi_align` with its default `sampling_ratio=-1` ("as many
# samples as the box needs") converts without a word and answers 0 everywhere. 0, which means the same to torchvision,
# and any number of samples come out right, so a detector's heads may see nothing while its trunk agrees.
# Prints the versions and the answers; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "torchvision==0.29.1" "openvino==2026.4.1" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" -W ignore - <<'PY'
import openvino as ov
import torch
import torchvision


class Boxes(torch.nn.Module):
    def __init__(self, samples):
        super().__init__()
        self.samples = samples

    def forward(self, x, boxes):
        return torchvision.ops.roi_align(x, boxes, (2, 2), 1.0, self.samples, aligned=True)


print("torch", torch.__version__, "torchvision", torchvision.__version__, "openvino", ov.__version__)
x, box = torch.arange(64.0).reshape(1, 1, 8, 8), torch.tensor([[0, 1.0, 1.0, 6.0, 6.0]])
for samples in (2, 0, -1):
    net = Boxes(samples).eval()
    program = ov.Core().compile_model(
        ov.convert_model(net, example_input=(x, box)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    right, found = net(x, box).flatten(), torch.from_numpy(program([x.numpy(), box.numpy()])[0]).flatten()
    print(f"sampling_ratio {samples:2}  torchvision {right.tolist()}  openvino {found.tolist()}")
    assert torch.allclose(right, torch.tensor([15.75, 18.25, 35.75, 38.25]), atol=1e-4)
    assert torch.allclose(found, right if samples >= 0 else torch.zeros(4), atol=1e-4), "the behaviour has changed"
PY
