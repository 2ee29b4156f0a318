"""What figures show is what the result holds: the length of bars, the place of ticks, the share that is hatched."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import BboxImage
from matplotlib.patches import Rectangle

import pellucid as pl
from helpers.render_cases import explanation
from helpers.sheets import texts
from pellucid.media import Geometry
from pellucid.render import panel
from pellucid.render.paper.colour import number
from pellucid.render.paper.sheet import AGAINST, FOR
from pellucid.render.strip import key_frames


def rectangles(figure, height, colour=None):
    """`(left, width)` in inches of the boxes of a height, and of a colour, as they were drawn."""
    found = [p for p in figure.findobj(Rectangle) if abs(p.get_height() - height) < 1e-6]
    wanted = None if colour is None else tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return [
        (p.get_x(), p.get_width())
        for p in found
        if wanted is None or np.allclose(p.get_facecolor()[:3], wanted, atol=0.01)
    ]


def test_bars_are_as_long_as_their_values(request):
    found = pl.read(request.config.rootpath / "tests/results/kept/coffee.patches.ablation.json")
    values = torch.tensor([30.0, -15.0, 7.5, -2.5, 0.0])
    share = replace(found.shares[0], values=values, low=values * torch.nan, high=values * torch.nan)
    found = replace(found, shares=[share], names=list("abcde"), pictures={}, interactions=[], tree=None)
    figure = found.figure()
    for colour, wanted in ((FOR, [30.0, 7.5]), (AGAINST, [15.0, 2.5])):
        drawn = [width for _, width in rectangles(figure, 0.15, colour) if width > 1e-9]
        assert np.divide(drawn, drawn[0]) == pytest.approx(np.divide(wanted, wanted[0]), rel=1e-6)
    (zero,) = {round(left, 6) for left, width in rectangles(figure, 0.15, FOR) if width}
    assert {round(left + width, 6) for left, width in rectangles(figure, 0.15, AGAINST) if width} == {zero}
    said = texts(figure)
    assert [t for t in said if t in set(map(number, values.tolist()))] == ["30", "−15", "7.5", "−2.5", "0"]


def test_predictions_are_as_long_as_they_are_likely():
    figure = panel([explanation(torch.eye(7))])
    tracks = rectangles(figure, 0.035)
    (whole, likely), (_, less) = tracks[:2], tracks[2:]
    assert likely[1] / whole[1] == pytest.approx(0.4)
    assert less[1] / whole[1] == pytest.approx(0.3)


def test_ticks_of_a_clip_stand_at_the_times_of_its_frames():
    times = (0.0, 0.1, 0.5, 0.6, 1.5, 1.6, 1.7, 3.0)  # seconds, uneven
    seen = replace(Geometry.identity((8, 20, 30)), ticks=times, unit="s")
    e = explanation(torch.arange(8.0)[:, None, None].expand(8, 4, 4), geometry=seen, picture=None)
    figure = panel([e])
    keys = key_frames(e)
    ticks = np.array([left + width / 2 for left, width in rectangles(figure, 0.05) if abs(width - 0.012) < 1e-6])
    assert len(ticks) == len(keys)
    shown = np.array([times[i] for i in keys])
    scale, start = np.polyfit(shown, ticks, 1)
    assert ticks == pytest.approx(start + scale * shown, abs=1e-6)
    assert [t for t in texts(figure) if t in {f"{s:.2f} s" for s in shown}][: len(keys)] == [
        f"{s:.2f} s" for s in shown
    ]


@pytest.mark.parametrize(
    "seen", [((0.0, 60.0), (0.0, 90.0)), ((0.0, 60.0), (30.0, 90.0)), ((15.0, 45.0), (30.0, 60.0))]
)
def test_as_much_is_hatched_as_the_model_never_saw(seen):
    e = explanation(torch.full((7, 7), 0.5).fill_diagonal_(1.0), geometry=Geometry((60, 90), (56, 56), seen))
    figure = panel([e])
    ground, *others = [np.asarray(i.get_array()).astype(int) for i in figure.findobj(BboxImage)]
    (drawn,) = [i for i in others if i.shape == ground.shape]  # besides the swatch and the colour bar
    grey = (np.ptp(drawn, axis=-1) <= 1).mean()  # the map's own colours are no grey
    (top, bottom), (left, right) = seen
    unseen = 1 - (bottom - top) * (right - left) / (60 * 90)
    assert grey == pytest.approx(unseen, abs=0.02)
    assert ("never seen by the model" in texts(figure)) == (unseen > 0)
