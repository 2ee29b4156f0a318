"""The verbs of feature visualisation: what they hold, store, verify, and refuse."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import PLAIN, SIDE, bright_net, save, tree
from helpers.nets import noise, pooled, random_net
from pellucid.features import Diversity, Neuron, Settings, synthesise
from pellucid.results.features import FeatureImages
from pellucid.verbs.visualize import channels

QUICK = Settings(steps=6, views=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(9):
        save(tmp_path / "p" / f"{i}.png", generator.integers(0, 60 + 20 * i, (64, 64, 3)).astype(np.uint8))
    return tmp_path / "p"


@pytest.fixture
def model():
    return pl.wrap(pooled(channels=8), transform=PLAIN, labels=tuple("abcde"))


def units(model, folder, **options):
    return pl.visualize(model, **({"layer": "3", "channel": "0:3", "settings": QUICK, "exemplars": folder} | options))


def test_a_unit_has_a_picture_exemplars_and_a_verdict(model, folder):
    found = units(model, folder)
    assert isinstance(found, FeatureImages)
    assert [u.channel for u in found] == [0, 1, 2]
    for u in found:
        assert u.pictures.shape == (1, 3, SIDE, SIDE)
        assert ((u.pictures >= 0) & (u.pictures <= 1)).all()
        with torch.no_grad():
            x = model.preprocess  # identity but for the range: display values are the model's
            value = model.module[:4](u.pictures)[0, u.channel]
        assert u.quality.standing.value == pytest.approx(float(value.max()), rel=1e-3, abs=1e-5)
        assert x is PLAIN
        assert len(u.natural.top) == 4
        assert u.quality.standing.count == 9
        assert u.quality.choice.pairs == 16
        assert {"robust", "rank", "fine", "path"} <= set(u.quality.figures)
        assert "of 9 natural pictures" in u.quality.line
    single = units(model, folder, channel=1)
    assert single.channel == 1
    assert torch.equal(single.pictures, found[1].pictures) or torch.allclose(
        single.pictures, found[1].pictures, atol=1e-3
    )


def test_the_cost_is_said_beforehand_and_kept_to(model, folder, monkeypatch):
    said, rows = [], []

    def counted(*given, **options):
        hook = model.module[0].register_forward_hook(lambda module, args, out: rows.append(len(out)))
        try:
            return synthesise(*given, **options)
        finally:
            hook.remove()

    monkeypatch.setattr("pellucid.verbs.visualize.synthesise", counted)
    settings = Settings(steps=6, views=2, plateau=0)  # of logits: a silent unit would be asked a second time
    pl.visualize(model, target="a,b,c", settings=settings, exemplars=folder, seeds=2, say=said.append)
    assert said == [
        "6 pictures in at most 6 steps of 2 views: about 72 passes forward and backward, and a forward for each "
        "natural picture (none if known)"
    ]
    assert 72 <= sum(rows) <= 72 + 2 * 6  # the first look and the last of each picture climb nowhere


def test_a_class_and_its_relevance(model, folder):
    found = pl.visualize(model, target="c", settings=QUICK, exemplars=folder)
    assert found.layer is None
    assert found.objective == "c"
    with torch.no_grad():
        xs = [model.preprocess(pl.read_image(f))[0][None] for f in sorted(folder.iterdir())]
        logits = torch.cat([model.module(x) for x in xs])[:, 2]
    best = [e.origin.name for e in found.natural.top]
    assert best == [str(int(i)) for i in logits.argsort(descending=True, stable=True)[:4]]
    by_relevance = units(model, folder, by="relevance", target="c")
    assert by_relevance[0].natural.top[0].score != units(model, folder)[0].natural.top[0].score
    assert by_relevance[0].quality.standing.value == pytest.approx(units(model, folder)[0].quality.standing.value)
    with pytest.raises(pl.MethodError, match="name one, such as target="):
        units(model, folder, by="relevance")


def test_what_was_left_out_is_said_once(model, folder):
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    found = units(model, folder)
    assert "1 of 10 pictures are copies of another: they were left out" in found.about()
    assert found.figure()


def test_on_a_picture_of_ones_own(model, folder):
    given = str(folder / "8.png")
    found = units(model, folder, inputs=given, channel=2)
    with torch.no_grad():
        truth = model.module[:4](model.preprocess(pl.read_image(given))[0][None])[0, 2]
    torch.testing.assert_close(found.fires, truth)
    assert found.record.input["name"] == "8"
    with pytest.raises(pl.MediaError, match="One picture was expected, not 9"):
        units(model, folder, inputs=str(folder))


def test_without_exemplars_it_says_that_nothing_natural_was_compared(model, folder):
    found = units(model, None, channel=0)
    assert found.natural is None
    assert found.quality.verdict in ("unproven", "fragile")
    layer = pl.visualize(model, layer="3", settings=QUICK, exemplars=folder)
    assert layer.channel is None
    assert layer.natural is None
    assert layer.objective == "all of 3"
    varied = pl.visualize(
        model, objective=Neuron("3", 1) + 0.1 * Diversity("3", count=3), settings=QUICK, exemplars=None
    )
    assert varied.pictures.shape[0] == 3


def test_saved_read_and_verified(model, folder, tmp_path):
    found = pl.visualize(
        model, str(folder / "1.png"), layer="3", channel=[3, 5],
        settings=Settings(steps=2, views=1, zoom=0.5), exemplars=str(folder), top=2, seeds=2,
    )  # fmt: skip
    files = found.save(tmp_path / "out")
    assert sorted(f.name for f in files) == [f"3.3-5.features.{e}" for e in ("html", "json", "npz", "png")]
    again = pl.read(files[0])
    assert [u.objective for u in again] == ["channel 3 of 3", "channel 5 of 3"]
    for a, b in zip(again, found, strict=True):
        assert torch.equal(a.pictures, b.pictures)
        assert torch.equal(a.fires, b.fires)
        assert a.quality.line == b.quality.line
        assert "seeds" in a.quality.figures
        assert a.record == b.record
        for x, y in zip(a.natural.top, b.natural.top, strict=True):
            assert (x.origin, x.box, x.score, x.geometry) == (y.origin, y.box, y.score, y.geometry)
            assert torch.equal(x.map, y.map)
    assert again.png()
    assert str(pl.verify(files[0], model=model)) == "same"
    meta = json.loads((tmp_path / "out" / "3.3-5.features.json").read_text())
    assert meta["format"] == "pellucid-feature/1"
    page = (tmp_path / "out" / "3.3-5.features.html").read_text()
    assert page.count('<section class="unit">') == 2
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    save(folder / "1.png", np.full((64, 64, 3), 9, np.uint8))
    changed = pl.verify(files[0], model=model)
    assert changed.status == "different"
    assert any("natural pictures are not those" in r for r in changed.reasons)


def test_the_ascent_stops_beyond_nature_when_told_to(model, folder):
    """The limit is on what is climbed, the mean of the channel, not on its peak."""
    patient = Settings(steps=200, views=1, plateau=0, factor=1.0)
    found = units(model, folder, settings=patient, channel=1)
    with torch.no_grad():
        means = torch.stack(
            [model.module[:4](model.preprocess(pl.read_image(f))[0][None])[0, 1].mean() for f in folder.iterdir()]
        )
    assert found.facts["stopped_beyond_natural"] == 1
    assert found.facts["steps"] < 200
    assert found.history[-1] > means.max()
    assert sum(h > means.max() for h in found.history) <= 16


def test_a_saved_function_cannot_be_recomputed(model, tmp_path):
    found = pl.visualize(model, target=lambda y: y[:, 0], settings=QUICK, exemplars=None)
    files = found.save(tmp_path)
    with pytest.raises(pl.StorageError, match="objective was an object"):
        pl.verify(files[0], model=model)


def test_activations_saved_read_and_verified(model, folder, tmp_path):
    found = pl.activations(model, str(folder / "1.png"), layer=["1", "3"])
    x = model.preprocess(pl.read_image(str(folder / "1.png")))[0][None]
    with torch.no_grad():
        torch.testing.assert_close(found["3"].values, model.module[:4](x)[0])
    files = found.save(tmp_path / "out")
    assert files[-1].name == "1.activations.png"
    again = pl.read(files[0])
    assert torch.equal(again["1"].values, found["1"].values)
    assert again["1"].order() == found["1"].order()
    assert str(again["1"].layer.layout) == str(found["1"].layer.layout)
    assert again.png()
    assert str(pl.verify(files[0], model=model)) == "same"
    with pytest.raises(pl.LayerError, match="no maps of layer '2'"):
        found["2"]
    by = pl.activations(model, str(folder / "1.png"), layer="3", by="relevance", target="c")
    assert by.target == "c"
    assert str(pl.verify(by.save(tmp_path / "by")[0], model=model)) == "same"


def test_activations_of_tokens_and_clips():
    net = random_net("vit_tiny_patch16_224", img_size=64, depth=4)
    model = pl.wrap(net, transform=PLAIN)
    found = pl.activations(model, noise(3, SIDE, SIDE), by="relevance", target=1)
    assert all(m.layer.layout.kind == "tokens" for m in found.maps)
    assert found.png()
    clip = pl.wrap(pooled(3), transform=PLAIN)
    found = pl.activations(clip, noise(1, 3, 8, 16, 16))
    assert found.maps[-1].values.ndim == 4
    assert found.png()


def test_atlas_saved_read_and_verified(model, folder, tmp_path):
    found = pl.atlas(model, folder, layer="3", size=2, projection="pca", samples=36, steps=2)
    assert found.pictures.shape[1:] == (3, 32, 32)  # half the input, which is enough for a cell
    assert "nearest neighbours" in found.line
    files = found.save(tmp_path / "out")
    again = pl.read(files[0])
    assert [c.position for c in again.cells] == [c.position for c in found.cells]
    assert torch.equal(again.pictures, found.pictures)
    assert again.png()
    assert pl.verify(files[0], model=model).status in ("same", "within tolerance")


def test_channels_as_people_write_them():
    assert channels("0:4") == [0, 1, 2, 3]
    assert channels("7, 3,3") == [7, 3]
    assert channels("0:9:4,1") == [0, 4, 8, 1]
    assert channels(5) == [5]
    for wrong in ("a", "1:2:3:4", "-1", "", "4:4"):
        with pytest.raises(pl.MethodError):
            channels(wrong)


REFUSED = {
    "no such layer": ({"layer": "33"}, "did you mean '3'"),
    "no such channel": ({"channel": "6:9"}, "has 8 channels, 0 to 7; there is no channel 8"),
    "no layer": ({"layer": None}, "but no layer"),
    "nothing": ({"layer": None, "channel": None}, "Name what to visualise"),
    "no such class": ({"layer": None, "channel": None, "target": "z"}, "'z'"),
    "no such preset": ({"settings": None, "preset": "slow"}, "fast, standard, fine"),
    "no such parametrization": ({"settings": None, "parametrization": "gan"}, "gan"),
    "too small": ({"settings": None, "size": 3}, "at least 16"),
    "both": ({"size": 64}, "either them or these"),
    "no such ranking": ({"by": "size"}, "'activation' or 'relevance'"),
    "no such folder": ({"exemplars": "nowhere"}, "no file or folder"),
    "objective and layer": ({"objective": "layer:3"}, "names its own layer"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_a_sentence_with_nothing_written(model, folder, tmp_path, options, words):
    before = tree(tmp_path)
    with pytest.raises(pl.PellucidError) as refused:
        units(model, folder, **options)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {k: v for k, v in tree(tmp_path).items() if not k.startswith("cache")} == before


def test_a_model_of_clips_given_a_picture_says_so(folder):
    model = pl.wrap(pooled(3), transform=PLAIN)
    for call in (
        lambda: units(model, folder, channel=0),
        lambda: pl.activations(model, str(folder / "1.png")),
        lambda: pl.atlas(model, folder),
    ):
        with pytest.raises(pl.ModelError, match=r"takes clips or volumes \(N, C, T, H, W\)"):
            call()
    found = pl.visualize(model, layer="3", channel=0, settings=Settings(steps=2, shape=(3, 4, 16, 16)), exemplars=None)
    assert found.pictures.shape == (1, 3, 4, 16, 16)
    assert "still" in found.quality.figures
    assert found.figure()


def test_a_unit_that_never_fires_says_so(folder):
    net = bright_net()
    with torch.no_grad():
        net[0].weight[1].zero_()
        net[0].bias[1] = -5.0
    model = pl.wrap(net, transform=PLAIN, labels=("a", "b"))
    found = pl.visualize(model, layer="1", channel=1, settings=QUICK, exemplars=folder)
    assert found.quality.verdict == "dead"
    assert "never fired" in found.quality.line
    assert any("dead" in note for note in found.notes)


def test_nan_weights_are_named(folder):
    net = pooled()
    with torch.no_grad():
        net[2].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(pl.ModelError, match="NaN or infinity"):
        units(pl.wrap(net, transform=PLAIN), folder)


def test_a_layer_without_places_has_no_exemplars(folder):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 6), nn.ReLU(), nn.Linear(6, 2))
    found = pl.visualize(pl.wrap(net, transform=PLAIN), layer="2", channel=1, settings=QUICK, exemplars=folder)
    assert found.natural is None
