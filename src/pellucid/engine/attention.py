"""Attention read at the level of functions: whoever calls softmax or scaled dot-product attention; no module changes.

`reading_attention` is a mode of torch. Inside it, every attention of the thread is computed by the same formulas as
before, but with its weights written out, so that they can be kept, and have gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SOFTMAX = (torch.softmax, nn.functional.softmax, Tensor.softmax, torch.special.softmax)


@dataclass
class Attentions:
    """What was read, in the order of execution.

    Attributes:
        weights: `(N, heads, queries, keys)` each, rows summing to 1.
    """

    weights: list[Tensor] = field(default_factory=list)


class _Mode(TorchFunctionMode):
    def __init__(self, found: Attentions) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **kwargs)
        if func is nn.functional.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        out = func(*args, **kwargs)
        # Attention is a softmax over keys of a (heads, queries, keys) array; class probabilities have fewer axes.
        if func in _SOFTMAX and out.ndim == 4 and _axis(args, kwargs) in (-1, 3):
            self._found.weights.append(out)
        return out

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        logits = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
            logits = logits.masked_fill(~seen, -math.inf)
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, -math.inf) if masked else logits + attn_mask
        weights = logits.softmax(-1)
        if weights.ndim == 4:
            self._found.weights.append(weights)
        return weights @ value

    def _multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        wanted, averaged = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        kwargs |= {"need_weights": True, "average_attn_weights": False}
        out, weights = nn.functional.multi_head_attention_forward(*args, **kwargs)
        assert weights is not None
        self._found.weights.append(weights)
        return out, (weights.mean(-3) if averaged else weights) if wanted else None


def _axis(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)


@contextmanager
def reading_attention() -> Iterator[Attentions]:
    """Keep the weights of every attention that runs inside, in this thread."""
    found = Attentions()
    with _Mode(found):
        yield found
