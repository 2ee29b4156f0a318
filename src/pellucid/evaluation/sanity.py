"""The randomised-weights sanity test (Adebayo et al. 2018, arXiv:1810.03292).

A map that looks the same when the network's weights are shuffled shows the picture, not the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.engine import leave_no_trace, unwrap
from pellucid.engine.shells import UNSOUND
from pellucid.numerics.statistics import spearman
from pellucid.progress import task

SEEDS = (0, 1)

_Kept = dict[tuple[nn.Module, int], list[tuple[str, Tensor]]]  # by model and seed
_KEPT: ContextVar[_Kept | None] = ContextVar("shuffled weights", default=None)


@contextmanager
def shuffled_once() -> Iterator[None]:
    """Inside, the weights of a model are shuffled once, for all its pictures; they are kept until the end.

    Shuffling takes longer than a pass. Nothing may change the model's weights meanwhile.
    """
    token = _KEPT.set({}) if _KEPT.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _KEPT.reset(token)


def has_weights(module: nn.Module) -> bool:
    """Whether there is anything to shuffle: a weight tensor whose values are not all the same."""
    return any(_shuffles(p) for p in unwrap(module).parameters())


def _shuffles(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and parameter.numel() > 1 and bool((parameter != parameter.flatten()[0]).any())


def randomised_copy(module: nn.Module, inputs: Tensor, seed: int, only: Collection[str] | None = None) -> nn.Module:
    """A copy of `module` with each weight tensor's values shuffled; the model itself is not touched.

    Normalisation layers keep their scale, and their running statistics are measured again on `inputs`: a network that
    merely explodes or dies would make the test pass for the wrong reason. What cannot be copied and holds no weights (a
    lock, a file, a session) is shared with the model. With `only`, parameters of these names alone are shuffled.
    """
    module = unwrap(module)
    with leave_no_trace(module):  # whose guard of the random numbers serves copies too
        twin = _copied(module).requires_grad_(False)
        with torch.no_grad():
            parameters = dict(twin.named_parameters())
            for name, values in _shuffled(module, seed, only):
                parameters[name].copy_(values)
            twin.eval()
            _measure_norms(twin, inputs)
    return twin


def _shuffled(module: nn.Module, seed: int, only: Collection[str] | None) -> Iterable[tuple[str, Tensor]]:
    """The name of each weight tensor and its values, shuffled; one at a time where they are not kept."""
    kept = _KEPT.get()
    if kept is None or only is not None:
        return _in_random_order(module, seed, only)
    if (module, seed) not in kept:
        kept[module, seed] = list(_in_random_order(module, seed, only))
    return kept[module, seed]


def _in_random_order(module: nn.Module, seed: int, only: Collection[str] | None) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and (only is None or name in only):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            yield name, parameter.detach().flatten()[order].reshape(parameter.shape)


def _copied(module: nn.Module) -> nn.Module:
    # Activations that a model keeps as attributes hang on a graph, and such tensors refuse to be copied.
    kept: dict[int, Any] = {
        id(v): v.detach().clone() for m in module.modules() for v in vars(m).values() if _hangs_on_a_graph(v)
    }
    with suppress(Exception):  # whatever an object of the user's raises when it is copied
        return copy.deepcopy(module, dict(kept))
    kept |= {id(v): v for m in module.modules() for v in _uncopyable(_own(m), set())}
    return copy.deepcopy(module, kept)


def _own(module: nn.Module) -> dict[str, Any]:
    """What a module holds besides what torch keeps of it."""
    return {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}


def _uncopyable(value: Any, seen: set[int]) -> Iterator[Any]:
    """The smallest parts of `value` that refuse to be copied."""
    if id(value) in seen or isinstance(value, nn.Module | Tensor):
        return
    seen.add(id(value))
    try:
        copy.deepcopy(value)
    except Exception:
        parts = value if isinstance(value, list | tuple | set) else getattr(value, "__dict__", {}).values()
        parts = list(value.values() if isinstance(value, dict) else parts)
        found = [u for part in parts for u in _uncopyable(part, seen)]
        yield from found or [value]


def _measure_norms(twin: nn.Module, inputs: Tensor) -> None:
    """Running statistics of batch normalisations, measured on `inputs` and their mirror images."""
    norms = [m for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.train()
        m.momentum = 1.0
    # Two samples, since layers of one cell cannot be normalised over one; one where the model takes no more.
    for batch in (torch.cat([inputs, inputs.flip(-1)]), inputs):
        with suppress(*UNSOUND):
            twin(batch.detach().clone())
            break
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    twin.eval()


def _hangs_on_a_graph(value: object) -> bool:
    return isinstance(value, Tensor) and not value.is_leaf


def on_grid(found: Tensor, like: Tensor) -> Tensor:
    """A map `(1, ...)` on another one's grid: a method may choose its layers anew on another network."""
    if found.shape == like.shape or found.ndim != like.ndim or found.ndim not in (2, 3, 4):
        return found
    mode = {2: "linear", 3: "bilinear", 4: "trilinear"}[found.ndim]
    spread: Tensor = functional.interpolate(found[None].float(), size=tuple(like.shape[1:]), mode=mode)[0]
    return spread


def sanity_correlations(
    explain: Callable[[nn.Module], Sequence[Tensor | None]],
    module: nn.Module,
    inputs: Tensor,
    maps: Sequence[Tensor],
) -> list[float | None]:
    """Mean rank correlation of each of `maps` with its counterpart in `explain(model with shuffled weights)`.

    None where none of the copies can be explained, or where the model has no weights to shuffle.
    """
    if not has_weights(module):
        return [None] * len(maps)
    found: list[list[float]] = [[] for _ in maps]
    with task("randomised weights", len(SEEDS)) as advance:
        for seed in SEEDS:
            random = explain(randomised_copy(module, inputs, seed))
            for column, r, m in zip(found, random, maps, strict=True):
                if r is not None:
                    column.append(spearman(on_grid(r, m), m))
            advance(1)
    return [sum(column) / len(column) if column else None for column in found]
