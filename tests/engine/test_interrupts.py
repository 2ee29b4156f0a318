"""Whatever the moment of an interrupt, also inside the guard: nothing is left behind, and nothing old comes back."""

import threading

import pytest
import torch

from helpers.interrupts import interrupted
from helpers.nets import noise
from helpers.odd_nets import Drawing, Holding, Hooked, odd, snapshot
from helpers.traces import busy, state
from pellucid.engine import trace
from pellucid.engine.trace import leave_no_trace
from pellucid.heatmaps import GradCAM

GUARD = tuple(f"engine/{name}.py" for name in ("trace", "notes", "randomness", "shortcuts", "capture", "hooks"))


def guarded(net, x):
    with leave_no_trace(net):
        net(x.detach().clone())


def explained(net, x):
    GradCAM(layer="tail").attribute(net, x, 1)


def every(run, step):
    """Interrupt the run at every `step`-th moment; each time all is as before."""
    net, x = busy()
    total = interrupted(lambda: run(net, x), 0, GUARD)
    before = state(net, x)
    for at in range(1, total + 1, step):
        interrupted(lambda: run(net, x), at, GUARD)
        assert state(net, x) == before, at
        assert not trace._models, at
        assert not trace._process.uses, at
    return total


@pytest.mark.parametrize(("run", "step"), [(guarded, 31), (explained, 149)])
def test_an_interrupt_leaves_nothing_behind(run, step):
    assert every(run, step) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("run", [guarded, explained])
def test_an_interrupt_leaves_nothing_behind_at_any_moment(run):
    every(run, 1)


ENDS = ("__exit__", "_end", "_settle", "leave")


def test_what_training_has_learned_since_outlives_the_next_explanation():
    """Also where the traceback is kept, as an interactive session keeps it, and with it all that was interrupted."""
    total = interrupted(lambda: explained(*busy()), 0, GUARD, ENDS)
    assert total > 20
    for at in range(1, total + 1):
        net, x = busy()
        kept = []
        interrupted(lambda net=net, x=x: explained(net, x), at, GUARD, ENDS, kept)
        assert len(kept) == 1
        flags = [m.training for m in net.train().modules()]
        with torch.no_grad():
            for _ in range(2):
                net(x.detach().clone())
                net.fc.weight.add_(0.1)
        torch.manual_seed(at)
        before = {n: t.clone() for n, t in net.state_dict().items()}, torch.get_rng_state()
        other, z = busy()
        as_it_was = state(other, z)
        explained(other, z)
        assert state(other, z)["training"] == as_it_was["training"]
        explained(net, x)
        assert all(torch.equal(t, before[0][n]) for n, t in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), before[1])
        assert [m.training for m in net.modules()] == flags
        assert sum(len(m._forward_hooks) for m in net.modules()) == 1  # its own
        assert not trace._models


@pytest.mark.parametrize("cls", [Holding, Hooked, Drawing])
def test_odd_models_too(cls):
    net, x = odd(cls), noise(1, 3, 16, 16)
    before = snapshot(net)
    total = interrupted(lambda: guarded(net, x), 0, GUARD)
    for at in range(1, total + 1, 41):
        interrupted(lambda: guarded(net, x), at, GUARD)
        assert snapshot(net) == before, at


def test_a_second_interrupt_while_things_are_put_back():
    """The first comes in the pass, the second at any moment of what follows."""
    net, x = busy()
    before, at = state(net, x), 0

    def run():
        with leave_no_trace(net):
            net(x.detach().clone())
            raise KeyboardInterrupt

    total = interrupted(run, 0, GUARD)
    for at in range(total // 2, total + 1, 17):
        interrupted(run, at, GUARD)
        assert state(net, x) == before, at


def test_an_interrupt_in_one_thread_does_not_end_the_loan_of_another():
    net, x = busy()
    flags = [m.training for m in net.modules()]
    inside, go_on, seen = threading.Event(), threading.Event(), []

    def other():
        with leave_no_trace(net):
            inside.set()
            go_on.wait(30)
            seen.append(any(m.training for m in net.modules()))

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(30)
    with pytest.raises(KeyboardInterrupt), leave_no_trace(net):
        raise KeyboardInterrupt
    explained(net, x)
    assert not any(m.training for m in net.modules())
    go_on.set()
    thread.join(30)
    assert seen == [False]
    assert [m.training for m in net.modules()] == flags
