"""Multi-scale CAM: levels by hand, shares that were planted, levels that stand in front of a head."""

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.detectors import CELL
from pellucid.errors import LayerError, MethodError
from pellucid.heatmaps import MultiScaleCAM
from pellucid.models.detections import Detections


class Pyramid(nn.Module):
    """Three grids, 8 x 8, 4 x 4 and 2 x 2, each with a weight of its own in the score."""

    def __init__(self, weights=(1.0, 1.0, 1.0)):
        super().__init__()
        torch.manual_seed(1)
        self.weights = weights
        self.fine = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 2, 2), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(4, 4, 2, 2), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

    def forward(self, x):
        fine = self.fine(x)
        middle = self.middle(fine)
        levels = [fine, middle, self.coarse(middle)]
        rows = zip(self.weights, self.heads, levels, strict=True)
        return sum(w * head(level.mean((2, 3))) for w, head, level in rows)


X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LEVELS = "fine.1,middle.1,coarse.1"


def by_hand(net, x, index):
    """Layer-CAM of each level, and their sum on 8 x 8, every level's sum kept."""
    kept = []
    hooks = [
        getattr(net, n)[1].register_forward_hook(lambda _m, _a, out: kept.append(out))
        for n in ("fine", "middle", "coarse")
    ]
    score = net(x)[:, index].sum()
    [hook.remove() for hook in hooks]
    slopes = torch.autograd.grad(score, kept)
    maps = [(g.relu() * a).sum(1).detach() for a, g in zip(kept, slopes, strict=True)]
    whole = torch.zeros(len(x), 8, 8)
    for one in maps:
        finer = nn.functional.interpolate(one[:, None], size=(8, 8), mode="bilinear")[:, 0]
        whole += finer * (one.sum((1, 2)) / finer.sum((1, 2)).clamp(min=1e-30))[:, None, None]
    return maps, whole


@pytest.mark.parametrize("levels", [LEVELS, ""])
def test_levels_are_summed_as_by_hand(levels):
    net = Pyramid().eval()
    maps, whole = by_hand(net, X, 1)
    (found,) = MultiScaleCAM(levels=levels).explain(net, X, [1])
    assert torch.allclose(found.values, whole, atol=1e-6)
    sums = torch.stack([one.sum((1, 2)) for one in maps], 1)
    shares = torch.tensor([found.facts[name] for name in found.facts]).T
    assert torch.allclose(shares, sums / sums.sum(1, keepdim=True), atol=1e-5)
    assert torch.allclose(found.values.sum((1, 2)), sums.sum(1), atol=1e-6)
    assert [name.partition(" (")[2] for name in found.facts] == ["8 x 8)", "4 x 4)", "2 x 2)"]
    assert (found.cost.forwards, found.cost.backwards) == (2, 2)
    assert "(8 x 8)" in found.remarks[0][0]
    assert "Of the evidence each level has" in found.remarks[0][0]


def test_a_level_that_counts_for_nothing_has_no_share():
    (found,) = MultiScaleCAM(levels=LEVELS).explain(Pyramid((1.0, 0.0, 0.0)).eval(), X, [0])
    assert found.facts["share of fine.1 (8 x 8)"] == [1.0, 1.0]
    assert found.facts["share of coarse.1 (2 x 2)"] == [0.0, 0.0]


class TwoLevels(nn.Module):
    """A detector with a candidate for each cell of two grids, whose heads read each cell by itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.fine = nn.Sequential(nn.Conv2d(3, 6, CELL, CELL), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        boxes, classes = [], []
        fine = self.fine(x)
        for level in (fine, self.coarse(fine)):
            size = x.shape[-1] // level.shape[-1]
            at = torch.arange(level.shape[-1]) * float(size)
            y, x0 = (t.flatten() for t in torch.meshgrid(at, at, indexing="ij"))
            boxes.append(torch.stack([x0, y, x0 + size, y + size], -1).expand(len(x), -1, 4))
            classes.append(self.head(level).sigmoid().flatten(2).mT)
        return Detections(torch.cat(boxes, 1), torch.cat(classes, 1), threshold=0.0, overlap=1.0)


def test_a_box_of_the_coarse_level_rests_on_both():
    """A fine box has a gradient at its own cell only; a coarse one at the cells that its convolution reads."""
    net = TwoLevels().eval()
    model, x = pl.wrap(net, task="boxes", labels=["a", "b"]), X[:1]
    fine, coarse = ("box:a@8,8,16,16/class", "box:a@16,16,32,32/class")
    method = MultiScaleCAM(levels="fine.1,coarse.1")
    one, other = (method.explain(model, x, [target])[0] for target in (fine, coarse))
    assert one.facts["share of coarse.1 (2 x 2)"] == [0.0]
    assert set(map(tuple, one.values[0].nonzero().tolist())) <= {(1, 1)}
    assert 0 < other.facts["share of coarse.1 (2 x 2)"][0] < 1


def test_bad_settings_are_a_sentence():
    with pytest.raises(MethodError, match="at least one level"):
        MultiScaleCAM(count=0)
    with pytest.raises(LayerError, match="no layer 'nowhere'"):
        MultiScaleCAM(levels="nowhere").attribute(Pyramid().eval(), X, 0)
