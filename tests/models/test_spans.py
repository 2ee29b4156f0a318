"""A cell is drawn where it looks: strides that do not divide the input leave a strip, and that is measured."""

import pytest
import torch
from torch import nn

from helpers.nets import noise, seeded
from pellucid.media.geometry import Geometry
from pellucid.models.layers import best_layer, describe


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
