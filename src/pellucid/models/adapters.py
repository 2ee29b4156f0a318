"""Models of other habits made to take clips `(N, C, T, H, W)`, and to answer one row of scores for each.

An adapter is transparent: the layers inside keep the names they have there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.errors import ModelError
from pellucid.models.opens import Need, opens
from pellucid.models.reading import Reading

Pool = Literal["mean", "max", "none"]

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda scores: scores.mean(1),
    "max": lambda scores: scores.amax(1),
    "none": lambda scores: scores,
}
"""How the scores of frames `(N, T, classes)` become those of the clip; `none` keeps the sequence (target `step:T`)."""


class Adapter(nn.Module):
    """Changes what goes into `module` or comes out of it; its layers' names are those inside `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.train(module.training)

    @property
    def opens(self) -> frozenset[Need]:
        """What the module inside opens."""
        return opens(self.module)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As if `module` were this one; `module` itself comes under its own name."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name, m in self.module.named_modules(memo, prefix, remove_duplicate):
            yield (name if m is not self.module else f"{prefix}.module".removeprefix(".")), m

    def get_submodule(self, target: str) -> nn.Module:
        """By the names that `named_modules` gives."""
        found = dict(self.named_modules()).get(target)
        return super().get_submodule(target) if found is None else found


class ClipInput(Adapter):
    """A model that takes clips in another layout, or as a list of pathways.

    Args:
        module: the model.
        layout: `BCTHW`, or `BTCHW` for `(N, T, C, H, W)`.
        pathways: for models that take a list of clips, slowest first, such as SlowFast: by how much each has fewer
            frames than the input, such as (4, 1). A pathway takes frames evenly from the first to the last.
    """

    def __init__(self, module: nn.Module, layout: str = "BCTHW", pathways: Sequence[int] = ()) -> None:
        super().__init__(module)
        if layout not in ("BCTHW", "BTCHW"):
            raise ModelError(f"A clip's layout is BCTHW or BTCHW, not {layout!r}.")
        if any(not isinstance(p, int) or p < 1 for p in pathways):
            raise ModelError(
                f"Pathways are whole numbers by which the frames are fewer, such as (4, 1); got {pathways}."
            )
        self.layout, self.pathways = layout, tuple(pathways)

    def forward(self, clips: Tensor) -> Any:
        """Clips `(N, C, T, H, W)` as the model takes them."""
        if not self.pathways:
            return self.module(self._laid(clips))
        count = clips.shape[2]
        chosen = (torch.linspace(0, count - 1, n).long() for n in self.counts(count))
        return self.module([self._laid(clips[:, :, at.to(clips.device)]) for at in chosen])

    def counts(self, frames: int) -> tuple[int, ...]:
        """How many of so many frames each pathway takes."""
        return tuple(max(1, frames // p) for p in self.pathways)

    def _laid(self, clips: Tensor) -> Tensor:
        return clips.movedim(2, 1) if self.layout == "BTCHW" else clips


class PerFrame(Adapter):
    """An image model on every frame of a clip, and its scores pooled.

    Args:
        module: takes pictures `(N, C, H, W)`, returns scores `(N, classes)`.
        pool: `mean` or `max` over the frames, `none` for a sequence `(N, T, classes)`, or a function
            `(N, T, classes) -> (N, classes)`.
        reading: which part of the module's output holds the scores.
    """

    def __init__(
        self, module: nn.Module, pool: str | Callable[[Tensor], Tensor] = "mean", reading: Reading | None = None
    ) -> None:
        super().__init__(module)
        if not callable(pool) and pool not in POOLS:
            raise ModelError(f"Frames are pooled by {', '.join(POOLS)} or a function of yours, not {pool!r}.")
        self.pool = pool if callable(pool) else POOLS[pool]
        self.reading = reading or Reading()

    def forward(self, clips: Tensor) -> Tensor:
        """Scores of clips `(N, C, T, H, W)`."""
        scores = self.reading.tensor(self.module(clips.movedim(2, 1).flatten(0, 1)))
        return self.pool(scores.reshape(len(clips), clips.shape[2], *scores.shape[1:]))
