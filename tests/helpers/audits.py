"""What audits are tested on: a table of samples as drawn, and pictures in folders of classes."""

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from pellucid.audit.samples import GRID, SampleTable, arrays


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


def resumed(audit, made, given, whole, folder, files=80, batch=1):
    """An audit that is cut when five eighths of its files are kept, and one is damaged, goes on and finds the same.

    Args:
        made: the model, anew.
        given: what `audit` takes besides.
        whole: what it finds uncut.
        files: that are kept in all, each of `batch` pictures.

    Returns:
        The model that went on, and how many pictures it has seen in each of its passes.
    """
    cut = 5 * files // 8

    def kept():
        return sorted(folder.rglob("*.npz"))

    def stop(_module, _given, _output):
        if len(kept()) == cut:
            raise KeyboardInterrupt

    def counted():
        model, seen = made(), []
        model.module.register_forward_hook(lambda m, x, y: seen.append(len(x[0])))
        return model, seen

    broken = made()
    broken.module.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        audit(broken, *given, keep=folder)
    assert len(kept()) == cut
    kept()[cut // 2].write_bytes(b"damaged")
    model, seen = counted()
    again = audit(model, *given, keep=folder)
    assert len(kept()) == files
    idle, always = counted()
    audit(idle, *given, keep=folder)
    assert sum(seen) == sum(always) + (files - cut + 1) * batch
    assert again.notes == whole.notes
    assert [s.line for s in again.slices] == [s.line for s in whole.slices]
    assert list(again.lines()) == list(whole.lines())
    assert again.csv() == whole.csv()
    again.record = whole.record  # which tells when it was
    assert again.html() == whole.html()
    for name, value in values(whole).items():
        np.testing.assert_array_equal(values(again)[name], value, err_msg=name)
    return model, seen


def values(found):
    """The arrays that an audit rests on, by name."""
    return arrays(found.samples) if isinstance(found, pl.Audit) else found.table.arrays()
