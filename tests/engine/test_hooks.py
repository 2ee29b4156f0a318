"""Hooks hear one thread, can be paused, and go together."""

import re
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from pellucid.engine.hooks import End, Hooks

SRC = Path(__file__).parents[2] / "src" / "pellucid"


def net():
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU())


def hooks_of(module):
    return [len(h) for m in module.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]


def test_before_and_behind_see_what_goes_in_and_out_and_may_change_it():
    m, x, seen = net(), torch.tensor([[1.0, -2.0]]), []
    with Hooks() as hooks:
        hooks.before(m[1], lambda _m, args, kwargs: seen.append((args[0].tolist(), kwargs)))
        hooks.behind(m[1], lambda _m, _args, output: output + 1)
        out = m(x)
    assert seen == [(m[0](x).tolist(), {})]
    assert torch.equal(out, m(x) + 1)
    assert not any(hooks_of(m))


def test_all_go_after_an_error_and_an_early_end():
    m = net()

    class Swallowing(nn.Module):
        def forward(self, x):
            try:
                return m(x)
            except Exception:
                return None

    def end(*_):
        raise End

    with Hooks() as hooks:
        hooks.behind(m[0], end)
        with pytest.raises(End):  # no model swallows an early end
            Swallowing()(torch.ones(1, 2))
    assert not any(hooks_of(m))


def test_another_thread_and_a_pause_are_not_heard():
    m, heard = net(), []
    with Hooks() as hooks:
        hooks.before(m, lambda *_: heard.append("before"))
        hooks.behind(m, lambda *_: heard.append("behind"))
        thread = threading.Thread(target=m, args=(torch.ones(1, 2),))
        thread.start()
        thread.join()
        with hooks.paused():
            m(torch.ones(1, 2))
        assert heard == []
        m(torch.ones(1, 2))
    assert heard == ["before", "behind"]


def test_first_comes_in_front_of_hooks_that_are_there_and_always_after_errors():
    m, order = net(), []
    own = m[0].register_forward_hook(lambda *_: order.append("own"))
    with Hooks() as hooks:
        hooks.behind(m[0], lambda *_: order.append("first"), first=True)
        m(torch.ones(1, 2))
        hooks.behind(m[0], lambda *_: order.append("always"), always=True)
        with pytest.raises(RuntimeError):
            m[0](torch.ones(1, 3))
    assert order == ["first", "own", "always"]
    assert list(m[0]._forward_hooks) == [own.id]


def test_a_method_is_heard_for_as_long_as_its_object_is_there():
    """And the model does not keep it there."""

    class Owner:
        def __init__(self):
            self.hooks = Hooks()

        def before(self, _module, _args, _kwargs):
            heard.append("before")

        def behind(self, _module, _args, output):
            heard.append("behind")
            return output + 1

    m, x, heard = net(), torch.ones(1, 2), []
    plain = m(x)
    owner = Owner()
    owner.hooks.before(m, owner.before)
    owner.hooks.behind(m, owner.behind)
    assert torch.equal(m(x), plain + 1)
    gone = weakref.ref(owner)
    del owner
    assert gone() is None
    assert torch.equal(m(x), plain)
    assert heard == ["before", "behind"]


def test_nobody_else_registers_hooks():
    """Of modules: a tensor's own hook goes with its graph."""
    pattern = re.compile(r"register_(?:forward|full_backward|module)\w*hook\(")
    owners = {str(p.relative_to(SRC)) for p in SRC.rglob("*.py") if pattern.search(p.read_text())}
    assert owners == {"engine/hooks.py", "testing/networks.py"}  # the second plays a user's network
