import os

import numpy as np
import pytest
import timm
import torch
from torch import nn

from helpers.cases import PLAIN, bright_model, pixels, save, tree
from helpers.nets import Busy, noise, pooled, random_net
from pellucid.errors import LayerError, MediaError
from pellucid.keep.home import cache_folder
from pellucid.media import read_folder
from pellucid.models import features as module
from pellucid.models.features import activations, extract
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import wrap


@pytest.fixture
def folder(tmp_path):
    for i in range(7):
        save(tmp_path / "pictures" / f"class{i % 2}" / f"{i}.png", pixels(48, 64, seed=i))
    return read_folder(tmp_path / "pictures")


def plain_loop(model, pictures, layer):
    """The layer's outputs and the scores, one picture at a time, by an ordinary hook."""
    found, scores = [], []
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _m, _a, out: found.append(out.clone()))
    with torch.no_grad():
        for i in range(len(pictures)):
            scores.append(model.module(model.preprocess(pictures.read(i))[0][None]))
    handle.remove()
    return torch.cat(found), torch.cat(scores)


@pytest.mark.parametrize("pool", [None, "mean", "max"])
def test_features_equal_a_plain_loop(folder, pool):
    model = bright_model()
    found = extract(model, folder, "1", pool=pool, cache=None, batch=3)
    A, y = plain_loop(model, folder, "1")
    wanted = {None: A.movedim(1, -1), "mean": A.mean((2, 3)), "max": A.amax((2, 3))}[pool]
    np.testing.assert_allclose(found.values, wanted, atol=1e-6)
    np.testing.assert_allclose(found.outputs, y, atol=1e-5)
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert found.cost.forwards == 7
    assert found.grid == (() if pool else (8, 8))
    assert found.channels == 2
    assert found.geometries[0] == model.preprocess(folder.read(0))[1]


def test_a_token_leads_back_to_its_picture_and_cell(folder):
    found = extract(bright_model(), folder, "1", pool=None, cache=None)
    picture, cell = found.place(3 * 64 + 5 * 8 + 2)
    assert (picture, cell) == (3, (5, 2))
    assert np.array_equal(found.tokens()[3 * 64 + 5 * 8 + 2], found.values[3, 5, 2])


def test_the_cache_answers_the_second_time_and_only_for_the_same_content(folder, tmp_path):
    model, cache = bright_model(), tmp_path / "cache"
    first = extract(model, folder, "1", cache=cache)
    again = extract(model, folder, "1", cache=cache)
    assert again.cost.forwards == 0
    assert again.key == first.key
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.outputs, again.outputs)
    assert again.geometries == first.geometries
    assert again.layout == first.layout
    assert extract(model, folder, "1", pool="max", cache=cache).cost.forwards == 7
    save(tmp_path / "pictures/class0/0.png", pixels(48, 64, seed=99))  # other bytes under the same name
    changed = extract(model, folder, "1", cache=cache)
    assert changed.cost.forwards == 7
    assert not np.allclose(changed.values[0], first.values[0])
    with torch.no_grad():
        model.module[0].bias += 1
    assert extract(model, folder, "1", cache=cache).cost.forwards == 7


def test_a_damaged_cache_is_made_again(folder, tmp_path):
    model, cache = bright_model(), tmp_path / "cache"
    first = extract(model, folder, "1", cache=cache)
    (cache / first.key / "values.npy").write_bytes(b"no array")
    again = extract(model, folder, "1", cache=cache)
    assert again.cost.forwards == 7
    assert np.isfinite(again.values).all()


def test_an_error_half_way_leaves_no_file_and_no_hook(folder, tmp_path):
    class Cancelled(nn.Sequential):
        passes_left = 1000

        def forward(self, x):
            Cancelled.passes_left -= 1
            if Cancelled.passes_left < 0:
                raise KeyboardInterrupt
            return super().forward(x)

    model = wrap(Cancelled(*bright_model().module), transform=PLAIN)
    extract(model, folder.select([0]), "1", cache=None)  # the layer is known from now on
    Cancelled.passes_left = 4
    with pytest.raises(KeyboardInterrupt):
        extract(model, folder, "1", cache=tmp_path / "cache", batch=1)
    assert tree(tmp_path / "cache") == {}
    assert not any(m._forward_hooks for m in model.module.modules())


def test_the_cache_forgets_what_was_used_longest_ago(folder, tmp_path, monkeypatch):
    model, cache = bright_model(), tmp_path / "cache"
    largest = module._size(extract(model, folder, "1", pool=None, cache=tmp_path / "other")._folder)
    keys = [extract(model, folder, "1", pool=pool, cache=cache).key for pool in ("mean", "max")]
    os.utime(cache / keys[1], (1, 1))
    monkeypatch.setattr(module, "CACHE_LIMIT", largest + module._size(cache / keys[0]))
    kept = extract(model, folder, "1", pool=None, cache=cache).key
    assert {p.name for p in cache.iterdir()} == {keys[0], kept}


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PELLUCID_CACHE", "off")
    assert cache_folder("features") is None
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    assert cache_folder("features") == tmp_path / "features"
    monkeypatch.delenv("PELLUCID_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder("features") == tmp_path / "x" / "pellucid" / "features"


def test_without_a_cache_the_file_goes_with_the_result(folder):
    import gc

    found = extract(bright_model(), folder, "1", cache=None)
    home = found._folder
    assert home.is_dir()
    del found
    gc.collect()
    assert not home.exists()


def test_bad_input_is_one_sentence(folder, tmp_path):
    model = bright_model()
    with pytest.raises(LayerError, match="no layer 'l9'"):
        extract(model, folder, "l9", cache=None)
    with pytest.raises(MediaError, match="holds no picture"):
        extract(model, folder.select([]), "1", cache=None)
    free = bright_model(
        Preprocess(input_size=(64, 64), resize=64, fit="cover", crop=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    )
    save(tmp_path / "mixed" / "a.png", pixels(48, 64))
    save(tmp_path / "mixed" / "b.png", pixels(64, 48))
    mixed = read_folder(tmp_path / "mixed")
    with pytest.raises(MediaError, match="several input sizes"):
        extract(free, mixed, "1", pool=None, cache=None)
    assert extract(free, mixed, "1", pool="mean", cache=None).values.shape == (2, 2)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(MediaError, match="PELLUCID_CACHE"):
        extract(model, folder, "1", cache=blocked)


def hooked(net, layer, x):
    found = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _m, _a, out: found.append(out.detach().clone()))
    with torch.no_grad():
        net(x)
    handle.remove()
    return found[0]


def test_tokens_of_every_layout():
    """Convolutions, a transformer, a 3D network, and vectors: the same rows, read by hand."""
    net, x = random_net("resnet18"), noise(2, 3, 64, 64)
    rows, scores = activations(net, x, "layer3")
    torch.testing.assert_close(rows, hooked(net, "layer3", x).permute(0, 2, 3, 1))
    torch.testing.assert_close(scores, net(x).detach())
    rows, _ = activations(net, x, "global_pool")
    torch.testing.assert_close(rows, hooked(net, "global_pool", x)[:, None, None, :])

    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5).eval()
    rows, _ = activations(vit, x, "blocks.1")
    torch.testing.assert_close(rows, hooked(vit, "blocks.1", x)[:, 1:].reshape(2, 4, 4, 192))

    volume = pooled(3)
    x = noise(2, 3, 8, 16, 16)
    rows, _ = activations(volume, x, "3", batch=1)
    torch.testing.assert_close(rows, hooked(volume, "3", x).permute(0, 2, 3, 4, 1))


def test_extraction_leaves_no_trace(folder):
    model = wrap(Busy().train(), transform=PLAIN)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    random = torch.get_rng_state()
    extract(model, folder, "body", cache=None)
    assert model.module.training
    assert model.module.count == 0
    assert not model.module.body._forward_hooks
    assert torch.equal(torch.get_rng_state(), random)
    after = model.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
