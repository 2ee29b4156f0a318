"""Drop tokens instead of masking pixels: on plain vision transformers a hidden patch costs nothing.

The picture is embedded once. A hook in front of the first block hands on the kept patch tokens (and always the prefix
tokens) of many masks, and everything behind broadcasts over them. A block that attends over a set of tokens neither
knows nor needs their number, so half the tokens cost half the time, and nothing stands in for what is hidden.

This is sound only where position enters before the first block. So nothing is taken from an architecture's name:

1. The first block is found by its shape: the first child of a list of two or more modules of one class, whose input
   is a row of tokens.
2. A code proves which token is which patch: in picture `b` the patches whose number has bit `b` set are changed, and
   exactly their tokens must move.
3. On the inputs to be explained, all tokens in any order must give the plain score, and some of the tokens another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from pellucid.engine.attached import Attached
from pellucid.engine.batching import adaptive_batches, default_batch, is_out_of_memory
from pellucid.engine.capture import Capture, Cost, find_layer, unwrap
from pellucid.engine.hooks import End, Hooks
from pellucid.engine.leaves import first_tensor, replace_first_tensor
from pellucid.engine.masks import Masks, SegmentMasks
from pellucid.engine.perturb import MaskScorer, Scores
from pellucid.engine.run import run_model
from pellucid.engine.shells import UNSOUND
from pellucid.engine.trace import leave_no_trace
from pellucid.errors import MethodError, ModelError
from pellucid.models.layers import _cached, _noise_like
from pellucid.models.layouts import Layout, readings
from pellucid.models.spans import Intervals
from pellucid.progress import task

_DRAWN = 256  # masks at a time, while they are read
_LEAK = 1e-4  # of the largest move: what another patch's token may move by rounding


@dataclass(frozen=True)
class Entry:
    """The first block of a transformer, and which patch of the input each token that enters it stands for.

    Attributes:
        block: its path.
        layout: how the tokens read.
        patch: places of the input along each side of a patch. Where patches do not fill the input, they leave a strip
            at the end of an axis, which no token sees.
    """

    block: str
    layout: Layout
    patch: tuple[int, ...]

    @property
    def covered(self) -> tuple[int, ...]:
        """How far the patches reach along each axis."""
        return tuple(n * p for n, p in zip(self.layout.grid, self.patch, strict=True))

    def span(self, space: tuple[int, ...]) -> Intervals:
        """From where to where the patches reach in an input `space`; empty where they fill it."""
        return () if self.covered == space else tuple((0.0, float(end)) for end in self.covered)

    def labels(self, space: tuple[int, ...]) -> Tensor:
        """`(*space)` numbers of the patches, row by row; a strip that no token sees goes with the patch beside it."""
        labels = torch.zeros((), dtype=torch.long)
        for size, cells, side in zip(space, self.layout.grid, self.patch, strict=True):
            labels = labels[..., None] * cells + (torch.arange(size) // side).clamp(max=cells - 1)
        return labels

    def blocks(self, places: Tensor) -> Tensor:
        """`(m, *space)` of the input as `(m, cells, places of a patch)`."""
        dims = len(self.patch)
        inside = places[(slice(None), *(slice(end) for end in self.covered))]
        split = [part for pair in zip(self.layout.grid, self.patch, strict=True) for part in pair]
        order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2)]
        return inside.reshape(len(places), *split).permute(order).reshape(len(places), self.layout.cells, -1)


class TokenScorer(Attached, MaskScorer):
    """Scores of inputs of which only some patches are shown to the blocks; a context, like `Scorer`.

    Masks are drawn over the patches. Those over the input's own places do as well, where each patch is hidden as a
    whole or not at all.

    Made by `token_scorer`, which proves first that dropping tokens is sound.

    Args:
        module: the model.
        inputs: `(N, C, *space)`.
        entry: where tokens enter.
        score: see `Scores`.
        targets: how many targets `score` yields.
        watch: layers that `score` reads.
        batch: inputs of full length at a time; shorter ones fill batches of as many tokens. Less when memory runs out.

    Attributes:
        grid: patches along each space axis, numbered row by row; also the `space` of masks.
        cost: in passes of full length: a pass with half the tokens counts half (attention, which then costs a
            quarter, makes that an upper bound).

    Example:
        scorer = token_scorer(module, x, score)
        if scorer is not None:
            with scorer:
                values = scorer(torch.rand(100, math.prod(scorer.grid)) < 0.5)  # (N, 100, 1)
    """

    soft = False
    in_order = False  # sets of one size after the other

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        entry: Entry,
        score: Scores,
        *,
        targets: int = 1,
        watch: Sequence[str] = (),
        batch: int | None = None,
    ) -> None:
        self.module, self.inputs, self.entry, self.layout = unwrap(module), inputs.detach(), entry, entry.layout
        self.space, self.unit = entry.layout.grid, entry.patch
        self.score, self.targets, self.watch = score, targets, tuple(watch)
        self.batch = batch or default_batch(inputs.device)
        self.cost = Cost()
        self._full_passes = 0.0
        self._select: tuple[Tensor, Tensor] | None = None
        self._runs = 0

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along each space axis."""
        return self.layout.grid

    def __enter__(self) -> Self:
        self._capture, self._hooks = Capture(self.module, watch=self.watch, edited=True), Hooks()
        return super().__enter__()

    def attach(self) -> None:
        """Listen to the first block."""
        self._hooks.before(find_layer(self.module, self.entry.block), self._hook)

    def detach(self) -> None:
        """No tokens are left out any more."""
        self._select = None

    def __call__(self, masks: Masks | Sequence[Masks] | Tensor, label: str = "dropped tokens") -> Tensor:
        """Scores `(N, M, targets)`, double precision; each different set of tokens is scored once.

        Args:
            masks: the same for all inputs, or one `Masks` for each; or which patches are shown, true or false, `(M,
                cells)` for all inputs or `(N, M, cells)`.
            label: of the progress bar.
        """
        return super().__call__(self._as_masks(masks) if isinstance(masks, Tensor) else masks, label)

    def _as_masks(self, kept: Tensor) -> list[Masks]:
        count, cells = len(self.inputs), self.layout.cells
        fits = kept.shape[-1:] == (cells,) and (kept.ndim == 2 or (kept.ndim == 3 and len(kept) == count))
        if kept.dtype != torch.bool or not fits:
            raise MethodError(
                f"Kept cells are true or false, (M, {cells}) or one such for each of {count} "
                f"inputs; got {kept.dtype} {tuple(kept.shape)}."
            )
        rows = kept.float().to(self.inputs.device).expand(count, *kept.shape[-2:])
        return [SegmentMasks(shown, self._numbers()) for shown in rows]

    def _numbers(self) -> Tensor:
        return torch.arange(self.layout.cells, device=self.inputs.device).reshape(self.grid)

    def score_masks(self, masks: Sequence[Masks], out: Sequence[Tensor], label: str) -> None:
        """Sets of tokens of one size make a batch, across inputs."""
        kept = [self._shown(m) for m in masks]
        rows = torch.cat(kept)
        owners = torch.arange(len(kept)).repeat_interleave(torch.tensor([len(k) for k in kept]))
        which = torch.cat([torch.arange(len(k)) for k in kept])
        if not self.layout.prefix and not bool(rows.any(1).all()):
            raise MethodError(
                "This transformer has no class token: keep at least one patch, or nothing is left; or choose another "
                "baseline than dropped."
            )
        counts = rows.sum(1).cpu()
        with task(label, len(rows)) as advance:
            for count in sorted(set(counts.tolist())):
                at = (counts == count).nonzero()[:, 0]
                orders = rows[at.to(rows.device)].nonzero()[:, 1].reshape(len(at), count)
                scores = self._ordered(orders, owners[at], advance)
                for n in set(owners[at].tolist()):
                    mine = owners[at] == n
                    out[n][which[at][mine].to(out[n].device)] = scores[mine.to(scores.device)]

    def _shown(self, masks: Masks) -> Tensor:
        """Which patches masks show, `(M, cells)`, true or false."""
        found = []
        for start in range(0, len(masks), _DRAWN):
            drawn = masks.render(slice(start, start + _DRAWN))[:, 0].to(self.inputs.device)
            low, high = (drawn, drawn) if masks.space == self.grid else self._extremes(drawn)
            if not torch.equal(low, high) or not bool(((low == 0) | (low == 1)).all()):
                raise MethodError(
                    f"The baseline 'dropped' takes whole patches away, and these masks cut or fade some of the "
                    f"{' x '.join(map(str, self.grid))}: choose segments that hold whole patches, or a baseline that "
                    "shows something, such as zero or blur."
                )
            found.append(low.flatten(1) == 1)
        return torch.cat(found) if found else torch.zeros(0, self.layout.cells, dtype=torch.bool).to(self.inputs.device)

    def _extremes(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        if drawn.shape[1:] != self.inputs.shape[2:]:
            raise MethodError(f"Masks over {tuple(drawn.shape[1:])} fit neither the input nor its patches {self.grid}.")
        low, high = self.entry.blocks(drawn).aminmax(dim=2)
        return low, high

    def fit_segments(self, labels: Tensor) -> Tensor:
        """Each patch goes to the segment that holds most of it; segments without a patch are gone."""
        most = self.entry.blocks(labels[None])[0].mode(1).values
        numbers: Tensor = torch.unique(most, return_inverse=True)[1]
        return numbers[self.entry.labels(tuple(labels.shape)).to(numbers.device)]

    def plain(self) -> Tensor:
        """Scores `(N, targets)` of the inputs as they are."""
        return self(torch.ones(1, self.layout.cells, dtype=torch.bool), label="inputs")[:, 0]

    def blank(self) -> Tensor:
        """Scores `(N, targets)` without any patch."""
        return self(torch.zeros(1, self.layout.cells, dtype=torch.bool), label="inputs")[:, 0]

    def _ordered(self, cells: Tensor, owners: Tensor, advance: Callable[[int], None]) -> Tensor:
        """Scores `(R, targets)` of the cells `(R, k)`, in that order, of the inputs `owners` `(R,)`, ascending."""
        full, length = self.layout.prefix + self.layout.cells, self.layout.prefix + cells.shape[1]
        out = torch.empty(len(cells), self.targets, dtype=torch.float64, device=self.inputs.device)

        def run(start: int, stop: int) -> None:
            out[start:stop] = self._run(cells[start:stop], owners[start:stop])
            self._spend((stop - start) * length / full)
            advance(stop - start)

        rows = max(1, self.batch * full // length)
        fitted = adaptive_batches(run, len(cells), rows)
        if fitted < rows:
            self.batch = max(1, fitted * length // full)
        return out

    def _spend(self, passes: float) -> None:
        """Count passes of full length; parts of one are rounded up together."""
        before, self._full_passes = self._full_passes, self._full_passes + passes
        self.cost.forwards += math.ceil(self._full_passes) - math.ceil(before)

    def _run(self, cells: Tensor, owners: Tensor) -> Tensor:
        mine, local = torch.unique(owners, return_inverse=True)
        prefix = torch.arange(self.layout.prefix, device=cells.device).expand(len(cells), -1)
        self._select = local.to(cells.device), torch.cat([prefix, cells + self.layout.prefix], 1)
        self._runs = 0
        try:
            with torch.no_grad():
                output = self._capture.forward(self.inputs[mine.to(self.inputs.device)])
                scores = torch.stack([s.double() for s in self.score(output, self._capture.watched, owners)], dim=1)
        finally:
            self._select = None
        if self._runs != 1 or scores.shape != (len(cells), self.targets):
            raise ModelError(f"The model answered scores of shape {tuple(scores.shape)} for {len(cells)} token sets.")
        if not torch.isfinite(scores).all():
            raise ModelError(
                "The model answered NaN or infinity to a part of the tokens: check its weights and preprocessing."
            )
        return scores

    def _hook(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._select is None:
            return None
        tokens = first_tensor((args, kwargs))
        if tokens is None or not self.layout.fits(tuple(tokens.shape)):
            raise ModelError(f"Block {self.entry.block!r} is no longer given tokens as when it was probed.")
        self._runs += 1
        owner, index = self._select
        return replace_first_tensor((args, kwargs), tokens[owner[:, None], index])

    def prove(self) -> bool:
        """Whether dropping tokens is sound here: the score depends on the set of tokens, in whatever order.

        Costs five passes of the first input: one plain, three of all its tokens in some order, two of half of them.
        """
        one = torch.zeros(1, dtype=torch.long)
        cells, generator = self.layout.cells, torch.Generator().manual_seed(0)
        orders = torch.stack([torch.arange(cells), *(torch.randperm(cells, generator=generator) for _ in range(2))])
        halves = torch.stack([torch.randperm(cells, generator=generator)[: (cells + 1) // 2] for _ in range(2)])
        device = self.inputs.device
        with self:
            with torch.no_grad():
                output = self._capture.forward(self.inputs[:1])
                plain = torch.stack([s.double() for s in self.score(output, self._capture.watched, one)], dim=1)
            self._spend(1)
            try:
                shuffled = self._ordered(orders.to(device), one.expand(3), _nobody)
                part = self._ordered(halves.to(device), one.expand(2), _nobody)
            except UNSOUND as error:
                if is_out_of_memory(error):
                    raise
                return False
        moved = (part - plain).abs().amax(0)
        noise = 64 * torch.finfo(self.inputs.dtype).eps * plain.abs().amax(0).clamp(min=1e-12)
        drift = (shuffled - plain).abs().amax(0)
        return bool(((moved > 4 * noise) & (drift <= noise + 1e-3 * moved)).all())


def token_scorer(
    module: nn.Module,
    inputs: Tensor,
    score: Scores,
    *,
    targets: int = 1,
    watch: Sequence[str] = (),
    batch: int | None = None,
) -> TokenScorer | None:
    """The scorer that drops tokens, or None where that is not proven sound: then mask pixels instead.

    None for convolutional networks, windows, token mixers, pyramids, relative and rotary positions, for scores that
    read a place of the token row, and for scores that do not move when half the tokens go.

    Args:
        module: the model.
        inputs: `(N, C, *space)`.
        score: see `Scores`.
        targets: how many targets `score` yields.
        watch: layers that `score` reads.
        batch: inputs of full length at a time.
    """
    module = unwrap(module)
    for entry in entries(module, inputs):
        scorer = TokenScorer(module, inputs, entry, score, targets=targets, watch=watch, batch=batch)
        if scorer.prove():
            return scorer
    return None


def entries(module: nn.Module, inputs: Tensor) -> tuple[Entry, ...]:
    """First blocks whose input holds one token for each patch of the picture, row by row; outermost first.

    Args:
        module: the model.
        inputs: `(N, C, *space)`; only the shape of one sample, the dtype and the device are used.
    """
    sample = _noise_like(inputs)

    def search() -> tuple[Entry, ...]:
        with leave_no_trace(module), torch.no_grad():
            found = (_coded(module, sample, name) for name in _first_blocks(module))
            return tuple(entry for entry in found if entry is not None)

    return _cached(module, ("entries", tuple(sample.shape[1:]), sample.dtype), search)  # type: ignore[no-any-return]


def _first_blocks(module: nn.Module) -> list[str]:
    """Paths of the first children of lists of two or more modules of one class, not a basic layer of torch."""
    found = []
    for path, m in module.named_modules():
        children = list(m.named_children()) if isinstance(m, nn.ModuleList | nn.Sequential) else []
        kinds = {type(child) for _, child in children}
        if len(children) > 1 and len(kinds) == 1 and next(children[0][1].children(), None) is not None:
            found.append(f"{path}.{children[0][0]}" if path else children[0][0])
    return found


def _coded(module: nn.Module, sample: Tensor, block: str) -> Entry | None:
    """The layout of the tokens that enter a block, and their patches, proven by a code over the patches."""
    tokens = _entering(module, sample, block)
    if tokens is None or tokens.ndim != 3:
        return None
    space = tuple(sample.shape[2:])
    if _spreads(module, sample, block):
        return None
    guesses = (r for r in readings(tuple(tokens.shape), space) if r.kind == "tokens")
    tried = (Entry(block, r, patch) for r in guesses for patch in itertools.product(*map(_sides, space, r.grid)))
    return next((entry for entry in tried if _code_agrees(module, sample, entry)), None)


def _spreads(module: nn.Module, sample: Tensor, block: str) -> bool:
    """Whether the first place moves several tokens, which rules every reading out, for one pass in place of many."""
    corner = torch.zeros(sample.shape[2:], dtype=torch.bool, device=sample.device)
    corner[(0,) * corner.ndim] = True
    tokens = _entering(module, torch.cat([sample, torch.where(corner, -sample, sample)]), block)
    if tokens is None or len(tokens) != 2:
        return True
    moves = (tokens[1] - tokens[0]).float().abs().amax(-1)
    return int((moves > 100 * _LEAK * moves.max()).sum()) > 1


def _sides(size: int, cells: int) -> list[int]:
    """How long a patch may be of which so many fit into an axis, the longest first: it leaves the shortest strip."""
    return list(range(size // cells, size // (cells + 1), -1))


def _code_agrees(module: nn.Module, sample: Tensor, entry: Entry) -> bool:
    """Whether each patch moves its own token, and no other: one picture for each bit of the patches' numbers.

    And one for each bit's opposite: a token that follows a second patch moves in a picture where its own patch rests.
    What lies beyond the patches is changed in every picture, and must move nothing.
    """
    cells, space = entry.layout.cells, tuple(sample.shape[2:])
    numbers = torch.arange(cells, device=sample.device)
    bits = torch.stack([numbers >> b & 1 for b in range(max(1, (cells - 1).bit_length()))]).bool()
    labels = entry.labels(space).to(sample.device)
    beyond = torch.ones(space, dtype=torch.bool, device=sample.device)
    beyond[tuple(slice(end) for end in entry.covered)] = False
    return all(_moves_alone(module, sample, entry, flags, flags[labels] | beyond) for flags in torch.cat([bits, ~bits]))


def _moves_alone(module: nn.Module, sample: Tensor, entry: Entry, patches: Tensor, changed: Tensor) -> bool:
    """Whether changing some places `(*space)` moves the tokens of some patches `(cells,)` and nothing else."""
    tokens = _entering(module, torch.cat([sample, torch.where(changed, -sample, sample)]), entry.block)
    if tokens is None or len(tokens) != 2:
        return False
    moves = (tokens[1] - tokens[0]).float().abs().amax(-1)
    moved = moves > _LEAK * moves.max()
    prefix = entry.layout.prefix
    return not bool(moved[:prefix].any()) and torch.equal(moved[prefix:], patches)


def _entering(module: nn.Module, inputs: Tensor, block: str) -> Tensor | None:
    """The tensor that enters the block; what lies behind it is not run."""
    seen: list[Tensor | None] = []

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = first_tensor((args, kwargs))
        seen.append(None if tokens is None else tokens.clone())
        raise End

    with Hooks() as hooks, suppress(End):
        hooks.before(find_layer(module, block), note)
        run_model(module, inputs.clone(), whole=True)
    return seen[0] if seen else None


def _nobody(_steps: int) -> None:
    """Hears no progress."""
