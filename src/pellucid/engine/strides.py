"""Gradients in plain strides, in front of normalisations that read them wrongly otherwise.

On the CPU torch (up to 2.14 at least) gives a wrong gradient of a batch or instance normalisation, without a word,
where three things meet: one sample, an input in the usual order, and a gradient whose channels run fastest, as it comes
from tokens (`flatten(2).transpose(1, 2)`). The first stride of such a gradient says nothing about its order. A copy in
plain order is read rightly, whatever the input's. They are found in the graph of a pass, so functions count as layers
do.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import tree_leaves


def straighten_gradients(*answers: Any) -> None:
    """Hand plain gradients to all normalisations in the graph that answers come from, as long as that graph lives.

    Args:
        answers: tensors, or what holds some.
    """
    held = [vars(a) if hasattr(a, "__dict__") and not isinstance(a, Tensor) else a for a in answers]
    waiting = [get_gradient_edge(t).node for t in tree_leaves(held) if isinstance(t, Tensor) and t.requires_grad]
    done: set[Node] = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().startswith("NativeBatchNormBackward"):  # instance normalisations are made of it
            node.register_prehook(_straightened)
        following = [n for n, _ in node.next_functions if n is not None and n not in done]
        done.update(following)
        waiting += following


def _straightened(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(g if g is None else plain(g) for g in gradients)


def plain(g: Tensor) -> Tensor:
    """A gradient of one sample, copied where its strides leave its order open."""
    if g.ndim < 4 or len(g) != 1:
        return g
    return g if g.stride(0) == g.numel() or g.is_contiguous() else g.contiguous()
