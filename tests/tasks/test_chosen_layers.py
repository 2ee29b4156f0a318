"""Which layer explains a box or a region must not hang on what else is asked, or was asked before."""

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.detectors import Squares, scene


def wide(size):
    """Two wide convolutions and a narrow one, `(N, 3, h, w)` from 0 to 1."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, size, padding=size // 2), nn.ReLU(), nn.Conv2d(6, 6, size, padding=size // 2), nn.ReLU()]
    return nn.Sequential(*body, nn.Conv2d(6, 3, 1), nn.Sigmoid()).eval()


class Sides(nn.Module):
    """A detector that looks at the surroundings of a cell, and is the surest of the two cells of the planted scene."""

    def __init__(self):
        super().__init__()
        self.body = wide(17)

    def forward(self, x):
        return Squares()(x + 0.01 * self.body(x))


def maps(make, picture, targets):
    """Of a model that has answered nothing before."""
    found = pl.explain(make(), picture, "grad-cam", targets)
    return {e.record.target: e for e in ([found] if isinstance(found, pl.Heatmap) else found)}


def detector():
    return pl.wrap(Sides(), labels=["red", "blue"], task="boxes")


def segmenter():
    return pl.wrap(wide(7), labels=["a", "b", "c"], task="regions")


@pytest.mark.parametrize(
    ("make", "targets"),
    [
        (detector, ["box:0", "box:1"]),
        (segmenter, ["region:@3,3", "region:0/all"]),
        (segmenter, ["region:@3,3>region:@28,28", "region:0/all"]),
    ],
)
def test_a_map_is_the_same_alone_and_in_company(make, targets, tmp_path):
    picture = scene()[0]
    together = maps(make, picture, targets)
    for target in targets:
        (alone,) = maps(make, picture, [target]).values()
        assert alone.layer == together[target].layer
        assert torch.allclose(alone.attribution, together[target].attribution, rtol=1e-4, atol=1e-9)
        files = together[target].save(tmp_path / target.replace("/", "-"))
        (record,) = (f for f in files if f.suffix == ".json")
        assert pl.verify(record, model=make(), inputs=picture).status != "different"


def test_a_network_with_a_narrow_view_is_explained_before_its_answer():
    e = pl.explain(pl.wrap(wide(3), task="regions"), scene()[0], "grad-cam", "region:@3,3")
    assert e.layer.startswith("3 "), "the last that the answer is computed from, not the answer"
    assert not any("own output" in note for note in e.notes)
