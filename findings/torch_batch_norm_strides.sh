#!/bin/sh
# torch 2.14.1 (CPU): the gradient of a batch normalisation of one sample is wrong where the gradient that arrives is in
# channels-fastest order with an open first stride, as it is behind `flatten(2).transpose(1, 2)` (tokens). No error, no
# warning; the same values in plain order, or in a batch of two, give the right gradient. Batch normalisation in two and
# three axes and instance normalisation, in training and evaluation mode.
# Prints the version and the error; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "numpy"
"$home/venv/bin/python" - <<'PY'
import torch

print("torch", torch.__version__)
torch.manual_seed(0)
norm = torch.nn.BatchNorm2d(8).eval()
torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
x = torch.randn(1, 8, 4, 4, requires_grad=True)
weights = torch.randn(1, 16, 8)  # one for each token and channel

tokens = norm(x).flatten(2).transpose(1, 2)
(one,) = torch.autograd.grad((tokens * weights).sum(), x)

both = torch.cat([x.detach(), x.detach()]).requires_grad_()
tokens = norm(both).flatten(2).transpose(1, 2)
(two,) = torch.autograd.grad((tokens * weights).sum(), both)

scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).reshape(1, 8, 1, 1)
truth = weights.transpose(1, 2).reshape(1, 8, 4, 4) * scale
print("largest error, one sample :", float((one - truth).abs().max()))
print("largest error, batch of 2 :", float((two[:1] - truth).abs().max()))
assert (two[:1] - truth).abs().max() < 1e-5
assert (one - truth).abs().max() > 0.1, "the behaviour has changed"
PY
