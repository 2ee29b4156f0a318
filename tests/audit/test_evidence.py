"""Exchanges of parts against values by hand."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, pad

import pellucid as pl
from pellucid.audit.clusters import clusters, common_cells
from pellucid.audit.evidence import PicturePart, beside, centred, common_parts, region_part, smooth, surroundings
from pellucid.audit.marks import distinct, fixed_marks, moved_marks
from pellucid.audit.reasons import _beside_marks, _judged, _Tried, _tried
from pellucid.language import speaking, translated

PARTS = {p.kind: p for p in common_parts((24, 32))}


def noise(count, seed=0, size=(24, 32)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_a_surface_between_straight_lines_is_its_own_surroundings():
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 96), indexing="ij")
    surface = (1 + 2 * x - 3 * y + 4 * x * y)[None, None]
    inner = surroundings(surface)[..., 16:-16, 16:-16] - surface[..., 16:-16, 16:-16]
    assert inner.abs().max() < 0.35  # the mean of the outer eighth lies a sixteenth inside
    flat = torch.full((1, 3, 24, 32), 0.7)
    torch.testing.assert_close(surroundings(flat), flat)
    flat[..., 8:16, 12:20] = 0  # what lies in the middle has no part in it
    torch.testing.assert_close(surroundings(flat)[..., 12, 16], torch.full((1, 3), 0.7))


def test_the_border_is_a_frame_of_a_twelfth():
    a, b = noise(2), noise(2, 1)
    mixed = PARTS["border"].exchange(a, b)
    assert torch.equal(mixed[..., 2:-2, 2:-2], a[..., 2:-2, 2:-2])
    for side in (mixed[..., :2, :] - b[..., :2, :], mixed[..., -2:] - b[..., -2:]):
        assert not side.any()


def test_parts_beside_marks_leave_the_marks_out():
    a, b = torch.full((1, 3, 24, 32), 0.2), torch.full((1, 3, 24, 32), 0.6)
    marks = torch.zeros(24, 32, dtype=torch.bool)
    marks[:3, :3] = marks[-3:, -3:] = True
    a[..., :3, :3] = b[..., -3:, -3:] = 1.0
    mixed = beside(PARTS["border"], marks).exchange(a, b)
    assert torch.equal(mixed[..., marks], a[..., marks])
    assert torch.equal(mixed[..., :2, 3:], b[..., :2, 3:])
    whole, held = (part.exchange(a, b) for part in (PARTS["background"], beside(PARTS["background"], marks)))
    plain = torch.full((1, 3, 24, 32), 0.6)
    plain[..., marks] = a[..., marks]
    torch.testing.assert_close(held, a - surroundings(a) + surroundings(plain))
    assert (whole - held).abs().max() > 0.1
    backwards = PicturePart("order", "the order", lambda a, _b: a.flip(2), given=False)
    assert beside(backwards, marks) is backwards


def test_backgrounds_are_exchanged_and_what_lies_on_them_stays():
    a, b = torch.full((1, 3, 24, 32), 0.2), torch.full((1, 3, 24, 32), 0.6)
    a[..., 9:15, 12:20] = 0.9
    mixed = PARTS["background"].exchange(a, b)
    torch.testing.assert_close(mixed[..., 0, 0], torch.full((1, 3), 0.6))
    torch.testing.assert_close(mixed[..., 12, 16], torch.full((1, 3), 0.9 - 0.2 + 0.6))


def test_colours_are_exchanged_and_brightness_stays():
    a, b = noise(2), noise(2, 1)
    mixed = PARTS["colour"].exchange(a, b)
    torch.testing.assert_close(mixed.mean(1), a.mean(1))
    torch.testing.assert_close(mixed - mixed.mean(1, keepdim=True), b - b.mean(1, keepdim=True))


def test_stripes_are_exchanged_and_a_strong_edge_stays():
    y, x = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    a, b = (0.4 + 0.1 * (v % 2 - 0.5).float().expand(1, 3, -1, -1) for v in (y, x))
    a = a.clone()
    a[..., 9:15, 12:20] = 1.0
    mixed = PARTS["texture"].exchange(a, b)
    far = mixed[..., 20:23, 4:28]
    torch.testing.assert_close(far, b[..., 20:23, 4:28], atol=0.02, rtol=0)
    torch.testing.assert_close(mixed[..., 9, 13], torch.ones(1, 3))


def test_texture_beside_a_mark_is_read_where_no_mark_lies():
    """Repeated all over the picture, a mark in the corner would pass for texture."""
    y, x = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    a, b = ((0.4 + 0.1 * (v % 2 - 0.5)).float().expand(2, 3, -1, -1).clone() for v in (y, x))
    marks = torch.zeros(24, 32, dtype=torch.bool)
    marks[-6:-1, -6:-1] = True
    marks[1:6, 1:6] = True
    a[..., marks], b[..., marks] = 0.9, 0.0
    mixed = beside(PARTS["texture"], marks).exchange(a, b)
    assert torch.equal(mixed[..., marks], a[..., marks])
    torch.testing.assert_close(mixed[..., 10:14, 13:20], b[..., 10:14, 13:20], atol=0.03, rtol=0)
    marked = PARTS["texture"].exchange(a, b)
    assert (marked - b)[..., 10:14, 13:20].abs().max() > 0.1


class Spots(nn.Module):
    """The first class's logit grows with the number of dark pixels that have a bright one below them."""

    def forward(self, x):
        grey = x.mean(1)
        spots = ((grey[:, 1:] - grey[:, :-1]) > 0.5).flatten(1).float().sum(1)
        return torch.stack([0.2 * spots - 2, torch.zeros_like(spots)], 1)


def test_a_mark_in_the_corner_is_not_called_texture():
    """Repeated all over the picture it does more than at its place, which would make texture of it."""
    model = pl.wrap(
        Spots(), transform=pl.Preprocess(input_size=(24, 32), mean=(0,) * 3, std=(1,) * 3), scores="softmax"
    )
    x, others = 0.3 * noise(40), 0.3 * noise(40, 1)
    x[..., -6:-1:2, -8:-3], x[..., -5:-2:2, -8:-3] = 0.0, 1.0
    place = torch.zeros(24, 32, dtype=torch.bool)
    place[-6:-1, -8:-3] = True
    both, rows = torch.cat([x, others]), (np.arange(40), np.arange(40, 80))
    tried = [
        replace(_tried(model, part, 0, (), x, others), pairs=rows)
        for part in (region_part("mark", "a mark", place), PARTS["texture"])
    ]
    assert tried[1].moved * 0.7 > tried[0].moved
    assert [r.kind for r in _judged(tried, [t.p for t in tried]) if r.relied] == ["texture"]
    apart = _beside_marks(model, tried, lambda some: both[list(some)])
    assert [r.kind for r in _judged(apart, [t.p for t in apart]) if r.relied] == ["mark"]
    assert apart[1].moved < 0.02


def test_smoothing_keeps_a_constant_and_the_mean_of_squares():
    torch.testing.assert_close(smooth(torch.full((1, 1, 9, 9), 0.3), 3), torch.full((1, 1, 9, 9), 0.3))
    dot = torch.zeros(1, 1, 9, 9)
    dot[..., 4, 4] = 1
    assert smooth(dot, 3)[0, 0, 4, 4] == pytest.approx(9 / 81)
    x, size = noise(2), 7
    plain = x
    for _ in range(2):
        plain = avg_pool2d(pad(plain, (size // 2,) * 4, mode="replicate"), size, stride=1)
    torch.testing.assert_close(smooth(x, size), plain)


class Corner(nn.Module):
    """The first class's logit is 4 times the mean of the top left 6 x 6 pixels; the second's is 0."""

    def forward(self, x):
        told = 4 * x[..., :6, :6].mean((1, 2, 3))
        return torch.stack([told, torch.zeros_like(told)], 1)


def test_an_exchange_is_measured_as_by_hand():
    model = pl.wrap(
        Corner(), transform=pl.Preprocess(input_size=(24, 32), mean=(0,) * 3, std=(1,) * 3), scores="softmax"
    )
    x, others = noise(10), 0.2 * noise(10, 1)
    place = torch.zeros(24, 32, dtype=torch.bool)
    place[:6, :6] = True
    found = _tried(model, region_part("mark", "a mark", place), 0, tuple(range(10)), x, others)
    p, q = (torch.sigmoid(4 * v[..., :6, :6].mean((1, 2, 3))).double().numpy() for v in (x, others))
    np.testing.assert_allclose(found.drops, p - q, atol=1e-6)
    np.testing.assert_allclose(found.rises, p - q, atol=1e-6)
    (reason,) = _judged([found], [found.p])
    assert reason.relied
    assert (reason.drop, reason.rest) == pytest.approx(((p - q).mean(), q.mean()), abs=1e-6)
    elsewhere = region_part("mark", "a mark", place.flip(1))
    nothing = _tried(model, elsewhere, 0, (), x, others)
    assert not nothing.drops.any()
    assert nothing.p == 1
    assert not _judged([nothing], [1.0])[0].relied


def test_a_mark_is_what_is_the_same_in_all_and_not_in_others():
    x, others = noise(30), noise(30, 1)
    x[..., 3:8, 20:26] = 1.0
    everywhere = torch.ones(24, 32, dtype=torch.bool)
    (mark,) = fixed_marks(everywhere, x, others)
    assert mark.nonzero().amin(0).tolist() == [3, 20]
    assert mark.nonzero().amax(0).tolist() == [7, 25]
    assert centred(mark) == "top right"
    assert fixed_marks(~mark, x, others) == []
    assert fixed_marks(everywhere, noise(30, 2), others) == []
    x[:] = 1.0  # all of the picture is no mark
    assert fixed_marks(everywhere, x, others) == []


@pytest.mark.parametrize("reach", [1, 2])
def test_a_mark_that_moves_by_a_pixel_or_two_is_found_with_its_room(reach):
    """Of no place in it all pictures hold the same, and a mark that stays is found as it is."""
    x, others, rng = noise(40, size=(32, 32)), noise(40, 1, size=(32, 32)), np.random.default_rng(0)
    for i, (y, z) in enumerate(rng.integers(-reach, reach + 1, (40, 2)).tolist()):
        x[i, :, 6 + y : 11 + y, 20 + z : 25 + z] = 2.0
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[3:14, 17:28] = True
    assert fixed_marks(region, x, others) == []
    (room,) = moved_marks(region, x, others)
    assert room.nonzero().amin(0).tolist() == [6 - reach, 20 - reach]
    assert room.nonzero().amax(0).tolist() == [10 + reach, 24 + reach]
    assert moved_marks(region, noise(40, 2, size=(32, 32)), others) == []
    assert moved_marks(torch.ones(32, 32, dtype=torch.bool), x, others) == []


@pytest.mark.parametrize("row", [(2, "top"), (12, "middle"), (22, "bottom")])
@pytest.mark.parametrize("column", [(2, "left"), (12, "centre"), (22, "right")])
def test_a_place_has_a_name_that_stands_in_the_catalogue(row, column):
    """One word alone would be put into another language as what else it means: right, or top of a list."""
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[row[0], column[0]] = True
    place = centred(mask)
    assert place == ("centre" if (row[1], column[1]) == ("middle", "centre") else f"{row[1]} {column[1]}")
    with speaking("zh"):
        assert not re.search("[a-z]", translated(f"a fixed mark at the {place}"))
        assert "正确" not in translated(f"a fixed mark at the {place}")


def test_what_differs_from_picture_to_picture_is_no_mark_that_moves():
    """Squares of several sizes and greys near one place, as objects are."""
    x, others, rng = noise(40, size=(32, 32)), noise(40, 1, size=(32, 32)), np.random.default_rng(0)
    for i in range(40):
        y, z, side = 12 + rng.integers(-2, 3), 12 + rng.integers(-2, 3), rng.integers(5, 9)
        x[i, :, y : y + side, z : z + side] = float(rng.uniform(1, 2))
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[8:24, 8:24] = True
    assert moved_marks(region, x, others) == []


def test_marks_that_are_nearly_one_are_tested_once():
    first, second, apart = (torch.zeros(8, 8, dtype=torch.bool) for _ in range(3))
    first[:4, :4] = second[:4, :3] = apart[4:, 4:] = True
    assert [m is first for m in distinct([first, second], [])] == [True]
    assert distinct([second], [first]) == []
    assert distinct([apart], [first])[0] is apart


class Lamps(nn.Module):
    """Each class's logit is 6 times the light of its own corner; of two lamps at once the second is believed."""

    def forward(self, x):
        first, second = (x[..., place, :4].mean((1, 2, 3)) for place in (slice(4), slice(-4, None)))
        return torch.stack([6 * first * (1 - second), 6 * second, 0 * first + 1], 1)


def test_a_mark_is_given_to_pictures_whose_own_is_taken_away():
    """Given the first lamp, pictures of the second class still follow their own: as a picture with both would."""
    model = pl.wrap(
        Lamps(), transform=pl.Preprocess(input_size=(24, 24), mean=(0,) * 3, std=(1,) * 3), scores="softmax"
    )
    x, others = 0.1 * noise(20, size=(24, 24)), 0.1 * noise(20, 1, size=(24, 24))
    x[..., :4, :4] = others[..., -4:, :4] = 1.0
    place = torch.zeros(24, 24, dtype=torch.bool)
    place[:4, :4] = True
    part = region_part("mark", "a mark", place)
    plain = _tried(model, part, 0, (), x, others)
    assert plain.rises.mean() < 0.02
    bared = others.clone()
    bared[..., -4:, :4] = x[..., -4:, :4]
    found = _tried(model, part, 0, (), x, others, bared=bared)
    np.testing.assert_allclose(found.drops, plain.drops)
    with torch.no_grad():
        both = bared.clone()
        both[..., :4, :4] = 1.0
        by_hand = (model.module(both).softmax(1) - model.module(bared).softmax(1))[:, 0].double().numpy()
    np.testing.assert_allclose(found.rises, by_hand, atol=1e-6)
    assert found.rises.mean() > 0.5


def test_the_core_of_an_object_is_no_mark():
    """Bright discs of several sizes about one place: their common core is the same in all, and has no edge."""
    x, others = 0.3 * noise(40), 0.3 * noise(40, 1)
    y, z = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    for i in range(40):
        x[i, :, (y - 12) ** 2 + (z - 16) ** 2 <= (3 + i % 4) ** 2] = 0.9
    assert fixed_marks(torch.ones(24, 32, dtype=torch.bool), x, others) == []


def test_maps_of_two_kinds_are_two_groups():
    rng = np.random.default_rng(0)
    maps = 0.02 * rng.random((60, 14, 14)).astype(np.float32)
    maps[:35, 2:4, 2:4] += 1
    maps[35:, 10:12, 9:12] += 1
    whole, *groups = clusters(maps)
    assert whole.tolist() == list(range(60))
    assert [sorted(g.tolist()) for g in groups] == [list(range(35)), list(range(35, 60))]
    place, all_of_it = common_cells(maps[:35])
    assert place[2:4, 2:4].all()
    assert place.sum() <= 16
    assert all_of_it.all()


def test_an_exchange_that_harms_whoever_gives_the_part_is_no_reason():
    """Corners that turn into their negatives, whatever is given: the class falls on its own, rises on others."""
    model = pl.wrap(
        Corner(), transform=pl.Preprocess(input_size=(24, 32), mean=(0,) * 3, std=(1,) * 3), scores="softmax"
    )
    x, others = 0.5 * noise(20), 0.5 * noise(20, 1)
    x[..., :6, :6] = 0.8 + 0.4 * x[..., :6, :6]
    place = torch.zeros(24, 32, dtype=torch.bool)
    place[:6, :6] = True
    harmful = PicturePart("texture", "fine texture", lambda a, _b: torch.where(place, 1 - a, a))
    found = _tried(model, harmful, 0, (), x, others)
    assert min(found.drops.mean(), found.rises.mean()) > 0.1
    assert found.carried > found.rest
    assert not _judged([found], [found.p])[0].relied
    honest = _tried(model, region_part("texture", "fine texture", place), 0, (), x, others)
    assert _judged([honest], [honest.p])[0].relied

    def p(v):
        return torch.sigmoid(4 * v[..., :6, :6].mean((1, 2, 3))).double().numpy()

    np.testing.assert_allclose(honest.lasting[0], p(x.roll(1, 0)) - p(others), atol=1e-6)
    np.testing.assert_allclose(honest.lasting[1], p(x) - p(others.roll(1, 0)), atol=1e-6)


def test_a_part_that_explains_the_fall_and_not_the_rise_is_not_named_for_the_broader_one():
    """A frame is part of a background that tells: pictures that get it fall, and few of others come."""
    rng = np.random.default_rng(0)
    tried = [
        _Tried("first", PARTS[kind], (), fall + rng.normal(0, 0.05, 40), rise + rng.normal(0, 0.05, 40), 0.6, 0.1)
        for kind, fall, rise in (("background", 0.9, 0.62), ("border", 0.7, 0.26))
    ]
    assert [r.kind for r in _judged(tried, [0.0, 0.0]) if r.relied] == ["background"]
    frame = replace(tried[1], rises=tried[1].rises + 0.3)
    assert [r.kind for r in _judged([tried[0], frame], [0.0, 0.0]) if r.relied] == ["border"]
