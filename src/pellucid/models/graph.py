"""Walks through autograd's graph: what a node depends on, and which steps only hand values on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch.autograd.graph import Node

# Steps of the graph that hand each channel's values on, to other places or from 0 to 1, and compute nothing else.
# fmt: off
_RESAMPLING = {
    "Alias", "AsStrided", "Clone", "ConstantPadNd", "Expand", "GridSampler2D", "LogSoftmax", "Permute", "ReshapeAlias",
    "Select", "Sigmoid", "Slice", "Softmax", "Squeeze", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View",
}
# fmt: on
SQUASHING = {"LogSoftmax", "Sigmoid", "Softmax"}
_BY_PLACE = {"LeakyRelu", "NativeBatchNorm", "Relu"}  # piecewise linear, each place by itself


def ends(nodes: Sequence[Node | None]) -> list[int]:
    """Of several runs, those that no later run depends on: the runs that stand side by side."""
    found, open_ = [], set(range(len(nodes)))
    places = {node: k for k, node in enumerate(nodes) if node is not None}
    while open_:
        last = max(open_)
        found.append(last)
        open_.discard(last)
        node = nodes[last]
        if node is None or not open_:
            continue
        for other in upstream(node):
            if other in places:
                open_.discard(places[other])
                if not open_:
                    break
    return sorted(found)


def upstream(node: Node, through: Callable[[Node], bool] = lambda _: True) -> Iterator[Node]:
    """A node of the graph and all that it depends on, nearest first; no further than `through` allows."""
    done, waiting = {node}, [node]
    while waiting:
        following = []
        for one in waiting:
            yield one
            if not through(one):
                continue
            for other, _ in one.next_functions:
                if other is not None and other not in done:
                    done.add(other)
                    following.append(other)
        waiting = following


def name_of(node: Node) -> str:
    """Of a step, such as `Relu`."""
    return node.name().rstrip("0123456789").removesuffix("Backward")


def only_resamples(node: Node) -> bool:
    """Whether a step hands each channel's values on, and computes nothing else."""
    return name_of(node) in _RESAMPLING or name_of(node).startswith("Upsample")


def by_place(node: Node) -> bool:
    """Whether a step computes each place from that place alone, by piecewise linear means, or resamples."""
    weight = getattr(node, "_saved_weight", None) if name_of(node) == "Convolution" else None
    pointwise = weight is not None and all(side == 1 for side in weight.shape[2:])
    return pointwise or name_of(node) in _BY_PLACE or only_resamples(node)
