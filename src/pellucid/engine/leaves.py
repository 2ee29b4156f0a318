"""What a layer returns: an activation, alone or inside a structure."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


def _is_activation(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2


def first_tensor(output: Any) -> Tensor | None:
    """The activation in a layer's output: the first floating tensor of a tensor, tuple, list or dict."""
    return next((leaf for leaf in tree_flatten(output)[0] if _is_activation(leaf)), None)


def replace_first_tensor(output: Any, value: Tensor) -> Any:
    """`output` with its activation (see `first_tensor`) replaced, in the same structure."""
    leaves, structure = tree_flatten(output)
    leaves[next(i for i, leaf in enumerate(leaves) if _is_activation(leaf))] = value
    return tree_unflatten(leaves, structure)
