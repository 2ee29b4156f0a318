"""Networks whose forward pass changes what they hold, each in one way; and a snapshot that trusts nobody's notes."""

import queue
import random
from collections import defaultdict, deque
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from helpers.nets import seeded


class Odd(nn.Module):
    """Two convolutions and a linear layer, and before each pass a deed."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1))
        self.act, self.fc = nn.ReLU(), nn.Linear(6, 3)
        self.prepare()

    def prepare(self):
        """What is held before the first pass."""

    def deed(self, x):
        """What a pass changes."""

    def forward(self, x):
        self.deed(x)
        return self.fc(self.act(self.body(x)).mean((2, 3)))


class Replacing(Odd):
    def deed(self, x):
        self.fc.weight = nn.Parameter(nn.functional.normalize(self.fc.weight.detach()))
        self.body[0].weight.data = torch.renorm(self.body[0].weight.data, 2, 0, 1)
        self.body[1].running_var.data = self.body[1].running_var * 2
        self.body[3].bias.requires_grad_(not self.body[3].bias.requires_grad)


class Holding(Odd):
    def prepare(self):
        self.log, self.memo, self.recent, self.jobs = ["kept"], {"kept": [1]}, deque([1, 2], maxlen=2), queue.Queue()
        self.urgent, self.counts, self.table = queue.PriorityQueue(), defaultdict(int, kept=1), np.zeros(4)
        self.shapes, self.bank, self.own = {(1, 2)}, [torch.zeros(2)], SimpleNamespace(passes=0, seen=[])
        self.pair = ([], {"deep": deque()})
        self.jobs.put("kept")

    def deed(self, x):
        self.log.append(x)
        self.memo["kept"].append(2)
        self.memo[len(self.log)] = x
        self.recent.append(len(self.log))
        self.jobs.put(self.jobs.get_nowait() + "!")
        self.jobs.put("new")
        self.urgent.put(len(self.log))
        self.counts["passes"] += 1
        self.table[1] += 1
        self.shapes.add(x.shape)
        self.bank[0].add_(1)
        self.bank.append(x)
        self.own.passes += 1
        self.own.seen.append(x)
        self.pair[0].append(1)
        self.pair[1]["deep"].append(1)


class Hooked(Odd):
    """Sets its hooks in its first pass and notes that it has."""

    def prepare(self):
        self.ready, self.taps = False, []

    def deed(self, x):
        if not self.ready:
            self.body[2].register_forward_hook(lambda _m, _a, output: self.taps.append(output))
            self.register_forward_pre_hook(lambda _m, args: (args[0] * 1,))
            self.ready = True
        self.taps.clear()

    def forward(self, x):
        self.deed(x)
        y = self.act(self.body(x)).mean((2, 3))
        return self.fc(y) + torch.stack([tap.mean((1, 2, 3)) for tap in self.taps]).sum(0)[:, None]


class Growing(Odd):
    """Makes, removes and swaps parts, parameters and buffers of its own."""

    def prepare(self):
        self.passes, self.spare, self.unused = 0, nn.Linear(2, 2), nn.Identity()

    def deed(self, x):
        self.passes += 1
        self.add_module(f"made{self.passes}", nn.Identity())
        self.register_parameter(f"scale{self.passes}", nn.Parameter(torch.ones(1)))
        self.register_buffer(f"count{self.passes}", torch.ones(1), persistent=False)
        self.unused = nn.ReLU()
        if self.passes == 1:
            del self.spare


class Switching(Odd):
    """Flips its flags, and holds a normalisation in training mode where `modules()` does not see it."""

    def prepare(self):
        self.hidden = [nn.BatchNorm2d(3)]

    def deed(self, x):
        self.body[2].training = not self.body[2].training
        self.hidden[0](x)
        self.body[1].momentum = 0.5


class Drawing(Odd):
    def deed(self, x):
        torch.rand(2), np.random.rand(2), np.random.randn(), random.random(), random.gauss(0, 1)


class Compiled(Odd):
    def prepare(self):
        self.body = torch.compile(self.body, backend="eager")


class Handing(Odd):
    """A part that hands attributes on to what it wraps."""

    class Proxy(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.__dict__["inner_"] = inner
            self._modules["inner"] = inner

        def __setattr__(self, name, value):
            setattr(self.__dict__["inner_"], name, value)

        def forward(self, x):
            return self._modules["inner"](x)

    def prepare(self):
        self.body = Handing.Proxy(self.body)


ODD = (Replacing, Holding, Hooked, Growing, Switching, Drawing, Compiled, Handing)


def odd(cls):
    """One in a mixed state, seeded."""
    net = seeded(cls).train()
    net.fc.eval()
    return net


def snapshot(net):
    """All that can be reached from a module: what it is, which object it is, and what is inside; random numbers too."""
    seen = set()

    def told(value):
        what = (type(value), id(value))
        if isinstance(value, torch.Tensor):
            return *what, value.data_ptr(), value.requires_grad, value.dtype, value.detach().cpu().numpy().tobytes()
        if value is None or isinstance(value, (bool, int, float, str)):
            return type(value), value
        if id(value) in seen:
            return what
        seen.add(id(value))
        if isinstance(value, dict):
            return *what, [(told(key), told(item)) for key, item in value.items()]
        if isinstance(value, (list, tuple, deque)):
            return *what, [told(item) for item in value]
        if isinstance(value, (set, frozenset)):
            return *what, sorted(map(str, value))
        if isinstance(value, np.ndarray):
            return *what, value.tolist()
        if isinstance(value, (nn.Module, queue.Queue, SimpleNamespace)):
            return *what, [(name, told(item)) for name, item in sorted(vars(value).items())]
        return what

    drawn = random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state(legacy=False))
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._dynamo.eval_frame._stance.stance
    keys = list(net.state_dict())
    return told(net), drawn, modes, keys, torch.backends.mha.get_fastpath_enabled()
