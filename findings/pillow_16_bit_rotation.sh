#!/bin/sh
# Pillow 13.0.0: `rotate` and `transform` of a 16-bit grey picture (mode I;16) with BILINEAR or BICUBIC interpolate bytes
# where pixels lie: a flat picture of 1000 turned by 10 degrees comes out as 224, 14, 217, 21 and so on, without a
# word. The same turn with NEAREST is right, so are `resize` with every filter and the same picture in mode I or F; so a
# pipeline that resizes 16-bit scans rightly loses them where it turns or bends them.
# Prints the version and a row of each; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "pillow==13.0.0" "numpy==2.4.6"
"$home/venv/bin/python" - <<'PY'
import numpy as np
import PIL
from PIL import Image

level = 1000
flat = np.full((24, 24), level, np.uint16)
pictures = {"I;16": Image.fromarray(flat), "I": Image.fromarray(flat.astype(np.int32)), "F": Image.fromarray(flat.astype(np.float32))}
bend = (0.9, 0.05, 0.6, -0.05, 0.9, 0.4, 0.001, 0.001)
ways = {"NEAREST": Image.Resampling.NEAREST, "BILINEAR": Image.Resampling.BILINEAR, "BICUBIC": Image.Resampling.BICUBIC}
print("Pillow", PIL.__version__)
for mode, picture in pictures.items():
    assert picture.mode == mode
    for name, way in ways.items():
        made = {
            "rotate": picture.rotate(10, way),
            "affine": picture.transform(picture.size, Image.Transform.AFFINE, bend[:6], way),
            "perspective": picture.transform(picture.size, Image.Transform.PERSPECTIVE, bend, way),
            "resize": picture.resize((31, 17), way),
        }
        for task, result in made.items():
            assert result.mode == mode
            inner = np.asarray(result)[6:-6, 6:-6].astype(float)  # far from the border, which is filled
            lost = mode == "I;16" and name != "NEAREST" and task != "resize"
            assert (np.all(inner < 300) if lost else np.all(np.abs(inner - level) <= 1)), "the behaviour has changed"
        if mode != "I":
            print(f"  {mode:5} {name:9} turned {np.asarray(made['rotate'])[12, 8:14].tolist()} resized {np.asarray(made['resize'])[8, 8:10].tolist()}")
PY
