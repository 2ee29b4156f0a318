"""A tail behind played-back prefixes equals one full pass a change, whatever stands in front of the layer."""

import threading

import pytest
import torch
from torch import nn

from helpers.nets import Busy, noise, pooled, random_net, seeded
from pellucid.engine.tail import Tail

FAST, BESIDE, AGAIN, SLOW = (True, False), (True, True), (False, False), (False, True)


class Counting(nn.Module):
    """Counts the inputs that go through it."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x):
        self.seen.append(len(x))
        return self.inner(x)


class Front(nn.Module):
    """Some front, the layer `body`, a tail; `join` says how they meet."""

    def __init__(self, join, parts=None):
        super().__init__()
        self.front = nn.Conv2d(3, 4, 3, 2, 1) if parts is None else parts
        self.body = nn.Conv2d(4, 4, 3, 2, 1)
        self.tail = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.beside = nn.Conv2d(8, 6, 3, 2, 1)
        self.fc = nn.Linear(6, 5)
        self.act = nn.ReLU(inplace=True)
        self.join = join

    def forward(self, x):
        return self.fc(self.join(self, x).mean((2, 3)))


def residual(net, x):
    x = net.front(x)
    return net.tail(net.body(x) + x[:, :, ::2, ::2])


def beside(net, x):
    x = net.front(x)
    return net.beside(torch.cat([net.body(x), x[:, :, ::2, ::2]], 1))


def listed(net, x):
    for part in net.front:
        x = part(x)
    return net.tail(net.body(x))


def in_place(net, x):
    x = net.front(x)
    before = x.mean((2, 3), keepdim=True)
    x.mul_(2).add_(1)  # writes to what the module answered
    return net.tail(net.body(x) + before)


def shared(net, x):
    x = net.act(net.act(net.front(x)) * 2)
    return net.act(net.tail(net.act(net.body(x))))


def of_one(net, x):
    with torch.no_grad():
        scale = net.front(x).flatten()[:4].reshape(1, 4, 1, 1)  # no batch in front of the layer
    return net.tail(net.body(net.front(x)) * scale)


def by_method(net, x):
    return net.tail(net.body(net.front.forward(x)))


NETS = {
    "residual": (residual, None, FAST, 1),
    "beside": (beside, None, BESIDE, 1),
    "front again behind the layer": (
        lambda net, x: net.tail(net.body(net.front(x)) + net.front(x)[:, :, ::2, ::2]),
        None,
        FAST,
        None,
    ),
    "batch of the input": (lambda net, x: net.tail(net.body(net.front(x))).view(len(x), 6, 8, 8), None, BESIDE, 1),
    "listed": (
        listed,
        lambda: nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))]),
        FAST,
        1,
    ),
    "in place": (in_place, None, FAST, 1),
    "shared activation": (shared, None, FAST, 1),
    "runs twice": (lambda net, x: net.tail(net.body(net.body(net.front(x)))), None, AGAIN, None),
    "not called": (by_method, None, FAST, None),
    "one row only": (of_one, None, FAST, 1),
}


def brute(net, x, layer, edits, score=lambda y: y[:, :2]):
    """One full pass a change, by a hook on the last run of the layer."""
    runs = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _m, _a, y: runs.append(y.clone()))
    with torch.no_grad():
        net(x.clone())
    handle.remove()
    found = []
    for edit in edits:
        count = []

        def hook(_m, _a, y, edit=edit, count=count):
            count.append(1)
            return edit(y.clone()) if len(count) == len(runs) else None

        handle = net.get_submodule(layer).register_forward_hook(hook)
        with torch.no_grad():
            found.append(score(net(x.clone()))[0].double())
        handle.remove()
    return torch.stack(found)


EDITS = [lambda A: A * 0, lambda A: A / 2, lambda A: A.flip(-1), lambda A: A + 1, lambda A: -A]


def change(A, start, stop):
    return torch.cat([edit(A) for edit in EDITS[start:stop]])


@pytest.mark.parametrize("batch", [1, 2, 64])
@pytest.mark.parametrize("name", NETS)
def test_equals_one_full_pass_a_change(name, batch):
    join, parts, way, passes = NETS[name]
    net, x = seeded(lambda: Front(join, parts and parts())).eval(), noise(1, 3, 64, 64)
    seen = []
    counted = net.front[1] if isinstance(net.front, nn.ModuleList) else net.front
    counted.register_forward_hook(lambda _m, args, _y: seen.append(len(args[0])))
    expected = brute(net, x, "body", EDITS)
    seen.clear()
    with Tail(net, x, "body", lambda y, _w, _r: [y[:, 0], y[:, 1]], targets=2, batch=batch) as tail:
        found = tail(change, len(EDITS))
        assert tail.way == way
        torch.testing.assert_close(tail(change, len(EDITS)), found, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    if passes is not None:
        calls = 2 if name == "one row only" else 1  # in one pass
        assert len(seen) == calls * passes
        assert tail.cost.forwards == passes


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer3.1"), ("densenet121", "features.denseblock2.denselayer3")]
)
def test_networks_of_others(name, layer):
    net, x = random_net(name), noise(1, 3, 64, 64)
    expected = brute(net, x, layer, EDITS)
    with Tail(net, x, layer, lambda y, _w, _r: [y[:, 0], y[:, 1]], targets=2) as tail:
        found = tail(change, len(EDITS))
        assert tail.way[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_users_hooks_act_once():
    net, x = pooled(), noise(1, 3, 32, 32)
    net[0].register_forward_hook(lambda _m, _a, y: y * 2)
    net[2].register_forward_hook(lambda _m, _a, y: y + 1)
    net[4].register_forward_pre_hook(lambda _m, args: (args[0] * 3,))
    expected = brute(net, x, "1", EDITS)
    with Tail(net, x, "1", lambda y, _w, _r: [y[:, 0], y[:, 1]], targets=2) as tail:
        found = tail(change, len(EDITS))
        assert tail.way == FAST
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_what_is_watched_in_front_of_the_layer_runs():
    net, x = pooled(), noise(1, 3, 32, 32)
    with Tail(net, x, "3", lambda y, w, _r: [y[:, 0] + w["0"].mean()], watch=["0"]) as tail:
        found = tail(change, len(EDITS))[:, 0]
        assert tail.way == AGAIN
    with torch.no_grad():
        expected = brute(net, x, "3", EDITS)[:, 0] + net[0](x).mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Mixing(nn.Module):
    """Batch statistics even in evaluation: rows of a batch are not each other's business, and are mixed."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.fc = (
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.Linear(4, 5),
        )

    def forward(self, x):
        return self.fc(self.norm(self.body(x)).relu().mean((2, 3)))


def test_a_tail_that_mixes_rows_is_not_taken_for_one_that_broadcasts():
    net, x = seeded(Mixing).eval(), noise(1, 3, 16, 16)
    with Tail(net, x, "body", lambda y, _w, _r: [y[:, 0]]) as tail:
        tail(change, len(EDITS))
        assert tail.way == SLOW


def test_memory_that_runs_out_halves_the_batch():
    net, x = pooled(), noise(1, 3, 32, 32)
    expected = brute(net, x, "3", EDITS)

    def too_many(_module, args):
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    net[4].register_forward_pre_hook(too_many)
    with Tail(net, x, "3", lambda y, _w, _r: [y[:, 0], y[:, 1]], targets=2) as tail:
        found = tail(change, len(EDITS))
        assert tail.batch <= 2
        assert tail.way == FAST
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_nothing_is_written_to_the_model():
    net, x = seeded(Busy).eval(), noise(1, 3, 24, 24)
    before = {n: dict(vars(m)) for n, m in net.named_modules()}
    with Tail(net, x, "tail.1", lambda y, _w, _r: [y[:, 0]]) as tail:
        tail(change, len(EDITS))
        assert tail.way[0]
    for name, module in net.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert all(vars(module)[k] is v for k, v in before[name].items())


def test_threads_meet_their_own_answers():
    net = seeded(lambda: Front(lambda n, x: n.tail(n.body(n.front(x))))).eval()
    xs = [noise(1, 3, 64, 64, seed=s) for s in range(3)]
    expected = [brute(net, x, "body", EDITS) for x in xs]
    found = [None] * 3

    def work(i):
        for _ in range(5):
            with Tail(net, xs[i], "body", lambda y, _w, _r: [y[:, 0], y[:, 1]], targets=2) as tail:
                found[i] = tail(change, len(EDITS))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
