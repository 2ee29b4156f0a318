"""Explanations to draw."""

import numpy as np
import torch

from pellucid.explanation import Explanation, Prediction, Record
from pellucid.media import Geometry, read_image

CROP = Geometry((60, 90), (56, 56), ((2.0, 58.0), (17.0, 73.0)))  # a centre crop


def explanation(values, *, geometry=CROP, picture=True, **kwargs):
    pixels = np.full((*geometry.source_size[-2:], 3), 128, np.uint8)
    fields = {
        "attribution": torch.as_tensor(values, dtype=torch.float32)[None],
        "method": "grad-cam",
        "target": "tiger cat",
        "prediction": [Prediction(282, "tiger cat", 0.4), Prediction(285, "Egyptian cat", 0.3)],
        "geometry": geometry,
        "record": Record({"name": "net"}, {"name": "cat", "sha256": "0"}, {"name": "grad-cam"}, None, {}, {}),
        "layer": "layer4",
        "picture": read_image(pixels) if picture is True else picture,
    }
    return Explanation(**{**fields, **kwargs})
