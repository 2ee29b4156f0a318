import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms as T  # noqa: N812

import pellucid as pl
from helpers.cases import PLAIN, SIDE, STRETCH, bright_model, bright_net, nan_tiff, pixels, save, truncated_jpeg
from pellucid.heatmaps import RISE, GradCAM, IntegratedGradients, Saliency
from pellucid.models.preprocess import Preprocess
from pellucid.verbs.evaluate import _named


@pytest.fixture
def model():
    return bright_model()


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("b10.png", "b2.png", "B1.jpg")):
        save(tmp_path / name, pixels(40 + i, 60, seed=i))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def ours(e):
    return e.attribution


# ---------------------------------------------------------------- what goes in, what comes out


def test_every_way_to_give_one_picture_finds_the_same(model, tmp_path):
    array = pixels()
    path = save(tmp_path / "a.png", array)
    expected = pl.explain(model, path)
    assert isinstance(expected, pl.Heatmap)
    x, _ = PLAIN(pl.read_image(path))
    forms = [tmp_path / "a.png", Image.open(path), array, f"{tmp_path}/*.png", tmp_path, x, x[None]]
    for form in forms:
        e = pl.explain(model, form)
        assert isinstance(e, pl.Heatmap), form
        assert torch.equal(e.attribution, expected.attribution), form
        assert e.prediction == expected.prediction
    assert expected.attribution.abs().max() > 0


def test_lists_folders_and_batches_give_several_in_order(model, folder):
    several = pl.explain(model, folder)
    assert isinstance(several, pl.Heatmaps)
    assert [e.name for e in several] == ["B1", "b2", "b10"]
    single = [pl.explain(model, folder / n) for n in ("B1.jpg", "b2.png", "b10.png")]
    for a, b in zip(several, single, strict=True):
        assert torch.allclose(a.attribution, b.attribution, atol=1e-5)
        assert a.geometry == b.geometry
    batch = torch.stack([PLAIN(pl.read_image(folder / n))[0] for n in ("B1.jpg", "b2.png", "b10.png")])
    for mixture in ([folder / "B1.jpg", folder / "b2.png", Image.open(folder / "b10.png")], batch, list(batch)):
        found = pl.explain(model, mixture)
        assert isinstance(found, pl.Heatmaps)
        assert len(found) == 3
        for a, b in zip(found, single, strict=True):
            assert torch.allclose(a.attribution, b.attribution, atol=1e-5)


def test_a_list_of_one_is_a_list(model, folder):
    assert isinstance(pl.explain(model, [folder / "b2.png"]), pl.Heatmaps)
    assert isinstance(pl.explain(model, folder / "b2.png", method="grad-cam,saliency"), pl.Heatmaps)
    assert isinstance(pl.explain(model, folder / "b2.png", target=[0, 1]), pl.Heatmaps)


def test_a_sample_is_explained(model):
    e = pl.explain(model, "sample:coffee")
    assert e.name == "coffee"
    assert e.heatmap().shape == (1, 400, 600)  # the size of skimage.data.coffee()


def test_more_pictures_than_a_batch_holds_equal_one_by_one(model):
    batch = torch.rand(19, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for method in ("grad-cam", "input-x-gradient"):
        together = pl.explain(model, batch, method=method, target="bright")
        alone = [pl.explain(model, x, method=method, target="bright") for x in batch]
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a.attribution, b.attribution, atol=1e-5)
            assert [p.index for p in a.prediction] == [p.index for p in b.prediction]


def test_pictures_of_several_sizes_for_a_model_without_a_fixed_size():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    a, b = torch.rand(3, 16, 24), torch.rand(3, 32, 16)
    found = pl.explain(net, [a, b, a], method="input-x-gradient", target=0)
    assert [tuple(e.attribution.shape) for e in found] == [(1, 3, 16, 24), (1, 3, 32, 16), (1, 3, 16, 24)]
    assert torch.allclose(found[0].attribution, found[2].attribution)


def test_several_targets_and_methods_in_one_call_equal_separate_calls(model, folder):
    targets = ["bright", 1, "bright>dark", pl.TopClass(1), lambda y: y[:, 0] * 2]
    methods = ["hires-cam", Saliency(), IntegratedGradients(max_steps=8, tolerance=None)]
    together = pl.explain(model, folder / "b2.png", methods, targets)
    assert len(together) == 15
    expected = [(m, t) for t in targets for m in methods]
    for e, (m, t) in zip(together, expected, strict=True):
        alone = pl.explain(model, folder / "b2.png", m, t)
        assert torch.allclose(e.attribution, alone.attribution, atol=1e-6), (e.method, e.target)
        assert (e.method, e.target) == (alone.method, alone.target)
    assert together[0].attribution.abs().max() > 0
    assert not torch.allclose(together[0].attribution, together[3].attribution)


def test_text_splits_at_commas_as_lists_do(model, folder):
    text = pl.explain(model, folder / "b2.png", "grad-cam,hires-cam", "bright, dark>bright")
    lists = pl.explain(model, folder / "b2.png", ["grad-cam", "hires-cam"], ["bright", pl.Contrast("dark", "bright")])
    assert [(e.method, e.target) for e in text] == [(e.method, e.target) for e in lists]
    assert [e.target for e in text[::2]] == ["bright", "dark rather than bright"]
    for a, b in zip(text, lists, strict=True):
        assert torch.equal(a.attribution, b.attribution)


def test_a_class_for_each_input_counts_over_all_batches(model):
    batch = torch.rand(11, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    classes = [i % 2 for i in range(11)]
    found = pl.explain(model, batch, "input-x-gradient", torch.tensor(classes))
    for e, x, c in zip(found, batch, classes, strict=True):
        alone = pl.explain(model, x, "input-x-gradient", c)
        assert torch.allclose(e.attribution, alone.attribution, atol=1e-6)
        assert e.target == ("bright", "dark")[c]
        assert e.record.target == str(c)
    for wrong in (10, 12):
        with pytest.raises(pl.TargetError, match=rf"{wrong} targets for .*11 inputs"):
            pl.explain(model, batch, "saliency", pl.PerSample((0,) * wrong))


def test_the_prediction_is_that_of_plain_torch(folder):
    net = bright_net()
    e = pl.explain(bright_model(), folder / "b2.png")
    x, _ = PLAIN(pl.read_image(folder / "b2.png"))
    with torch.no_grad():
        expected, order = net(x[None]).softmax(1)[0].sort(descending=True)
    assert [p.index for p in e.prediction] == order.tolist()
    assert [p.probability for p in e.prediction] == pytest.approx(expected.tolist(), abs=1e-6)
    assert [p.label for p in e.prediction] == [("bright", "dark")[i] for i in order]


def test_the_prediction_of_the_embedded_model_is_that_of_plain_timm(embedded_model):
    e = pl.explain(embedded_model, "sample:cat", "saliency")
    x, _ = embedded_model.preprocess(pl.read_image("sample:cat"))
    with torch.no_grad():
        probabilities, order = embedded_model.module(x[None]).softmax(1)[0].topk(5)
    assert [p.index for p in e.prediction] == order.tolist()
    assert [p.probability for p in e.prediction] == pytest.approx(probabilities.tolist(), abs=1e-5)
    assert {p.label for p in e.prediction[:3]} == {"tabby", "tiger cat", "Egyptian cat"}


def test_a_bare_module_and_a_models_name_are_taken():
    net = nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    bare, wrapped = pl.explain(net, "sample:cat", target=1), pl.explain(pl.wrap(net), "sample:cat", target=1)
    assert torch.equal(bare.attribution, wrapped.attribution)
    assert bare.target == "class 1"
    assert not bare.record.model["source"]


def test_hyper_parameters_seed_and_layer_reach_the_methods(model, folder):
    e = pl.explain(model, folder / "b2.png", "grad-cam", layer="0")
    assert e.layer.startswith("0 (")
    assert e.record.method["parameters"] == {"layer": "0", "per_frame": False}
    random = IntegratedGradients(baseline="uniform", max_steps=8, tolerance=None)
    a, b, c = (pl.explain(model, folder / "b2.png", random, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.attribution, b.attribution)
    assert not torch.equal(a.attribution, c.attribution)
    assert (a.record.method["parameters"]["seed"], c.record.method["parameters"]["seed"]) == (0, 1)
    mixed = pl.explain(model, folder / "b2.png", ["grad-cam", "saliency"], layer="0")
    assert [e.layer is None for e in mixed] == [False, True]


def test_a_method_that_was_made_with_a_seed_keeps_it(model, folder, tmp_path):
    picture, made = folder / "b2.png", RISE(samples=16, seed=5)
    kept, named, other = (pl.explain(model, picture, made, seed=s) for s in (None, 5, 0))
    assert torch.equal(kept.attribution, named.attribution)
    assert not torch.equal(kept.attribution, other.attribution)
    assert (kept.record.method["parameters"]["seed"], kept.record.run["seed"]) == (5, 0)
    assert str(pl.verify(kept.save(tmp_path)[0], model=model)) == "same"
    named = _named([made, "rise"], 3)
    assert [m.seed for m in named.values()] == [5, 3], "of an evaluation's methods alike"


# ---------------------------------------------------------------- back to the original's pixels


@pytest.mark.parametrize(("height", "width"), [(120, 300), (300, 120), (72, 72), (91, 64)])
def test_the_heat_map_has_the_original_size_and_is_nan_exactly_outside_the_crop(height, width):
    crop = Preprocess(input_size=(64, 64), resize=72, fit="cover", mean=(0.0,) * 3, std=(1.0,) * 3)
    e = pl.explain(bright_model(crop), pixels(height, width), target="bright>dark", method="hires-cam")
    values = e.heatmap()
    assert values.dtype == torch.float32
    assert values.shape == (1, height, width)
    resized = (72, int(72 * width / height)) if height <= width else (int(72 * height / width), 72)
    inside = []
    for n, r in zip((height, width), resized, strict=True):
        start = round((r - 64) / 2)
        centres = (np.arange(n) + 0.5) * r / n
        inside.append((centres >= start) & (centres < start + 64))
    seen = inside[0][:, None] & inside[1][None]
    assert not seen.all()
    assert np.array_equal(~np.isnan(values[0].numpy()), seen)


SQUARES = [(300, 900, 100, 500), (900, 300, 420, 80), (640, 480, 90, 300), (481, 641, 320, 171), (400, 400, 20, 310)]


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam", "input-x-gradient", "integrated-gradients"])
@pytest.mark.parametrize(("height", "width", "top", "left"), SQUARES)
def test_a_planted_square_is_found_at_its_place_in_the_original(method, height, width, top, left):
    picture = np.full((height, width, 3), 20, np.uint8)
    size = min(height, width) // 4
    picture[top : top + size, left : left + size] = 250
    e = pl.explain(bright_model(), picture, method, "bright")
    values = np.nan_to_num(e.heatmap()[0].numpy(), nan=-np.inf)
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert top <= y < top + size
    assert left <= x < left + size


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_planted_square_is_found_in_the_upright_picture(tmp_path, orientation):
    upright = np.full((240, 400, 3), 20, np.uint8)
    upright[30:90, 220:280] = 250
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    stored = Image.fromarray(upright).transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "p.jpg", exif=exif, quality=95)
    e = pl.explain(bright_model(), tmp_path / "p.jpg", "grad-cam", "bright")
    assert e.heatmap().shape == (1, 240, 400)
    values = np.nan_to_num(e.heatmap()[0].numpy(), nan=-np.inf)
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert 30 <= y < 90
    assert 220 <= x < 280


def test_a_torchvision_transform_of_ones_own_finds_its_way_back():
    transform = T.Compose([T.Resize(72), T.CenterCrop(SIDE), T.ToTensor()])
    picture = np.full((200, 420, 3), 20, np.uint8)
    picture[40:90, 250:300] = 250
    e = pl.explain(pl.wrap(bright_net(), transform=transform), picture, "grad-cam", 0)
    assert e.geometry.known
    assert e.heatmap().shape == (1, 200, 420)
    values = np.nan_to_num(e.heatmap()[0].numpy(), nan=-np.inf)
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert 40 <= y < 90
    assert 250 <= x < 300
    with torch.no_grad():
        scores = bright_net()(transform(Image.fromarray(picture))[None]).softmax(1)[0]
    assert {p.index: p.probability for p in e.prediction} == pytest.approx(dict(enumerate(scores.tolist())), abs=1e-6)


def test_a_random_transform_is_shown_on_the_models_own_input_and_said():
    transform = T.Compose([T.Resize((SIDE, SIDE)), T.RandomHorizontalFlip(0.5), T.ToTensor()])
    picture = pixels(100, 140)
    e = pl.explain(pl.wrap(bright_net(), transform=transform), picture, "grad-cam", 0)
    assert not e.geometry.known
    assert e.heatmap().shape == (1, SIDE, SIDE)
    assert any("on the model's own input" in note for note in e.notes)
    small = np.array(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) / 255
    differences = [np.abs(e.picture.pixels - p).max() for p in (small, small[:, ::-1])]
    assert min(differences) < 0.01  # what the model saw, flipped or not
    assert not any("own input" in n for n in pl.explain(bright_model(), picture).notes)


def test_a_tensor_is_explained_and_shown_as_the_model_sees_it():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    preprocess = Preprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=mean, std=std)
    unit = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    x = (unit - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    e = pl.explain(bright_model(preprocess), x)
    assert np.allclose(e.picture.pixels, unit.permute(1, 2, 0).numpy(), atol=1e-6)
    assert e.heatmap().shape == (1, SIDE, SIDE)
    assert not e.heatmap().isnan().any()


# ---------------------------------------------------------------- the record


def test_of_pictures_explained_together_each_has_its_share_of_the_passes(model, folder):
    for method in ("grad-cam", "occlusion"):
        alone = pl.explain(model, folder / "b2.png", method).record.run
        for e in pl.explain(model, [folder / "b10.png", folder / "b2.png"], method):
            assert e.record.run["forwards"] == pytest.approx(alone["forwards"], abs=3)  # the proofs are shared
            assert e.record.run["backwards"] == alone["backwards"]


def test_the_record_says_what_was_done(model, folder):
    e = pl.explain(model, folder / "b2.png", "grad-cam", "dark", seed=7)
    record = e.record
    assert record.input["source"] == str(folder / "b2.png")
    assert record.input["sha256"] == __import__("hashlib").sha256((folder / "b2.png").read_bytes()).hexdigest()
    assert record.method == {"name": "grad-cam", "parameters": {"layer": None, "per_frame": False}}
    assert record.target == "1"
    assert (record.run["seed"], record.run["device"], record.run["dtype"]) == (7, "cpu", "float32")
    assert (record.run["forwards"], record.run["backwards"]) == (1, 1)
    assert record.software["torch"] == torch.__version__
    assert pl.explain(model, folder / "b2.png", target=lambda y: y[:, 0]).record.target is None
    assert pl.explain(model, folder / "b2.png").record.target == "top"


def test_labels_that_look_like_something_else_are_recorded_as_classes(folder):
    odd = bright_model(labels=("1", "cat, black > white"))
    for target, index in ((pl.Class("1"), 0), (pl.Class("cat, black > white"), 1), (pl.Contrast(0, 1), "0>1")):
        assert pl.explain(odd, folder / "b2.png", target=target).record.target == str(index)


# ---------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((5,), {}, pl.MediaError, "A picture is a path"),
        ((None,), {}, pl.MediaError, "A picture is a path"),
        (("nowhere.png",), {}, pl.MediaError, "no file or folder nowhere.png"),
        ((np.zeros((3, 8, 8), np.uint8),), {}, pl.MediaError, "transpose"),
        ((torch.full((3, SIDE, SIDE), torch.nan),), {}, pl.MediaError, "NaN"),
        ((torch.zeros(3, SIDE, SIDE, dtype=torch.uint8),), {}, pl.MediaError, "torch.uint8"),
        ((torch.zeros(SIDE),), {}, pl.MediaError, r"not torch.float32 \(64,\)"),
        ((torch.zeros(()),), {}, pl.MediaError, r"\(C, H, W\)"),
        ((torch.zeros(1, SIDE, SIDE),), {}, pl.ModelError, "3 channels but the input has 1"),
        (("sample:cat",), {"method": "grad-cm"}, pl.MethodError, "grad-cam"),
        (("sample:cat",), {"method": 3}, pl.MethodError, "3 is no method"),
        (("sample:cat",), {"method": Saliency}, pl.MethodError, "is no method"),
        (("sample:cat",), {"method": []}, pl.MethodError, "There is no method"),
        (("sample:cat",), {"method": "saliency", "layer": "1"}, pl.MethodError, "saliency works without one"),
        (("sample:cat",), {"layer": "7"}, pl.LayerError, "no layer '7'"),
        (("sample:cat",), {"target": "brigth"}, pl.TargetError, "'bright'"),
        (("sample:cat",), {"target": 2}, pl.TargetError, "2 classes"),
        (("sample:cat",), {"target": "bright>bright"}, pl.TargetError, "two classes"),
        (("sample:cat",), {"target": []}, pl.PellucidError, "no target"),
        (("sample:cat",), {"target": 0.5}, pl.TargetError, "no target"),
        (("sample:cat",), {"target": lambda y: y}, pl.TargetError, "one score"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(model, arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        pl.explain(model, *arguments, **options)
    assert "\n" not in str(caught.value)


def test_wrong_models_are_one_sentence():
    for model in (3, None, object()):
        with pytest.raises(pl.ModelError, match=r"torch\.nn\.Module"):
            pl.explain(model, "sample:cat")
    with pytest.raises(pl.ModelError, match="efficientnet-lite0"):
        pl.explain("efficientnet-lite", "sample:cat")


def test_a_one_channel_model_says_so():
    net = nn.Sequential(nn.Conv2d(1, 2, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(pl.ModelError, match=r"takes 1 channel but the input has 3.*channels=1"):
        pl.explain(pl.wrap(net), "sample:cat")
    grey = Preprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.0,), std=(1.0,), channels=1)
    assert pl.explain(pl.wrap(net, transform=grey), "sample:cat", "input-x-gradient").map().shape == (1, SIDE, SIDE)


def test_nan_weights_are_named():
    net = bright_net()
    with torch.no_grad():
        net[4].weight[0, 0] = torch.nan
    with pytest.raises(pl.ModelError, match=r"first in '4.weight'"):
        pl.explain(pl.wrap(net, transform=STRETCH), "sample:cat")


def test_the_first_unreadable_picture_ends_a_call_but_not_explain_each(model, folder):
    from pellucid.verbs.choices import as_methods, as_targets
    from pellucid.verbs.explain import explain_each

    bad = truncated_jpeg(folder / "bad.jpg")
    hole = nan_tiff(folder / "hole.tif")
    with pytest.raises(pl.MediaError, match=r"bad\.jpg"):
        pl.explain(model, folder)
    outcomes = list(explain_each(model, folder, as_methods("grad-cam"), as_targets(None), batch=2))
    failed = {name: str(error) for name, error in outcomes if isinstance(error, Exception)}
    assert set(failed) == {bad, hole}
    assert "bad.jpg" in failed[bad]
    assert "NaN" in failed[hole]
    assert sorted(e.name for _, found in outcomes if isinstance(found, list) for e in found) == ["B1", "b10", "b2"]


def test_explaining_leaves_the_model_as_it_was():
    net = bright_net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    pl.explain(pl.wrap(net, transform=PLAIN), pixels(), ["grad-cam", GradCAM(layer="0"), "saliency"], [0, 1])
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())
