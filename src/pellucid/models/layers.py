"""Find the layers worth explaining, with no name given, and prove how their axes read.

1. One forward and one backward pass on a fixed noise picture tell every layer's shape and how much of it still
   carries gradient to the target.
2. A shape that could be a picture of the input is only a guess. It is proven by changing the input near each
   corner: the cell that moves most must lie in the same corner. That rejects attention heads mistaken for
   pictures, and finds the order of tokens that a model has shuffled.
3. The layer to explain is the last one proven whose cells nearly all carry gradient.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pellucid.engine import find_layer, leave_no_trace, unwrap
from pellucid.engine.capture import first_tensor, replace_first_tensor, require_autograd
from pellucid.errors import LayerError, ModelError
from pellucid.models.layouts import Layout, readings

Score = Callable[[Any, Mapping[str, Tensor]], Tensor]

_LATEST = 24  # layers that are proven first when the best is looked for: it is almost always among them
COVERAGE = 0.7  # of a layer's cells must carry gradient, for the layer to be chosen
_MAX_REORDERED = 256  # a shuffled token grid is unravelled by one pass per cell, up to this many cells
_NOISE_SEED = 0
_AT_ONCE = 2**23  # numbers of input that are run at once to prove layouts: pictures together, long clips one by one


@dataclass(frozen=True)
class Layer:
    """A layer that can be explained: its name, its class, its proven layout, and its share of live cells."""

    name: str
    kind: str
    layout: Layout
    coverage: float


@dataclass(frozen=True)
class _Seen:
    """What the probing pass saw of one layer."""

    name: str
    kind: str
    shape: tuple[int, ...]
    gradient: Tensor | None


_cache: WeakKeyDictionary[nn.Module, dict[Hashable, tuple[Layer, ...] | Layer]] = WeakKeyDictionary()
_lock = threading.Lock()


def _cached(module: nn.Module, key: Hashable, compute: Callable[[], Any]) -> Any:
    with _lock:
        known = _cache.setdefault(module, {})
        if key in known:
            return known[key]
    value = compute()
    with _lock:
        if len(known) >= 32:
            known.clear()
        known[key] = value
    return value


def best_layer(
    module: nn.Module,
    inputs: Tensor,
    score: Score | None = None,
    *,
    watch: Sequence[str] = (),
    key: Hashable = None,
) -> Layer:
    """The last layer whose cells still carry gradient to the score; found once per model, input size and `key`."""
    module, sample = unwrap(module), _noise_like(inputs)

    def search() -> Layer:
        seen = _probe(module, sample, score or _largest_output, watch)
        fed = [s for s in seen if s.gradient is not None and s.gradient.any()]
        latest = _alive(_proven(module, sample, fed[-_LATEST:]), COVERAGE)
        return latest[-1] if latest else _last_of(_proven(module, sample, seen))

    return _cached(module, ("best", tuple(sample.shape[1:]), sample.dtype, key), search)  # type: ignore[no-any-return]


def pathway_layers(module: nn.Module, inputs: Tensor, counts: Sequence[int]) -> tuple[Layer, ...]:
    """For each pathway of a model that takes several clips, the last live layer on that pathway's own time grid.

    Args:
        module: the model.
        inputs: `(N, C, T, H, W)`, as given to the whole.
        counts: how many frames each pathway takes.

    Raises:
        LayerError: a pathway has no layer that keeps its frames apart.
    """
    alive = [layer for layer in layers(module, inputs) if layer.coverage >= COVERAGE]
    chosen = []
    for count in counts:
        own = [layer for layer in alive if layer.layout.grid[0] == count]
        if not own:
            raise LayerError(
                f"The pathway of {count} frames has no live layer of {count} steps of time: name a layer with layer=."
            )
        chosen.append(own[-1])
    return tuple(chosen)


def _alive(found: Sequence[Layer], coverage: float) -> list[Layer]:
    """Layers of which at least this share of cells carries gradient, on the residual stream of the last of them."""
    alive = [layer for layer in found if layer.coverage >= coverage]
    return _on_the_stream(alive) if alive else []


def _last_of(found: Sequence[Layer]) -> Layer:
    """The last live layer of all, when the latest layers held none."""
    alive = _alive(found, COVERAGE) or _alive(found, 1e-12)
    if not alive and found:
        raise LayerError(
            "The target's gradient is zero at every layer (a head of zeros, or a score cut off from the input), so no "
            "layer can be chosen: load trained weights, or choose another target."
        )
    if not alive:
        raise LayerError(
            "No layer of this model reads as a picture of its input and carries gradient to the target; use a method "
            "that needs no layer, such as integrated-gradients."
        )
    return alive[-1]


def _on_the_stream(alive: list[Layer]) -> list[Layer]:
    """Among token layers, those as wide as most: the residual stream rather than a projection beside it."""
    tokens = [layer for layer in alive if layer.layout.kind == "tokens" and layer.layout.grid == alive[-1].layout.grid]
    if alive[-1].layout.kind != "tokens":
        return alive
    width = Counter(layer.layout.channels for layer in tokens).most_common(1)[0][0]
    return [layer for layer in tokens if layer.layout.channels == width]


def layers(
    module: nn.Module,
    inputs: Tensor,
    score: Score | None = None,
    *,
    watch: Sequence[str] = (),
    key: Hashable = None,
) -> tuple[Layer, ...]:
    """Every layer with a proven layout, in execution order.

    Args:
        module: the model.
        inputs: `(N, C, *space)`; only the shape of one sample, the dtype and the device are used.
        score: what is explained, of the model's output and the watched layers; default: the largest output.
        watch: layers that `score` reads.
        key: what, beside the input's shape, the answer depends on (the kind of target).
    """
    module = unwrap(module)
    sample = _noise_like(inputs)

    def search() -> tuple[Layer, ...]:
        seen = _probe(module, sample, score or _largest_output, watch)
        return _proven(module, sample, seen)

    return _cached(module, ("layers", tuple(sample.shape[1:]), sample.dtype, key), search)  # type: ignore[no-any-return]


def describe(module: nn.Module, inputs: Tensor, name: str) -> Layer:
    """The proven layout of the layer called `name` (its `coverage` is not measured: NaN).

    Raises:
        LayerError: no such layer, or its output does not read as a picture of the input.
    """
    module = unwrap(module)
    find_layer(module, name)
    sample = _noise_like(inputs)

    def look() -> Layer:
        everything = _probe(module, sample, None, ())
        seen = [s for s in everything if s.name == name]
        if not seen:
            raise LayerError(f"Layer {name!r} never ran in the forward pass, or returns no activation; name another.")
        proven = _proven(module, sample, seen)
        if not proven:  # a layer that is dead on noise reads as its neighbours do
            proven = tuple(layer for layer in _proven(module, sample, everything) if layer.name == name)
        if not proven:
            raise LayerError(
                f"The output of layer {name!r}, of shape {seen[0].shape}, does not read as a picture of the input "
                f"{tuple(sample.shape[1:])}: choose a layer that keeps places (`pellucid layers` lists them)."
            )
        return replace(proven[0], coverage=math.nan)

    return _cached(module, ("describe", tuple(sample.shape[1:]), sample.dtype, name), look)  # type: ignore[no-any-return]


def _noise_like(inputs: Tensor) -> Tensor:
    """One fixed noise sample `(1, C, *space)`, of inputs' shape and scale: the answer must not hang on a picture."""
    if inputs.ndim < 3:
        raise ModelError(f"Inputs have shape {tuple(inputs.shape)}; expected (N, C, *space).")
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    noise = torch.randn((1, *inputs.shape[1:]), generator=generator)
    return noise.to(inputs.device, inputs.dtype)


def _largest_output(output: Any, _watched: Mapping[str, Tensor]) -> Tensor:
    logits = first_tensor(getattr(output, "logits", output))
    if logits is None:
        raise ModelError(f"The model returns no tensor of scores ({type(output).__name__}); wrap it so that it does.")
    return logits.float().flatten(1).amax(1)


class _Recorder:
    """Output hooks on every module, or on the named ones; keeps the last activation of each.

    With `graph`, an activation that a model has computed under its own `torch.no_grad` starts a graph of its own.
    """

    def __init__(self, module: nn.Module, names: Sequence[str] | None = None, *, graph: bool = False) -> None:
        self.outputs: dict[str, Tensor] = {}
        self._graph = graph
        self._thread = threading.get_ident()
        wanted = {n: m for n, m in module.named_modules() if n and (names is None or n in names)}
        self._handles = [m.register_forward_hook(self._hook(n)) for n, m in wanted.items()]

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            activation = first_tensor(output)
            if activation is None or threading.get_ident() != self._thread:
                return None
            self.outputs.pop(name, None)  # re-inserted last: the order is that of execution
            # A copy where the values matter: the next layer may work in place.
            self.outputs[name] = activation if self._graph else activation.clone()
            if not self._graph or activation.requires_grad or activation.is_inference():
                return None
            self.outputs[name] = activation.detach().requires_grad_()
            torch.set_grad_enabled(True)
            return replace_first_tensor(output, self.outputs[name].clone())

        return hook

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _record(
    module: nn.Module, inputs: Tensor, names: Sequence[str] | None = None, *, graph: bool = False
) -> tuple[Any, dict[str, Tensor]]:
    recorder = _Recorder(module, names, graph=graph)
    try:
        return module(inputs), recorder.outputs
    finally:
        recorder.remove()


def _probe(module: nn.Module, sample: Tensor, score: Score | None, watch: Sequence[str]) -> list[_Seen]:
    """One pass over the whole net: shapes of all layers, and the score's gradient to each (if a score is given)."""
    kinds = {name: type(m).__name__ for name, m in module.named_modules()}
    if score is not None:
        require_autograd(module)
    with leave_no_trace(module), torch.set_grad_enabled(score is not None):
        leaf = sample.detach().clone().requires_grad_(score is not None)
        output, outputs = _record(module, leaf.clone(), graph=score is not None)
        clips = sample.ndim == 5  # whose frames may be folded into the batch
        outputs = {n: t for n, t in outputs.items() if t.shape[:1] == sample.shape[:1] or clips}
        if score is None:
            return [_Seen(n, kinds[n], tuple(t.shape), None) for n, t in outputs.items()]
        watched = {n: outputs[n] for n in watch if n in outputs}
        try:
            value = score(output, watched).sum()
        except (IndexError, RuntimeError):  # a function of the whole batch does not fit one sample
            value = _largest_output(output, watched).sum()
        outputs = _outermost(outputs, watched)
        live = {n: t for n, t in outputs.items() if t.requires_grad}
        if not value.requires_grad:
            raise LayerError("The target does not depend on the input through the model's graph; nothing can be found.")
        grads = torch.autograd.grad(value, list(live.values()), allow_unused=True)
        gradient = dict(zip(live, grads, strict=True))
    return [_Seen(n, kinds[n], tuple(t.shape), gradient.get(n)) for n, t in outputs.items()]


def _outermost(outputs: dict[str, Tensor], watched: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of nested modules that return the very same tensor, keep the outermost (`layer4`, not `layer4.2.act3`).

    But no later than a watched one: it is read before an outer module ends.
    """
    owner = {id(tensor): name for name, tensor in outputs.items()}  # execution order: outer modules end last
    owner |= {id(tensor): name for name, tensor in watched.items()}
    return {name: tensor for name, tensor in outputs.items() if owner[id(tensor)] == name}


def _coverage(gradient: Tensor | None, layout: Layout) -> float:
    if gradient is None:
        return 0.0
    cells = layout.to_map(gradient.float()).abs().sum(1).flatten(1)
    peak = float(cells.max())
    return float((cells > 1e-7 * peak).float().mean()) if math.isfinite(peak) and peak > 0 else 0.0


def _proven(module: nn.Module, sample: Tensor, seen: Sequence[_Seen]) -> tuple[Layer, ...]:
    space = tuple(sample.shape[2:])
    guesses = {s.name: list(readings(s.shape, space)) for s in seen}
    names = [name for name, guess in guesses.items() if guess]
    if not names:
        return ()
    corners = list(itertools.product((0, 1), repeat=len(space)))
    shapes = {s.name: s.shape for s in seen}
    with leave_no_trace(module), torch.no_grad():
        moves = _moves(module, sample, corners, {n: shapes[n] for n in names})
        layouts = {n: next((r for r in guesses[n] if _in_corner(r, m, corners)), None) for n, m in moves.items()}
        _inherit(layouts, guesses)
        layouts.update(_reordered(module, sample, guesses, layouts))
    return tuple(
        Layer(s.name, s.kind, layout, _coverage(s.gradient, layout)) for s in seen if (layout := layouts.get(s.name))
    )


def _moves(
    module: nn.Module, sample: Tensor, corners: Sequence[tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """How each layer's activation moves when each corner is changed, `(corners * rows, ...)`; large inputs in turn.

    A layer has `rows` rows for one input: one, or as many as it folds frames into the batch. Layers that do not keep
    the inputs of a batch apart are left out.
    """
    moves: dict[str, list[Tensor]] = {name: [] for name in shapes}
    step = max(1, _AT_ONCE // sample.numel())
    for start in range(0, len(corners), step):
        some = corners[start : start + step]
        _, outputs = _record(module, torch.cat([sample, *(_changed(sample, c) for c in some)]), list(shapes))
        for name, t in outputs.items():
            rows = shapes[name][0]
            if len(t) == rows * (len(some) + 1):
                samples = t.reshape(-1, rows, *t.shape[1:])
                moves[name].append((samples[1:] - samples[:1]).flatten(0, 1).float())
    return {n: torch.cat(found) for n, found in moves.items() if sum(map(len, found)) == shapes[n][0] * len(corners)}


def _changed(sample: Tensor, corner: tuple[int, ...]) -> Tensor:
    """The sample with the patch at one corner (0: start, 1: end of each axis) replaced by its negative."""
    changed = sample.clone()
    region = tuple(
        slice(0, max(1, size // 8)) if side == 0 else slice(size - max(1, size // 8), size)
        for side, size in zip(corner, sample.shape[2:], strict=True)
    )
    changed[:, :, *region] *= -1
    return changed


def _in_corner(layout: Layout, moves: Tensor, corners: Sequence[tuple[int, ...]]) -> bool:
    """Whether under this reading the cell that moved most lies in each changed corner's third of the grid."""
    energy = layout.to_map(moves).square().sum(1)
    for corner, cells in zip(corners, energy, strict=True):
        if not torch.isfinite(cells).all() or cells.max() <= 0:
            return False
        peak = torch.unravel_index(cells.argmax(), cells.shape)
        for side, at, size in zip(corner, peak, cells.shape, strict=True):
            reach = max(1, math.ceil(size / 3))
            inside = int(at) < reach if side == 0 else int(at) >= size - reach
            if size > 1 and not inside:
                return False
    return True


def _inherit(layouts: dict[str, Layout | None], guesses: Mapping[str, list[Layout]]) -> None:
    """Accept grids (not tokens, which can be permuted) that another layer of the same kind and size has proven.

    Deep in an untrained net the corners' moves drown in noise or vanish, though the reading is no longer in doubt.
    """
    proven = {(r.kind, r.grid, r.folded) for r in layouts.values() if r is not None and r.kind != "tokens"}
    for name, layout in layouts.items():
        if layout is None:
            layouts[name] = next((g for g in guesses[name] if (g.kind, g.grid, g.folded) in proven), None)


def _reordered(
    module: nn.Module,
    sample: Tensor,
    guesses: Mapping[str, list[Layout]],
    layouts: Mapping[str, Layout | None],
) -> dict[str, Layout]:
    """Layouts of token layers kept in another order than row by row.

    Looked for only in layers behind the last one proven (a model that re-orders its tokens does so to its end):
    each cell of the input is changed in turn, and the token that moves most belongs to that cell.
    """
    names = list(layouts)
    last = max((i for i, n in enumerate(names) if layouts[n] is not None), default=-1)
    open_ = {n: [g for g in guesses[n] if g.kind == "tokens" and not g.folded] for n in names[last + 1 :]}
    guess = next((g for n in reversed(open_) for g in open_[n] if g.cells <= _MAX_REORDERED), None)
    if guess is None:
        return {}
    same = [n for n, gs in open_.items() if any((g.grid, g.prefix) == (guess.grid, guess.prefix) for g in gs)]
    owner: dict[str, list[int]] = {n: [] for n in same}
    for start in range(0, guess.cells, 16):
        cells = range(start, min(start + 16, guess.cells))
        _, outputs = _record(module, torch.cat([sample, *(_cell_changed(sample, guess.grid, c) for c in cells)]), same)
        for name, tokens in outputs.items():
            moves = (tokens[1:] - tokens[:1]).float()[:, guess.prefix :].square().sum(-1)
            owner[name] += moves.argmax(-1).tolist()
    return {
        name: replace(guess, channels=guesses[name][0].channels, order=tuple(order))
        for name, order in owner.items()
        if len(set(order)) == guess.cells
    }


def _cell_changed(sample: Tensor, grid: tuple[int, ...], index: int) -> Tensor:
    changed = sample.clone()
    at = torch.unravel_index(torch.tensor(index), grid)
    region = tuple(
        slice(int(a) * s // g, (int(a) + 1) * s // g) for a, s, g in zip(at, sample.shape[2:], grid, strict=True)
    )
    changed[:, :, *region] *= -1
    return changed
