#!/bin/sh
# Pillow 13.0.0: `Image.composite` and `paste` with a soft mask (mode L, as for a feathered edge or an overlay) take grey
# pictures of mode F, I and I;16 without a word and blend each of their bytes by itself, carries lost. Between maps of
# 0.2 and 0.8 a mask of 64 / 255 gives 0.2 and one of 128 gives 0.8; between 200 and 800 in mode I the answers go up and
# down: 414, 628, 586, 801. A mask of 0 or 255 is right, and so is mode L. `Image.blend` refuses these modes.
# Prints the version and the answers beside the closed form; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "pillow==13.0.0" "numpy==2.4.6"
"$home/venv/bin/python" - <<'PY'
import numpy as np
import PIL
from PIL import Image

weights = [0, 64, 128, 192, 254, 255]
kinds = {"F": (np.float32, 0.2, 0.8), "I": (np.int32, 200, 800), "I;16": (np.uint16, 200, 800), "L": (np.uint8, 20, 80)}
print("Pillow", PIL.__version__)
for mode, (dtype, low, high) in kinds.items():
    below, above = (Image.fromarray(np.full((2, 3), value, dtype)) for value in (low, high))
    assert below.mode == mode
    right = [low + (high - low) * weight / 255 for weight in weights]
    found = []
    for weight in weights:
        mask = Image.new("L", below.size, weight)
        mixed = Image.composite(above, below, mask)
        pasted = below.copy()
        pasted.paste(above, (0, 0), mask)
        assert mixed.mode == mode and np.array_equal(np.asarray(mixed), np.asarray(pasted))
        found.append(float(np.asarray(mixed)[0, 0]))
    print(f"  {mode:5} mask {weights}: {[round(v, 3) for v in found]} right {[round(v, 3) for v in right]}")
    fits = [abs(a - b) <= (0.001 if mode == "F" else 1) for a, b in zip(found, right)]
    if mode == "L":
        assert all(fits)
    else:
        assert fits[0] and fits[-1] and not any(fits[1:4]), "the behaviour has changed"
    if mode == "F":
        try:
            Image.blend(below, above, 0.5)
            raise AssertionError("the behaviour has changed")
        except ValueError as error:
            print("        blend of the same two:", error)
PY
