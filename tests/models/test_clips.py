import copy

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.clips import bars
from helpers.nets import noise, pooled, seeded
from helpers.video_nets import TimeFirst, Tubelets, TwoPathways, cnn_rnn, conv3d
from pellucid.errors import ModelError, TargetError
from pellucid.heatmaps import get_method
from pellucid.media import Plan, read_clip
from pellucid.models.adapters import ClipInput, PerFrame
from pellucid.models.clips import ClipPreprocess, ClipTransform
from pellucid.models.layers import best_layer, describe, layers, pathway_layers
from pellucid.models.layouts import Layout, readings
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources.torchvision import VIDEO
from pellucid.models.targets import Class, Step, parse_target

FRAME = Preprocess(input_size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("name", sorted(VIDEO))
def test_preprocessing_is_bit_for_bit_torchvisions(name):
    import torchvision

    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    frames = np.random.default_rng(0).integers(0, 256, (3, 90, 131, 3)).astype(np.uint8)
    ours = ClipPreprocess.from_torchvision(preset, Plan("dense", 3))
    x, geometry = ours(read_clip(frames))
    assert torch.equal(x, preset(torch.from_numpy(frames).permute(0, 3, 1, 2)))
    assert geometry.source_size == (3, 90, 131)
    assert geometry.input_size == tuple(x.shape[1:])
    assert geometry.times == (0.0, 1 / 25, 2 / 25)
    assert ours.input_size == tuple(x.shape[1:])


def test_padding_repeats_the_last_frame_and_leaves_the_source_alone():
    pre = ClipPreprocess(spatial=FRAME, plan=Plan("dense", 8))
    clip = read_clip(bars(5), "dense:8")
    x, geometry = pre(clip)
    assert x.shape == (3, 8, 32, 32)
    assert all(torch.equal(x[:, i], x[:, 4]) for i in (5, 6, 7))
    assert not torch.equal(x[:, 3], x[:, 4])
    assert geometry.box[0] == (0.0, 8.0)
    assert geometry.source_size[0] == 5
    seen = geometry.to_source(torch.arange(8.0)[:, None, None].expand(8, 2, 2))
    assert torch.allclose(seen[:, 20, 30], torch.arange(5.0))
    shown = pre.display(x)
    assert torch.allclose(shown[:, 0, 16, 16] * 255, torch.tensor([40.0] * 3), atol=1)


def test_a_function_of_the_frames_is_measured():
    def transform(frames):
        cut = frames[:, :, 8:40, 10:42].float() / 255
        return (cut.movedim(0, 1) - 0.5) / 0.2

    pre = ClipTransform(transform, Plan("dense", 4))
    x, geometry = pre(read_clip(bars(6), "dense:4"))
    assert x.shape == (3, 4, 32, 32)
    assert np.allclose(geometry.box, ((0, 4), (8, 40), (10, 42)), atol=0.1)
    assert torch.allclose(pre.display(x), transform(torch.from_numpy(bars(6)[1:5]).permute(0, 3, 1, 2)) * 0.2 + 0.5)
    with pytest.raises(ModelError, match=r"must return a float tensor \(C, T, h, w\)"):
        ClipTransform(lambda frames: frames, Plan("dense", 4))
    with pytest.raises(ModelError, match="names no number of frames"):
        ClipTransform(transform, Plan("dense"))


def test_layers_keep_their_names_in_an_adapter():
    net = conv3d()
    wrapped = ClipInput(TimeFirst(net), "BTCHW")
    assert {n for n, _ in wrapped.named_modules()} == {"", "module", "net", *(f"net.{i}" for i in range(7))}
    assert all(wrapped.get_submodule(n) is m for n, m in wrapped.named_modules())
    twin = copy.deepcopy(wrapped)
    assert torch.equal(twin(noise(1, 3, 8, 16, 16)), net(noise(1, 3, 8, 16, 16)))


def test_both_layouts_give_one_map():
    net, x = conv3d(), noise(2, 3, 8, 32, 32)
    plain = get_method("grad-cam").explain(net, x, [1])[0]
    laid = get_method("grad-cam").explain(ClipInput(TimeFirst(net), "BTCHW"), x, [1])[0]
    assert plain.values.shape == (2, 2, 8, 8)
    assert torch.equal(plain.values, laid.values)
    assert laid.layer.name == f"net.{plain.layer.name}"


def test_a_wrong_layout_names_both_readings():
    model = pl.wrap(TimeFirst(conv3d()), transform=FRAME, frames=8)
    with pytest.raises(ModelError, match=r"read as \(N, C, T, H, W\), and works on \(N, T, C, H, W\).*layout='BTCHW'"):
        pl.explain(model, bars(8))
    right = pl.wrap(TimeFirst(conv3d()), transform=FRAME, frames=8, layout="BTCHW")
    assert pl.explain(right, bars(8)).tube().shape == (2, 8, 8)
    with pytest.raises(pl.MediaError, match=r"reads as \(T, C, H, W\) or as \(C, T, H, W\) of 8 channels"):
        pl.explain(right, noise(8, 3, 32, 32))
    with pytest.raises(ModelError, match="BCTHW or BTCHW, not 'THW'"):
        pl.wrap(conv3d(), frames=8, layout="THW")
    with pytest.raises(ModelError, match="say how many frames"):
        pl.wrap(conv3d(), layout="BTCHW")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_frames_folded_into_the_batch_are_proven(kind, bidirectional):
    net, x = cnn_rnn(kind, bidirectional=bidirectional), noise(2, 3, 6, 32, 32)
    layer = best_layer(net, x)
    assert layer.layout == Layout("channels-first", (6, 8, 8), 8, folded=6)
    found = get_method("grad-cam", layer=layer.name).explain(net, x, [1])[0].values
    assert found.shape == (2, 6, 8, 8)
    for n in range(2):  # by hand: one clip at a time
        kept = {}

        def hook(_module, _args, output, kept=kept):
            output.retain_grad()
            kept["A"] = output

        handle = net.features.register_forward_hook(hook)
        net(x[n : n + 1].clone())[0, 1].backward()
        handle.remove()
        A, G = kept["A"].detach().movedim(0, 1), kept["A"].grad.movedim(0, 1)  # (C, T, h, w)
        weights = G.mean((1, 2, 3), keepdim=True)
        assert torch.allclose(found[n], (weights * A).sum(0).relu(), atol=1e-6)
    net.zero_grad(set_to_none=True)


def test_a_folded_layout_and_its_way_back():
    layout = Layout("tokens", (3, 2, 2), 5, prefix=1, folded=3)
    tokens = noise(2 * 3, 5, 5)
    cells = layout.to_map(tokens)
    assert cells.shape == (2, 5, 3, 2, 2)
    assert torch.equal(cells[1, :, 2, 1, 0], tokens[1 * 3 + 2, 1 + 2])
    assert torch.equal(layout.from_map(cells, tokens), tokens)
    assert layout.shape(2) == (6, 5, 5)
    assert layout in list(readings((3, 5, 5), (3, 16, 16)))


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("time_fastest", [False, True])
def test_space_time_tokens_are_inferred(prefix, time_fastest):
    net = seeded(lambda: Tubelets(prefix=prefix, time_fastest=time_fastest).eval())
    x = noise(1, 3, 8, 32, 32)
    layout = describe(net, x, "block").layout
    assert (layout.grid, layout.prefix) == ((4, 4, 4), prefix)
    expected = net.block(net.embed(x).movedim(1, -1)).movedim(-1, 1)
    seen = {}
    net.block.register_forward_hook(lambda m, a, out: seen.update(out=out))
    net(x)
    assert torch.allclose(layout.to_map(seen["out"]), expected, atol=1e-6)


def test_each_pathway_has_its_map_on_its_own_time_grid():
    net = seeded(lambda: TwoPathways().eval())
    module = ClipInput(net, pathways=(4, 1))
    x = noise(1, 3, 8, 16, 16)
    slow, fast = pathway_layers(module, x, (2, 8))
    assert (slow.name, slow.layout.grid) == ("slow", (2, 8, 8))
    assert (fast.name, fast.layout.grid) == ("fast", (8, 8, 8))
    at = torch.tensor([0, 7])  # evenly from the first to the last
    assert torch.equal(module(x), net([x[:, :, at], x]))
    model = pl.wrap(net, transform=FRAME, frames=8, pathways=(4, 1))
    found = pl.explain(model, bars(8), "grad-cam,occlusion")
    assert [len(e.tube()) for e in found[:2]] == [2, 8]
    assert len(found) == 3


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_an_image_model_on_every_frame(pool):
    net = pooled(2)
    model = pl.per_frame(pl.wrap(net, transform=FRAME, labels=list("abcde")), pool, frames="dense:4")
    clip = bars(4)
    e = pl.explain(model, clip, "grad-cam", "b")
    x = torch.stack([FRAME(read_clip(clip).picture(i))[0] for i in range(4)])
    scores = net(x)
    chosen = scores.mean(0) if pool == "mean" else scores.amax(0)
    assert e.prediction[0].index == int(chosen.argmax())
    one = get_method("grad-cam", layer="3").explain(net, x, [1])[0].values
    if pool == "mean":  # global weights: the channels' gradients are averaged over the frames too
        assert e.tube().shape == (4, 8, 8)
        A = net[:4](x)
        G = net[6].weight[1][:, None, None] / 64 / 4
        assert torch.allclose(e.tube(), (G * A).sum(1).relu(), atol=1e-6)
        assert torch.allclose(e.tube() * 4, one, atol=1e-5)
    with pytest.raises(ModelError, match="takes clips already"):
        pl.per_frame(model)
    with pytest.raises(ModelError, match="mean, max, none or a function"):
        PerFrame(net, "median")


def test_a_step_of_a_sequence_is_a_target():
    net, x = cnn_rnn(sequence=True), noise(2, 3, 5, 16, 16)
    output = net(x)
    step = Step(2, 1)
    assert torch.equal(step(output), output[:, 2, 1])
    top = Step(-1).freeze(output)
    assert torch.equal(top(output), output[:, -1].amax(1))
    assert torch.equal(top.select(torch.tensor([1]))(output[1:]), output[1:, -1].amax(1))
    assert torch.allclose(step.probability(output, {}), output[:, 2].softmax(1)[:, 1])
    found = get_method("saliency").explain(net, x, [step])[0].values
    assert found[:, :, :3].abs().sum() > 0
    assert not found[:, :, 3:].any()  # later frames cannot count for an earlier step
    assert parse_target("step:2:1") == Step(2, Class(1))
    assert parse_target("step:-1").spec() == "step:-1:top"
    assert Step(2, "b").bind(net, x, list("abcd")).name(list("abcd")) == "b at step 2"
    with pytest.raises(TargetError, match="Step 9 is out of range: the model answers 5 steps"):
        Step(9)(output)
    with pytest.raises(TargetError, match="so it has no steps"):
        Step(0)(output[:, 0])
    with pytest.raises(TargetError, match="write step:T"):
        parse_target("step:x")


def test_models_of_pictures_and_of_clips_say_which_is_which(tmp_path):
    from helpers.clips import gif, write

    pytest.importorskip("av")
    pictures, clips = (
        pl.wrap(pooled(2), transform=FRAME, name="P"),
        pl.wrap(conv3d(), transform=FRAME, frames=8, name="V"),
    )
    video = write(tmp_path / "clip.mp4", bars(8))
    with pytest.raises(pl.MediaError, match=r"clip.mp4 is a clip, and P takes pictures: .*per_frame"):
        pl.explain(pictures, video)
    with pytest.raises(pl.MediaError, match="is a clip, and P takes pictures"):
        pl.explain(pictures, bars(8))
    with pytest.raises(ModelError, match="P takes pictures"):
        pl.explain(pictures, "sample:cat", frames=8)
    still = gif(tmp_path / "still.gif", bars(1), [40])
    for picture in ("sample:cat", still, bars(1)[0]):
        with pytest.raises(pl.MediaError, match="picture, and V takes clips: give a video"):
            pl.explain(clips, picture)
    assert pl.explain(pictures, gif(tmp_path / "moving.gif", bars(3), [40] * 3)).attribution.ndim == 3


@pytest.mark.parametrize(
    ("name", "shape", "grid"),
    [
        ("r3d_18", (16, 32, 32), (2, 2, 2)),
        ("mc3_18", (4, 48, 48), (4, 3, 3)),
        pytest.param("r2plus1d_18", (16, 48, 48), (2, 3, 3), marks=pytest.mark.slow),
        pytest.param("s3d", (16, 224, 224), (2, 7, 7), marks=pytest.mark.slow),
        pytest.param("swin3d_t", (8, 64, 64), (4, 2, 2), marks=pytest.mark.slow),
        pytest.param("mvit_v1_b", (16, 224, 224), (8, 7, 7), marks=pytest.mark.slow),
        pytest.param("mvit_v2_s", (16, 224, 224), (8, 7, 7), marks=pytest.mark.slow),
    ],
)
def test_torchvision_video_models_have_a_layer(name, shape, grid):
    model = pl.load(f"torchvision:{name}", random_weights=True)
    assert model.takes_clips
    assert model.preprocess.plan == VIDEO[name]
    assert len(model.labels) == 400
    assert best_layer(model.module, noise(1, 3, *shape)).layout.grid == grid


def test_grad_cam_on_r3d_18_is_the_hand_written_loop():
    model = pl.load("torchvision:r3d_18", random_weights=True)
    net, x = model.module, noise(2, 3, 8, 32, 32)
    found = get_method("grad-cam", layer="layer3").explain(net, x, [7])[0].values
    kept = {}
    handle = net.layer3.register_forward_hook(lambda m, a, out: kept.update(A=out))
    for n in range(2):
        score = net(x[n : n + 1])[0, 7]
        (G,) = torch.autograd.grad(score, kept["A"])
        A = kept["A"].detach()
        expected = (G.mean((2, 3, 4), keepdim=True) * A).sum(1).relu()[0]
        assert (found[n] - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert expected.any()
    handle.remove()


def test_names_and_weights_of_video_models(tmp_path):
    with pytest.raises(ModelError, match="torchvision:r3d_18"):
        pl.load("torchvision:r3d_81")
    net = pl.load("torchvision:r3d_18", random_weights=1)
    small = copy.deepcopy(net.module)
    small.fc = seeded(lambda: nn.Linear(512, 3))
    torch.save(small.state_dict(), tmp_path / "three.pt")
    loaded = pl.load("torchvision:r3d_18", weights=tmp_path / "three.pt", labels=list("abc"), frames="dense:8")
    assert loaded.module.fc.weight.shape[0] == 3
    assert loaded.preprocess.plan == Plan("dense", 8)
    assert loaded.source["frames"] == "dense:8"


@pytest.mark.parametrize(
    ("kind", "options", "grid", "prefix"),
    [
        ("videomae", {"tubelet_size": 2}, (4, 4, 4), 0),
        ("vivit", {"tubelet_size": [2, 8, 8]}, (4, 4, 4), 1),
        ("timesformer", {"attention_type": "divided_space_time"}, (8, 4, 4), 1),
    ],
)
def test_transformers_of_video(kind, options, grid, prefix):
    transformers = pytest.importorskip("transformers", reason="extra hf is not installed")
    from pellucid.models.sources.transformers import HF

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    name = HF[kind][0]
    config = getattr(transformers, f"{name}Config")(image_size=32, patch_size=8, num_frames=8, **sizes, **options)
    net = seeded(lambda: getattr(transformers, f"{name}ForVideoClassification")(config).eval())
    model = pl.wrap(net, transform=FRAME, frames=8, layout="BTCHW")
    found = [
        x for x in layers(model.module, noise(1, 3, 8, 32, 32)) if x.layout.kind == "tokens" and not x.layout.folded
    ]
    assert found
    assert {(x.layout.grid, x.layout.prefix) for x in found} >= {(grid, prefix)}
    e = pl.explain(model, bars(8), "grad-cam")
    assert e.tube().shape == grid
    assert e.tube().any()


def test_a_saved_transformer_is_loaded_from_its_folder(tmp_path):
    transformers = pytest.importorskip("transformers", reason="extra hf is not installed")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = {i: f"act {i}" for i in range(3)}
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, id2label=names, label2id={v: k for k, v in names.items()}, **sizes
    )
    net = seeded(lambda: transformers.VideoMAEForVideoClassification(config).eval())
    net.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "size": {"shortest_edge": 40}}'
    )
    model = pl.load(f"hf:{tmp_path / 'model'}")
    assert model.labels == ("act 0", "act 1", "act 2")
    assert model.preprocess.plan == Plan("stride", 4, 4)
    spatial = model.preprocess.spatial
    assert (spatial.mean, spatial.resize, spatial.input_size) == ((0.1, 0.2, 0.3), 40, (32, 32))
    x = noise(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.outputs(x).logits, net(x.movedim(1, 2)).logits)
    e = pl.explain(model, bars(20), "saliency")
    assert e.times == tuple(i / 25 for i in (3, 7, 11, 15))  # every fourth, about the middle
    with pytest.raises(ModelError, match="neither a folder of a saved model here nor to be had from the hub"):
        pl.load(f"hf:{tmp_path / 'none'}")
    with pytest.raises(ModelError, match="an architecture without weights"):
        pl.load("hf:videomae")


def test_without_the_extra_videos_say_what_to_install(tmp_path, monkeypatch):
    import sys

    from helpers.clips import gif
    from pellucid.media import video

    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(64))
    video.pyav.cache_clear()
    monkeypatch.setitem(sys.modules, "av", None)
    try:
        with pytest.raises(pl.MediaError, match=r"pip install 'pellucid\[video\]'"):
            read_clip(path)
        assert len(read_clip(gif(tmp_path / "a.gif", bars(3), [40] * 3)).frames) == 3
    finally:
        video.pyav.cache_clear()


def test_changes_behind_a_layer_of_folded_frames_are_those_of_the_whole_network():
    from pellucid.engine.tail import Tail

    net, x = cnn_rnn(), noise(1, 3, 5, 16, 16)
    layout = best_layer(net, x).layout

    def change(activation, start, stop):
        cells = layout.to_map(activation).repeat(stop - start, 1, 1, 1, 1)
        for row, t in enumerate(range(start, stop)):
            cells[row, :, t] = 0
        return layout.from_map(cells, activation)

    with Tail(net, x, "features", lambda y, _watched, _rows: [y[:, 1]]) as tail:
        found = tail(change, 5)[:, 0]
    expected = []
    for t in range(5):
        handle = net.features.register_forward_hook(
            lambda _m, _a, out, t=t: torch.cat([out[:t], out[t : t + 1] * 0, out[t + 1 :]])
        )
        with torch.no_grad():
            expected.append(float(net(x)[0, 1]))
        handle.remove()
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert len(set(found.tolist())) == 5
