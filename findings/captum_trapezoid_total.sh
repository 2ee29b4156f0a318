#!/bin/sh
# captum 0.9.0 (torch 2.14.1, CPU): integrated gradients, of the picture and of a layer, lose one part in `n_steps` of every
# attribution under method="riemann_trapezoid". n points on the way bound n - 1 strips, but each strip is taken 1 / n
# wide, so the map is the trapezoid rule's times (n - 1) / n: half with two steps, 0.98 with the default 50. A linear
# score, exact under the other four rules with any number of steps, misses its change by as much. So the convergence
# delta that is left is no sign of a curved score, and maps of different step numbers do not have one scale.
# Prints the version and the sum over the score's change for each rule; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "captum==0.9.0" "torch==2.14.1" "numpy==2.4.6"
HOME="$home" "$home/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients

print("captum", version("captum"), "torch", torch.__version__)
torch.manual_seed(0)
weight = torch.randn(12, dtype=torch.float64)
picture, black = torch.rand(2, 12, dtype=torch.float64), torch.zeros(2, 12, dtype=torch.float64)
linear = lambda x: x @ weight
cubic = lambda x: x**3 @ weight
rules = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")

print("linear score: sum of the map / change of the score")
for steps in (2, 5, 50, 200):
    found = {}
    for rule in rules:
        heat = IntegratedGradients(linear).attribute(picture, black, method=rule, n_steps=steps)
        share = heat / (picture * weight)  # exact: 1 everywhere
        found[rule] = float(share.mean())
        assert share.std() < 1e-5
    print(f"  {steps:3} steps", {rule: round(value, 4) for rule, value in found.items()})
    assert all(abs(found[rule] - 1) < 1e-5 for rule in rules[:-1])
    assert abs(found["riemann_trapezoid"] - (steps - 1) / steps) < 1e-5, "the behaviour has changed"

way = np.linspace(0, 1, 50)
slope = 3 * (way[:, None, None] * picture.numpy()) ** 2 * weight.numpy()
true = np.trapezoid(slope, way, axis=0) * picture.numpy()
made = IntegratedGradients(cubic).attribute(picture, black, method="riemann_trapezoid", n_steps=50).numpy()
print("cubic score, 50 steps: map / numpy.trapezoid", (made / true).min().round(6), (made / true).max().round(6))
assert np.allclose(true, (picture**3 * weight).numpy(), rtol=1e-3)
assert np.allclose(made / true, 49 / 50, atol=1e-5), "the behaviour has changed"

net = torch.nn.Sequential(torch.nn.Linear(12, 6), torch.nn.Linear(6, 1)).double()
change = (net(picture) - net(black))[:, 0]
for rule in rules:
    total = LayerIntegratedGradients(net, net[0]).attribute(picture, black, target=0, method=rule, n_steps=10).sum(1)
    print(f"a layer, 10 steps, {rule}: {(total / change).tolist()[0]:.4f}")
    wrong = rule == "riemann_trapezoid"
    right = change * (0.9 if wrong else 1.0)
    assert torch.allclose(total, right, rtol=1e-5), "the behaviour has changed"
PY
