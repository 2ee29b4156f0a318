"""Exemplars against a brute loop; resumed, cached and damaged searches; what is left out; memory."""

import json
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.cases import PLAIN, SIDE, bright_net, save, truncated_jpeg
from helpers.nets import pooled, seeded
from pellucid import media
from pellucid.errors import LayerError, MediaError, MethodError, ModelError
from pellucid.features import exemplars as module
from pellucid.features.exemplars import Selection, find_exemplars
from pellucid.features.measures import ByActivation, ByRelevance, ByScore
from pellucid.features.table import ScoreTable
from pellucid.keep.home import cache_folder
from pellucid.models.layers import describe
from pellucid.models.sources import wrap
from pellucid.models.targets import Class


@pytest.fixture
def folder(tmp_path):
    """Seventeen pictures of several sizes, blobs of one colour at one place each on noise."""
    generator = np.random.default_rng(0)
    for i in range(17):
        height, width = 64 + 8 * (i % 3), 64 + 8 * (i % 2)
        array = generator.integers(0, 120, (height, width, 3)).astype(np.uint8)
        y, x = generator.integers(0, 40, 2)
        array[y : y + 16, x : x + 16, i % 3] = 130 + 7 * i
        save(tmp_path / "pictures" / f"p{i:02d}.png", array)
    return tmp_path / "pictures"


@pytest.fixture
def model():
    return wrap(pooled(), transform=PLAIN, labels=tuple("abcde"))


def sample():
    return torch.zeros(1, 3, SIDE, SIDE)


def layer(model, name="3"):
    return describe(model.module, sample(), name)


def activation(net, x, name):
    """A layer's output, in the graph of the model's."""
    kept = {}

    def hook(_module, _args, out):
        kept["out"] = out.clone()
        return kept["out"]

    handle = net.get_submodule(name).register_forward_hook(hook)
    out = net(x)
    handle.remove()
    return kept["out"], out


def inputs(model, folder):
    files = sorted(folder.iterdir())
    return [str(f) for f in files], [model.preprocess(media.read_image(f))[0][None] for f in files]


def brute(model, folder):
    """Every channel's largest activation on every picture, one by one."""
    files, xs = inputs(model, folder)
    with torch.no_grad():
        return files, torch.stack([activation(model.module, x, "3")[0].flatten(2).amax(2)[0] for x in xs])


def names(found):
    return [e.origin.source for e in found]


def test_top_bottom_and_quantiles_are_those_of_a_brute_loop(model, folder, tmp_path):
    files, truth = brute(model, folder)
    wanted = Selection(top=4, bottom=3, quantiles=(0.0, 0.25, 0.5, 1.0))
    found = find_exemplars(model, folder, ByActivation(layer(model)), wanted, cache=tmp_path / "c", batch=5)
    assert [u.unit for u in found.units] == list(range(6))
    for unit in found.units:
        scores = truth[:, unit.unit]
        order = sorted(range(17), key=lambda i: (-float(scores[i]), i))
        rising = sorted(range(17), key=lambda i: (float(scores[i]), i))
        assert names(unit.top) == [files[i] for i in order[:4]]
        assert names(unit.bottom) == [files[i] for i in rising[:3]]
        assert names(unit.middle) == [files[rising[round(q * 16)]] for q in (0.0, 0.25, 0.5, 1.0)]
        np.testing.assert_allclose([e.score for e in unit.top], scores[order[:4]], rtol=1e-5)
        np.testing.assert_allclose(unit.percentiles, np.percentile(scores.double(), range(101)), rtol=1e-5)
        np.testing.assert_allclose(
            (unit.mean, unit.std), (scores.double().mean(), scores.double().std(correction=0)), rtol=1e-5
        )
        assert unit.count == 17
    assert found.notes == ()


def test_each_exemplar_holds_the_units_map_its_peak_and_what_the_peak_sees(model, folder):
    files, xs = inputs(model, folder)
    found = find_exemplars(model, folder, ByActivation(layer(model)), Selection(top=2), cache=False)
    field = found.field
    assert (field.size, field.stride, field.start) == ((7, 7), (4, 4), (-3, -3))  # two 3 x 3 with stride 2
    for unit in found.units:
        for e in unit.top:
            i = files.index(e.origin.source)
            with torch.no_grad():
                maps, _ = activation(model.module, xs[i], "3")
            torch.testing.assert_close(e.map, maps[0, unit.unit])
            assert e.map[e.cell] == e.map.max()
            torch.testing.assert_close(e.features, maps[0, :, e.cell[0], e.cell[1]])
            for (start, stop), cell in zip(e.box, e.cell, strict=True):
                assert 0 <= start < stop <= SIDE
                assert start <= min(max(4 * cell + 0.5, 0), SIDE) <= stop
            size = Image.open(e.origin.source).size[::-1]
            for (start, stop), (low, high), (a, b), n in zip(e.source_box(), e.geometry.box, e.box, size, strict=True):
                assert start == pytest.approx(max(0, low + a / SIDE * (high - low)))
                assert stop == pytest.approx(min(n, low + b / SIDE * (high - low)))


def test_the_crop_finds_the_planted_patch(tmp_path):
    """A unit that fires on bright 8 x 8 patches: the crop of each exemplar lies on the bright spot."""
    net = wrap(bright_net(), transform=PLAIN)
    for i, (y, x) in enumerate([(8, 16), (40, 32), (24, 48)]):
        array = np.full((64, 64, 3), 40, np.uint8)
        array[y : y + 8, x : x + 8] = 250 - i
        save(tmp_path / "p" / f"{i}.png", array)
    found = find_exemplars(net, tmp_path / "p", ByActivation(layer(net, "1")), Selection(units=[0]), cache=False)
    spots = {"0": (8, 16), "1": (40, 32), "2": (24, 48)}
    assert [e.origin.name for e in found.units[0].top] == ["0", "1", "2"]
    assert found.field.size == (8, 8)
    for e in found.units[0].top:
        y, x = spots[e.origin.name]
        assert e.cell == (y // 8, x // 8)
        for (start, stop), at in zip(e.source_box(), (y, x), strict=True):
            assert (start + stop) / 2 == pytest.approx(at + 4)


def test_mean_instead_of_peak(model, folder):
    files, xs = inputs(model, folder)
    found = find_exemplars(model, folder, ByActivation(layer(model), (1, 4), "mean"), Selection(top=17), cache=False)
    with torch.no_grad():
        truth = torch.stack([activation(model.module, x, "3")[0].flatten(2).mean(2)[0] for x in xs])
    for unit in found.units:
        order = sorted(range(17), key=lambda i: (-float(truth[i, unit.unit]), i))
        assert names(unit.top) == [files[i] for i in order]


def test_by_relevance_ranks_by_activation_times_gradient(model, folder):
    files, xs = inputs(model, folder)
    found = find_exemplars(
        model, folder, ByRelevance(layer(model), (0, 3), target=Class(2)), Selection(top=3, bottom=2), cache=False
    )
    truth = []
    for x in xs:
        A, y = activation(model.module, x, "3")
        (G,) = torch.autograd.grad(y[0, 2], A)
        truth.append((A * G).detach()[0])
    scores = torch.stack([t.flatten(1).mean(1) for t in truth])
    for unit in found.units:
        order = scores[:, unit.unit].argsort(descending=True, stable=True)
        assert names(unit.top) == [files[int(i)] for i in order[:3]]
        best = unit.top[0]
        torch.testing.assert_close(best.map, truth[int(order[0])][unit.unit])
    with pytest.raises(MethodError, match="name one, such as target="):
        find_exemplars(model, folder, ByRelevance(layer(model)), cache=False)


def test_relevance_and_activation_can_disagree(tmp_path):
    """A channel that fires on bright pictures but speaks against the class: relevance puts them last."""
    net = bright_net()
    net[4].weight.data[0, 0] = -20.0
    model = wrap(net, transform=PLAIN, labels=("a", "b"))
    for i, value in enumerate((150, 200, 250)):
        save(tmp_path / "p" / f"{i}.png", np.full((64, 64, 3), value, np.uint8))
    by_activation = find_exemplars(model, tmp_path / "p", ByActivation(layer(model, "1"), (0,)), cache=False)
    by_relevance = find_exemplars(
        model, tmp_path / "p", ByRelevance(layer(model, "1"), (0,), target=Class(0)), cache=False
    )
    assert [e.origin.name for e in by_activation.units[0].top] == ["2", "1", "0"]
    assert [e.origin.name for e in by_relevance.units[0].top] == ["0", "1", "2"]


def test_by_score_ranks_by_the_class_and_shows_where_it_comes_from(model, folder):
    files, xs = inputs(model, folder)
    found = find_exemplars(model, folder, ByScore(layer(model), Class(1)), Selection(top=3), cache=False)
    with torch.no_grad():
        logits = torch.cat([model.module(x) for x in xs])[:, 1]
    order = logits.argsort(descending=True, stable=True)
    (unit,) = found.units
    assert names(unit.top) == [files[int(i)] for i in order[:3]]
    np.testing.assert_allclose([e.score for e in unit.top], logits[order[:3]], rtol=1e-4, atol=1e-5)
    A, y = activation(model.module, xs[int(order[0])], "3")
    (G,) = torch.autograd.grad(y[0, 1], A)
    torch.testing.assert_close(unit.top[0].map, (A * G).detach()[0].sum(0))
    assert unit.top[0].box == ((0, SIDE), (0, SIDE))  # a class has no place


def test_a_search_cut_short_goes_on_where_it_stopped(model, folder, tmp_path, monkeypatch):
    measure = ByActivation(layer(model))
    whole = find_exemplars(model, folder, measure, Selection(top=5, bottom=2), cache=tmp_path / "whole", batch=4)
    scores, calls = type(measure).scores, []

    def dies(self, capture, x):
        calls.append(len(x))
        if sum(calls) > 8:
            raise KeyboardInterrupt
        return scores(self, capture, x)

    monkeypatch.setattr(ByActivation, "scores", dies)
    with pytest.raises(KeyboardInterrupt):
        find_exemplars(model, folder, measure, Selection(top=5, bottom=2), cache=tmp_path / "cut", batch=4)
    (state,) = (tmp_path / "cut").glob("*.json")
    done = json.loads(state.read_text())["done"]
    assert 0 < done <= 8
    ran = []
    monkeypatch.setattr(ByActivation, "scores", lambda self, c, x: ran.append(len(x)) or scores(self, c, x))
    again = find_exemplars(model, folder, measure, Selection(top=5, bottom=2), cache=tmp_path / "cut", batch=4)
    assert sum(ran) == 17 - done
    assert not again.cached
    for a, b in zip(again.units, whole.units, strict=True):
        assert names(a.top) == names(b.top)
        assert [e.score for e in a.top] == [e.score for e in b.top]
        assert torch.equal(a.percentiles, b.percentiles)


def test_a_second_search_is_read_from_the_cache_and_a_changed_world_is_not(model, folder, tmp_path, monkeypatch):
    measure, cache = ByActivation(layer(model)), tmp_path / "cache"
    first = find_exemplars(model, folder, measure, Selection(top=3), cache=cache)
    assert not first.cached
    assert first.forwards >= 17
    again = find_exemplars(model, folder, measure, Selection(top=3), cache=cache)
    assert again.cached
    assert again.forwards < 17
    assert [names(u.top) for u in again.units] == [names(u.top) for u in first.units]
    moved = folder.rename(tmp_path / "moved")
    assert find_exemplars(model, moved, measure, cache=cache).cached  # known by its content
    other = wrap(pooled(seed=1), transform=PLAIN)
    assert not find_exemplars(other, moved, ByActivation(layer(other)), cache=cache).cached
    assert not find_exemplars(model, moved, ByActivation(layer(model), (1,)), cache=cache).cached
    save(moved / "p03.png", np.full((64, 64, 3), 200, np.uint8))
    assert not find_exemplars(model, moved, measure, cache=cache).cached


def test_a_damaged_cache_is_made_again(model, folder, tmp_path):
    measure, cache = ByActivation(layer(model)), tmp_path / "cache"
    first = find_exemplars(model, folder, measure, Selection(top=3), cache=cache)
    for ending in ("npy", "json"):
        (file,) = cache.glob(f"*.{ending}")
        file.write_bytes(b"nonsense")
        again = find_exemplars(model, folder, measure, Selection(top=3), cache=cache)
        assert not again.cached
        assert [names(u.top) for u in again.units] == [names(u.top) for u in first.units]


def test_without_a_cache_nothing_is_left(model, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "mine"))
    find_exemplars(model, folder, ByActivation(layer(model)), cache=False)
    assert not (tmp_path / "mine").exists()
    find_exemplars(model, folder, ByActivation(layer(model)))
    assert cache_folder("exemplars") == tmp_path / "mine" / "exemplars"
    assert list((tmp_path / "mine" / "exemplars").glob("*.npy"))


def test_broken_pictures_and_copies_are_left_out_and_said(model, folder):
    truncated_jpeg(folder / "p00.jpg")
    (folder / "q.png").write_bytes((folder / "p05.png").read_bytes())
    found = find_exemplars(model, folder, ByActivation(layer(model)), Selection(top=30), cache=False)
    assert found.units[0].count == 17
    assert found.notes == (
        "1 of 19 pictures are copies of another and 1 of 19 pictures could not be read: they were left out.",
    )
    assert len(found.units[0].top) == 17
    assert not any(e.origin.name == "q" for u in found.units for e in u.top)


def test_a_folder_with_nothing_to_read(model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="holds no picture"):
        find_exemplars(model, tmp_path / "empty", ByActivation(layer(model)), cache=False)
    truncated_jpeg(tmp_path / "bad" / "a.jpg") if (tmp_path / "bad").mkdir() is None else None
    with pytest.raises(MediaError, match="None of the pictures could be read"):
        find_exemplars(model, tmp_path / "bad", ByActivation(layer(model)), cache=False)


def test_wrong_asks(model, folder):
    with pytest.raises(LayerError, match="has 6 channels, 0 to 5; there is no channel 6"):
        ByActivation(layer(model), (2, 6))
    with pytest.raises(MethodError, match="from 0 to 1"):
        find_exemplars(model, folder, ByActivation(layer(model)), Selection(quantiles=(2,)), cache=False)
    with pytest.raises(MethodError, match="'max' or its 'mean'"):
        ByActivation(layer(model), None, "sum")


def test_black_boxes_have_no_layers(folder, model):
    from pellucid.models.blackbox import BlackBox

    box = wrap(BlackBox(lambda x: x.mean((2, 3))), transform=PLAIN)
    with pytest.raises(ModelError, match="black box"):
        find_exemplars(box, folder, ByActivation(layer(model)), cache=False)


def test_only_a_few_batches_of_pictures_are_ever_in_memory(model, folder, monkeypatch):
    alive, most = [], []
    read = module.Loader.load

    def counted(self, row):
        found = read(self, row)
        alive.append(weakref.ref(found[1]))
        most.append(sum(x() is not None for x in alive))
        return found

    monkeypatch.setattr(module.Loader, "load", counted)
    find_exemplars(model, folder, ByActivation(layer(model)), Selection(top=1), cache=False, batch=2)
    assert len(alive) > 17
    assert max(most) <= 6


def test_the_pass_ends_at_the_layer(folder):
    net = pooled()
    model = wrap(net, transform=PLAIN)
    measure = ByActivation(layer(model, "1"))
    ran = []
    net[2].register_forward_hook(lambda *_: ran.append(1))
    table = find_exemplars(model, folder, measure, Selection(top=0, bottom=0, quantiles=(0.5,)), cache=False)
    behind = len(ran)
    assert table.units[0].count == 17
    find_exemplars(model, folder, measure, Selection(top=0, bottom=0, quantiles=(0.5,)), cache=False)
    assert len(ran) - behind <= 1  # of a whole pass there is only the first of the receptive field's


def test_inputs_of_several_sizes(folder):
    """Without a crop each picture keeps its shape; maps have grids of their own."""
    from pellucid.models.preprocess import Preprocess

    keep = Preprocess(input_size=(SIDE, SIDE), crop=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = wrap(pooled(), transform=keep)
    files, truth = brute(model, folder)
    found = find_exemplars(model, folder, ByActivation(layer(model)), Selection(top=3), cache=False, batch=6)
    for unit in found.units:
        order = sorted(range(17), key=lambda i: (-float(truth[i, unit.unit]), i))
        assert names(unit.top) == [files[i] for i in order[:3]]
    assert len({e.map.shape for u in found.units for e in u.top}) > 1


def test_the_table_reads_columns_whatever_the_memory(tmp_path, monkeypatch):
    from pellucid.features import table as tables

    values = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    table = ScoreTable(tmp_path, {"a": 1}, 50, 7)
    for part in values.split(8):
        table.fill(part)
    monkeypatch.setattr(tables, "_AT_ONCE", 100)
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 9)
    assert table.complete
    got = dict(ScoreTable(tmp_path, {"a": 1}, 50, 7).columns_at([5, 0, 6]))
    assert sorted(got) == [0, 5, 6]
    for column, scores in got.items():
        assert torch.equal(scores, values[:, column])
    assert ScoreTable(tmp_path, {"a": 2}, 50, 7).done == 0


def test_grey_models_and_nets_in_training_mode(folder):
    from pellucid.models.preprocess import Preprocess

    grey = Preprocess(input_size=(32, 32), resize=32, fit="cover", channels=1, mean=(0.5,), std=(0.5,))
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()))
    net.train()
    model = wrap(nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten()), transform=grey)
    model.module.train()
    x = torch.zeros(1, 1, 32, 32)
    found = find_exemplars(model, folder, ByActivation(describe(model.module, x, "0")), Selection(top=2), cache=False)
    assert model.module.training
    assert net[1].num_batches_tracked == 0
    assert found.units[0].count == 17
