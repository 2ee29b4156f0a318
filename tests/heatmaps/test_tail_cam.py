"""Ablation-CAM and Recipro-CAM against loops over changed layers."""

import itertools

import pytest
import torch
from torch import nn

from helpers.cam_cases import (
    CASES,
    close,
    opened,
    weighted,
)
from helpers.nets import noise, pooled, seeded
from pellucid import importance
from pellucid.engine.swap import Swap
from pellucid.engine.tail import Tail
from pellucid.errors import LayerError
from pellucid.heatmaps.cam import HiResCAM
from pellucid.heatmaps.tail_cam import AblationCAM, ReciproCAM
from pellucid.importance.internals import Channels
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout
from pellucid.models.places import Places


@pytest.fixture(params=CASES)
def case(request):
    return opened(request.param)


# --- ablation-cam ---


def test_ablation_cam_is_a_loop_over_zeroed_channels(case):
    net, layer, x, A, score_changed = case
    w = torch.zeros(A.shape[:2], dtype=torch.float64)
    for n, c in itertools.product(range(A.shape[0]), range(A.shape[1])):
        cells = A[n].clone()
        cells[c] = 0
        w[n, c] = score_changed(n, A[n], 3) - score_changed(n, cells, 3)
    found = AblationCAM(layer=layer).explain(net, x, [3])[0]
    close(found.extras["weights"], w, 1e-4)
    close(found.values, weighted(A, w), 1e-4)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_ablation_cam_in_closed_form(dims):
    net, x = pooled(dims), noise(2, 3, *[16] * dims)
    found = AblationCAM(layer="3").explain(net, x, [2])[0]
    A = net[:4](x).detach()
    close(found.extras["weights"], net[6].weight[2].detach() * A.flatten(2).mean(2))


def test_dead_channels_are_not_ablated():
    net, x = pooled(channels=300, inplace=True), noise(1, 3, 32, 32)
    with torch.no_grad():
        net[2].bias[:200] = -100
    describe(net, x, "3")
    seen = []
    handle = net[4].register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    found = AblationCAM(layer="3").explain(net, x, [1])[0]
    handle.remove()
    assert sum(seen) <= 1 + 2 + 100 + 1  # plain, unchanged once more, the living, the empty
    A = net[:4](x).detach()
    close(found.extras["weights"], net[6].weight[1].detach() * A.flatten(2).mean(2), 1e-4)


# --- recipro-cam ---


@pytest.mark.parametrize("gaussian", [True, False])
def test_recipro_cam_is_a_loop_over_cells(case, gaussian):
    net, layer, x, A, score_changed = case
    grid, expected = A.shape[2:], torch.zeros(2, *A.shape[2:], dtype=torch.float64)
    for n in range(2):
        empty = score_changed(n, torch.zeros_like(A[n]), 3)
        for p in itertools.product(*map(range, grid)):
            keep = torch.zeros(grid)
            for q in itertools.product(*map(range, grid)):
                far = [abs(a - b) for a, b in zip(p, q, strict=True)]
                if gaussian and max(far) <= 1:
                    keep[q] = 2.0 ** -sum(1 + f for f in far)
                elif max(far) == 0:
                    keep[q] = 1
            expected[n][p] = score_changed(n, A[n] * keep, 3) - empty
    close(ReciproCAM(layer=layer, gaussian=gaussian).attribute(net, x, 3), expected, 1e-4)


def test_the_kernel_of_the_paper():
    net, x = pooled(), noise(1, 3, 32, 32)
    A = net[:4](x).detach()
    found = ReciproCAM(layer="3").attribute(net, x, 2)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    share = torch.einsum("c,nchw->nhw", net[6].weight[2].detach(), A) / 64
    close(found, torch.conv2d(share[:, None], kernel[None, None], padding=1)[:, 0])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_single_cells_on_pooling_and_linear_are_hires_cam(dims):
    net, x = pooled(dims), noise(2, 3, *[16] * dims)
    close(ReciproCAM(layer="3", gaussian=False).attribute(net, x, 2), HiResCAM(layer="3").attribute(net, x, 2), 1e-4)


def test_probabilities_in_place_of_scores():
    net, x = pooled(), noise(1, 3, 32, 32)
    A = net[:4](x).detach()
    keep = torch.zeros(8, 8)
    keep[2, 5] = 1
    p = [net[4:](cells).softmax(1)[0, 2].item() for cells in (A * keep, A * 0)]
    found = ReciproCAM(layer="3", gaussian=False, probability=True).attribute(net, x, 2)
    close(found[0, 2, 5], p[0] - p[1], 1e-3)


# --- what they rest on ---


class Twice(nn.Module):
    """One ReLU and one convolution, both run twice."""

    def __init__(self):
        super().__init__()
        self.front, self.shared, self.act, self.fc = (
            nn.Conv2d(3, 4, 4, 4),
            nn.Conv2d(4, 4, 3, 1, 1),
            nn.ReLU(),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        return self.fc(self.act(self.shared(self.act(self.shared(self.front(x))))).mean((2, 3)))


def test_a_layer_that_is_used_twice_is_changed_where_it_runs_last():
    net, x = seeded(Twice).eval(), noise(1, 3, 32, 32)
    A = net.act(net.shared(net.act(net.shared(net.front(x))))).detach()
    found = AblationCAM(layer="act").explain(net, x, [1])[0]
    close(found.extras["weights"], net.fc.weight[1].detach() * A.mean((2, 3)), 1e-4)


def test_a_tail_reads_watched_layers_as_changed():
    net, x = pooled(), noise(1, 3, 32, 32)
    for layer, watch in (("1", "3"), ("3", "3")):
        with Tail(net, x, layer, lambda _y, w, _r, n=watch: [w[n].mean((1, 2, 3))], watch=[watch]) as changed:
            assert not changed.way[1]
            halves = changed(lambda A, _start, _stop: torch.cat([A, A / 2]), 2)[:, 0]
        A = net[: int(layer) + 1](x).detach()
        close(halves, [net[int(layer) + 1 : int(watch) + 1](a).mean().item() for a in (A, A / 2)])


@pytest.mark.parametrize(
    "layout",
    [
        Layout("channels-first", (3, 4), 5),
        Layout("channels-last", (2, 3, 4), 5),
        Layout("tokens", (3, 4), 5),
        Layout("tokens", (2, 3), 5, prefix=2, order=(3, 0, 5, 1, 4, 2)),
    ],
)
def test_layouts_lead_to_maps_and_back(layout):
    activation = noise(*layout.shape(2))
    cells = layout.to_map(activation)
    assert torch.equal(layout.from_map(cells, activation), activation)
    many = layout.from_map(torch.cat([cells[:1], 2 * cells[:1]]), activation[:1])
    assert torch.equal(layout.to_map(many), torch.cat([cells[:1], 2 * cells[:1]]))
    assert torch.equal(many[1, : layout.prefix], activation[0, : layout.prefix])
    assert many.is_contiguous()


class Pair(nn.Module):
    """One encoder for the picture before and the picture after; the score is of their product, so no run is alone."""

    def __init__(self):
        super().__init__()
        self.encoder, self.fc = nn.Sequential(nn.Conv2d(3, 6, 5, 4, 2), nn.ReLU()), nn.Linear(6, 3)

    def head(self, before, after):
        return self.fc((before * after).mean((2, 3)))

    def forward(self, x):
        return self.head(self.encoder(x[:, :3]), self.encoder(x[:, 3:]))


class Steps(nn.Module):
    """A network that looks at the frames of a clip one after the other, and weighs the later ones more."""

    def __init__(self):
        super().__init__()
        self.encoder, self.fc = nn.Sequential(nn.Conv2d(3, 6, 5, 4, 2), nn.ReLU()), nn.Linear(6, 3)

    def head(self, *frames):
        return self.fc(sum(k * f.square().mean((2, 3)) for k, f in enumerate(frames, 1)))

    def forward(self, v):
        return self.head(*[self.encoder(v[:, :, t]) for t in range(v.shape[2])])


def whole(net, parts, edit):
    """The score of the runs' activations once all of them, put together, are changed."""
    if isinstance(net, Pair):
        return net.head(*edit(torch.cat(parts, 1)).chunk(2, 1))[0, 1]
    return net.head(*edit(torch.stack(parts, 2)).unbind(2))[0, 1]


def without(A, channel):
    changed = A.clone()
    changed[:, channel] = 0
    return changed


@pytest.mark.parametrize(("build", "shape"), [(Pair, (6, 24, 24)), (Steps, (3, 3, 24, 24))])
def test_runs_side_by_side_are_changed_together(build, shape):
    net, x = seeded(build).eval(), noise(2, *shape)
    ablated = AblationCAM(layer="encoder").explain(net, x, [1])[0]
    alone = ReciproCAM(layer="encoder", gaussian=False).explain(net, x, [1])[0]
    assert ablated.layer.runs is not None
    for n in range(2):
        with torch.no_grad():
            each = [x[n : n + 1, :3], x[n : n + 1, 3:]] if build is Pair else x[n : n + 1].unbind(2)
            parts = [net.encoder(part) for part in each]
            plain, empty = (whole(net, parts, lambda A, k=k: A * k) for k in (1, 0))
            weights = ablated.extras["weights"][n]
            lost = [plain - whole(net, parts, lambda A, c=c: without(A, c)) for c in range(len(weights))]
            close(weights, torch.stack(lost), 1e-4)
            cells = torch.eye(alone.values[n].numel()).view(-1, *alone.values.shape[1:])
            won = [whole(net, parts, lambda A, only=only: A * only) - empty for only in cells]
            close(alone.values[n].flatten(), torch.stack(won), 1e-4)


def test_units_and_concepts_of_a_layer_that_runs_several_times_ask_for_one_that_runs_once():
    net, x = seeded(Pair).eval(), noise(1, 6, 24, 24)
    with pytest.raises(LayerError, match=r"'encoder' runs 2 times in a pass.*ablation-cam"):
        importance(net, x, Channels(layer="encoder"), target=1)
    places = Places(net, "encoder")
    with Tail(net, x, "encoder", lambda y, _w, _r: [y[:, 1]]) as tail, pytest.raises(LayerError, match="2 times"):
        places.rows(tail.activation, x)
    with Swap(net, "encoder") as swap, pytest.raises(LayerError, match="2 times"):
        swap(x, lambda A: places.back(places.rows(A, x), A, x))
