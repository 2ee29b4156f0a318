"""Attention that runs as torch runs it, and is written out on the way back only: one at a time, none is kept.

A pass in which every attention is written out keeps `(heads, queries, keys)` numbers of each, several times over, until
its backward pass has come by. Here the forward pass keeps queries, keys and values, as torch's own does. The backward
pass writes one attention out, hands it on with its gradient, and lets both go (Rabe & Staats 2021, arXiv:2112.05682,
sec. 4). Attention that a network writes out by itself is in the network's own graph, but its gradient is let go too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.attention import AttentionReader, attended, proven
from pellucid.engine.functions import Functions

Met = Callable[[int, Tensor, Tensor], None]
"""(number of the attention in the order of execution, its weights, the score's gradient to them)."""


@dataclass
class AttentionsBack:
    """What is known of the attentions of a pass.

    Attributes:
        sizes: `(N, heads, queries, keys)` of each, in the order of execution.
        met: what is told of each on the way back, the last of them first; a backward pass without it tells nothing.
    """

    sizes: list[torch.Size] = field(default_factory=list)
    met: Met | None = None

    def tell(self, place: int, weights: Tensor, gradient: Tensor) -> None:
        """One attention has come by."""
        if self.met is not None:
            self.met(place, weights.detach(), gradient)


class _WrittenOutLater(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: AttentionsBack, place: int, options: dict[str, Any], *given: Tensor | None) -> Tensor:
        query, key, value, mask = given
        out: Tensor = nn.functional.scaled_dot_product_attention(query, key, value, mask, **options)  # type: ignore[arg-type]
        ctx.found, ctx.place, ctx.options = found, place, options
        ctx.save_for_backward(*given, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        *given, out = ctx.saved_tensors
        with torch.enable_grad():
            leaves: list[Any] = [None if t is None else t.detach().requires_grad_(t.is_floating_point()) for t in given]
            query, key, value, mask = leaves
            again, weights = attended(query, key, value, mask, **ctx.options)
        proven(again, out)
        asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        slope, *sent = torch.autograd.grad(again, [weights, *asked], grads[0])
        ctx.found.tell(ctx.place, weights, slope)
        back = iter(sent)
        return (None, None, None, *(next(back) if t is not None and t.requires_grad else None for t in leaves))


class _ReaderBack(AttentionReader):
    """Notes the size of each attention, and what tells of it on the way back."""

    def __init__(self, found: AttentionsBack) -> None:
        super().__init__()
        self._found = found

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
        """Attention whose weights nobody but us asks for."""
        size = torch.Size((*query.shape[:-1], key.shape[-2]))
        if len(size) != 4:
            return nn.functional.scaled_dot_product_attention(query, key, value, mask, **options)
        self._found.sizes.append(size)
        place = len(self._found.sizes) - 1
        answer: Tensor = _WrittenOutLater.apply(self._found, place, options, query, key, value, mask)
        return answer

    def keep(self, weights: Tensor) -> None:
        """Attention that is written out in the network's graph."""
        if weights.ndim != 4:
            return
        self._found.sizes.append(weights.shape)
        place, found = len(self._found.sizes) - 1, self._found
        if weights.requires_grad:
            held = weights.detach()
            weights.register_hook(lambda g: found.tell(place, held, g))  # type: ignore[no-untyped-call]


@contextmanager
def attention_back() -> Iterator[AttentionsBack]:
    """Of every attention that runs inside, in this thread, tell on the way back, which is to come outside."""
    found = AttentionsBack()
    with Functions(_ReaderBack(found).table):
        yield found
