#!/bin/sh
# torch 2.14.1 (CPU): `import torch` leaves sympy alone, the first `torch.autograd.grad` with `grad_outputs`, or the first
# `torch.unravel_index`, imports it, to compare two shapes that are plain numbers: 487 modules and 0.4 to 0.5 s of the
# processor inside a call that takes microseconds. `y.backward()` of a scalar and `grad` without `grad_outputs` do not.
# Prints the version, modules and times; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "torch==2.14.1" "numpy==2.4.6"
for call in "torch.autograd.grad(y.sum(), x, retain_graph=True)" "torch.autograd.grad(y, x, torch.ones(3), retain_graph=True)" \
    "torch.unravel_index(torch.tensor(5), (2, 3))"; do
    "$home/venv/bin/python" - "$call" <<'PY'
import sys
import time

import torch

x = torch.ones(3, requires_grad=True)
y = x * 2
torch.autograd.grad(y.sum(), x, retain_graph=True)
before, loaded, start = "sympy" in sys.modules, len(sys.modules), time.process_time()
exec(sys.argv[1])
first = time.process_time() - start
start = time.process_time()
exec(sys.argv[1])
again = time.process_time() - start
print(f"torch {torch.__version__}: {sys.argv[1]}")
print(f"    {len(sys.modules) - loaded} modules more, {first:.4f} s the first time, {again:.6f} s the second")
assert not before
assert ("sympy" in sys.modules) == ("sum()" not in sys.argv[1]), "the behaviour has changed"
PY
done
