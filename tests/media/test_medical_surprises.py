"""Where other libraries do something else than one would guess: what holds here, of what no other test says."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from helpers import dicom as made
from helpers.volumes import AXIAL
from pellucid.heatmaps import get_method
from pellucid.media import read_image, read_volume

pytest.importorskip("pydicom")


def test_a_series_is_not_of_the_type_of_its_first_file(tmp_path):
    files = ((np.uint16, 1, 1, -1024), (np.int16, -1, 1, -1022), (np.int16, 101, 0.5, 0))
    for k, (kind, stored, slope, intercept) in enumerate(files):
        where = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0, 0, 2.0 * k], "PixelSpacing": [1, 1]}
        scale = {"RescaleSlope": slope, "RescaleIntercept": intercept, "SeriesInstanceUID": "1.2.3"}
        made.write(tmp_path / f"{k}.dcm", np.full((4, 5), stored, kind), **where, **scale)
    found = read_volume(tmp_path)
    np.testing.assert_array_equal(found.values[:, 0, 0], [-1023, -1023, 50.5])


def test_a_picture_is_read_height_first(tmp_path):
    Image.new("RGB", (200, 150)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").pixels.shape == (150, 200, 3)


class Corner(nn.Module):
    """Class 0 asks how bright the first channel is, class 1 how dark the second."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1, bias=False)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.stem.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[..., None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0], [0, -1.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))


def test_more_important_is_more_and_a_map_of_zeros_says_so():
    x = torch.zeros(3, 8, 8)
    x[0, 2, 5] = x[1] = 1
    model, cam = pl.wrap(Corner().eval()), get_method("grad-cam", layer="stem")
    lit = pl.explain(model, x, cam, target=0)
    values = lit.heatmap()[0]
    assert np.unravel_index(int(values.argmax()), values.shape) == (2, 5)
    assert float(values.max()) > 0
    assert int((values == 0).sum()) == 63
    dark = pl.explain(model, x, cam, target=1)
    assert float(dark.heatmap().abs().max()) == 0
    assert "the map is zero" in " ".join(dark.notes)


def test_a_softmax_network_is_read_by_softmax():
    x = torch.zeros(3, 8, 8)
    x[0] = 2
    model = pl.wrap(Corner().eval(), scores="softmax")
    sure = pl.explain(model, x, "occlusion", target=0).prediction[0]
    assert sure.probability == pytest.approx(float(torch.softmax(torch.tensor([2.0, 0]), 0)[0]))


def test_a_mean_over_areas_is_there_by_its_name():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3)).astype(np.uint8)
    box = pl.Preprocess(input_size=(4, 4), resize=(4, 4), mean=(0, 0, 0), std=(1, 1, 1), interpolation="box")
    model = pl.wrap(Corner().eval(), transform=box)
    x, _ = model.pictures(pl.Picture(pixels, "a", "", ""))
    mean = pixels.reshape(4, 2, 4, 3, 3).mean((1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(x.numpy() * 255, mean, atol=1.01)  # in whole grey values, along each axis
