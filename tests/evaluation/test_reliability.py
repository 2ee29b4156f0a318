"""The reliability card: maps that follow the input, maps that do not, and masks measured by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers import dicom as made
from pellucid.errors import MediaError, StorageError
from pellucid.evaluation.reliability import READERS, _turned


class Bright(nn.Module):
    """The sum of squares: its input x gradient follows the input wherever it goes."""

    def forward(self, x):
        total = x.square().flatten(1).sum(1)
        return torch.stack([total, -total], 1)


class Fickle(nn.Module):
    """A score whose gradient is another noise for the slightest change of the input."""

    def forward(self, x):
        total = torch.sin(1e5 * x).flatten(1).sum(1)
        return torch.stack([total, -total], 1)


def blob(size=(24, 20, 22), at=(12, 8, 14), steps=(1.0, 2.0, 1.5)):
    """A soft blob of one width in millimetres, and its volume."""
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    mm = (index - np.asarray(at)) * steps
    values = np.exp(-np.square(mm).sum(-1) / (2 * 5.0**2)).astype(np.float32)
    return pl.Volume(values, np.diag([*steps, 1.0]), "blob", "", "abc")


def explained(net, volume=None):
    model = pl.wrap(net.eval(), transform=pl.VolumePreprocess(), labels=["bright", "dark"])
    return pl.explain(model, volume or blob(), "input-x-gradient", target="bright")


def test_a_map_that_follows_the_input_is_repeated_and_one_that_does_not_is_not():
    steady, fickle = explained(Bright()).reliability(), explained(Fickle()).reliability()
    assert steady.rotation > 0.95
    assert abs(fickle.noise) < 0.2
    assert abs(fickle.rotation) < 0.3


def test_a_rotation_is_one_in_millimetres():
    """A blob away from the middle lies, after a quarter turn, as far from it in millimetres; and comes back."""
    steps = (1.0, 2.0, 1.0)
    x = torch.zeros(1, 1, 1, 20, 40)
    x[..., 10 - 5, 20] = 1  # 9 mm from the centre of the plane, along the axis of 2 mm
    turned = _turned(x, 90.0, steps)[0, 0, 0]
    down, along = np.unravel_index(int(turned.argmax()), turned.shape)
    assert abs((along + 0.5) - 20) == pytest.approx(9, abs=1)
    assert abs((down + 0.5) - 10) * 2 <= 2
    back = _turned(_turned(x, 6.0, steps), -6.0, steps)
    assert int(back.argmax()) == int(x.argmax())


def test_a_mask_is_measured_in_millimetres():
    e = explained(Bright())
    mask = np.zeros((24, 20, 22), bool)
    mask[12, 8, 14] = True
    place = e.reliability(mask).localisation
    assert place.hit
    assert place.distance == 0
    assert place.dice == 1
    heat = e.heatmap()[0].numpy().clip(0)
    assert place.mass == pytest.approx(heat[12, 8, 14] / heat.sum())
    away = np.zeros_like(mask)
    away[12, 11, 14] = True  # three voxels of 2 mm
    place = e.reliability(away).localisation
    assert not place.hit
    assert place.distance == pytest.approx(6)
    assert place.dice == 0
    for wrong in (np.zeros_like(mask), mask[1:]):
        with pytest.raises(MediaError, match="A mask is of the original"):
            e.reliability(wrong)


def test_the_card_stands_beside_the_map_once(tmp_path):
    e = explained(Bright())
    e.reliability()
    e.reliability()
    assert e.remarks.count(READERS) == 1
    assert sum(r.startswith("Repeated: ") for r in e.remarks) == 1
    e.save(tmp_path)
    again = pl.read(next(tmp_path.glob("*.json")))
    assert again.remarks == e.remarks
    with pytest.raises(StorageError, match="read from disk"):
        again.reliability()


def test_a_medical_picture_has_a_card_when_it_is_checked(tmp_path):
    pytest.importorskip("pydicom")
    stored = (blob().values[12] * 1000).astype(np.int16)
    file = made.write(tmp_path / "cr.dcm", stored, Modality="CR")
    squares = pl.Preprocess(input_size=(24, 24), resize=(24, 24), mean=(0, 0, 0), std=(1, 1, 1))
    model = pl.wrap(Bright().eval(), transform=squares, labels=["bright", "dark"])
    for source, lines in ((str(file), 1), (np.repeat(stored[..., None] // 4, 3, 2).astype(np.uint8), 0)):
        (e,) = maps = pl.explain(model, [source], "input-x-gradient", target="bright")
        maps.check()
        assert e.remarks.count(READERS) == lines


def test_pictures_have_a_card_too():
    e = pl.explain(pl.load("timm:test_resnet", random_weights=True), "sample:coffee", "grad-cam")
    card = e.reliability()
    assert -1 <= card.noise <= 1
    assert card.localisation is None
    assert card.numbers().keys() == {"noise", "rotation"}
