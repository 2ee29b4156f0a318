"""Find the layers worth explaining, with no name given, and prove how their axes read.

1. One forward and one backward pass on a fixed noise picture tell every layer's shape and how much of it still
   carries gradient to the target (`pellucid.models.probe`).
2. A shape that could be a picture of the input is only a guess. It is proven by changing the input near each
   corner: the cell that moves most must lie in the same corner. That rejects attention heads mistaken for
   pictures, and finds the order of tokens that a model has shuffled.
3. The layer to explain is the last one proven whose cells nearly all carry gradient. It is no branch beside others that
   read the same, and not the model's own output.
4. It is proven by cutting it: the gradient at the cut must be the one that the uncut network has there.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, find_layer, leave_no_trace, unwrap
from pellucid.engine.capture import Runs
from pellucid.engine.trace import interruptible
from pellucid.errors import LayerError, ModelError, TargetError
from pellucid.models.layouts import Layout
from pellucid.models.moves import moves, owners
from pellucid.models.probe import Probe, Score, Sighting, largest_output, probe, sketch, value_of
from pellucid.models.spans import Intervals, divides, measured
from pellucid.numerics.grids import coordinates

_LATEST = 24  # layers that are proven first when the best is looked for: it is almost always among them
COVERAGE = 0.7  # of a layer's cells must carry gradient, for the layer to be chosen
_MAX_REORDERED = 256  # a shuffled token grid is unravelled by one pass per cell, up to this many cells
_NOISE_SEED = 0
_SAME = 1e-3  # of the largest value: how far the gradient at a cut may be from the uncut network's


@dataclass(frozen=True)
class Layer:
    """A layer that can be explained.

    Attributes:
        name: module path.
        kind: its class.
        layout: how its activation reads, proven.
        coverage: the share of its cells that carry gradient to the target.
        runs: which of several runs in a pass are read, and how they are put together; None: it is read where it runs
            last.
        span: for each space axis, the interval of the input that the grid spans, in its pixels; empty: all, evenly.
        reach: for each space axis, the interval that its cells see; empty: all.
        is_output: the model's output is only resampled from it, or computed place by place, so that it explains the
            output by itself.
    """

    name: str
    kind: str
    layout: Layout
    coverage: float
    runs: Runs | None = None
    is_output: bool = False
    span: Intervals = ()
    reach: Intervals = ()

    @property
    def notes(self) -> list[str]:
        """What a reader of its map must know."""
        notes = []
        if self.is_output:
            notes.append(
                f"Layer {self.name!r} is the model's own output (at most resampled, or computed place by place): its "
                "map shows what the model answers, not what the answer rests on. Name an earlier layer."
            )
        if self.layout.runs > 1 and not self.layout.folded:
            notes.append(f"Layer {self.name!r} runs {self.layout.runs} times in a pass: the map is their sum.")
        if self.runs is not None and self.runs.others:
            notes.append(
                f"Layer {self.name!r} runs on activations of other sizes too: {self.runs.others} of its runs are left "
                "out of the map."
            )
        return notes


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


def lend_layers(module: nn.Module, twin: nn.Module, names: Collection[str]) -> None:
    """Let the layers called `names` of a copy read as they were found to read in the model that it was made of.

    Its own weights might not prove it: shuffled, they may carry nothing from one corner to the next.
    """
    with _lock:
        known, lent = _cache.get(unwrap(module), {}), _cache.setdefault(unwrap(twin), {})
        for key, found in list(known.items()):
            if isinstance(key, tuple) and isinstance(found, Layer) and found.name in names:
                lent["lent", key[1], key[2], found.name] = replace(found, coverage=math.nan)


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
        asked = score or largest_output
        return _best(module, sample, asked, watch, key, probe(module, sample, asked, watch))

    return _cached(module, ("best", *_size(sample), key), search)  # type: ignore[no-any-return]


def _best(module: nn.Module, sample: Tensor, score: Score, watch: Sequence[str], key: Hashable, found: Probe) -> Layer:
    for layer in _candidates(module, sample, found):
        if chosen := _proven_by_cutting(module, sample, score, watch, layer, found):
            return _described(module, sample, key, _placed(module, sample, chosen, found))
    raise LayerError(
        "No layer that reads as a picture of the input is on the way to the score: what leaves it by a hook is not "
        "what the model goes on with. Use a method that needs no layer, such as integrated-gradients."
    )


def _described(module: nn.Module, sample: Tensor, key: Hashable, layer: Layer) -> Layer:
    """A layer that was found, so that nothing is run again where it is then asked for by its name."""
    _cached(module, ("describe", *_size(sample), layer.name, (key,)), lambda: replace(layer, coverage=math.nan))
    return layer


def _size(sample: Tensor) -> tuple[Hashable, ...]:
    return tuple(sample.shape[1:]), sample.dtype


def finer_layers(
    module: nn.Module,
    inputs: Tensor,
    score: Score | None = None,
    *,
    watch: Sequence[str] = (),
    key: Hashable = None,
) -> tuple[Layer, ...]:
    """Before the best layer, the last ones on the trunk with a grid twice, and four times as fine, if there are any.

    Found once per model, input size and `key`, like the best one.
    """
    module, sample = unwrap(module), _noise_like(inputs)

    def search() -> tuple[Layer, ...]:
        asked = score or largest_output
        found = probe(module, sample, asked, watch)  # which serves the best one too, where that is not known yet
        best = _cached(module, ("best", *_size(sample), key), lambda: _best(module, sample, asked, watch, key, found))
        trunk = [s for s in found.seen.values() if s.fed and not s.beside and not s.is_output]
        chosen = []
        for factor in (2, 4):
            wanted = factor * max(best.layout.grid)
            fit = [s for s in trunk if any(wanted <= max(r.grid) < 2 * wanted for r in s.readings)]
            for layer in reversed(_alive(_proven(module, sample, fit[-_LATEST:]), COVERAGE)):
                if cut := _proven_by_cutting(module, sample, asked, watch, layer, found):
                    chosen.append(_described(module, sample, key, _placed(module, sample, cut, found)))
                    break
        return tuple(chosen)

    return _cached(module, ("finer", *_size(sample), key), search)  # type: ignore[no-any-return]


def _candidates(module: nn.Module, sample: Tensor, found: Probe) -> Iterator[Layer]:
    """Layers from the one to be explained on backwards: on the trunk, then branches, then the model's own output."""
    fed = [s for s in found.seen.values() if s.fed]
    given: set[str] = set()

    def ranked(proven: Sequence[Layer], allowed: Callable[[Sighting], bool]) -> list[Layer]:
        alive = _alive([layer for layer in proven if allowed(found.seen[layer.name])], COVERAGE)
        fresh = [layer for layer in reversed(alive) if layer.name not in given]
        given.update(layer.name for layer in fresh)
        return fresh

    def on_the_trunk(seen: Sighting) -> bool:
        return not seen.beside and not seen.is_output

    yield from ranked(_proven(module, sample, fed[-_LATEST:]), on_the_trunk)
    proven = _proven(module, sample, fed)
    for allowed in (on_the_trunk, lambda seen: not seen.is_output, lambda _: True):
        yield from ranked(proven, allowed)
    if not given:
        yield _last_of(_proven(module, sample, list(found.seen.values())))


def _proven_by_cutting(
    module: nn.Module, sample: Tensor, score: Score, watch: Sequence[str], layer: Layer, found: Probe
) -> Layer | None:
    """The layer, or a module inside or in front of it that returns the same, at which a cut gives the true gradient."""
    seen = found.seen[layer.name]
    for name in (layer.name, *reversed(seen.same)):
        twin = found.all[name]
        joining = twin.joining(layer.layout) if twin.readings == seen.readings else None
        if seen.sketch is not None and _agree(_cut(module, sample, score, watch, name, joining), seen.sketch):
            return replace(layer, name=name, kind=twin.kind, runs=joining)
    return None


def _cut(
    module: nn.Module, sample: Tensor, score: Score, watch: Sequence[str], name: str, runs: Runs | None
) -> Tensor | None:
    """The gradient at a cut, in a few numbers; None where none arrives."""
    try:
        with Capture(module, [name], watch=watch, runs={name: runs}) as capture:
            _, scores = capture.scored(sample, lambda y, w: [value_of(score, y, w)[None]])
            gradient = capture.gradients(scores)[0][name]
    except (LayerError, TargetError):
        return None
    return torch.stack([sketch(part) for part in (runs.parted(gradient) if runs else [gradient])])


def _placed(module: nn.Module, sample: Tensor, layer: Layer, found: Probe) -> Layer:
    """The layer with the place of its grid, measured at the first layer of that grid where it may fall short."""
    space = tuple(sample.shape[2:])
    if len(space) < 2 or layer.layout.folded or divides(layer.layout, space):
        return layer
    same = [s for s in found.all.values() if s.runs is None and any(r.grid == layer.layout.grid for r in s.readings)]
    for first in _proven(module, sample, same[:4]):
        if first.layout.grid == layer.layout.grid:
            span, reach = measured(module, sample, first.name, first.layout)
            return replace(layer, span=span, reach=reach)
    return layer


def _agree(cut: Tensor | None, uncut: Tensor) -> bool:
    if cut is None or cut.shape != uncut.shape or not torch.isfinite(uncut).all():
        return False
    return bool(((cut - uncut).abs() <= _SAME * uncut.abs().amax(0)).all())


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
    """The last live layer of all, when the latest held none; the model's own output only if there is no other."""
    before = [layer for layer in found if not layer.is_output]
    alive = _alive(found, COVERAGE) or _alive(before, 1e-12) or _alive(found, 1e-12)
    if not alive and found:
        raise LayerError(
            "The target's gradient is zero at every layer (a head of zeros, rounding, or a score cut off from the "
            "input), so no layer can be chosen: load trained weights, choose another target, or use occlusion, which "
            "needs no gradient."
        )
    if not alive:
        raise LayerError(
            "No layer of this model reads as a picture of its input and carries gradient to the target; use a method "
            "that needs no layer, such as integrated-gradients, or (of a quantised model) no gradient, such as "
            "occlusion."
        )
    return alive[-1]


def _on_the_stream(alive: list[Layer]) -> list[Layer]:
    """Among token layers, those as wide as most: the residual stream rather than a projection beside it."""
    tokens = [layer for layer in alive if layer.layout.kind == "tokens" and layer.layout.grid == alive[-1].layout.grid]
    if alive[-1].layout.kind != "tokens":
        return alive
    count = Counter(layer.layout.channels for layer in tokens)
    width = min(count, key=lambda channels: (-count[channels], channels))  # what is as frequent and wider, projects
    return [layer for layer in tokens if layer.layout.channels == width]


@interruptible
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
        found = probe(module, sample, score or largest_output, watch)
        return _proven(module, sample, list(found.seen.values()))

    return _cached(module, ("layers", *_size(sample), key), search)  # type: ignore[no-any-return]


def describe(
    module: nn.Module,
    inputs: Tensor,
    name: str,
    score: Score | None = None,
    *,
    watch: Sequence[str] = (),
    key: Hashable = None,
) -> Layer:
    """The proven layout of the layer called `name` (its `coverage` is not measured: NaN).

    Args:
        module: the model.
        inputs: `(N, C, *space)`; only the shape of one sample, the dtype and the device are used.
        name: module path.
        score: what is explained; with it `is_output` is known too.
        watch: layers that `score` reads.
        key: what, beside the input's shape, `is_output` depends on (the kind of target).

    Raises:
        LayerError: no such layer, or its output does not read as a picture of the input.
    """
    module = unwrap(module)
    find_layer(module, name)
    sample = _noise_like(inputs)
    size = _size(sample)

    def look() -> Layer:
        lent = _cache.get(module, {}).get(("lent", *size, name))
        if isinstance(lent, Layer):
            return lent
        found = probe(module, sample, score, watch, backward=False)
        if name not in found.all:
            raise LayerError(f"Layer {name!r} never ran in the forward pass, or returns no activation; name another.")
        if found.all[name].runs is not None and score is None:  # the graph tells runs side by side from a chain of them
            found = probe(module, sample, None, graph=True)
        proven = _proven(module, sample, [found.all[name]])
        if not proven:  # a layer that is dead on noise reads as its neighbours do
            proven = tuple(layer for layer in _proven(module, sample, list(found.all.values())) if layer.name == name)
        if not proven:
            raise LayerError(
                f"The output of layer {name!r}, of shape {found.all[name].shape}, does not read as a picture of the "
                f"input {tuple(sample.shape[1:])}: choose a layer that keeps places (`pellucid layers` lists them)."
            )
        return _placed(module, sample, replace(proven[0], coverage=math.nan), found)

    about = ("describe", *size, name, None if score is None else (key,))
    return _cached(module, about, look)  # type: ignore[no-any-return]


def _noise_like(inputs: Tensor) -> Tensor:
    """One fixed noise sample `(1, C, *space)`, of inputs' shape and scale: the answer must not hang on a picture."""
    if inputs.ndim < 3:
        raise ModelError(f"Inputs have shape {tuple(inputs.shape)}; expected (N, C, *space).")
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    noise = torch.randn((1, *inputs.shape[1:]), generator=generator)
    return noise.to(inputs.device, inputs.dtype)


def _proven(module: nn.Module, sample: Tensor, seen: Sequence[Sighting]) -> tuple[Layer, ...]:
    guessed = [s for s in seen if s.readings]
    if not guessed:
        return ()
    space = tuple(sample.shape[2:])
    corners = list(itertools.product((0, 1), repeat=len(space)))
    with leave_no_trace(module), torch.no_grad():
        guesses = {s.name: s.readings for s in guessed}
        layouts: dict[str, Layout | None] = {}
        for name, found in moves(module, sample, corners, guessed).items():
            pairs = zip(guesses[name], found, strict=True)
            layouts[name] = next((reading for reading, energy in pairs if _in_corner(energy, corners)), None)
        # Strides that do not divide the input may cut off a small corner as a whole: grids are tried with larger ones.
        short = {n: [r.kind != "tokens" and not divides(r, space) for r in rs] for n, rs in guesses.items()}
        open_ = [s for s in guessed if s.name in layouts and layouts[s.name] is None and any(short[s.name])]
        for name, found in (moves(module, sample, corners, open_, 3) if open_ else {}).items():
            some = (t for t in zip(guesses[name], found, short[name], strict=True) if t[2])
            layouts[name] = next((reading for reading, energy, _ in some if _in_corner(energy, corners)), None)
        _inherit(layouts, guesses)
        layouts.update(_reordered(module, sample, guesses, layouts))
    return tuple(
        Layer(s.name, s.kind, layout, s.coverage(layout), s.joining(layout), s.is_output)
        for s in guessed
        if (layout := layouts.get(s.name))
    )


def _in_corner(energy: Tensor, corners: Sequence[tuple[int, ...]]) -> bool:
    """Whether the cell of `(corners, *grid)` that moved most lies in each changed corner's third of the grid."""
    for corner, cells in zip(corners, energy, strict=True):
        if not torch.isfinite(cells).all() or cells.max() <= 0:
            return False
        peak = coordinates(cells.argmax(), cells.shape)
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
    return {
        name: replace(guess, channels=guesses[name][0].channels, order=tuple(order))
        for name, order in owners(module, sample, guess, same).items()
        if sorted(order) == list(range(guess.cells))  # a layer that runs twice would tell each cell twice
    }
