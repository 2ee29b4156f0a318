"""What audits are tested on: a table of samples as drawn, and pictures in folders of classes."""

import numpy as np
from PIL import Image

from pellucid.audit.samples import GRID, SampleTable


def table(count=40, seed=0):
    """Samples of two classes, all answered rightly with 0.9."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2
    p = np.where(np.eye(2)[truth] > 0, 0.9, 0.1).astype(np.float32)
    return SampleTable(
        positions=np.arange(count),
        scores=np.log(p),
        probabilities=p,
        embedding=rng.standard_normal((count, 6)).astype(np.float32),
        maps=rng.random((count, GRID, GRID)).astype(np.float32),
        properties=rng.random((count, 7)).astype(np.float32),
        boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)),
        thumbs=rng.integers(0, 256, (count, 24, 24, 3), dtype=np.uint8),
        truth=truth,
    )


def saved(data, folder, labelled=True):
    for i in range(len(data)):
        home = folder / data.classes[data.labels[i]] if labelled else folder
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.pixels[i]).save(home / f"{i}.png")
    return folder
