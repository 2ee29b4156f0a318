"""Maps of pairs by gradients: shares of the cosine in closed form, sums that are the cosine, planted matches."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from helpers.traces import state
from pellucid.errors import MethodError
from pellucid.heatmaps import get_method
from pellucid.render import panel
from pellucid.storage import load

PLAIN = pl.Preprocess(input_size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))


class Pooled(nn.Module):
    """Cells of 4 x 4 pixels, pooled, then one linear layer; with `bent` a curve in between."""

    def __init__(self, bent=False):
        super().__init__()
        torch.manual_seed(3)
        self.cells = nn.Conv2d(3, 6, 4, 4)
        self.act = nn.ReLU()
        self.mix = nn.Conv2d(6, 6, 3, 1, 1) if bent else nn.Identity()
        self.curve = nn.Tanh() if bent else nn.Identity()
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.curve(self.mix(self.act(self.cells(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / name)
    return folder / "a.png", folder / "b.png"


def embedded(net, path):
    x = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return x, net(x)[0].double()


def test_pooled_cells_share_the_cosine_in_closed_form(photos):
    net = Pooled().eval()
    (xa, ea), (xb, eb) = (embedded(net, photo) for photo in photos)
    with torch.no_grad():
        zero = net(torch.zeros_like(xa))[0].double()

        def shares(x):
            moved = net.act(net.cells(x)) - net.act(net.cells(torch.zeros_like(x)))
            own = (moved[0].flatten(1).T @ net.fc.weight.T).double() / 16
            return own, own + zero / 16

    (own_a, whole_a), (own_b, whole_b) = shares(xa), shares(xb)
    scale = ea.norm() * eb.norm()
    e = pl.explain(
        pl.wrap(net, task="embedding", transform=PLAIN),
        photos[0],
        "integrated-jacobians",
        f"pair:{photos[1]}",
        layer="act",
    )
    assert torch.allclose(e.attribution[0].flatten().double(), whole_a @ eb / scale, atol=1e-5)
    assert torch.allclose(e.extras["other_map"][0].flatten().double(), whole_b @ ea / scale, atol=1e-5)
    assert e.facts["steps"] == 1
    assert e.facts["cosine"] == pytest.approx(float(ea @ eb / scale), abs=1e-6)
    assert float(e.attribution.sum()) == pytest.approx(e.facts["cosine"], abs=1e-4)
    assert float(e.extras["other_map"].sum()) == pytest.approx(e.facts["cosine"], abs=1e-4)
    common = (own_a @ own_b.T / scale).detach()
    best = [(i, int(common[i].argmax())) for i in range(16) if int(common[:, int(common[i].argmax())].argmax()) == i]
    wanted = sorted((pair for pair in best if common[pair] > 0), key=lambda pair: -common[pair])[:8]
    found = e.extras["matches"][0]
    found = found[~found[:, 0].isnan()]
    assert [(int(r * 4 + c), int(s * 4 + d)) for r, c, s, d, _ in found] == wanted
    assert [float(row[4]) for row in found] == pytest.approx([float(common[pair]) for pair in wanted], abs=1e-6)


def test_both_maps_sum_to_the_cosine_behind_a_curve(photos):
    net = Pooled(bent=True).eval()
    (_, ea), (_, eb) = (embedded(net, photo) for photo in photos)
    model = pl.wrap(net, task="embedding", transform=PLAIN)
    e = pl.explain(model, photos[0], "integrated-jacobians", f"pair:{photos[1]}", layer="act")
    cosine = float(ea @ eb / ea.norm() / eb.norm())
    assert e.facts["steps"] > 1
    assert not e.notes
    assert float(e.attribution.sum()) == pytest.approx(cosine, abs=1e-4)
    assert float(e.extras["other_map"].sum()) == pytest.approx(cosine, abs=1e-4)
    back = pl.explain(model, photos[1], "integrated-jacobians", f"pair:{photos[0]}", layer="act")
    assert torch.allclose(back.attribution, e.extras["other_map"], atol=1e-5)
    few = pl.explain(
        model, photos[0], get_method("integrated-jacobians", max_steps=1, layer="act"), f"pair:{photos[1]}"
    )
    assert "The maps miss the cosine by" in few.notes[0]


def unmatched(e):
    return replace(e, extras=e.extras | {"matches": torch.full((1, 8, 5), torch.nan)})


def test_a_planted_patch_is_matched_with_itself(tmp_path):
    """The one patch that both pictures show, at two places, is the strongest match."""
    for name, (row, column) in {"a.png": (1, 2), "b.png": (3, 0)}.items():
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = (255, 0, 0)
        pixels[:4, :4] = (0, 255, 0) if name == "a.png" else (0, 0, 255)
        Image.fromarray(pixels).save(tmp_path / name)
    net = nn.Sequential(nn.AvgPool2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = pl.wrap(net, task="embedding", transform=PLAIN)
    e = pl.explain(model, tmp_path / "a.png", "integrated-jacobians", f"pair:{tmp_path / 'b.png'}", layer="1")
    (match,) = [row for row in e.extras["matches"][0].tolist() if row[0] == row[0]]
    assert match[:4] == [1, 2, 3, 0]
    assert match[4] == pytest.approx(0.5)
    assert float(e.map()[0, 0, 0]) == 0  # green is nowhere in the other
    assert e.others[0].name == "b"
    gold = (255, 212, 0)  # the line, from the patch in the one to the patch in the other
    with_line, without = (
        np.asarray(Image.open(BytesIO(each.png())).convert("RGB"))
        for each in (pl.Heatmaps([e]), pl.Heatmaps([unmatched(e)]))
    )
    assert (with_line == gold).all(-1).sum() > 50
    assert not (without == gold).all(-1).any()
    e.save(tmp_path / "out")
    [record] = (tmp_path / "out").glob("*.json")
    assert pl.verify(record, model=model).status == "same"
    kept, _ = load(record)
    assert kept.others == ()  # pictures are not stored; the sheet is drawn without
    assert panel([kept]).get_size_inches()[1] > 2


def test_what_is_no_pair_is_refused_and_no_trace_is_left(photos):
    net = Pooled().eval()
    model = pl.wrap(net, task="embedding", transform=PLAIN)
    x = torch.zeros(1)
    before = state(net, x)
    for target in (f"rank:{photos[0]}>{photos[1]}", lambda y: y[:, 0]):
        with pytest.raises(MethodError, match="this target is no pair"):
            pl.explain(model, photos[0], "integrated-jacobians", target, layer="act")
    pl.explain(model, photos[0], "integrated-jacobians", f"pair:{photos[1]}", layer="act")
    assert state(net, x) == before
    wide = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    large = pl.Preprocess(input_size=(80, 80), mean=(0, 0, 0), std=(1, 1, 1))
    wide = pl.wrap(wide, task="embedding", transform=large)
    with pytest.raises(MethodError, match="holds all pairs"):
        pl.explain(wide, photos[0], "integrated-jacobians", f"pair:{photos[1]}", layer="1")
