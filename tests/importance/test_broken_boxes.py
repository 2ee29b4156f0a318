"""Importance of a black box that breaks down on the way: what it answered before is not lost."""

import pytest
import torch

import pellucid as pl
from helpers.cases import BREAKS, breaking_box, bright_model, pixels
from helpers.planted import folder
from pellucid.errors import ModelError


@pytest.fixture
def model():
    return bright_model()


def of_patches(model, by, samples, count=25, **more):
    return pl.importance(
        model, pixels(64, 64), "patches", by, "bright", count=count, baseline="zero", samples=samples, **more
    )


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize(
    ("by", "samples", "features"),
    [
        ("shapley", 20, "patches"),
        ("shapley", "auto", "patches"),
        ("kernel", 300, "patches"),
        ("owen", 200, "patches"),
        ("lime", 300, "patches"),
        ("tree", 300, "patches"),
        ("shapley", 30, "frequencies"),
    ],
)
def test_bars_rest_on_what_a_broken_box_has_answered(by, samples, features, how):
    at = 205 if (by, samples) == ("shapley", 20) else 150  # eight orders at least have an interval
    barred = by in ("lime", "tree") or (by == "shapley" and samples != "auto")
    box, predictor = breaking_box(at, how)
    settings = {"target": "bright", "count": 25 if features == "patches" else 20, "samples": samples, "seed": 1}
    settings |= {"baseline": "zero"} if features == "patches" else {}
    part = pl.importance(box, pixels(64, 64), features, by, **settings)
    assert BREAKS[how] in part.notes[-1]
    assert "the ranking rests on the" in part.notes[-1]
    assert part.notes[-1].endswith("mend it, and run it again.")
    assert part.interactions == []
    assert predictor.rows <= at + 3
    if by not in ("lime", "tree"):
        assert abs(part.efficiency_gap) < 1e-6
    if barred:
        assert (part.high - part.low).max() > 0
    assert by != "shapley" or not barred or ((part.low <= part.values) & (part.values <= part.high)).all()
    assert samples != "auto" or part.low.isnan().all()
    whole = pl.importance(box, pixels(64, 64), features, by, **settings)  # it works again
    expected = pl.importance(breaking_box()[0], pixels(64, 64), features, by, **settings)
    torch.testing.assert_close(whole.values, expected.values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.low, expected.low, rtol=1e-4, atol=1e-6)
    assert not any("failed" in note for note in whole.notes)


@pytest.mark.parametrize("by", ["shapley", "lime", "tree"])
def test_bars_of_a_broken_box_are_those_of_fewer_samples(by):
    part = of_patches(breaking_box(250 if by == "shapley" else 130)[0], by, 300)
    found = (of_patches(breaking_box()[0], by, n) for n in (range(8, 12) if by == "shapley" else range(100, 131)))
    assert any(
        all(torch.allclose(getattr(part, n), getattr(f, n), rtol=1e-4, atol=1e-6) for n in ("values", "low", "high"))
        for f in found
    )


def test_so_few_orders_that_none_says_how_far_it_may_be_off():
    part = of_patches(breaking_box(150)[0], "shapley", 300)
    assert part.values.isfinite().all()
    assert part.low.isnan().all()
    assert part.high.isnan().all()
    assert any("walk 8" in note for note in part.notes)


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize(
    ("by", "at"), [("ablation", 20), ("shapley", 90), ("kernel", 49), ("owen", 4), ("lime", 26), ("tree", 50)]
)
def test_too_little_for_bars_is_one_sentence(by, at, how):
    with pytest.raises(ModelError, match=BREAKS[how]) as caught:
        of_patches(breaking_box(at, how)[0], by, 300)
    assert "\n" not in str(caught.value)


def test_bars_stay_when_the_box_breaks_at_the_pairs_of_players():
    box, predictor = breaking_box()
    whole = of_patches(box, "owen", 40)
    again, breaks = breaking_box(predictor.rows - 1)
    part = of_patches(again, "owen", 40)
    assert breaks.broken
    torch.testing.assert_close(part.values, whole.values)
    assert whole.interactions
    assert not part.interactions
    assert "failed before pairs of players were looked at" in part.notes[-1]


def test_a_folder_keeps_no_picture_that_broke_off(tmp_path):
    place, kept = folder(tmp_path, bright=3, dark=0), tmp_path / "kept"
    settings = {"features": "patches", "by": "shapley", "count": 25, "baseline": "zero", "samples": 20, "keep": kept}
    box, predictor = breaking_box(900)
    with pytest.raises(ModelError, match="the line is dead"):
        pl.importance(box, place, **settings)
    asked = predictor.rows
    assert len(list(kept.rglob("*.npz"))) == 1
    found = pl.importance(box, place, **settings)
    expected = pl.importance(breaking_box()[0], place, **{**settings, "keep": None})
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-6)
    assert predictor.rows - asked < 900
