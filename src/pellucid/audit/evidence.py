"""Parts of a picture that are no object, exchanged between classes: does the answer follow the part?

A part is tested by exchange, which hides nothing: of two pictures of different classes each gets the other's part.
Where the answer rests on it, it leaves the picture that lost its part, and comes to the one that was given it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

Exchange = Callable[[Tensor, Tensor], Tensor]
"""Pictures `(n, C, H, W)`, and others: the first with the part of the others."""


@dataclass(frozen=True)
class PicturePart:
    """What is exchanged.

    Attributes:
        kind: `mark`, `border`, `background`, `colour` or `texture`; of clips `frame` and `order` too.
        name: as people call it.
        exchange: see `Exchange`.
        region: `(H, W)`, where it lies; None where it has no place.
        given: whether the other pictures give it; else it is changed without them.
        apart: marks `(H, W)` -> the exchange without them, where the part itself must be looked for elsewhere; None
            where it is enough to hold them.
    """

    kind: str
    name: str
    exchange: Exchange
    region: Tensor | None = None
    given: bool = True
    apart: Callable[[Tensor], Exchange] | None = None


def region_part(kind: str, name: str, region: Tensor) -> PicturePart:
    """What lies in a region `(H, W)` of the input, True inside."""
    return PicturePart(kind, name, lambda a, b: torch.where(region.to(a.device), b, a), region)


def beside(part: PicturePart, marks: Tensor) -> PicturePart:
    """A part without the marks `(H, W)` in it: it is taken of the other pictures as if they held each picture's own."""
    if not part.given:
        return part
    name = f"{part.name} beside fixed marks"
    held: Exchange = part.apart(marks) if part.apart else part.exchange
    return replace(part, name=name, exchange=lambda a, b: held(a, torch.where(marks.to(a.device), a, b)))


def common_parts(size: tuple[int, int]) -> list[PicturePart]:
    """The parts that any picture has, of inputs of a size (H, W)."""
    wide = max(1, round(min(size) / 12))
    border = torch.ones(size, dtype=torch.bool)
    border[wide:-wide, wide:-wide] = False
    low = coarse(size)

    def texture_apart(marks: Tensor) -> Exchange:
        corner = _freest(marks)
        return lambda a, b: torch.where(marks.to(a.device), a, _texture(a, b, low, corner))

    return [
        region_part("border", "the border", border),
        PicturePart("background", "the background", lambda a, b: a - surroundings(a) + surroundings(b)),
        PicturePart("colour", "colour", _colour),
        PicturePart("texture", "fine texture", lambda a, b: _texture(a, b, low), apart=texture_apart),
    ]


def coarse(size: tuple[int, int]) -> int:
    """Pixels of a square beyond which something is no texture."""
    return max(3, round(min(size) / 6) | 1)


def surroundings(x: Tensor) -> Tensor:
    """What the rim of pictures `(n, C, H, W)` says of their inside: the surface that meets all four sides (Coons 1967).

    Each side is the mean of the outer eighth, smoothed, so that neither what lies in the middle nor texture has a part
    in it.
    """
    *_, height, width = x.shape
    x = smooth(x, coarse((height, width)))
    rim = max(1, round(min(height, width) / 8))
    top, bottom = x[..., :rim, :].mean(-2, keepdim=True), x[..., -rim:, :].mean(-2, keepdim=True)
    left, right = x[..., :rim].mean(-1, keepdim=True), x[..., -rim:].mean(-1, keepdim=True)
    v = torch.linspace(0, 1, height, device=x.device, dtype=x.dtype)[:, None]
    u = torch.linspace(0, 1, width, device=x.device, dtype=x.dtype)[None]
    ends = {
        (0, 0): (top[..., :1] + left[..., :1, :]) / 2, (0, 1): (top[..., -1:] + right[..., :1, :]) / 2,
        (1, 0): (bottom[..., :1] + left[..., -1:, :]) / 2, (1, 1): (bottom[..., -1:] + right[..., -1:, :]) / 2,
    }  # fmt: skip
    ruled = (1 - v) * top + v * bottom + (1 - u) * left + u * right
    both = (1 - v) * ((1 - u) * ends[0, 0] + u * ends[0, 1]) + v * ((1 - u) * ends[1, 0] + u * ends[1, 1])
    return ruled - both


def smooth(x: Tensor, size: int) -> Tensor:
    """The mean over squares of `size` (odd) pixels, twice; edges are repeated."""
    around = (size // 2,) * 4
    for _ in range(2):
        x = _sums(_sums(pad(x, around, mode="replicate"), size, -2), size, -1) / size**2
    return x


def _sums(x: Tensor, size: int, axis: int) -> Tensor:
    """Sums of `size` neighbours along an axis, of sums of 1, 2, 4, ... of them: pooling takes ten times as long."""
    count, start, width = x.shape[axis] - size + 1, 0, 1
    found = torch.zeros_like(x.narrow(axis, 0, count))
    while True:
        if size & width:
            found += x.narrow(axis, start, count)
            start += width
        if 2 * width > size:
            return found
        left = x.shape[axis] - width
        x = x.narrow(axis, 0, left) + x.narrow(axis, width, left)
        width *= 2


def _texture(a: Tensor, b: Tensor, size: int, corner: tuple[bool, bool] = (True, True)) -> Tensor:
    """Pictures a with the fine texture that pictures b have in a corner, repeated; edges stronger than any texture of
    that corner of a stay. `corner`: whether it is at the bottom, and whether at the right.
    """
    blur = smooth(a, size)
    own = _cut(a - blur, corner)
    limit = own.abs().amax(1, keepdim=True).flatten(1).quantile(0.98, 1)[:, None, None, None]
    fine = _cut(b - smooth(b, size), corner)
    reps = [-(-whole // part) for whole, part in zip(a.shape[2:], fine.shape[2:], strict=True)]
    tiled = fine.repeat(1, 1, *reps)[..., : a.shape[2], : a.shape[3]]
    edges = smooth(((a - blur).abs().amax(1, keepdim=True) > 1.5 * limit).to(a.dtype), 3) > 0
    return torch.where(edges, a, blur + tiled)


def _cut(x: Tensor, corner: tuple[bool, bool]) -> Tensor:
    """A corner of `x (..., H, W)`, a quarter of each side, even so that fine stripes go on.

    Two pixels at the very edge, where smoothing had to guess, are left out.
    """
    rows, columns = (
        slice(n - side - 2, n - 2) if far else slice(2, side + 2)
        for n, far, side in zip(x.shape[-2:], corner, (max(2, n // 4 // 2 * 2) for n in x.shape[-2:]), strict=True)
    )
    return x[..., rows, columns]


def _freest(marks: Tensor) -> tuple[bool, bool]:
    """The corner in which least of the marks `(H, W)` lies; of equals the one at the bottom right."""
    corners = [(down, right) for down in (True, False) for right in (True, False)]
    return min(corners, key=lambda corner: int(_cut(marks, corner).sum()))


def _colour(a: Tensor, b: Tensor) -> Tensor:
    """The brightness of a with the colours of b, place by place."""
    return a.mean(1, keepdim=True) + b - b.mean(1, keepdim=True)


def centred(mask: Tensor) -> str:
    """Where a region `(H, W)` lies, in words."""
    rows, columns = mask.nonzero(as_tuple=True)
    height, width = mask.shape
    y, x = (float(rows.double().mean()) + 0.5) / height, (float(columns.double().mean()) + 0.5) / width
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "centre"
    down = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else "middle"
    return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"
