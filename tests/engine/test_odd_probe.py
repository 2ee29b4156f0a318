"""Twelve methods on networks that change themselves: after success, errors and interrupts all is as before."""

import gc
import random
import threading

import numpy as np
import pytest
import torch

from helpers.interrupts import interrupted
from helpers.nets import noise
from helpers.odd_nets import ODD, Compiled, Drawing, Hooked, Replacing, Switching, odd, snapshot
from helpers.traces import MineError, failing_target
from pellucid.engine import trace
from pellucid.engine.capture import Capture
from pellucid.engine.perturb import Scorer
from pellucid.engine.randomness import own_random_numbers
from pellucid.engine.swap import Swap
from pellucid.engine.tail import Tail
from pellucid.engine.trace import leave_no_trace
from pellucid.heatmaps import GradCAM, get_method
from pellucid.testing.snapshot import random_numbers

TWELVE = (
    "saliency",
    "integrated-gradients",
    "input-x-gradient",
    "grad-cam",
    "hires-cam",
    "score-cam",
    "ablation-cam",
    "recipro-cam",
    "occlusion",
    "rise",
    "lime",
    "kernel-shap",
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("cls", ODD)
def test_twelve_methods_leave_odd_models_as_they_were(cls):
    x = noise(1, 3, 24, 24)
    twin, net = odd(cls), odd(cls)
    with torch.random.fork_rng(), torch.no_grad():
        answer = twin(x)
    before = snapshot(net)
    for name in TWELVE:
        method = get_method(name, layer="act").quick() if "cam" in name else get_method(name).quick()
        method.attribute(net, x, 1)
        assert snapshot(net) == before, name
        harmless = failing_target(None, 0)
        method.attribute(net, x, harmless)
        for at in {1, harmless.calls[0]}:
            for error in (MineError(), KeyboardInterrupt()):
                with pytest.raises(type(error)):
                    method.attribute(net, x, failing_target(error, at))
                assert snapshot(net) == before, (name, at)
    with torch.random.fork_rng(), torch.no_grad():
        assert torch.equal(net(x), answer)


@pytest.mark.slow
@pytest.mark.parametrize("cls", ODD)
@pytest.mark.parametrize("name", TWELVE)
def test_interrupts_at_any_moment_of_twelve_methods(name, cls):
    x, net = noise(1, 3, 24, 24), odd(cls)
    method = get_method(name, layer="act").quick() if "cam" in name else get_method(name).quick()
    total = interrupted(lambda: method.attribute(net, x, 1), 0)
    before = snapshot(net)
    for at in random.Random(0).sample(range(1, total + 1), 12):
        interrupted(lambda: method.attribute(net, x, 1), at)
        assert snapshot(net) == before, at


ENDS = ("__exit__", "close", "_end", "_settle", "leave", "put_back")
SHORT = ("grad-cam", "recipro-cam", "ablation-cam")


@pytest.mark.parametrize("name", [n if n in SHORT else pytest.param(n, marks=pytest.mark.slow) for n in TWELVE])
def test_interrupts_in_the_first_step_of_an_end(name):
    """Which is then never reached. The traceback is kept, as an interactive session keeps it; nothing waits for the
    garbage collector."""
    x, net, kept = noise(1, 3, 24, 24), odd(Switching), []
    method = get_method(name, layer="act").quick() if "cam" in name else get_method(name).quick()
    total = interrupted(lambda: method.attribute(net, x, 1), 0, functions=ENDS)
    before = snapshot(net)
    gc.disable()
    try:
        for at in range(1, min(total, 80) + 1):
            interrupted(lambda: method.attribute(net, x, 1), at, functions=ENDS, kept=kept)
            assert snapshot(net) == before, at
            assert not trace._models, at
            assert not trace._process.uses, at
    finally:
        gc.enable()
    assert kept


def test_a_context_that_is_dropped_without_its_end_is_put_back():
    """With no verb around it: nothing but its own frame may hold it, not the model, nor it itself."""
    x, net = noise(1, 3, 24, 24), odd(Drawing)
    before = snapshot(net)

    def score(output, _watched, _rows):
        return [output[:, 1]]

    def scaled(A, low, high):
        return A * torch.arange(low, high)[:, None, None, None]

    def cut_short(context, run):
        context.__enter__()
        run(context)
        assert trace._models

    gc.disable()
    try:
        for make, run in (
            (
                lambda: Tail(net, x, "act", score),
                lambda tail: tail(lambda A, low, high: A * torch.ones(high - low, 1, 1, 1), 70),
            ),
            (lambda: Swap(net, "act"), lambda swap: swap(x, lambda A: A * swap.cost.forwards)),
            (lambda: Scorer(net, x, torch.zeros_like(x), score), lambda scorer: scorer.plain()),
            (lambda: Capture(net, ["act"], watch=["fc"]), lambda capture: capture.forward(x)),
        ):
            cut_short(make(), run)
            assert not trace._models
            assert snapshot(net) == before
    finally:
        gc.enable()


def test_a_hook_of_the_models_own_is_set_once_and_seen_in_every_pass():
    """So the gradient is the model's own."""
    net, twin, x = odd(Hooked).eval(), odd(Hooked).eval(), noise(1, 3, 24, 24).requires_grad_()
    truth = torch.autograd.grad(twin(x)[0, 1], x)[0].abs()
    for _ in range(3):
        found = get_method("saliency").attribute(net, x.detach(), 1)
        torch.testing.assert_close(found.abs(), truth, rtol=1e-4, atol=1e-7)
    net(x)
    assert len(net.body[2]._forward_hooks) == 1


def test_many_passes_leave_a_compiled_parts_names():
    net, x = odd(Compiled), noise(1, 3, 24, 24)
    names = list(net.state_dict())
    assert names[0] == "body._orig_mod.0.weight"
    get_method("rise", samples=64, cells=4).attribute(net, x, 1)
    assert list(net.state_dict()) == names
    assert all(p.requires_grad for p in net.parameters())


def test_a_replaced_parameter_is_the_old_one_again_and_still_learns():
    net, x = odd(Replacing), noise(1, 3, 24, 24)
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    weight, place = net.fc.weight, net.body[0].weight.data_ptr()
    GradCAM(layer="act").attribute(net, x, 1)
    assert net.fc.weight is weight
    assert net.body[0].weight.data_ptr() == place
    assert any(weight is p for p in optimiser.param_groups[0]["params"])


# --- random numbers ---


def draw():
    return torch.rand(()).item(), random.random(), np.random.rand()


def test_what_another_thread_draws_meanwhile_never_comes_again():
    net, x, drawn = odd(Drawing), noise(1, 3, 24, 24), []
    start, done = threading.Event(), threading.Event()

    def loader():
        while not done.is_set():
            start.wait(30)
            start.clear()
            drawn.append(draw())
            done_drawing.set()

    done_drawing = threading.Event()
    thread = threading.Thread(target=loader)
    thread.start()
    before = random_numbers()
    for _ in range(5):
        with leave_no_trace(net):
            net(x)
            done_drawing.clear()
            start.set()
            done_drawing.wait(30)
    assert random_numbers() == before
    done.set()
    start.set()
    thread.join(30)
    drawn += [draw() for _ in range(20)]
    for stream in zip(*drawn, strict=True):
        assert len(set(stream)) == len(stream)


def test_a_seed_decides_what_a_model_draws():
    """Alone in its process, a model that draws is explained alike under one seed and otherwise under another."""

    def drawn(seed):
        for sow in (torch.manual_seed, random.seed, np.random.seed):
            sow(seed)
        with own_random_numbers():
            return draw()

    with own_random_numbers():
        first = drawn(1)
        if threading.active_count() == 1:
            assert drawn(1) == first
        assert all(a != b for a, b in zip(drawn(2), first, strict=True))


def test_nested_uses_share_one_stream_and_the_first_is_put_back():
    before = random_numbers()
    net = odd(Drawing)
    with leave_no_trace(net):
        draws = [draw()]
        with leave_no_trace(net):
            draws.append(draw())
        draws.append(draw())
    assert random_numbers() == before
    assert len(set(draws)) == 3
