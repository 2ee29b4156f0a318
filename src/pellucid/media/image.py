"""Read one picture of any common format, depth, orientation or transparency, trusting none of its bytes."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.errors import MediaError
from pellucid.media.digits import DIGITS, digit
from pellucid.media.samples import PREFIX, sample_path

MAX_PIXELS = 100_000_000
"""The largest picture decoded by default, in pixels (height x width)."""

MAX_BYTES = 512 * 2**20
"""The largest picture file read, in bytes."""

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Source = str | os.PathLike[str] | Image.Image | NDArray[Any]

_FORMATS = ("Png", "Jpeg", "WebP", "Tiff", "Gif", "Bmp", "Ppm", "Avif")
for _format in _FORMATS:
    with suppress(ImportError):  # a Pillow built without it, or older than it
        import_module(f"PIL.{_format}ImagePlugin")  # registers the format in Image.OPEN

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright RGB picture, and where it came from.

    Attributes:
        pixels: (H, W, 3), either uint8 or, from deeper sources (16-bit, float), float32 in [0, 1].
        name: a stem for file names.
        source: what opens it again (a path or ``sample:NAME``); empty for a picture made in memory.
        sha256: of the file's bytes; of shape, type and pixels for a picture made in memory.
    """

    pixels: Pixels
    name: str
    source: str
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def pil(self) -> Image.Image:
        """The picture as an 8-bit RGB PIL image; a deeper one is rounded."""
        if self.pixels.dtype == np.uint8:
            return Image.fromarray(self.pixels)
        return Image.fromarray((self.pixels * 255 + 0.5).astype(np.uint8))


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Picture:
    """Read a picture from a path, ``sample:NAME``, ``digits:17``, a PIL image or an array, upright and in RGB.

    Arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, or floats in [0, 1]. The
    orientation tag is obeyed, transparency is laid on white, the first frame of an animation is taken, colour
    profiles are ignored. Grey pictures of 16 bits and float pictures keep their depth; colour ones of 16 bits
    are read as 8. A file is read once, and its size in pixels is checked from the header, before anything is
    decoded. Reads from many threads at once are safe: no setting of PIL or of ``warnings`` is touched.

    Raises:
        MediaError: the picture is missing, unreadable, broken, too large, of no known kind, a URL, or holds
            values that are NaN or out of range. The message names the picture and the cure.
    """
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        with explained("The image given"):
            _check_size(source.size, max_pixels)
            return _in_memory(_from_pil(source), Path(os.fsdecode(filename)).stem or "image")
    if isinstance(source, np.ndarray):
        with explained("The array given"):
            return _in_memory(_from_array(source, max_pixels), "image")
    if not isinstance(source, str | os.PathLike):
        raise MediaError(
            f"A picture is a path, sample:NAME, a PIL image or an array (H, W, 3), not "
            f"{type(source).__name__}; for a tensor (C, H, W) give tensor.permute(1, 2, 0).numpy()."
        )
    text = os.fspath(source)
    if text.startswith(DIGITS):
        return replace(_in_memory(_from_array(digit(text), max_pixels), text.replace(":", "-")), source=text)
    if text.startswith(PREFIX):
        path, name = sample_path(text), text.removeprefix(PREFIX)
    else:
        refuse_url(text)
        path = Path(text).expanduser()
        name = path.stem
    data = read_bytes(path, text, max_bytes)
    with explained(text):
        return Picture(_decode(data, max_pixels), name, text, sha256(data).hexdigest())


def refuse_url(text: str) -> None:
    """Raise MediaError if ``text`` is a URL: Pellucid opens files only."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:", text) and not os.path.lexists(text):
        raise MediaError(f"{text[:200]} is a URL; download the picture and give its path.")


def read_bytes(path: Path, label: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file that is not too large; every failure is a sentence."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise MediaError(f"{label} is a folder; name a picture in it.")
        if not stat.S_ISREG(info.st_mode):
            raise MediaError(f"{label} is a device or a pipe; give a picture file.")
        if info.st_size > max_bytes:
            raise MediaError(f"{label} is larger than {max_bytes / 2**20:g} MiB; give a smaller file.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise MediaError(f"There is no file {label}; check the path.") from None
    except PermissionError:
        raise MediaError(f"{label} may not be read; check its permissions.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise MediaError(f"{label} can't be read ({error}); check the path.") from error
    if not data:
        raise MediaError(f"{label} is empty; give a picture file.")
    return data


class _UnfitError(Exception):
    """Why a picture can't be read, and the cure, before its name is known."""


@contextmanager
def explained(label: str, use: str = "a picture") -> Iterator[None]:
    """Say in one sentence what any decoder raises; on hostile bytes PIL's plugins raise nearly anything."""
    try:
        yield
    except _UnfitError as error:
        raise MediaError(f"{label} can't be used as {use}: {error}.") from None
    except MediaError:
        raise
    except Exception as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise MediaError(f"{label} is damaged or incomplete ({reason}); get or save it again.") from error


def _decode(data: bytes, max_pixels: int) -> Pixels:
    with open_picture(data) as image:
        _check_size(image.size, max_pixels)
        return _from_pil(image)


def open_picture(data: bytes) -> Image.Image:
    """``Image.open`` for the known formats only, without its global pixel limit and that limit's warnings."""
    for name in map(str.upper, _FORMATS):
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and accept and accept(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    raise _UnfitError(f"it is none of {', '.join(_FORMATS).upper()}; convert it to PNG or JPEG")


def _check_size(size: tuple[int, ...], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise _UnfitError(
            f"its {size[0] * size[1] / 1e6:,.0f} megapixels are more than the {max_pixels / 1e6:g} allowed; "
            "make it smaller, or raise max_pixels if you trust it"
        )


def _in_memory(pixels: Pixels, name: str) -> Picture:
    digest = sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(pixels.tobytes())
    return Picture(pixels, name, "", digest.hexdigest())


def _from_pil(image: Image.Image) -> Pixels:
    image.load()
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # a broken tag block says nothing about the pixels, which are fine
        orientation = None
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if image.mode == "F":
        return _grey(_unit(np.asarray(image)))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey(_sixteen_bits(np.asarray(image)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return np.array(image.convert("RGB"))


def _from_array(values: NDArray[Any], max_pixels: int) -> Pixels:
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[-1] in (1, 3, 4))) or not values.size:
        first = values.ndim == 3 and values.shape[0] in (1, 3, 4)
        cure = "array.transpose(1, 2, 0)" if first else "one of that shape"
        raise _UnfitError(f"its shape is {values.shape}, not (H, W) or (H, W, 1, 3 or 4); give {cure}")
    _check_size(values.shape[:2], max_pixels)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.dtype == np.uint8:
        return _from_pil(Image.fromarray(np.ascontiguousarray(values)))
    if values.dtype == np.uint16:
        unit = _sixteen_bits(values)
    elif values.dtype.kind == "f":
        unit = _unit(values)
    else:
        raise _UnfitError(f"its type is {values.dtype}, not uint8, uint16 or floats in [0, 1]; convert it")
    if unit.ndim == 2:
        return _grey(unit)
    if unit.shape[-1] == 4:
        alpha = unit[..., 3:]
        return unit[..., :3] * alpha + (1 - alpha)
    return np.array(unit)


def _grey(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(values[..., None], 3, axis=-1)


def _sixteen_bits(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.min() < 0 or values.max() > 65535:
        raise _UnfitError(f"its pixels run from {values.min()} to {values.max()}, outside 0 to 65535; rescale it")
    return values.astype(np.float32) / np.float32(65535)


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise _UnfitError("it holds NaN or infinite pixels; replace them first")
    if values.min() < -1e-4 or values.max() > 1 + 1e-4:  # the slack is rounding, as a resize leaves it
        raise _UnfitError(f"its pixels run from {values.min():g} to {values.max():g}, outside 0 to 1; rescale it")
    return values.astype(np.float32).clip(0, 1)
