import itertools
import json

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from pellucid.errors import MediaError
from pellucid.media import Geometry


def linear_at(row, at):
    """Linear interpolation of a list at a cell coordinate, border repeated: the plain definition."""
    at = min(max(at, 0.0), len(row) - 1.0)
    low = min(int(at), len(row) - 1)
    high = min(low + 1, len(row) - 1)
    return row[low] + (at - low) * (row[high] - row[low])


@pytest.mark.parametrize(
    ("grid", "size", "mode"),
    [
        ((5,), (17,), "linear"),
        ((7, 7), (224, 301), "bilinear"),
        ((14, 9), (14, 50), "bilinear"),
        ((1, 3), (40, 3), "bilinear"),
        ((2, 3, 4), (8, 13, 21), "trilinear"),
    ],
)
def test_growing_equals_interpolate(grid, size, mode):
    values = torch.randn(2, 3, *grid, dtype=torch.float64)
    geometry = Geometry(size, (10,) * len(size), tuple((0.0, float(n)) for n in size))
    expected = F.interpolate(values, size, mode=mode, align_corners=False)
    assert geometry.to_source(values).dtype == torch.float32
    torch.testing.assert_close(geometry.to_source(values).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Geometry.identity(size).to_input(values).double(), expected, atol=1e-5, rtol=1e-5)


def test_shrinking_equals_antialiased_interpolate_and_keeps_every_peak():
    values = torch.rand(1, 1, 224, 120)
    expected = F.interpolate(values, (32, 50), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(Geometry((32, 50), (224, 120), ((0, 32), (0, 50))).to_source(values), expected)
    one_hot = torch.eye(224)
    spread = Geometry((32,), (224,), ((0, 32),)).to_source(one_hot)
    assert (spread.amax(1) > 0).all()
    assert ((spread.argmax(1) - torch.arange(224) // 7).abs() <= 1).all()


@pytest.mark.parametrize("box", [((2.3, 9.1), (-3.0, 14.5)), ((0.0, 12.0), (4.5, 5.5)), ((-20.0, 40.0), (3.0, 11.0))])
def test_crop_and_padding_match_the_definition_pixel_by_pixel(box):
    grid, size = torch.rand(4, 5), (12, 11)
    geometry = Geometry(size, (32, 40), box)
    got, seen = geometry.to_source(grid), geometry.seen()
    for y, x in itertools.product(*map(range, size)):
        inside = all(start <= p + 0.5 < stop for p, (start, stop) in zip((y, x), box, strict=True))
        assert bool(seen[y, x]) == inside == (not got[y, x].isnan())
        # where the grid is finer than the source the filter widens, and this is not its truth
        if inside and all(stop - start >= n for (start, stop), n in zip(box, grid.shape, strict=True)):
            at = [(p + 0.5 - a) / (b - a) * n - 0.5 for p, (a, b), n in zip((y, x), box, grid.shape, strict=True)]
            expected = linear_at([linear_at(row, at[1]) for row in grid.tolist()], at[0])
            assert got[y, x].item() == pytest.approx(expected, abs=1e-5)


def test_points_go_there_and_back_and_agree_with_maps():
    geometry = Geometry((100, 200), (50, 60), ((10.0, 90.0), (-20.0, 150.0)))
    assert geometry.source_point((-0.5, -0.5)) == pytest.approx((9.5, -20.5))  # the corner of the first pixel
    assert geometry.source_point((49.5, 59.5)) == pytest.approx((89.5, 149.5))
    assert geometry.input_point(geometry.source_point((3.25, 41.5))) == pytest.approx((3.25, 41.5))
    for cell in [(3, 20), (25, 30), (49, 59)]:
        values = torch.zeros(50, 60)
        values[cell] = 1
        spread = geometry.to_source(values).nan_to_num(-1)
        peak = divmod(int(spread.argmax()), 200)
        assert peak == pytest.approx(geometry.source_point(cell), abs=1.5)


def test_a_constant_stays_constant_and_identity_changes_nothing():
    geometry = Geometry((9, 31), (8, 8), ((1.0, 8.0), (3.0, 30.0)))
    ones = geometry.to_source(torch.full((3, 3), 2.5))
    torch.testing.assert_close(ones[geometry.seen()], torch.full((7 * 27,), 2.5))
    values = torch.randn(4, 6, 7)
    torch.testing.assert_close(Geometry.identity((6, 7)).to_source(values), values)
    assert Geometry.identity((6, 7)).seen().all()


def test_autocast_does_not_lower_the_precision():
    values, geometry = torch.rand(7, 7), Geometry((64, 64), (32, 32), ((0, 64), (0, 64)))
    with torch.autocast("cpu", torch.bfloat16):
        cast = geometry.to_source(values)
    assert torch.equal(cast, geometry.to_source(values))


def test_json_round_trip():
    geometry = Geometry((10, 20), (5, 6), ((0.1, 9.7), (-3.0, 23.0)), known=False)
    assert Geometry.from_dict(json.loads(json.dumps(geometry.as_dict()))) == geometry


def test_nonsense_is_refused():
    with pytest.raises(MediaError, match="axes"):
        Geometry((1, 2), (3, 4), ((0, 1),))
    with pytest.raises(MediaError, match="positive"):
        Geometry((0, 2), (3, 4), ((0, 1), (0, 1)))
    with pytest.raises(MediaError, match="non-empty"):
        Geometry((1, 2), (3, 4), ((0, 1), (1, 1)))
    for bad in (torch.zeros(3), torch.zeros(0, 3)):
        with pytest.raises(MediaError, match="2 space axes"):
            Geometry.identity((4, 4)).to_source(bad)
