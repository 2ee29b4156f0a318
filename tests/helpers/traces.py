"""What an explanation must leave as it was, and networks in a state that is easily disturbed."""

import pytest
import torch
from torch import nn

from helpers.nets import Busy, noise, seeded
from pellucid.errors import ModelError
from pellucid.heatmaps import METHODS, get_method
from pellucid.testing import snapshot


def state(net, x):
    """Everything an explanation must leave as it was; tensors by identity and by value."""
    return snapshot(net, x) | {"stance": torch._dynamo.eval_frame._stance.stance}


class MineError(Exception):
    """An error of the user's own."""


def raised_by_a_model(error):
    """A context that expects what comes of an error in a pass: a sentence of ours about it, while a cancel stays."""
    return pytest.raises(
        ModelError if isinstance(error, Exception) else type(error), check=lambda e: error in causes(e)
    )


def causes(error):
    """An error, and those that it came from."""
    return [] if error is None else [error, *causes(error.__cause__)]


class Failing(Busy):
    """Raises `error` at its n-th pass, half way through."""

    error, at, passes = None, 0, 0

    def forward(self, x):
        Failing.passes += 1
        if Failing.passes == Failing.at:
            self.body(x)
            self.calls += 5
            raise self.error
        return super().forward(x)


def busy(cls=Busy):
    """A net in a mixed state: flags, gradients and frozen parameters of all kinds."""
    net = seeded(cls).train()
    net.body[1].eval()
    net.tail.eval()
    net.tail[2].train()
    net.body[0].weight.requires_grad_(False)
    net.fc.weight.grad = torch.full_like(net.fc.weight, 3)
    net.body.register_forward_hook(lambda _m, _a, out: None)
    net.fc.register_full_backward_hook(lambda _m, _i, _o: None)
    x = noise(2, 3, 24, 24).requires_grad_()
    x.grad = torch.ones_like(x)
    return net, x


def failing_target(error, at):
    calls = [0]

    def target(y):
        calls[0] += 1
        if calls[0] == at:
            raise error
        return y[:, 1]

    target.calls = calls
    return target


class BusyClip(Busy):
    """`Busy`'s ways with clips: each frame through the convolutions, then a recurrent layer or the mean over time."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = nn.GRU(6, 5) if recurrent else None
        self.body, self.tail = self.body if recurrent else nn.Conv3d(3, 6, 3, 2, 1), self.tail if recurrent else None

    def forward(self, x):
        BusyClip.passes += 1
        self.count += 1
        self.by_shape[x.shape] = self.fc.weight * 2
        self.last = x
        self.mean = x.detach().mean((0, 2, 3, 4))
        torch.rand(3)
        if BusyClip.passes == BusyClip.at:
            raise BusyClip.error
        x.mul_(0.5)
        if self.recurrent is None:
            return self.fc(self.body(x).mean((2, 3, 4)))
        frames = self.tail(self.body(x.transpose(1, 2).flatten(0, 1))).mean((2, 3)).unflatten(0, (len(x), -1))
        return self.recurrent(frames.transpose(0, 1))[0][-1]

    error, at, passes = None, 0, 0


def busy_clip(name):
    net = seeded(lambda: BusyClip("recurrent" in METHODS[name].needs)).train()
    net.fc.eval()
    net.fc.weight.grad = torch.full_like(net.fc.weight, 3)
    net.body.register_forward_hook(lambda _m, _a, out: None)
    x = noise(2, 3, 4, 16, 16).requires_grad_()
    x.grad = torch.ones_like(x)
    BusyClip.passes, BusyClip.at = 0, 0
    return net, x


def explain(name, net, x, target):
    return get_method(name).quick().attribute(net, x, target)


ON_TOKENS = [name for name, cls in METHODS.items() if "tokens" in cls.needs]
ON_CLIPS = [name for name, cls in METHODS.items() if "clip" in cls.needs or "recurrent" in cls.needs]
ON_BOXES = [name for name, cls in METHODS.items() if "a box" in cls.needs]
ON_REGIONS = [name for name, cls in METHODS.items() if "a region" in cls.needs]
ON_PAIRS = [name for name, cls in METHODS.items() if "a pair" in cls.needs]
ON_CNNS = [name for name in METHODS if name not in (*ON_TOKENS, *ON_CLIPS, *ON_BOXES, *ON_REGIONS, *ON_PAIRS)]
ERRORS = {"error": MineError("mine"), "cancel": KeyboardInterrupt()}
