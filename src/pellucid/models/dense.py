"""The dense scores in an output, `(N, C, *grid)` of pictures and volumes, and masks of places that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import TargetError
from pellucid.models.parts import described, taken

_NAMED = ("out", "logits")  # torchvision, transformers
_AXES = (4, 5)  # of scores of places: of a picture, of a volume


@dataclass(frozen=True)
class Mask:
    """Places of a grid `(h, w)` or `(a, b, c)`; two masks of the same places are equal."""

    size: tuple[int, ...]
    bits: bytes

    @classmethod
    def of(cls, places: Tensor) -> Mask:
        """From bool `(*grid)`."""
        return cls(tuple(places.shape), np.packbits(places.detach().cpu().numpy()).tobytes())

    def places(self) -> Tensor:
        """Bool `(*grid)`."""
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=prod(self.size))
        return torch.from_numpy(bits.astype(bool)).reshape(self.size)


def dense_scores(output: Any, part: str | None = None) -> Tensor:
    """The scores of classes at places, `(N, C, h, w)` or `(N, C, a, b, c)`.

    Args:
        output: a tensor, or what holds one by the name `part`, `out` or `logits`.

    Raises:
        TargetError: there is none.
    """
    found = find_dense(output, part)
    if found is None:
        raise TargetError(
            f"The model answers {described(output)}, and no scores of classes at places, (N, C, h, w): name the part "
            "that holds them, pl.wrap(module, task='regions', output=...)."
        )
    return found


def find_dense(output: Any, part: str | None = None) -> Tensor | None:
    """As `dense_scores`; None where there is none."""
    if isinstance(output, Tensor):
        return output if output.ndim in _AXES else None
    for name in (part,) if part is not None else _NAMED:
        tensor = taken(output, name)
        if tensor is not None and tensor.ndim in _AXES:
            return tensor
    return None


def names_dense(output: Any) -> bool:
    """Whether an output holds scores of places under a name that libraries use for them alone."""
    by_name = isinstance(output, Mapping) and ("out" in output or hasattr(output, "to_tuple"))
    return by_name and find_dense(output) is not None


def winners(scores: Tensor) -> Tensor:
    """The class of each place, `(N, *grid)`; of one column, 1 where its logit is positive."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).long()
    return scores.max(1).indices  # the first of equals, as argmax says, in an eighth of its time over few classes


def pieces(places: Tensor) -> list[Tensor]:
    """The connected pieces of bool `(*grid)`, the largest first."""
    from scipy.ndimage import label

    found, _ = label(places.cpu().numpy(), structure=np.ones((3,) * places.ndim))
    numbers = torch.from_numpy(np.asarray(found).astype(np.int64))
    counts = torch.bincount(numbers.flatten())[1:]
    order = counts.argsort(descending=True, stable=True)
    return [numbers == int(k) + 1 for k in order]
