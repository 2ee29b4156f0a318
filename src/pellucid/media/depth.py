"""Pixels of any depth: brought to [0, 1], laid on white, and both bytes of what Pillow reads one byte of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Unit = NDArray[np.float32]


class UnfitError(Exception):
    """Why a picture can't be read, and the cure, before its name is known."""


_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def upright(pixels: Pixels, orientation: Any) -> Pixels:
    """Stored pixels `(H, W, ...)` as the orientation tag (EXIF, TIFF 6.0: 1 to 8) says they are to be seen."""
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def of_whole(values: NDArray[Any], largest: int = 65535) -> Unit:
    """Whole numbers from 0 to `largest` as floats in [0, 1]."""
    if values.min() < 0 or values.max() > largest:
        raise UnfitError(f"its pixels run from {values.min()} to {values.max()}, outside 0 to {largest}; rescale it")
    return values.astype(np.float32) / np.float32(largest)


def of_float(values: NDArray[Any]) -> Unit:
    """Floats that are in [0, 1] already."""
    if not np.isfinite(values).all():
        raise UnfitError("it holds NaN or infinite pixels; replace them first")
    if values.min() < -1e-4 or values.max() > 1 + 1e-4:  # the slack is rounding, as a resize leaves it
        raise UnfitError(f"its pixels run from {values.min():g} to {values.max():g}, outside 0 to 1; rescale it")
    return values.astype(np.float32).clip(0, 1)


def dim(values: NDArray[Any]) -> tuple[str, ...]:
    """A note where 16-bit values fill so little of their range that they were probably made with fewer bits."""
    most = int(values.max())
    bits = most.bit_length()
    if values.dtype.itemsize < 2 or not 8 < bits <= 14:
        return ()
    return (
        f"Its largest value is {most:,} of 65,535, as a camera of {bits} bits leaves it, so the model sees a dark "
        f"picture: multiply such pictures by {2 ** (16 - bits)} if they should look as they were taken.",
    )


def rgb(bands: Unit, alpha: Unit | None = None) -> Unit:
    """`(H, W)`, `(H, W, 1)` or `(H, W, 3)` as `(H, W, 3)`, on white where `alpha` `(H, W)` lets it through."""
    colour = bands if bands.ndim == 3 else bands[..., None]
    if alpha is not None:
        colour = colour * alpha[..., None] + (1 - alpha[..., None])
    return np.array(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def both_bytes(reopen: Callable[[], ImageFile]) -> tuple[NDArray[np.uint16], int] | None:
    """Colours of 16 bits, of which Pillow keeps one byte: `(H, W, bands)`, and what white is; None for other pictures.

    The picture is decoded twice, once taking the high byte of each number and once, told the other order of bytes, the
    low one. Grey with opacity is four bytes a pixel and is had at once.

    Args:
        reopen: opens the picture anew, nothing decoded yet.
    """
    with reopen() as image:
        tiles: list[Any] = list(image.tile)
    if not tiles:
        return None
    codec, given = tiles[0][0], tiles[0][3]
    if (
        codec == "ppm"
    ):  # Pillow divides by what the file calls white; the numbers themselves are 16-bit, high byte first
        bands, white = given
        if white < 256 or bands != "RGB":
            return None
        tiles, name = [("raw", *tile[1:3], None) for tile in tiles], "RGB;16B"
    else:
        white, name = 65535, str(given if isinstance(given, str) else given[0])
    kind, _, order = name.partition(";16")
    if (kind, order) == ("LA", "B"):
        four = _decoded(reopen, tiles, "RGBA", "RGBA").astype(np.uint16)
        return np.stack([four[..., 0] << 8 | four[..., 1], four[..., 2] << 8 | four[..., 3]], -1), white
    kind = kind.upper()  # RGBa would be divided by its opacity, one byte at a time
    if kind not in ("RGB", "RGBA", "RGBX") or order not in ("B", "L", "N"):
        return None
    first = order == "B" or (order == "N" and sys.byteorder == "big")
    high, low = (
        _decoded(reopen, tiles, kind.removesuffix("X"), f"{kind};16{end}") for end in ("BL" if first else "LB")
    )
    return (high.astype(np.uint16) << 8 | low).astype(np.uint16, copy=False), white


def _decoded(reopen: Callable[[], ImageFile], tiles: list[Any], mode: str, rawmode: str) -> NDArray[np.uint8]:
    with reopen() as image:
        image._mode = mode
        make: Any = getattr(type(image.tile[0]), "_make", tuple)  # a named tuple from Pillow 11 on
        image.tile = [make((*tile[:3], _told(tile[3], rawmode))) for tile in tiles]
        image.load()
        return np.array(image)


def _told(given: Any, rawmode: str) -> Any:
    """A decoder's arguments with another order of bands and bytes."""
    if given is None:
        return rawmode, 0, 1
    return rawmode if isinstance(given, str) else (rawmode, *given[1:])
