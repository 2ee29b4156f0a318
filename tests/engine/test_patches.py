"""Windows through patches of the first layers, against whole passes."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.nets import chained, noise, seeded, settled
from pellucid.engine import Capture, patches, perturb
from pellucid.engine.baselines import open_baseline
from pellucid.engine.capture import Cost
from pellucid.engine.chains import chain
from pellucid.engine.masks import GridMasks, SegmentMasks, WindowMasks, grid_labels
from pellucid.engine.perturb import Scorer

C = nn.Conv2d


def net_of(*layers, width):
    """A chain, and a head that tells places apart."""
    head = [nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(6 * width, 5)]
    return settled(nn.Sequential(*layers, *head))


CHAINS = {
    "vgg": lambda: net_of(
        C(3, 8, 3, padding=1), nn.ReLU(True), C(8, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        C(8, 12, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2), C(12, 12, 3, padding=1), nn.ReLU(True), width=12,
    ),
    "vgg-bn": lambda: net_of(
        C(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d(2), nn.Dropout(),
        C(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), width=12,
    ),
    "strided": lambda: net_of(C(3, 8, 7, 4, 2), nn.ELU(), C(8, 8, 5, 3, 1), nn.PReLU(8), width=8),
    "without padding": lambda: net_of(C(3, 8, 5, 2), nn.SiLU(), C(8, 8, 4), nn.GELU(), nn.AvgPool2d(3, 2), width=8),
    "skipping": lambda: net_of(C(3, 8, 3, padding=1), C(8, 8, 1, 2), nn.MaxPool2d(1, 3), width=8),
    "dilated": lambda: net_of(C(3, 8, 3, 1, 2, 2), nn.ReLU(), C(8, 8, 3, 2, 4, 3), nn.MaxPool2d(3, 2, 1, 2), width=8),
    "grouped": lambda: net_of(C(3, 9, (3, 5), (1, 2), (1, 2), groups=3), nn.Tanh(), C(9, 9, 3, groups=9), width=9),
    "same": lambda: net_of(C(3, 8, 4, padding="same"), nn.ReLU6(), C(8, 8, (2, 5), padding="same"), width=8),
    "overlapping": lambda: net_of(C(3, 8, 3, 2, 1), nn.MaxPool2d(3, 2, 1), C(8, 8, 1), nn.AvgPool2d(3, 1, 1), width=8),
    "ceiled": lambda: net_of(
        nn.MaxPool2d(3, 2, ceil_mode=True), C(3, 8, 3), nn.MaxPool2d(2, 2, 1, ceil_mode=True), width=8
    ),
    "pointwise first": lambda: net_of(nn.BatchNorm2d(3), nn.ReLU(True), C(3, 8, 3), nn.Hardswish(True), width=8),
}  # fmt: skip


def score(y, _watched, _rows):
    return [y[:, 1], y[:, 2]]


@pytest.fixture
def always(monkeypatch):
    """Patches wherever they can be, as deep as they can be."""
    monkeypatch.setattr(patches, "_saved", lambda links, size: (len(links), 1))
    monkeypatch.setattr(patches, "_pays", lambda *_: True)


@pytest.fixture
def taken(monkeypatch):
    """For each time that patches were asked for, the layers that they run through, or None."""
    found = []

    def spy(*args):
        made = patches.find_patches(*args)
        found.append(made and [link.module for link in made.links])
        return made

    monkeypatch.setattr(perturb, "find_patches", spy)
    return found


def both(monkeypatch, net, x, masks, *, baseline="blur", batch=5, watch=(), of=score):
    """Scores in the quick and in the slow way, and what the quick one cost."""
    ground = open_baseline(baseline, x, torch.Generator().manual_seed(0))
    with Scorer(net, x, ground, of, targets=2, batch=batch, watch=watch) as scorer:
        quick, cost = scorer(masks), scorer.cost.forwards
    with monkeypatch.context() as patched, Scorer(net, x, ground, of, targets=2, batch=batch, watch=watch) as scorer:
        patched.setattr(perturb, "find_patches", lambda *_: None)
        slow = scorer(masks)
    return quick, slow, cost


def everywhere(space, size, step=1):
    """Windows at all places, over every edge as well."""
    starts = [torch.arange(-s // 2, n - s // 2, step) for n, s in zip(space, size, strict=True)]
    return WindowMasks(torch.cartesian_prod(*starts), size, space)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # the network's own
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("space", "size"), [((32, 32), (8, 8)), ((37, 45), (5, 7)), ((33, 29), (1, 1))])
def test_scores_are_those_of_whole_passes(name, space, size, always, taken, monkeypatch):
    net, x = seeded(CHAINS[name]), noise(2, 3, *space)
    masks = everywhere(space, size, step=3)
    quick, slow, _ = both(monkeypatch, net, x, masks)
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-5 * float(slow.abs().max()))
    assert not torch.equal(slow[:, :1].expand_as(slow), slow)  # windows tell
    (layers, *_) = taken
    assert len(layers) == len(net) - 3  # all but the head


def test_windows_at_each_place_and_of_each_input_their_own(always, taken, monkeypatch):
    net, x = seeded(CHAINS["vgg"]), noise(3, 3, 21, 26)
    masks = [everywhere((21, 26), (6, 4)).take(torch.randperm(546)[:k].sort().values) for k in (100, 100, 100)]
    quick, slow, cost = both(monkeypatch, net, x, masks, batch=7)
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert taken[0] is not None
    # One pass that finds the chain, three windows both ways, and the activations of each input, noted once.
    assert cost == 300 + 1 + 6 + 3


@pytest.mark.parametrize("baseline", ["zero", "uniform", "inpaint"])
def test_segments_left_out_one_by_one_are_boxes_too(baseline, always, taken, monkeypatch):
    net, x, labels = seeded(CHAINS["vgg"]), noise(1, 3, 30, 31), grid_labels((30, 31), (9, 8))
    quick, slow, _ = both(monkeypatch, net, x, SegmentMasks(1 - torch.eye(72), labels), baseline=baseline)
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert taken[0] is not None
    two = 1 - torch.eye(72) - torch.eye(72).roll(1, 1)  # hides two that lie side by side, or at two ends of two rows
    quick, slow, _ = both(monkeypatch, net, x, SegmentMasks(two, labels), baseline=baseline)
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)


def test_boxes_hold_all_that_a_mask_hides():
    labels = torch.tensor([[0, 0, 1], [2, 1, 1], [2, 2, 3]])
    masks = SegmentMasks(torch.tensor([[0.0, 1, 1, 1], [1, 0.5, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]]), labels)
    starts, ends = masks.boxes()
    assert starts[:3].tolist() == [[0, 0], [0, 1], [0, 0]]
    assert ends[:3].tolist() == [[1, 2], [2, 3], [3, 3]]
    assert (ends[3] <= starts[3]).all()  # nothing
    windows = WindowMasks(torch.tensor([[-1, 2], [3, 3]]), (3, 2), (5, 4))
    assert [part.tolist() for part in windows.boxes()] == [[[0, 2], [3, 3]], [[2, 4], [5, 4]]]
    assert GridMasks(torch.zeros(1, 2, 2), (4, 4)).boxes() is None


@pytest.mark.parametrize("depth", range(1, 11))
def test_it_may_end_behind_any_layer(depth, monkeypatch, taken):
    monkeypatch.setattr(patches, "_saved", lambda links, size: (depth, 1))
    monkeypatch.setattr(patches, "_pays", lambda *_: True)
    net, x = seeded(CHAINS["vgg"]), noise(1, 3, 32, 32)
    quick, slow, _ = both(monkeypatch, net, x, everywhere((32, 32), (4, 4), step=3))
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert taken[0] == list(net)[:depth]


@pytest.mark.parametrize("batch", [1, 3, 16, 1000])
def test_the_batch_changes_nothing(batch, always, taken, monkeypatch):
    net, x, masks = seeded(CHAINS["vgg-bn"]), noise(2, 3, 24, 25), everywhere((24, 25), (4, 5), step=3)
    quick, slow, _ = both(monkeypatch, net, x, masks, batch=batch)
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert taken[0] is not None


# --- when it is taken


def wide():
    """Large enough that patches pay."""
    return chained(32, 48, 48)


def test_it_is_taken_where_it_saves_work_and_then_does_less(taken, monkeypatch):
    net, x, masks = wide(), noise(1, 3, 64, 64), everywhere((64, 64), (8, 8), step=8)
    flops = []
    for find in (perturb.find_patches, lambda *_: None):
        monkeypatch.setattr(perturb, "find_patches", find)  # the second time, nothing is quick
        with FlopCounterMode(display=False) as counter, Scorer(net, x, torch.zeros_like(x), score, targets=2) as scorer:
            scorer(masks)
        flops.append(counter.get_total_flops())
    assert taken[0] is not None
    assert flops[0] < 0.4 * flops[1]


@pytest.mark.parametrize(
    ("masks", "net"),
    [
        (everywhere((64, 64), (8, 8), step=10), wide),  # few
        (everywhere((64, 64), (40, 60), step=8), wide),  # large
        (GridMasks(torch.ones(100, 8, 8) - torch.eye(64).reshape(64, 8, 8).repeat(2, 1, 1)[:100], (64, 64)), wide),
        (everywhere((64, 64), (8, 8), step=8), lambda: net_of(C(3, 4, 3), nn.ReLU(), C(4, 4, 3), width=4)),  # small
        (everywhere((64, 64), (8, 8), step=8), lambda: net_of(C(3, 8, 1), nn.Flatten(2), nn.Unflatten(2, (64, 64)),
                                                              C(8, 96, 5), nn.ReLU(), width=96)),
    ],
)  # fmt: skip
def test_it_is_not_taken_where_it_saves_little(masks, net, taken, monkeypatch):
    both(monkeypatch, net(), noise(1, 3, 64, 64), masks)
    assert taken == [None]


def test_the_saving_is_counted():
    with Capture(wide()) as capture:
        links, work = chain(capture.network, noise(1, 3, 64, 64))
    multiply_adds = 64 * 64 * 9 * (3 * 32 + 32 * 48 + 48 * 48)
    assert work == multiply_adds + 6 * 48 * 5
    assert sum(link.whole for link in links) == multiply_adds + 32 * 32 * 48 * 4
    depth, saved = patches._saved(links, (8, 8))
    assert depth == 6  # pooling is not worth cutting out
    patched = 9 * (3 * 32 * 10**2 + 32 * 48 * 12**2 + 48 * 48 * 14**2)
    assert saved == multiply_adds - patches._SMALL * patched - 3 * patches._HANDLING
    assert patches._saved(links, (64, 64)) == (0, 0)


# --- where the chain ends


class Steps(nn.Module):
    """Convolutions whose answers are put together by a function."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = C(3, 6, 3, padding=1), C(6, 6, 3, padding=1), C(6, 6, 3, padding=1)
        self.act, self.head = nn.ReLU(True), nn.Linear(6 * 4 * 4, 5)
        self.fun = forward

    def forward(self, x):
        x = self.fun(self, x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


def in_place(m, x):
    x = m.a(x)
    x.mul_(2)
    return m.c(m.b(x))


def skipped(m, x):
    x = m.a(x)
    return m.c(m.b(x)) + x


def forked(m, x):
    x = m.a(x)
    return torch.cat([m.b(x), m.c(x)], 1)[:, ::2]


def without_graph(m, x):
    with torch.no_grad():
        return m.c(m.b(m.a(x)))


STEPS = {
    "straight": (lambda m, x: m.c(m.b(m.act(m.a(x)))), "a act b c"),
    "normalised in front": (lambda m, x: m.c(m.b(m.a((x - 0.5) / 0.2))), "a b c"),
    "the input is read again": (lambda m, x: m.b(m.a(x)) * x.mean((1, 2, 3), keepdim=True), "a b"),
    "a function between": (lambda m, x: m.c(m.b(m.a(x)).relu()), "a b"),
    "in place between": (in_place, "a"),
    "a layer runs twice": (lambda m, x: m.act(m.c(m.b(m.act(m.a(x))))), "a"),
    "a skip": (skipped, "a"),
    "a fork": (forked, "a"),
    "no graph": (without_graph, "a"),
    "enlarged in front": (lambda m, x: m.b(m.a(nn.functional.interpolate(x, scale_factor=2))), ""),
    "by name": (lambda m, x: m.b(input=m.a(x)), "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_the_chain_ends_where_it_is_no_chain(name, always, taken, monkeypatch):
    forward, expected = STEPS[name]
    net, x = seeded(lambda: Steps(forward)).eval(), noise(2, 3, 20, 22)
    with Capture(net) as capture:
        links, _ = chain(capture.network, x[:1])
    assert [link.module for link in links] == [getattr(net, part) for part in expected.split()]
    quick, slow, _ = both(monkeypatch, net, x, everywhere((20, 22), (4, 4), step=2))
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert (taken[0] is not None) == bool(expected)


@pytest.mark.parametrize(
    ("layer", "stays"),
    [
        (lambda: C(6, 6, 3, padding=1, padding_mode="reflect"), 1),
        (lambda: nn.utils.parametrizations.weight_norm(C(6, 6, 3)), 1),
        (lambda: nn.AvgPool2d(3, 2, ceil_mode=True), 1),
        (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), 1),
        (lambda: nn.AvgPool2d(3, 2, count_include_pad=False), 3),
        (lambda: nn.BatchNorm2d(6, track_running_stats=False), 1),
        (lambda: nn.InstanceNorm2d(6), 1),
        (lambda: nn.Softmax2d(), 1),
        (lambda: nn.Upsample(scale_factor=2), 1),
        (lambda: nn.ConvTranspose2d(6, 6, 2), 1),
    ],
)
def test_layers_that_do_not_act_on_parts_alone_end_the_chain(layer, stays, always, taken, monkeypatch):
    net, x = seeded(lambda: net_of(C(3, 6, 3), layer(), C(6, 6, 3), width=6)), noise(1, 3, 24, 24)
    quick, slow, _ = both(monkeypatch, net, x, everywhere((24, 24), (4, 4), step=2))
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert len(taken[0]) == stays


def test_a_layer_that_is_read_is_not_passed_over(always, taken, monkeypatch):
    net, x, masks = seeded(CHAINS["vgg"]), noise(2, 3, 20, 20), everywhere((20, 20), (4, 4), step=2)

    def watched(_y, layers, _rows):
        return [layers["3"].mean((1, 2, 3)), layers["8"][:, 0, 1, 1]]

    quick, slow, _ = both(monkeypatch, net, x, masks, watch=("3", "8"), of=watched)
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert taken[0] == list(net)[:3]


def test_a_container_that_is_read_gives_what_it_gave(always, taken, monkeypatch):
    made = list(seeded(CHAINS["vgg"]))
    net = nn.Sequential(OrderedDict(front=nn.Sequential(*made[:4]), rest=nn.Sequential(*made[4:]))).eval()
    x, masks = noise(2, 3, 20, 20), everywhere((20, 20), (4, 4), step=2)

    def watched(y, layers, _rows):
        return [layers["front"].mean((1, 2, 3)), y[:, 1]]

    quick, slow, _ = both(monkeypatch, net, x, masks, watch=("front",), of=watched)
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert taken[0] == made[:4]


# --- what is not proven is not used


class Held(nn.Module):
    """Runs layers that it does not hold as its own."""

    def __init__(self, net, run):
        super().__init__()
        self.net, self.run = net, run

    def forward(self, x):
        return self.run(self.net, x)


def kept_elsewhere(net):
    return lambda _net, x: net(x)


def blurred_in_front(_net):
    return lambda net, x: net(x + nn.functional.avg_pool2d(x, 9, 1, 4))


def brightness_in_front(_net):
    return lambda net, x: net(x - x.mean((1, 2, 3), keepdim=True))


def other_order(_net):
    return lambda net, x: net(x.flip(0)).flip(0)


def mirrored_too(_net):
    return lambda net, x: (net(x) + net(x.flip(3))) / 2


@pytest.mark.parametrize("how", [kept_elsewhere, blurred_in_front, brightness_in_front, other_order, mirrored_too])
def test_a_network_that_would_answer_otherwise_runs_whole(how, always, taken, monkeypatch):
    net, x = seeded(CHAINS["vgg"]), noise(2, 3, 24, 24)
    quick, slow, _ = both(monkeypatch, Held(net, how(net)).eval(), x, everywhere((24, 24), (4, 4), step=2))
    assert taken[0] is None
    assert torch.equal(quick, slow)


def test_a_network_may_split_its_batch(always, taken, monkeypatch):
    def in_pairs(net, x):
        return torch.cat([net(part) for part in x.split(2)])

    net, x = Held(seeded(CHAINS["vgg"]), in_pairs).eval(), noise(2, 3, 24, 24)
    quick, slow, _ = both(monkeypatch, net, x, everywhere((24, 24), (4, 4), step=2))
    torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)
    assert taken[0] is not None


@pytest.mark.parametrize("object_of", [1, 0])
def test_a_window_of_the_background_hides_no_mistake(object_of, always, taken, monkeypatch):
    """What is proven on noise is proven, whatever the picture."""
    net, x = Held(seeded(CHAINS["vgg"]), blurred_in_front(None)).eval(), torch.zeros(1, 3, 24, 24)
    x[..., 5:7, 5:7] = object_of
    quick, slow, _ = both(monkeypatch, net, x, everywhere((24, 24), (4, 4), step=2), baseline="zero")
    assert taken[0] is None
    assert torch.equal(quick, slow)


# --- no trace, and memory that runs out


def test_the_model_is_as_it_was(always, taken):
    net, x = seeded(CHAINS["vgg-bn"]).train(), noise(1, 3, 24, 24)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    parts = {part: dict(vars(part)) for part in net.modules()}
    with Scorer(net, x, torch.zeros_like(x), score, targets=2) as scorer:
        scorer(everywhere((24, 24), (4, 4), step=2))
    assert taken[0] is not None
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    for part in net.modules():
        assert vars(part).keys() == parts[part].keys()
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert torch.equal(x, noise(1, 3, 24, 24))


def test_activations_are_let_go(always):
    net, x, masks = seeded(CHAINS["vgg"]), noise(1, 3, 24, 24), everywhere((24, 24), (4, 4), step=2)
    with Capture(net) as capture:
        found = patches.find_patches(capture, x, [masks], 4, Cost())
        found.expect([(0, 3)])
        assert found._noted
        found.expect([])
        assert not found._noted


@pytest.mark.parametrize("at", [1, 2, 3, 4, 9, 10, 12, 20])
def test_memory_may_run_out_in_any_pass(at, always, monkeypatch):
    net, x, masks = seeded(CHAINS["vgg"]), noise(2, 3, 24, 24), everywhere((24, 24), (4, 4), step=3)
    with Scorer(net, x, torch.zeros_like(x), score, targets=2) as scorer:
        expected = scorer(masks)
    calls = itertools.count(1)

    def fails(_module, _args):
        if next(calls) == at:
            raise torch.OutOfMemoryError("out of memory")

    net[-1].register_forward_pre_hook(fails)
    with Scorer(net, x, torch.zeros_like(x), score, targets=2, batch=8) as scorer:
        found = scorer(masks)
        assert scorer.batch in (4, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_smaller_batch_that_fitted_is_kept(always, taken):
    net, x, masks = seeded(CHAINS["vgg"]), noise(1, 3, 24, 24), everywhere((24, 24), (4, 4), step=2)
    sizes = []

    def fails(_module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 8:
            raise torch.OutOfMemoryError("out of memory")

    net[-1].register_forward_pre_hook(fails)
    with Scorer(net, x, torch.zeros_like(x), score, targets=2) as scorer:
        scorer.batch = 4
        scorer(masks)
        assert scorer.batch == 4
    assert max(sizes) == 16
    assert taken[0] is not None
