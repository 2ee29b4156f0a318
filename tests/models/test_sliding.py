"""A network slid over a volume: MONAI's answer, the gradient of the fusion unrolled, CAMs over all windows, memory."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.errors import ModelError
from pellucid.models.sliding import SlidingWindow
from pellucid.models.window_memory import WindowMemory, current, last, recalling, remembering


class Segmenter(nn.Module):
    """Three classes for each voxel; what it answers hangs on where in the window a voxel lies."""

    def __init__(self, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv3d(channels, 5, 3, padding=1), nn.Conv3d(5, 6, 3, stride=2, padding=1)
        self.up, self.head = nn.ConvTranspose3d(6, 4, 2, stride=2), nn.Conv3d(4, 3, 1)

    def forward(self, x):
        return self.head(torch.relu(self.up(torch.tanh(self.second(torch.relu(self.first(x)))))))


def volume(*space):
    return torch.randn(1, 1, *space, generator=torch.Generator().manual_seed(1))


SHAPES = [((16, 16, 16), 0.25), ((21, 17, 26), 0.5), ((8, 8, 8), 0.25), ((5, 19, 9), 0.6), ((9, 8, 30), 0.0)]


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize(("space", "overlap"), SHAPES)
def test_the_answer_is_monais(space, overlap, mode):
    inferers = pytest.importorskip("monai.inferers")
    net, x = Segmenter().eval(), volume(*space)
    for batch in (1, 4):
        slid = SlidingWindow(net, (8, 8, 8), overlap=overlap, mode=mode, batch=batch)
        with torch.no_grad():
            theirs = inferers.sliding_window_inference(x, (8, 8, 8), batch, net, overlap=overlap, mode=mode)
            torch.testing.assert_close(slid(x), theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("space", "overlap"), SHAPES)
def test_the_gradient_is_that_of_the_fusion_unrolled(space, overlap):
    slid = SlidingWindow(Segmenter().eval(), (8, 8, 8), overlap=overlap)
    chosen = torch.randn(1, 3, *space, generator=torch.Generator().manual_seed(2))

    def score(answer):
        return (answer.softmax(1) * chosen).sum() + answer[:, 1].amax()

    x = volume(*space).requires_grad_()
    bounded = torch.autograd.grad(score(slid(x)), x)[0]
    padded, inner = slid.padded(x)
    whole = torch.autograd.grad(score(slid.unrolled(padded)[(..., *inner)]), x)[0]
    assert float((bounded - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def brain(answer):
    """How much of class 1 there is."""
    return answer.softmax(1)[:, 1].flatten(1).sum(1)


def test_gradient_methods_give_what_the_unrolled_model_gives():
    class Unrolled(SlidingWindow):
        def forward(self, x):
            padded, inner = self.padded(x)
            return self.unrolled(padded)[(..., *inner)]

    x = volume(12, 14, 10)
    for method in ("saliency", "input-x-gradient", "integrated-gradients", "guided-backprop"):
        if method not in pl.heatmaps.METHODS:
            continue
        one = pl.heatmaps.get_method(method).attribute(SlidingWindow(Segmenter().eval(), (8, 8, 8)), x, brain)
        other = pl.heatmaps.get_method(method).attribute(Unrolled(Segmenter().eval(), (8, 8, 8)), x, brain)
        torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max()), rtol=1e-4)


def test_a_cam_of_one_window_is_the_networks_own():
    net, x = Segmenter().eval(), volume(8, 8, 8)
    plain = pl.heatmaps.get_method("grad-cam", layer="second").attribute(net, x, brain)
    slid = pl.heatmaps.get_method("grad-cam", layer="second").attribute(SlidingWindow(net, (8, 8, 8)), x, brain)
    spread = pl.Geometry.identity((8, 8, 8)).to_input(plain)
    torch.testing.assert_close(slid, spread, atol=1e-5 * float(spread.abs().max()), rtol=1e-4)


def test_a_cams_weights_are_those_of_the_whole_volume():
    """By hand: activations and gradients of the unrolled fusion, their means over all windows, the maps fused."""
    net, x = Segmenter().eval(), volume(12, 8, 8)
    slid = SlidingWindow(net, (8, 8, 8), overlap=0.5)
    kept = []
    handle = net.second.register_forward_hook(lambda _m, _i, out: kept.append(out) or out.retain_grad())
    brain(slid.unrolled(x.clone().requires_grad_())).sum().backward()
    handle.remove()
    assert len(kept) == 2
    weight = torch.cat([a.grad for a in kept], 2).mean((2, 3, 4), keepdim=True)
    maps = [torch.relu((weight * a).sum(1)).detach() for a in kept]
    weights, total = slid.weights(x), slid.total((12, 8, 8), x)
    expected = torch.zeros(1, 12, 8, 8)
    for start, one in zip((0, 4), maps, strict=True):
        expected[:, start : start + 8] += pl.Geometry.identity((8, 8, 8)).to_input(one) * weights
    found = pl.heatmaps.get_method("grad-cam", layer="second").attribute(slid, x, brain)
    torch.testing.assert_close(found, expected / total, atol=1e-5 * float(expected.max()), rtol=1e-4)


def test_memory_is_that_of_a_window(monkeypatch):
    """Tensors that a backward pass keeps alive do not grow with the number of windows."""
    net = Segmenter().eval()

    def kept(space):
        slid, total = SlidingWindow(net, (8, 8, 8), overlap=0.0), 0

        def pack(t):
            nonlocal total
            total += t.numel()
            return t

        x = volume(*space).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            answer = slid(x).sum()
        forward = total
        answer.backward()
        gc.collect()
        return forward / x.numel()

    assert kept((8, 8, 32)) <= 1.01  # the input itself, and nothing of the network
    assert kept((8, 8, 64)) <= 1.01


def test_a_segmentation_is_explained_in_millimetres(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 18, 12)).astype(np.float32)
    head = pl.Volume(values, np.diag([2.0, 2.0, 3.0, 1.0]), "head", "", "abc")
    model = pl.wrap(SlidingWindow(Segmenter().eval(), (8, 8, 8)), transform=pl.VolumePreprocess(), name="slid")
    for method in ("grad-cam", "saliency"):
        e = pl.explain(model, head, method, target=brain)
        assert e.heatmap().shape == (1, 20, 18, 12)
        assert torch.isfinite(e.heatmap()).all()
        assert e.heatmap().abs().max() > 0


def test_bad_settings_get_one_sentence():
    net = Segmenter().eval()
    for settings in ({"overlap": 1.0}, {"mode": "round"}, {"batch": 0}):
        with pytest.raises(ModelError):
            SlidingWindow(net, (8, 8, 8), **settings)
    with pytest.raises(ModelError, match="slides over inputs"):
        SlidingWindow(net, (8, 8))(volume(8, 8, 8))
    with pytest.raises(ModelError, match="must answer"):
        SlidingWindow(nn.Conv3d(1, 2, 3, stride=2), (8, 8, 8))(volume(8, 8, 8))


def share(answer):
    """The share of class 1, summed without rounding."""
    return answer.double().softmax(1)[:, 1].flatten(1).mean(1)


@pytest.mark.parametrize(("method", "settings", "saved"), [
    ("shapley", {"segments": "grid", "samples": 4}, 0.5),
    ("occlusion", {"window": 4, "stride": 4}, 0.5),
    ("rise", {"samples": 16}, 0.0),
])  # fmt: skip
def test_windows_that_a_mask_leaves_as_they_are_are_not_run_again(method, settings, saved):
    net, x = Segmenter().eval(), volume(24, 16, 16)
    known = pl.heatmaps.METHODS[method].__dataclass_fields__
    chosen = pl.heatmaps.get_method(method, **{k: v for k, v in settings.items() if k in known})
    with remembering() as memory:
        quick = chosen.attribute(SlidingWindow(net, (8, 8, 8)), x, share)
    with remembering(Forgetful()) as plain:
        slow = chosen.attribute(SlidingWindow(net, (8, 8, 8)), x, share)
    torch.testing.assert_close(quick, slow, atol=1e-5 * float(slow.abs().max()), rtol=1e-5)
    assert plain.run == plain.asked == memory.asked
    assert 1 - memory.run / memory.asked >= saved, f"{memory.run} of {memory.asked} windows"


class Forgetful(WindowMemory):
    """Runs every window."""

    def answer(self, windows, network, batch):
        self.asked, self.run = self.asked + len(windows), self.run + len(windows)
        return network(windows)


def test_a_memory_forgets_the_oldest_and_answers_the_same():
    net, x = Segmenter().eval(), volume(24, 16, 16)
    slid = SlidingWindow(net, (8, 8, 8), batch=3)
    with torch.no_grad():
        plain = slid(x)
        with remembering(WindowMemory(limit=20_000)) as small:
            torch.testing.assert_close(slid(x.repeat(2, 1, 1, 1, 1)), plain.repeat(2, 1, 1, 1, 1))
            torch.testing.assert_close(slid(x), plain)
    assert small._size <= 20_000
    assert small.run < small.asked
    assert current() is None


class Counted(Segmenter):
    """Counts the windows that it is asked for."""

    windows = 0

    def forward(self, x):
        Counted.windows += len(x)
        return super().forward(x)


def windows(call):
    before = Counted.windows
    return call(), Counted.windows - before


def test_a_volume_is_answered_once_for_all_methods_of_an_explanation():
    x = volume(16, 16, 8)
    model = pl.wrap(SlidingWindow(Counted().eval(), (8, 8, 8)), name="slid")
    methods = ["grad-cam", "hires-cam", "saliency"]
    pl.explain(model, x, methods, target=brain)  # finds the layers
    together, shared = windows(lambda: pl.explain(model, x, methods, target=brain))
    alone, apart = zip(*(windows(lambda m=m: pl.explain(model, x, m, target=brain)) for m in methods), strict=True)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.attribution, other.attribution)
    answer = 9  # windows
    assert shared <= sum(apart) - 3 * answer  # the gradient at the input comes by the way, too
    assert last() is None


def test_what_has_changed_is_answered_anew():
    net, x = Counted().eval(), volume(16, 8, 8)
    slid = SlidingWindow(net, (8, 8, 8))
    padded, _ = slid.padded(x)
    with recalling():
        first, asked = windows(lambda: slid.fused(padded))
        again, none = windows(lambda: slid.fused(padded.clone()))
        assert asked > 0
        assert none == 0
        assert torch.equal(first, again)
        assert windows(lambda: slid.fused(padded + 1))[1] == asked
        with torch.no_grad():
            net.head.bias.add_(1.0)
        moved, asked_again = windows(lambda: slid.fused(padded))
        assert asked_again == asked
        torch.testing.assert_close(moved, first + 1)
        handle = net.head.register_forward_hook(lambda _m, _i, out: out * 2)
        assert torch.equal(slid.fused(padded), 2 * moved)
        handle.remove()
    assert windows(lambda: slid.fused(padded))[1] == asked
