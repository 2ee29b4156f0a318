"""`pl.importance` of many pictures: folders are answered for in groups, and a run that was cut off goes on."""

import numpy as np
import pytest
import torch

import pellucid as pl
from helpers.cases import SIDE, bright_model, pixels, save
from helpers.planted import folder, planted
from pellucid.errors import MediaError, MethodError, PellucidError
from pellucid.importance import get_estimator
from pellucid.verbs.importance import importance


@pytest.fixture
def model():
    return bright_model()


def test_a_folder_is_answered_for_by_class_with_intervals_over_pictures(model, tmp_path):
    place = folder(tmp_path)
    found = pl.importance(model, place, "channels", "ablation", layer="1")
    assert [(s.group, s.count) for s in found.shares] == [("all pictures", 8), ("bright", 4), ("dark", 4)]
    assert found.share("bright").ranking()[0] == 0
    assert found.share("dark").ranking()[0] == 1
    assert float(found.share("bright").low[0]) > 0
    assert float(found.share("bright").values[1]) == pytest.approx(0, abs=1e-5)  # what does nothing covers zero
    alone = [pl.importance(model, p, "channels", "ablation", layer="1").values for p in sorted(place.iterdir())]
    assert torch.allclose(found.values, torch.stack(alone).mean(0), atol=1e-9)
    assert torch.allclose(found.share("dark").values, torch.stack(alone[4:]).mean(0), atol=1e-9)
    assert found.difference is not None
    gap = found.share("bright").values - found.share("dark").values
    assert torch.allclose(found.difference.values, gap)
    assert float(found.difference.low[0]) > 0 > float(found.difference.high[1])
    back = pl.importance(model, place, "channels", "ablation", layer="1", compare="dark>bright")
    assert back.difference is not None
    assert torch.allclose(back.difference.values, -gap)
    with pytest.raises(MethodError, match="no group 'grey' to compare: write a>b with two of bright, dark"):
        pl.importance(model, place, "channels", "ablation", layer="1", compare="dark>grey")
    assert len(found.table()) == 3 * 2
    with pytest.raises(PellucidError, match="no group 'grey': there are all pictures, bright, dark"):
        found.share("grey")


def test_subfolders_are_groups(model, tmp_path):
    for n in range(2):
        save(tmp_path / "in" / "left" / f"{n}.png", 255 - pixels(64, 64, seed=n) // 4)
        save(tmp_path / "in" / "right" / f"{n}.png", 255 - pixels(64, 64, seed=5 + n) // 4)
    found = pl.importance(model, tmp_path / "in", "patches", "ablation", count=4)
    assert [(s.group, s.count) for s in found.shares] == [("all pictures", 4), ("left", 2), ("right", 2)]
    two = pl.importance(model, [tmp_path / "in" / "left", tmp_path / "in" / "right"], "patches", "ablation", count=4)
    assert torch.equal(two.values, found.values)
    predicted = pl.importance(model, tmp_path / "in", "patches", "ablation", count=4, group="predicted")
    assert [s.group for s in predicted.shares] == ["all pictures"]  # all of them are bright: one group


def test_superpixels_of_a_folder_are_summed_where_they_lie(model, tmp_path):
    for n in range(3):
        save(tmp_path / "in" / f"{n}.png", planted(left=48 + n))
    found = pl.importance(model, tmp_path / "in", "superpixels", "ablation", "bright", count=16, baseline="zero")
    assert len(found.names) == 49
    assert "not the same players" in found.notes[0]
    row, column = divmod(found.ranking()[0], 7)
    assert 1 <= row <= 3
    assert 3 <= column <= 5
    singles = [pl.importance(model, p, "superpixels", "ablation", "bright", count=16, baseline="zero")
               for p in sorted((tmp_path / "in").iterdir())]  # fmt: skip
    assert float(found.values.sum()) == pytest.approx(np.mean([float(s.values.sum()) for s in singles]), abs=1e-6)


@pytest.mark.parametrize("by", ["ablation", "permutation"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_answer(model, tmp_path, by, monkeypatch):
    from pellucid.verbs import sets

    place = folder(tmp_path)
    whole = pl.importance(model, place, "channels", by, layer="1", seed=3)
    real, calls = sets.measure, []

    def cut_off(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    name = "measure" if by == "ablation" else "exchange"
    real = getattr(sets, name)
    monkeypatch.setattr(sets, name, cut_off)
    with pytest.raises(KeyboardInterrupt):
        pl.importance(model, place, "channels", by, layer="1", seed=3, keep=tmp_path / "work")
    assert len(list((tmp_path / "work").rglob("*.npz"))) == 4
    monkeypatch.setattr(sets, name, lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    calls.clear()
    rest = pl.importance(model, place, "channels", by, layer="1", seed=3, keep=tmp_path / "work")
    assert len(calls) == 4  # the other half only
    for a, b in zip(whole.shares, rest.shares, strict=True):
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.low, b.low)
        assert torch.equal(a.high, b.high)
    calls.clear()
    pl.importance(model, place, "channels", "ablation", layer="1", removal="mean", keep=tmp_path / "work")
    assert by == "permutation" or len(calls) == 8  # other settings, other work


def test_permutation_finds_the_channel_that_tells_the_pictures_apart(model, tmp_path):
    found = pl.importance(model, folder(tmp_path), "channels", "permutation", layer="1", samples=4)
    assert found.share("bright").ranking()[0] == 0
    assert float(found.share("bright").low[0]) > 0
    changed = found.share("bright").changed
    assert changed is not None
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert "answers_changed" in found.table()[0]


def test_a_folder_is_verified(model, tmp_path):
    file = pl.importance(model, folder(tmp_path), "channels", "ablation", layer="1").save(tmp_path / "out")[1]
    assert str(pl.verify(file, model=model)) == "same"
    save(tmp_path / "pics" / "dark0.png", pixels(64, 64, seed=77) // 4)
    assert "the pictures are not those of the record" in str(pl.verify(file, model=model))


def test_pictures_that_cannot_be_used(model, tmp_path):
    place = folder(tmp_path, bright=2, dark=0)
    (place / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"broken\.png"):
        pl.importance(model, place, "patches", "ablation", count=4)
    from pellucid.importance import Patches
    from pellucid.verbs.importance_request import ImportanceRequest
    from pellucid.verbs.sets import importance_of_set

    failed = []
    asked = ImportanceRequest.of(Patches(count=4), get_estimator("ablation"), None)
    found = importance_of_set(model, place, asked, failed=failed)
    assert found.shares[0].count == 2
    assert len(failed) == 1
    (tmp_path / "hollow" / "inner").mkdir(parents=True)
    with pytest.raises(MediaError, match="holds no picture, nor do its subfolders"):
        pl.importance(model, tmp_path / "hollow")
    with pytest.raises(MediaError, match="There is no picture"):
        pl.importance(model, [])
    with pytest.raises(MethodError, match="there is only one: give more"):
        pl.importance(model, [planted()], "patches", "permutation")


def test_pictures_in_memory_and_batches(model):
    x = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    batch = pl.importance(model, x, "patches", "ablation", count=4)
    singles = [pl.importance(model, one, "patches", "ablation", count=4).values for one in x]
    assert torch.allclose(batch.values, torch.stack(singles).mean(0), atol=1e-9)
    assert importance(model, [planted(), planted(left=8)], "patches", "ablation", count=4).shares[0].count == 2


def test_what_it_will_cost_is_said_before(model, tmp_path):
    said = []
    pl.importance(model, planted(), "patches", "ablation", count=9, say=said.append)
    assert said == ["9 patches: at most 11 passes of the model"]
    said.clear()
    pl.importance(model, folder(tmp_path), "patches", "ablation", count=9, say=said.append)
    assert said == ["8 pictures, in each 9 patches: at most 11 passes of the model"]


def test_figures_are_drawn_of_every_kind(model, tmp_path):
    """As tall as what they hold, and not blank."""
    from pellucid.render import figure_png

    place = folder(tmp_path, bright=2, dark=2)
    for inputs, settings in (
        (planted(), {"features": "superpixels", "count": 9, "samples": 4}),
        (planted(), {"features": "channels", "by": "ablation", "layer": "1"}),
        (planted(), {"features": "colours"}),
        (place, {"features": "channels", "by": "ablation", "layer": "1"}),
        (place, {"features": "superpixels", "by": "ablation", "count": 9}),
    ):
        found = pl.importance(model, inputs, **settings)
        data = figure_png(found.figure(), dpi=50)
        assert data[:4] == b"\x89PNG"
        assert len(data) > 4000
        texts = {t.get_text() for t in found.figure().findobj(match=lambda a: hasattr(a, "get_text"))}
        assert any(found.names[found.ranking()[0]] in t for t in texts)
    html = found._repr_html_()
    assert html.startswith('<div class="pellucid"')


def test_what_was_saved_is_read_back(model, tmp_path):
    picture = save(tmp_path / "p.png", planted())
    found = pl.importance(model, picture, "superpixels", count=9, samples=4)
    back = pl.read(found.save(tmp_path / "out")[1])
    assert isinstance(back, pl.Importance)
    assert back.table() == found.table()
    assert torch.equal(back.pictures["labels"], found.pictures["labels"])
    assert (back.interactions, back.notes, back.target) == (found.interactions, found.notes, found.target)
    assert back.png() == found.png()  # the picture is opened again
    several = pl.importance(model, folder(tmp_path), "channels", "permutation", layer="1")
    again = pl.read(several.save(tmp_path / "out")[1])
    assert again.table() == several.table()
    assert again.png() == several.png()


def test_drawn_regions_are_the_same_players_in_every_picture(model, tmp_path):
    for n in range(3):
        save(tmp_path / "in" / f"{n}.png", planted())
    boxes = {"square": [48, 16, 80, 48]}
    found = pl.importance(model, tmp_path / "in", "regions", "ablation", "bright", regions=boxes, baseline="zero")
    assert found.names == ["square", "everything else"]
    assert found.ranking() == [0, 1]
    assert float(found.low[0]) > 0
    assert found.notes == ["Intervals over fewer than 10 pictures are rough: give more pictures."]


def test_pictures_are_not_kept_open(model):
    import gc
    import weakref

    from pellucid.media.pictures import collect
    from pellucid.verbs.inputs import Collection

    pictures = Collection(model, collect([planted(left=n) for n in range(6)]), 2)
    opened = [weakref.ref(pictures[n]) for n in range(6)]
    gc.collect()
    assert [r() is not None for r in opened] == [False] * 4 + [True] * 2


# --- notes of single pictures


def test_notes_are_gathered_by_their_words():
    from pellucid.importance.gather import NOTES, gather_notes

    told = [["Read at 3.5 bits.", "Dark."], ["Read at 4 bits."], [], ["Dark.", "Dark."]]
    assert gather_notes(told) == [
        "Read at 3.5 bits. (So for 2 of 4 pictures. The numbers are those of the first.)",
        "Dark. (So for 2 of 4 pictures.)",
    ]
    assert gather_notes([[], []]) == []
    many = gather_notes([[f"Of the kind {chr(97 + k)}." for k in range(NOTES + 3)]])
    assert len(many) == NOTES + 1
    assert many[-1].startswith("3 more notes")


def test_what_single_pictures_note_is_told_once_with_the_count(model, tmp_path, monkeypatch):
    place = tmp_path / "in"
    for n in range(4):  # two 16-bit pictures so dark that reading them says so
        deep = np.full((64, 64), 200 + n, np.uint16) if n < 2 else pixels(64, 64, seed=n)
        save(place / f"{n}.png", deep)
    own = [pl.importance(model, p, "patches", "ablation", count=4).notes for p in sorted(place.iterdir())]
    assert own[0]
    assert own[1]
    assert not set(own[0]) & set(own[2])
    kept = tmp_path / "kept"
    found = pl.importance(model, place, "patches", "ablation", count=4, keep=kept)
    gathered = [n for n in found.notes if "(So for 2 of 4 pictures." in n]
    assert any(n.startswith(own[0][0].split(" (")[0][:20]) for n in gathered)
    monkeypatch.setattr("pellucid.verbs.sets.measure", None)  # all that is kept is not measured again
    again = pl.importance(model, place, "patches", "ablation", count=4, keep=kept)
    assert again.notes == found.notes


def test_pictures_whose_labels_are_in_doubt_are_counted(tmp_path):
    model = pl.wrap(bright_model().module, transform=bright_model().preprocess)
    with torch.no_grad():
        model.module[4].weight.mul_(0.1)
        model.module[4].bias.fill_(2.0)  # both labels are likely, and grey pictures share the softmax between them
    for n, shade in enumerate((120, 125, 130, 255)):
        save(tmp_path / "in" / f"{n}.png", np.full((64, 64, 3), shade, np.uint8))
    model.module[4].weight.data.mul_(4)
    single = [pl.importance(model, p, "patches", "ablation", count=4) for p in sorted((tmp_path / "in").iterdir())]
    open_ = [any("scores='sigmoid'" in n for n in s.notes) for s in single]
    assert 0 < sum(open_) < 4
    found = pl.importance(model, tmp_path / "in", "patches", "ablation", count=4)
    told = [n for n in found.notes if "scores='sigmoid'" in n]
    assert len(told) == 1
    assert f"(So for {sum(open_)} of 4 pictures.)" in told[0]
    assert found.record.model["reading"]["scores"] == "softmax"
