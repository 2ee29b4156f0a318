"""Read one picture of any common format, depth, orientation or transparency, trusting none of its bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import file_digest, sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from pellucid.errors import MediaError
from pellucid.media.address import windowed
from pellucid.media.depth import Pixels, UnfitError, both_bytes, dim, of_float, of_whole, rgb, upright
from pellucid.media.dicom import read_dicom
from pellucid.media.digits import DIGITS, digit
from pellucid.media.magic import may_be_dicom
from pellucid.media.picture import MAX_BYTES, MAX_PIXELS, Notes, Picture, explained, read_bytes, refuse_url
from pellucid.media.samples import PREFIX, sample_path
from pellucid.media.tiff import Samples, is_tiff, read_deep

_BITS, _PHOTOMETRIC, _COLOURS = 258, 262, 320  # TIFF's tags
_BANDS = 6  # of a TIFF, above which Pillow complains aloud
Source = str | os.PathLike[str] | Image.Image | NDArray[Any]

_FORMATS = ("Png", "Jpeg", "WebP", "Tiff", "Gif", "Bmp", "Ppm", "Avif")
for _format in _FORMATS:
    with suppress(ImportError):  # a Pillow built without it, or older than it
        import_module(f"PIL.{_format}ImagePlugin")  # registers the format in Image.OPEN


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Picture:
    """Read a picture from a path, ``sample:NAME``, ``digits:17``, a PIL image or an array, upright and in RGB.

    A DICOM file (extra ``medical``) is rescaled and shown in its own window; ``window:bone:FILE``,
    ``window:40,400:FILE`` and ``window:2:FILE`` choose another (see ``pellucid.media.window.chosen_window``).

    Arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, or floats in [0, 1]. The
    orientation tag is obeyed, transparency is laid on white, the first frame of an animation is taken, colour
    profiles are ignored. PNG, TIFF and PPM keep their depth (12, 16 bits, floats), and bands of a TIFF are what its
    tags call them; where depth is lost or a band left out, a note says so. A file is read once, and its size in
    pixels is checked from the header, before anything is decoded. Reads from many threads at once are safe: no
    setting of PIL or of ``warnings`` is touched.

    Raises:
        MediaError: the picture is missing, unreadable, broken, too large, of no known kind, a URL, or holds
            values that are NaN or out of range. The message names the picture and the cure.
    """
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        with explained("The image given"):
            _check_size(source.size, max_pixels)
            return _in_memory(*_from_pil(source), Path(os.fsdecode(filename)).stem or "image")
    if isinstance(source, np.ndarray):
        with explained("The array given"):
            return _in_memory(*_from_array(source, max_pixels), "image")
    if not isinstance(source, str | os.PathLike):
        raise MediaError(
            f"A picture is a path, sample:NAME, a PIL image or an array (H, W, 3), not "
            f"{type(source).__name__}; for a tensor (C, H, W) give tensor.permute(1, 2, 0).numpy()."
        )
    text = os.fspath(source)
    if text.startswith(DIGITS):
        return replace(_in_memory(*_from_array(digit(text), max_pixels), text.replace(":", "-")), source=text)
    window = "auto"
    if text.startswith(PREFIX):
        path, name = sample_path(text), text.removeprefix(PREFIX)
    else:
        window, text = windowed(text)
        refuse_url(text)
        path = Path(text).expanduser()
        name = path.stem
    data = read_bytes(path, text, max_bytes)
    if may_be_dicom(path, data):
        return read_dicom(text, window, data)
    if window != "auto":
        raise MediaError(f"{text} is no DICOM picture, and only those have windows: leave the window out.")
    with explained(text):
        pixels, notes = _decode(data, max_pixels)
    return Picture(pixels, name, text, sha256(data).hexdigest(), notes)


def digest(source: str | os.PathLike[str]) -> str:
    """SHA-256 of what opens a picture, equal to its `Picture.sha256`, without decoding a file.

    Raises:
        MediaError: it can't be read.
    """
    text = os.fspath(source)
    if text.startswith(DIGITS):
        return read_image(text).sha256
    path = sample_path(text) if text.startswith(PREFIX) else Path(windowed(text)[1]).expanduser()
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{text} can't be read ({reason}); check the path.") from error


def _decode(data: bytes, max_pixels: int) -> tuple[Pixels, Notes]:
    def opened() -> ImageFile:
        return open_picture(data)

    samples = None
    if is_tiff(data):
        with suppress(Exception):  # whatever ails the tags; Pillow, which asks for fewer, has the last word
            samples = Samples.of(data)
    if samples is not None:
        _check_size(samples.size, max_pixels)
        samples.refuse()
        known = samples.bands <= _BANDS and _opens(data)
        if (samples.bits > 8 or not known) and (deep := read_deep(data, samples, opened if known else None)):
            return deep
        if not known:
            raise UnfitError(
                f"its {samples.bands} bands of {samples.bits} bits are packed or coloured in a way that is not known "
                "here; save it as RGB without compression, or pip install imagecodecs"
            )
    with opened() as image:
        _check_size(image.size, max_pixels)
        if samples is None and (deeper := both_bytes(opened)):
            return _from_bytes(image, *deeper)
        return _from_pil(image, samples)


def _opens(data: bytes) -> bool:
    """Whether Pillow knows what to do with a TIFF."""
    try:
        with open_picture(data):
            return True
    except Exception:
        return False


def _from_bytes(image: Image.Image, values: NDArray[np.uint16], white: int) -> tuple[Pixels, Notes]:
    """Colours of 16 bits of a format that has opacity, if any, in its last band or as a colour that is see-through."""
    unit = of_whole(values, white)
    count = 1 if unit.shape[-1] == 2 else 3
    alpha = unit[..., count] if unit.shape[-1] > count else _keyed(image, values)
    orientation = _orientation(image)
    return upright(rgb(unit[..., :count], alpha), orientation), dim(values[..., :count]) if white == 65535 else ()


def _keyed(image: Image.Image, values: NDArray[Any]) -> NDArray[np.float32] | None:
    """Opacity `(H, W)` of a picture that names one value as see-through (PNG's tRNS); None if it names none."""
    key = image.info.get("transparency")
    if key is None or isinstance(key, bytes):
        return None
    values = values.reshape(*values.shape[:2], -1)
    return np.asarray((values != np.array(key)).any(-1), np.float32)


def open_picture(data: bytes) -> ImageFile:
    """``Image.open`` for the known formats only, without its global pixel limit and that limit's warnings."""
    for name in map(str.upper, _FORMATS):
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and accept and accept(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    raise UnfitError(f"it is none of {', '.join(_FORMATS).upper()}; convert it to PNG or JPEG")


def _check_size(size: tuple[int, ...], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise UnfitError(
            f"its {size[0] * size[1] / 1e6:,.0f} megapixels are more than the {max_pixels / 1e6:g} allowed; "
            "make it smaller, or raise max_pixels if you trust it"
        )


def _in_memory(pixels: Pixels, notes: Notes, name: str) -> Picture:
    digest = sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(pixels.tobytes())
    return Picture(pixels, name, "", digest.hexdigest(), notes)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(0x0112)
    except Exception:  # a broken tag block says nothing about the pixels, which are fine
        return None


def _from_pil(image: Image.Image, samples: Samples | None = None) -> tuple[Pixels, Notes]:
    image.load()
    orientation = _orientation(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values, notes = np.asarray(image), Notes()
        if image.mode == "F":
            unit = of_float(values)
        else:
            bits = tags.get(_BITS, (16,))[0]
            unit = of_whole(values, 2 ** min(bits, 16) - 1)
            notes = dim(values) if bits == 16 else ()
        if tags.get(_PHOTOMETRIC) == 0:  # Pillow turns 8 bits over, and no others
            unit = 1 - unit
        return upright(rgb(unit, _keyed(image, values)), orientation), notes
    alpha, notes = None, Notes()
    if samples is not None and samples.bits > 8:
        notes = (f"Its {samples.bits} bits a colour are read as 8: save it as RGB to keep them.",)
    if image.mode == "P" and samples is not None:
        _mend_palette(image, tags.get(_COLOURS, ()))
    if image.has_transparency_data and (samples is None or not samples.colours or samples.opacity):
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), np.float32) / np.float32(255)
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    notes = (*notes, *(samples.notes(alpha) if samples is not None else ()))
    return upright(np.array(image.convert("RGB")), orientation), notes


def _mend_palette(image: Image.Image, colours: Sequence[int]) -> None:
    """Some write a TIFF's table of colours, which is of 16 bits, as if it were of 8; Pillow makes black of that."""
    if colours and max(colours) < 256:
        image.putpalette(bytes(np.array(colours, np.uint8).reshape(3, -1).T.ravel()))


def _from_array(values: NDArray[Any], max_pixels: int) -> tuple[Pixels, Notes]:
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[-1] in (1, 3, 4))) or not values.size:
        first = values.ndim == 3 and values.shape[0] in (1, 3, 4)
        cure = "array.transpose(1, 2, 0)" if first else "one of that shape"
        raise UnfitError(f"its shape is {values.shape}, not (H, W) or (H, W, 1, 3 or 4); give {cure}")
    _check_size(values.shape[:2], max_pixels)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.dtype == np.uint8:
        return _from_pil(Image.fromarray(np.ascontiguousarray(values)))
    notes = Notes()
    if values.dtype == np.uint16:
        unit, notes = of_whole(values), dim(values if values.ndim == 2 else values[..., :3])
    elif values.dtype.kind == "f":
        unit = of_float(values)
    else:
        raise UnfitError(f"its type is {values.dtype}, not uint8, uint16 or floats in [0, 1]; convert it")
    if unit.ndim == 3 and unit.shape[-1] == 4:
        return rgb(unit[..., :3], unit[..., 3]), notes
    return rgb(unit), notes
