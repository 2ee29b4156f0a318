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


def resumed(audit, made, given, whole, folder):
    """An audit of 80 pictures, cut after 50 of which one row is damaged, goes on and finds the same as the whole one.

    Returns:
        The model that went on, and how many pictures it has seen in each of its passes.
    """
    audit(made(), *given, keep=folder)
    kept = sorted(folder.rglob("*.npz"))
    assert len(kept) == 80
    for file in kept[:30]:
        file.unlink()
    kept[40].write_bytes(b"damaged")
    model, seen = made(), []
    model.module.register_forward_hook(lambda m, x, y: seen.append(len(x[0])))
    again = audit(model, *given, keep=folder)
    assert sum(seen) == 31
    assert again.notes == whole.notes
    assert [s.line for s in again.slices] == [s.line for s in whole.slices]
    for name, value in whole.table.arrays().items():
        np.testing.assert_array_equal(again.table.arrays()[name], value, err_msg=name)
    return model, seen
