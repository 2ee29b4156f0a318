"""What every heat map method promises."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.heatmaps.base import METHODS, Method
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import wrap
from pellucid.testing.networks import BreakdownError, Busy, BusyClip, Sound, mixed, noise
from pellucid.testing.snapshot import differences, snapshot

_CLOSE = 1e-4  # of the largest value: what another order of the sums may change


def check_method(
    method: Method,
    *,
    network: Callable[[], nn.Module] = Sound,
    inputs: Tensor | None = None,
    target: int = 1,
    clips: bool | None = None,
    busy: bool = True,
) -> None:
    """Hold a method to the contract of all methods.

    It answers raw finite values, the same each time; a batch is its pictures one by one, and several targets are each
    by itself; the settings can be written down; clips are explained or refused in one sentence; a saved map can be
    computed again (of a registered method); and whatever happens, no trace is left on the model, on the caller's tensor
    or on the random numbers.

    Args:
        method: with the settings to try; cheap ones, since it runs some twenty times.
        network: makes the network that is explained, `(N, C, *space) -> (N, classes)`.
        inputs: a batch for it of two at least; default: noise.
        target: a class.
        clips: whether it explains clips; None: either way, but no traceback.
        busy: run it on networks that misbehave too; False for methods that need a special kind of network.

    Raises:
        AssertionError: which promise is broken.
    """
    x = noise(2, 3, 16, 16) if inputs is None else inputs
    _settings(method)
    _same_twice(method, network(), x, target)
    _batches(method, network(), x, target)
    _targets(method, network(), x, target)
    if busy:
        _no_trace(method, lambda *told: mixed(Busy(*told)), noise(2, 3, 16, 16), target)
    _clips(method, target, clips)
    if inputs is None and METHODS.get(getattr(method, "name", "")) is type(method):
        _record(method, network(), target)


def _settings(method: Method) -> None:
    try:
        json.dumps(method.parameters(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"The settings of {method} cannot be written down: {error}") from error


def _same_twice(method: Method, net: nn.Module, x: Tensor, target: int) -> None:
    before = x.clone()
    one, other = method.attribute(net, x, target), method.attribute(net, x, target)
    assert torch.equal(x, before), "The caller's input was written to."
    assert len(one) == len(x), f"It answers {len(one)} maps for {len(x)} inputs."
    assert one.isfinite().all(), "A map holds NaN or infinity."
    assert torch.equal(one, other), "The same question was answered differently: draw from a generator of your own."


def _batches(method: Method, net: nn.Module, x: Tensor, target: int) -> None:
    together = method.attribute(net, x, target)
    for k in range(len(x)):
        _close(together[k : k + 1], method.attribute(net, x[k : k + 1], target), f"picture {k} alone, not in its batch")


def _targets(method: Method, net: nn.Module, x: Tensor, target: int) -> None:
    both = method.explain(net, x, [target, 0])
    assert len(both) == 2, f"It answers {len(both)} attributions for 2 targets."
    for found, asked in zip(both, (target, 0), strict=True):
        _close(found.values, method.attribute(net, x, asked), f"target {asked} alone, not beside another")


def _no_trace(method: Method, make: Callable[..., Busy], x: Tensor, target: int) -> None:
    """After success, after an error in the first and the last pass, and after a cancel there."""
    x = x.requires_grad_()
    x.grad = torch.ones_like(x)
    net = make()
    _unchanged(net, x, partial(method.attribute, net, x, target), "success")
    passes = net.passes
    for error in (BreakdownError("told to"), KeyboardInterrupt()):
        for at in dict.fromkeys((1, passes)):
            broken = make(at, error)
            after = f"{type(error).__name__} in pass {at}"
            _unchanged(broken, x, partial(method.attribute, broken, x, target), after)


def _unchanged(net: nn.Module, x: Tensor, run: Callable[[], Any], after: str) -> None:
    before = snapshot(net, x)
    with suppress(PellucidError, BreakdownError, KeyboardInterrupt):
        run()
    left = differences(before, snapshot(net, x))
    assert not left, f"After {after} a trace is left on the model: {'; '.join(left)}."


def _clips(method: Method, target: int, expected: bool | None) -> None:
    x, net = noise(2, 3, 4, 16, 16), BusyClip().eval()
    explained = True
    before = snapshot(net, x)
    try:
        values = method.attribute(net, x, target)
        assert values.isfinite().all(), "The map of a clip holds NaN or infinity."
    except PellucidError:
        explained = False
    assert not differences(before, snapshot(net, x)), "A trace is left on a model of clips."
    if expected is not None:
        assert explained is expected, f"Clips are {'explained' if explained else 'refused'}."


def _record(method: Method, net: nn.Module, target: int) -> None:
    from pellucid.verbs.explain import explain
    from pellucid.verbs.verify import verify

    model = wrap(net, transform=Preprocess(input_size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3))
    picture = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        found = explain(model, picture, method=method, target=target)
        found.save(folder)
        record = next(Path(folder).glob("*.json"))
        checked = verify(record, model=model, inputs=picture)
    assert checked.status in ("same", "within tolerance"), f"Its saved map cannot be computed again: {checked}"


def _close(a: Tensor, b: Tensor, what: str) -> None:
    assert a.shape == b.shape, f"The map has another shape for {what}: {tuple(b.shape)}, not {tuple(a.shape)}."
    apart = float((a - b).abs().max()) / max(float(a.abs().max()), 1e-12)
    assert apart <= _CLOSE, f"The map is another one for {what}: {apart:.1e} of the largest value apart."
