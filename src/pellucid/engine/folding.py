"""A twin that answers the same sooner: batch normalisation folded into the convolutions, weights channels-last.

In evaluation mode a batch normalisation is `y = g (x - m) / sqrt(v + e) + b`, one more linear map behind a linear map,
so a convolution in front of it can do both. On a CPU a convolutional network then takes about a fifth less time. Of a
network that pools and normalises nothing the weights alone are laid out anew: torch pools channels-last activations
many channels at a time, others place by place (SqueezeNet is 2.2 times as fast, VGG-11 1.2, three small layers 3.5).
The user's modules are not written to: the twin shares all that stays as it is. Which convolutions feed a normalisation
and nothing else is read from the graph of one pass, and the twin must answer as the model does before it is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._pytree import tree_leaves

from pellucid.engine.hooks import Hooks
from pellucid.engine.run import guarded
from pellucid.engine.shells import UNSOUND, copied, hooked, plain_weights, shell

TOLERANCE = 1e-4
"""How far answers may differ, relative to the largest: some ten times what rounding does in single precision."""
PAYS = 64
"""Passes of one input from which on a twin, which costs `PASSES` of them, is worth while."""
PASSES = 5
_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)
_LEAST = 0.5  # of the convolutions must fold, or there is little to win

Run = Callable[[nn.Module, Tensor], Any]


def foldable(module: nn.Module, x: Tensor) -> bool:
    """Whether there may be something to fold: normalised convolutions, in single precision, on the CPU."""
    return _plain(module, x) and any(map(_foldable, module.modules()))


def may_have_twin(module: nn.Module, x: Tensor) -> bool:
    """Whether a twin may be tried: there may be something to fold, or activations are pooled and not normalised."""
    return foldable(module, x) or (_plain(module, x) and _pools(module))


def _plain(module: nn.Module, x: Tensor) -> bool:
    alone = x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 4
    return alone and not any(isinstance(m, torch.jit.ScriptModule) for m in module.modules())


def _pools(module: nn.Module) -> bool:
    """Whether activations are pooled, and none is normalised."""
    parts = list(module.modules())
    return any(isinstance(m, _POOLINGS) for m in parts) and not any(isinstance(m, nn.BatchNorm2d) for m in parts)


def folded(module: nn.Module, run: Run, x: Tensor) -> nn.Module | None:
    """The twin; None where little would be won, or where it does not answer as the model does.

    Args:
        module: the network, in evaluation mode.
        run: runs a network on inputs `(N, C, H, W)`.
        x: one input `(1, C, H, W)`.
    """

    def guarded_run(network: nn.Module, inputs: Tensor) -> Any:
        with guarded(network, inputs):
            return run(network, inputs)

    try:
        return _folded(module, guarded_run, x)
    except UNSOUND:  # a network that cannot record a graph, or a view that another order does not allow
        return None


def _folded(module: nn.Module, run: Run, x: Tensor) -> nn.Module | None:
    convolutions, pairs = _pairs(module, run, x)
    if len(pairs) < max(1, _LEAST * len(convolutions)) and not (convolutions and _pools(module)):
        return None
    replaced: dict[nn.Module, nn.Module] = {c: _convolution(c, pairs.get(c)) for c in convolutions}
    replaced |= {norm: _behind(norm) for norm in pairs.values()}
    twin = copied(module, replaced)
    ramp = torch.linspace(-1, 1, x.shape[-1], device=x.device)
    shown = torch.cat([x, x * ramp])
    with torch.no_grad():
        return twin if alike(run(module, shown.clone()), run(twin, shown.clone())) else None


def _pairs(module: nn.Module, run: Run, x: Tensor) -> tuple[list[nn.Conv2d], dict[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions that run, and those whose output goes into one batch normalisation and nowhere else.

    Both are seen in the graph of one pass."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: dict[nn.Conv2d, tuple[nn.BatchNorm2d, Tensor]] = {}
    runs: Counter[nn.Module] = Counter()

    def convolved(conv: Any, _args: Any, output: Any) -> None:
        runs[conv] += 1
        if conv not in read:
            made[id(output)] = conv, output

    def normalised(norm: Any, args: Any, _output: Any) -> None:
        runs[norm] += 1
        if args and id(args[0]) in made:
            conv, output = made[id(args[0])]
            found[conv] = norm, output

    read = {part for part in module.modules() if hooked(part)}
    with Hooks() as hooks:
        for part in module.modules():
            if isinstance(part, nn.Conv2d) and plain_weights(part):
                hooks.behind(part, convolved)
            elif _foldable(part):
                hooks.behind(part, normalised)
        with torch.enable_grad():
            output = run(module, x.detach().clone().requires_grad_().clone())  # it may be written to
    users = users_of(output)
    return [part for part in runs if isinstance(part, nn.Conv2d)], {
        conv: norm for conv, (norm, at) in found.items() if runs[conv] == runs[norm] == 1 and users[at.grad_fn] == 1
    }


def _foldable(part: nn.Module) -> bool:
    plain = isinstance(part, nn.BatchNorm2d) and not part.training and part.running_mean is not None
    return plain and not hooked(part) and (type(part) is nn.BatchNorm2d or _acts(part))


def _acts(part: nn.Module) -> bool:
    """Whether it is timm's kind of normalisation, which ends with dropout and the activation."""
    return isinstance(getattr(part, "drop", None), nn.Module) and isinstance(getattr(part, "act", None), nn.Module)


def _behind(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a normalisation."""
    rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if isinstance(part, nn.Module)]
    return nn.Sequential(*rest).eval() if rest else nn.Identity()


def users_of(output: Any) -> Counter[Any]:
    """How many steps of the graph take each step's result."""
    seen: set[Any] = set()
    users: Counter[Any] = Counter()
    todo = [leaf.grad_fn for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
    users.update(todo)
    while todo:
        step = todo.pop()
        if step in seen:
            continue
        seen.add(step)
        following = [s for s, _ in step.next_functions if s is not None]
        users.update(following)
        todo += following
    return users


def _convolution(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> nn.Module:
    twin = shell(conv)
    weight, bias = conv.weight, conv.bias
    if norm is not None and norm.running_mean is not None and norm.running_var is not None:
        weight, bias = fuse_conv_bn_weights(
            weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )  # fmt: skip
    given = {
        "weight": nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last), requires_grad=False),
        "bias": None if bias is None else nn.Parameter(bias.detach(), requires_grad=False),
    }
    vars(twin)["_parameters"] = given
    return twin


def alike(a: Any, b: Any) -> bool:
    """Whether all tensors in two answers are the same to within `TOLERANCE`."""
    ours, theirs = ([leaf for leaf in tree_leaves(y) if isinstance(leaf, Tensor)] for y in (a, b))
    return len(ours) == len(theirs) and all(
        p.shape == q.shape and bool(((p - q).abs().max() <= TOLERANCE * p.abs().max().clamp(min=1e-12)).all())
        for p, q in zip(ours, theirs, strict=True)
        if p.numel()
    )
