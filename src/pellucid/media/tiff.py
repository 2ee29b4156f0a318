"""What a TIFF says of its samples: how many, how deep, which are colour, which opacity, and whether 0 is white.

Pillow obeys it up to 8 bits. Beyond, and for numbers of bands that it does not know, tifffile reads the samples.
Adobe, TIFF Revision 6.0, 1992: PhotometricInterpretation, ExtraSamples, PlanarConfiguration.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from pellucid.media.depth import UnfitError, Unit, both_bytes, dim, of_float, of_whole, rgb, upright

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE = 0, 1, 2, 3
_ASSOCIATED, _OPACITIES = 1, (1, 2, 999)  # 999: as Corel Draw 10 writes it
_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _PALETTE: 1, _RGB: 3}


def is_tiff(data: bytes) -> bool:
    """By the first bytes; BigTIFF too."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Samples:
    """How the first page of a TIFF is to be read.

    Attributes:
        size: `(W, H)`.
        bits: of the deepest sample.
        kind: `u`, `i` or `f`, as of a numpy type.
        photometric: the tag.
        bands: samples a pixel; `colours` of them, the first, are colour (0: of a kind that is not known here).
        extras: what the others are (ExtraSamples), 0 where nothing is said.
        orientation: the tag.
        pages: whether another page follows that is a picture of its own.
    """

    size: tuple[int, int]
    bits: int
    kind: str
    photometric: int
    bands: int
    colours: int
    extras: tuple[int, ...]
    orientation: int
    pages: bool

    @classmethod
    def of(cls, data: bytes) -> Samples:
        """Read from the tags; nothing is decoded."""
        from tifffile import TiffFile

        with TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            bits: Any = page.bitspersample
            said = tuple(int(e) for e in page.extrasamples)
            colours = _COLOURS.get(int(page.photometric), 0)
            extra = max(0, page.samplesperpixel - colours)
            more = False
            with suppress(IndexError):
                following: Any = file.pages[1]
                more = not (following.is_reduced or following.is_mask)
            return cls(
                (page.imagewidth, page.imagelength),
                int(max(bits) if isinstance(bits, tuple) else bits),
                page.dtype.kind if page.dtype is not None else "?",
                int(page.photometric),
                page.samplesperpixel,
                colours,
                (said + (0,) * extra)[:extra],
                int(page.tags.valueof(274, 1)),
                more,
            )

    @property
    def opacity(self) -> bool:
        """Whether the first band behind the colours is opacity: its tag says so, not its place."""
        return self.extras[:1] != () and self.extras[0] in _OPACITIES

    @property
    def white(self) -> int:
        """The largest whole number that a sample can be; of 32 bits nobody fills more than 16."""
        return 65535 if self.photometric == _PALETTE else 2 ** min(self.bits, 16) - 1

    def refuse(self) -> None:
        """Raise `UnfitError` for bands that nobody calls colours."""
        if self.colours == 1 and self.bands > 2:
            raise UnfitError(
                f"it has {self.bands} bands and does not say which are red, green and blue: choose three and give them "
                "as an array (H, W, 3) in [0, 1], or give all as the tensor (C, H, W) that a model of so many channels "
                "takes"
            )

    def notes(self, alpha: Unit | None) -> tuple[str, ...]:
        """What a reader must know of bands and pages."""
        found = []
        if alpha is not None and (share := float((alpha < 1).mean())) > 0:
            found.append(
                f"The file calls band {self.colours + 1} opacity, so the colours are laid on white by it: "
                f"{share:.0%} of the picture is see-through."
            )
        left = range(self.colours + 1 + self.opacity, self.bands + 1)
        if self.colours and left:
            which = f"Band {left[0]} is" if len(left) == 1 else f"Bands {left[0]} to {left[-1]} are"
            found.append(f"{which} neither colour nor opacity by the file's own tags, and left out.")
        if self.pages:
            found.append("The file holds several pages, of which the first is read.")
        return tuple(found)


def read_deep(
    data: bytes, samples: Samples, reopen: Callable[[], ImageFile] | None
) -> tuple[Unit, tuple[str, ...]] | None:
    """A TIFF of more than 8 bits, or one that Pillow does not know; None where Pillow, if anyone, can decode it.

    Args:
        data: the file.
        samples: what its tags say.
        reopen: opens it with Pillow; None where Pillow does not know it.

    Returns:
        `(H, W, 3)` in [0, 1], upright, and notes.
    """
    if not samples.colours:
        return None
    values = _with_tifffile(data)
    if values is None:  # compressed in a way that takes a package that is not there
        found = None if samples.bands == 1 or reopen is None else both_bytes(reopen)
        if found is None:
            return None
        values = found[0]
    count = 3 if samples.photometric == _PALETTE else samples.colours
    values = values.reshape(*values.shape[:2], -1)[..., : count + samples.opacity]
    unit = of_float(values) if values.dtype.kind == "f" else of_whole(values, samples.white)
    colour, alpha = unit[..., :count], unit[..., count] if samples.opacity else None
    notes = dim(values[..., :count]) if samples.white == 65535 else ()
    if samples.photometric == _MIN_IS_WHITE:
        colour = 1 - colour
    if alpha is not None and samples.extras[0] == _ASSOCIATED:
        colour = np.divide(colour, alpha[..., None], out=np.zeros_like(colour), where=alpha[..., None] > 0)
    return np.asarray(upright(rgb(colour.clip(0, 1), alpha), samples.orientation)), samples.notes(alpha) + notes


def _with_tifffile(data: bytes) -> NDArray[Any] | None:
    """`(H, W)` or `(H, W, bands)` of the first page; None if its compression takes a package that is not there."""
    from tifffile import TiffFile

    with TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages.first
        try:
            values = page.asarray()
        except (ValueError, KeyError, NotImplementedError) as error:
            if "imagecodecs" in str(error):
                return None
            raise
        if page.axes == "SYX":
            values = np.moveaxis(values, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise UnfitError(f"it is no flat picture but lies along {', '.join(page.axes)}; give one plane of it")
        if int(page.photometric) == _PALETTE:
            values = np.moveaxis(page.colormap, 0, -1)[values]
        return np.asarray(values)
