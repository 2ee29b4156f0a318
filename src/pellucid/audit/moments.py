"""Parts of clips: those of pictures, frame by frame; one frame; and the order of the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pellucid.audit.evidence import PicturePart

_SHORT = 16  # a moment is this part of a clip, and a frame at the least

BACKWARDS = PicturePart("order", "the order of the frames", lambda a, _b: a.flip(2), given=False)
"""Clips played backwards."""


def of_clips(part: PicturePart) -> PicturePart:
    """A part of pictures as one of clips `(n, C, T, H, W)`.

    Each frame gets that of the other clip's frame at its time; the background is that of the mean frame, so that what
    changes in time stays.
    """

    def steady(a: Tensor, b: Tensor) -> Tensor:
        mean, other = a.mean(2), b.mean(2)
        return a + (part.exchange(mean, other) - mean)[:, :, None]

    def exchange(a: Tensor, b: Tensor) -> Tensor:
        flat = (v.movedim(2, 1).flatten(0, 1) for v in (a, b))
        frames = part.exchange(*flat)
        return frames.reshape(len(a), a.shape[2], *frames.shape[1:]).movedim(1, 2)

    return replace(part, exchange=steady if part.kind == "background" else exchange)


def moment_part(begin: int, end: int, count: int) -> PicturePart:
    """The frames from `begin` to before `end`, of `count`."""

    def exchange(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a[:, :, :begin], b[:, :, begin:end], a[:, :, end:]], 2)

    one = f"frame {begin + 1} of {count}"
    return PicturePart("frame", one if end - begin == 1 else f"frames {begin + 1} to {end} of {count}", exchange)


def telling_moment(fall: Callable[[PicturePart], float], count: int) -> PicturePart:
    """The moment whose exchange lowers the class the most, found by halves.

    Args:
        fall: by how much the class falls where a part is exchanged.
        count: of frames.
    """
    begin, end = 0, count
    while end - begin > max(1, count // _SHORT):
        middle = (begin + end) // 2
        first, second = (fall(moment_part(*half, count)) for half in ((begin, middle), (middle, end)))
        begin, end = (begin, middle) if first >= second else (middle, end)
    return moment_part(begin, end, count)
