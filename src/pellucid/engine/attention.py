"""Attention read at the level of functions: whoever calls softmax or scaled dot-product attention; no module changes.

Inside `reading_attention`, every attention of the thread is computed by the same formulas as before, but with its
weights written out, so that they can be kept, and have gradients. Each answer is compared with torch's own, so what is
read is what the model computes.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.functions import Function, Functions, Replacement
from pellucid.errors import MethodError

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_SOFTMAX = (torch.softmax, nn.functional.softmax, Tensor.softmax, torch.special.softmax)


@dataclass
class Attentions:
    """What was read, in the order of execution.

    Attributes:
        weights: `(N, heads, queries, keys)` each, rows summing to 1, or to 0 where all keys are masked.
    """

    weights: list[Tensor] = field(default_factory=list)


class AttentionReader(ABC):
    """Base: what answers in the place of attention, and learns of its weights."""

    @property
    def table(self) -> dict[Function, Replacement]:
        """What answers in the place of attention and softmax."""
        return {
            nn.functional.scaled_dot_product_attention: lambda _f, args, kw: self._scaled_dot_product(*args, **kw),
            nn.functional.multi_head_attention_forward: lambda _f, args, kw: self._multi_head(*args, **kw),
        } | dict.fromkeys(_SOFTMAX, self._softmax)

    def _softmax(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        out: Tensor = function(*args, **kwargs)
        # Attention is a softmax over keys of a (heads, queries, keys) array; class probabilities have fewer axes.
        if out.ndim == 4 and _axis(args, kwargs) in (-1, 3):
            self.keep(out)
        return out

    def _scaled_dot_product(self, *args: Any, **kwargs: Any) -> Tensor:
        given = _SCALED.bind(*args, **kwargs)
        given.apply_defaults()
        query, key, value, mask, *_ = given.arguments.values()
        options = dict(list(given.arguments.items())[4:])
        return self.attend(query, key, value, mask, **options)

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
        """Scaled dot-product attention, over any number of axes."""

    @abstractmethod
    def keep(self, weights: Tensor) -> None:
        """Weights that are written out, over any number of axes, are what the network computes with."""

    def _multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Torch's own function, but what it says of its weights is what its answer is computed from."""
        with torch.no_grad():
            fused, _ = nn.functional.multi_head_attention_forward(*args, **kwargs)
        given = _MULTI_HEAD.bind(*args, **kwargs)
        given.apply_defaults()
        a = SimpleNamespace(**given.arguments)
        batched = a.query.ndim == 3
        q, k, v = _projected(a, batched)
        if a.need_weights:
            out, weights = attended(q, k, v, _mask(a, q, k))
            self.keep(weights)
        else:
            out = self.attend(q, k, v, _mask(a, q, k))
        out = nn.functional.linear(out.permute(2, 0, 1, 3).flatten(2), a.out_proj_weight, a.out_proj_bias)
        out = proven(out if batched else out.squeeze(1), fused)
        if not a.need_weights:
            return out, None
        shown = weights.mean(1) if a.average_attn_weights else weights
        return out, shown if batched else shown.squeeze(0)


class _Reader(AttentionReader):
    """Computes attentions with their weights written out, and keeps these."""

    def __init__(self, found: Attentions) -> None:
        self._found = found

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
        """Written out, and compared with torch's own."""
        with torch.no_grad():
            fused = nn.functional.scaled_dot_product_attention(query, key, value, mask, **options)
        out, weights = attended(query, key, value, mask, **options)
        self.keep(weights)
        return proven(out, fused)

    def keep(self, weights: Tensor) -> None:
        """In the order of execution."""
        if weights.ndim == 4:
            self._found.weights.append(weights)


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """`softmax(q k' scale + mask) v` over `(..., L, D)`, as torch's function of these arguments, and its weights.

    0 for a query whose keys are all masked, as in torch.
    """
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = query.new_zeros(attn_mask.shape).masked_fill(~attn_mask, -math.inf)
    logits = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if attn_mask is None:
        weights = logits.softmax(-1)
    else:
        logits = logits + attn_mask
        nowhere = (logits == -math.inf).all(-1, keepdim=True)
        weights = logits.masked_fill(nowhere, 0.0).softmax(-1).masked_fill(nowhere, 0.0)
    return weights @ value, weights


_SCALED = inspect.signature(attended)
_MULTI_HEAD = inspect.signature(nn.functional.multi_head_attention_forward)


def _projected(a: Any, batched: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `(N, heads, L, D)` of torch's multi-head attention, as its arguments ask for."""
    if a.static_k is not None or a.static_v is not None:
        raise MethodError("Multi-head attention over static keys is not read: use grad-cam or occlusion.")
    one = (a.q_proj_weight, a.k_proj_weight, a.v_proj_weight)
    weights = one if a.use_separate_proj_weight else a.in_proj_weight.chunk(3)
    biases = (None,) * 3 if a.in_proj_bias is None else a.in_proj_bias.chunk(3)
    q, k, v = (
        nn.functional.linear(x if batched else x[:, None], w, b)
        for x, w, b in zip((a.query, a.key, a.value), weights, biases, strict=True)
    )
    if a.bias_k is not None:
        k, v = (torch.cat([x, b.expand(1, x.shape[1], -1)]) for x, b in ((k, a.bias_k), (v, a.bias_v)))
    if a.add_zero_attn:
        k, v = (torch.cat([x, torch.zeros_like(x[:1])]) for x in (k, v))
    q, k, v = (x.reshape(*x.shape[:2], a.num_heads, -1).permute(1, 2, 0, 3) for x in (q, k, v))
    return q, k, v


def _mask(a: Any, q: Tensor, k: Tensor) -> Tensor | None:
    """What is added to the logits `(N, heads, queries, keys)`; bool masks of this function mark what is left out."""
    total: Tensor | None = None
    for mask in (a.attn_mask, a.key_padding_mask):
        if mask is None:
            continue
        added = q.new_zeros(mask.shape).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask
        if mask is a.key_padding_mask:
            added = added.reshape(-1, 1, 1, mask.shape[-1])
        elif mask.ndim == 3:
            added = added.reshape(-1, a.num_heads, *mask.shape[1:])
        added = nn.functional.pad(added, (0, k.shape[-2] - mask.shape[-1]))  # keys that the layer itself appends
        total = added if total is None else total + added
    return total


def proven(out: Tensor, fused: Tensor) -> Tensor:
    """`out`, if it is what torch itself answers.

    Raises:
        MethodError: it is not.
    """
    off = (out.detach() - fused).abs().max() if fused.numel() else 0.0
    if not off <= _ROUNDING.get(fused.dtype, 1e-3) * max(1.0, float(fused.abs().max())):
        raise MethodError(
            "An attention of this network answers otherwise when its weights are written out (dropout in evaluation "
            "mode, NaN, or another formula), so they cannot be read: use grad-cam or occlusion."
        )
    return out


def _axis(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)


@contextmanager
def reading_attention() -> Iterator[Attentions]:
    """Keep the weights of every attention that runs inside, in this thread."""
    found = Attentions()
    with Functions(_Reader(found).table):
        yield found
