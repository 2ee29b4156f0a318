"""A cell is drawn where it looks: strides that do not divide the input leave a strip, and that is measured."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, random_net, seeded
from pellucid import explain
from pellucid.engine.masks import SegmentMasks
from pellucid.errors import MethodError
from pellucid.heatmaps import RISE, TIS, AttentionRelevance, AttentionRollout, Occlusion
from pellucid.media.geometry import Geometry
from pellucid.models.layers import best_layer, describe
from pellucid.scoring.tokens import entries, token_scorer


def patches(stride, halves=0, padding=0):
    """A network of patches and of halvings that cut off what does not fit."""
    body = [nn.Conv2d(3, 8, stride, stride, padding)]
    for _ in range(halves):
        body += [nn.GELU(), nn.Conv2d(8, 8, 2, 2)]
    return seeded(
        lambda: nn.Sequential(nn.Sequential(*body), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    ).eval()


@pytest.mark.parametrize(
    ("stride", "halves", "size", "grid", "covered"),
    [(8, 0, (60, 60), 7, 56), (4, 1, (62, 62), 7, 56), (14, 0, (124, 124), 8, 112)],
)
def test_what_the_strides_cut_off_is_no_part_of_the_grid(stride, halves, size, grid, covered):
    found = best_layer(patches(stride, halves), noise(1, 3, *size))
    assert found.layout.grid == (grid, grid)
    for start, stop in found.span:
        assert start == pytest.approx(0, abs=1)
        assert stop == pytest.approx(covered, abs=1)
    assert found.reach == ((0.0, covered),) * 2


def test_an_axis_that_divides_stays_as_it_is():
    found = describe(patches(8), noise(1, 3, 60, 60), "0")
    wide = describe(patches(8), noise(1, 3, 64, 68), "0")
    assert found.span != ()
    assert wide.span[0] == (0.0, 64.0)
    assert wide.span[1] == pytest.approx((0.0, 64.0), abs=1)


def test_an_even_division_is_not_measured_at_all():
    net = patches(8)
    runs = []
    net.register_forward_hook(lambda *_: runs.append(1))
    found = best_layer(net, noise(1, 3, 64, 64))
    assert (found.span, found.reach) == ((), ())
    even = len(runs)
    runs.clear()
    best_layer(net, noise(1, 3, 60, 60))
    assert len(runs) > even


def test_a_map_is_spread_from_its_span_and_hatched_beyond_its_reach():
    geometry = Geometry((60, 60), (60, 60), ((0.0, 60.0),) * 2, span=((0.0, 56.0),) * 2, reach=((0.0, 56.0),) * 2)
    values = torch.zeros(1, 7, 7)
    values[0, 3, 6] = 1
    drawn = geometry.to_source(values)[0]
    assert drawn[:, 56:].isnan().all()
    assert drawn[56:].isnan().all()
    assert not drawn[:56, :56].isnan().any()
    column = drawn[:56, :56].sum(0)
    assert column.argmax() == 52  # the middle of the last cell, (6 + 1/2) * 8, and its border beyond
    assert geometry.to_input(values).isfinite().all()
    again = Geometry.from_dict(geometry.as_dict())
    assert again == geometry
    assert "span" not in Geometry.identity((4, 4)).as_dict()


def test_a_whole_span_changes_nothing():
    values = noise(1, 7, 7)
    box = ((-3.0, 50.0), (2.0, 61.5))
    plain = Geometry((52, 64), (60, 60), box)
    whole = Geometry((52, 64), (60, 60), box, span=((0.0, 60.0),) * 2, reach=((0.0, 60.0),) * 2)
    torch.testing.assert_close(whole.to_source(values), plain.to_source(values), equal_nan=True)
    torch.testing.assert_close(whole.to_input(values), plain.to_input(values))


# Patches of 8 in an input of 36: they see 32 of it. A transformer then answers as it does to the cropped input.
TINY = {"embed_dim": 48, "depth": 2, "num_heads": 4, "patch_size": 8, "img_size": 32}


def of_patches(**options):
    """A vision transformer that takes inputs of any size, and cuts off what its patches do not reach."""
    net = random_net("vit_tiny_patch16_224", dynamic_img_size=True, **{**TINY, **options})
    net.patch_embed.img_size = None
    return net


@pytest.fixture(scope="module")
def transformer():
    return of_patches()


@pytest.mark.parametrize(
    "method",
    [
        AttentionRollout(),
        AttentionRelevance(),
        Occlusion(baseline="dropped"),
        RISE(baseline="dropped", samples=32),
        TIS(masks=8),
    ],
    ids=lambda m: m.name,
)
def test_a_strip_that_no_token_sees_changes_no_map_and_is_hatched(transformer, method):
    x = noise(1, 3, 36, 32)
    maps = [explain(transformer, part, method, target=1) for part in (x, x[:, :, :32])]
    torch.testing.assert_close(maps[0].attribution, maps[1].attribution)
    drawn, cropped = (m.heatmap()[0] for m in maps)
    assert drawn[32:].isnan().all()
    torch.testing.assert_close(drawn[:32], cropped, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("size", "patch"), [((36, 39), (8, 8)), ((32, 47), (8, 8)), ((40, 32), (8, 8))])
def test_patches_are_proven_where_they_leave_a_strip(transformer, size, patch):
    (entry,) = entries(transformer, noise(1, 3, *size))
    assert entry.patch == patch
    assert entry.layout.grid == tuple(s // 8 for s in size)
    assert entry.covered == tuple(s // 8 * 8 for s in size)
    labels = entry.labels(size)
    assert labels.shape == size
    assert labels[9, 17] == entry.layout.grid[1] + 2
    assert labels[-1, -1] == entry.layout.cells - 1


def test_an_even_division_is_no_proof_that_patches_fill_the_input():
    net = of_patches(patch_size=14, img_size=56)
    (entry,) = entries(net, noise(1, 3, 60, 60))
    assert (entry.layout.grid, entry.patch) == ((4, 4), (14, 14))
    assert entry.span((60, 60)) == ((0.0, 56.0),) * 2


class Glancing(nn.Module):
    """A transformer whose last token also reads the strip beyond the patches."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.inner.pos_drop.register_forward_hook(self._look)

    def _look(self, _module, _args, tokens):
        return torch.cat([tokens[:, :-1], tokens[:, -1:] + self.beyond], 1)

    def forward(self, x):
        self.beyond = x[..., 32:, :].mean((1, 2, 3))[:, None, None]
        return self.inner(x)


def test_a_strip_that_some_token_reads_is_no_strip():
    net = Glancing(of_patches()).eval()
    assert entries(net, noise(1, 3, 36, 32)) == ()


def test_masks_of_channels_over_the_whole_input_ask_for_patches_that_fill_it(transformer):
    with pytest.raises(MethodError, match="give inputs that patches fill"):
        explain(transformer, noise(1, 3, 36, 32), method="vit-cx", target=1)


def test_segments_of_places_are_dropped_by_the_patches_that_see_them(transformer):
    x = noise(1, 3, 36, 32)
    labels = torch.arange(36)[:, None].div(18, rounding_mode="floor").expand(36, 32)
    with token_scorer(transformer, x, lambda y, _w, _r: [y[:, 1]]) as scorer:
        fitted = scorer.fit_segments(labels)
        assert fitted.shape == (36, 32)
        assert [int(row[0]) for row in fitted[::4]] == [0, 0, 0, 0, 1, 1, 1, 1, 1]
        from_places = scorer(SegmentMasks(torch.tensor([[1.0, 0.0]]), fitted))
        patches = torch.arange(16)[None] < 8
        torch.testing.assert_close(from_places, scorer(patches))
