"""DICOM: a file opened with nothing trusted, its stored numbers made values, its values a picture. Extra `medical`.

Nothing that identifies a patient leaves this file: names are the modality and a hash, a path that holds a name or
number of the patient is not handed on, and the library's warnings, which quote values, are not let out.
"""

from __future__ import annotations

import logging
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.magic import is_dicom
from pellucid.media.picture import MAX_BYTES, MAX_PIXELS, Picture, read_bytes
from pellucid.media.tiles import in_tiles, whole
from pellucid.media.window import Window, chosen_window

_DEFLATED = "1.2.840.10008.1.2.1.99"
_IDENTIFYING = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate", "PatientBirthName"),
    *("PatientMotherBirthName", "AccessionNumber", "IssuerOfPatientID", "PatientAddress", "PatientTelephoneNumbers"),
    *("MedicalRecordLocator", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyID"),
    *("ReferringPhysicianName", "InstitutionName", "OperatorsName", "PerformingPhysicianName"),
)
_QUIET = threading.RLock()
_INSIDE = threading.local()


@dataclass(frozen=True, eq=False)
class DicomFile:
    """One DICOM file, opened: its data set, the hash of its bytes, and what to call it.

    Attributes:
        dataset: pydicom's; it holds the patient's identifiers, so it is never printed, saved or handed on.
        sha256: of the file's bytes.
        source: the path; empty where the path itself holds an identifier.
        label: the path as it was given, for errors.
        groups: of one frame of an enhanced file, its functional groups and those that all frames share (see `at`).
    """

    dataset: Any
    sha256: str
    source: str
    label: str
    groups: tuple[Any, ...] = ()

    def at(self, frame: int) -> DicomFile:
        """The file as its frame says: tags are looked for in the frame's functional groups first."""
        each, shared = self.tag("PerFrameFunctionalGroupsSequence"), self.tag("SharedFunctionalGroupsSequence")
        own = [each[frame]] if each and frame < len(each) else []
        return replace(self, groups=(*own, *(shared or [])[:1]))

    def tag(self, keyword: str, otherwise: Any = None) -> Any:
        """The value of a tag; `otherwise` where it is missing, empty or broken."""
        try:
            with quiet():
                value = next(self._grouped(keyword), None)
                value = self.dataset.get(keyword) if value is None else value
        except Exception:  # a value that cannot be read is as good as none
            return otherwise
        return otherwise if value is None or value == "" else value

    def _grouped(self, keyword: str) -> Iterator[Any]:
        """What functional groups, each a sequence of one item, say of a tag."""
        for group in self.groups:
            for element in group:
                if element.VR == "SQ" and element.value and (found := element.value[0].get(keyword)) is not None:
                    yield found

    def number(self, keyword: str, otherwise: float) -> float:
        """The value of a tag as a number."""
        try:
            return float(self.tag(keyword, otherwise))
        except (TypeError, ValueError):
            return otherwise

    @property
    def modality(self) -> str:
        """CT, MR, CR ..."""
        return "".join(c for c in str(self.tag("Modality", "DICOM")) if c.isalnum()).upper()[:8] or "DICOM"

    @property
    def name(self) -> str:
        """The modality and the first letters of the hash: a name that tells nothing of the patient."""
        return f"{self.modality.lower()}-{self.sha256[:8]}"

    @property
    def frames(self) -> int:
        """How many frames it claims."""
        return max(1, int(self.number("NumberOfFrames", 1)))

    @property
    def colours(self) -> str:
        """Its photometric interpretation."""
        return str(self.tag("PhotometricInterpretation", "MONOCHROME2")).upper()

    def check(self, max_pixels: int = MAX_PIXELS, frames: int | None = None) -> None:
        """Refuse what has no picture, or one too large, before anything of it is decoded.

        Raises:
            MediaError: no pixel data, or more pixels than are allowed.
        """
        if not any(key in self.dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            what = self.tag("Modality", "of no known kind")
            raise MediaError(f"{self.label} is DICOM without a picture ({what}): give an image file of the study.")
        rows, columns = int(self.number("Rows", 0)), int(self.number("Columns", 0))
        count = rows * columns * (self.frames if frames is None else frames)
        if not 0 < count <= max_pixels:
            raise MediaError(
                f"{self.label} claims {rows} x {columns} pixels in {self.frames} frame{'s' * (self.frames > 1)}, not "
                f"between 1 and {max_pixels:,}: check the file."
            )

    def header(self) -> DicomFile:
        """The same without its pixels: what of it is kept beside a picture."""
        with quiet():
            return replace(self, dataset=self.dataset[: (0x7FE0, 0)])

    def stored(self, frame: int | None = 0) -> NDArray[Any]:
        """Stored numbers of one frame `(H, W)` or `(H, W, 3)` (colours as RGB), or of all frames (None).

        Raises:
            MediaError: cut short, damaged, or compressed in a way that nothing installed can read.
        """
        from pydicom.pixels.utils import pixel_array

        with quiet(), unpacked(self.label):
            values: NDArray[Any] = pixel_array(self.dataset, index=frame)
        return values

    def padded(self, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which stored numbers stand for "nothing was measured here", as what is no number does; None: none do."""
        first = self.tag("PixelPaddingValue", self.tag("FloatPixelPaddingValue"))
        mask: NDArray[np.bool_] = ~np.isfinite(stored)
        if isinstance(first, int | float):
            last = self.tag("PixelPaddingRangeLimit", first)
            low, high = sorted((float(first), float(last)))
            mask |= (stored >= low) & (stored <= high)
        return mask if mask.any() else None

    def rescaled(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored numbers as the modality means them, in HU of CT: through its lookup table, or slope and intercept."""
        if "ModalityLUTSequence" in self.dataset:
            from pydicom.pixels.processing import apply_modality_lut

            with quiet():
                return np.asarray(apply_modality_lut(stored, self.dataset), np.float32)
        slope, intercept = self.number("RescaleSlope", 1.0), self.number("RescaleIntercept", 0.0)
        slope *= self.number("DoseGridScaling", 1.0)  # of radiotherapy's doses
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)

    @property
    def unit(self) -> str:
        """The unit of rescaled values: HU of CT; what the file says; empty where nothing is known."""
        said = str(self.tag("RescaleType", ""))
        return "HU" if said == "HU" or (not said and self.modality == "CT") else "" if said in ("US", "") else said


def open_dicom(source: str | Path, data: bytes | None = None) -> DicomFile:
    """Open a DICOM file; nothing of its pixels is decoded.

    Raises:
        MediaError: the extra is missing, the file is missing, too large, damaged, or no DICOM.
    """
    pydicom = _pydicom()
    path, label = Path(source).expanduser(), str(source)
    data = read_bytes(path, label) if data is None else data
    with quiet(), unpacked(label):
        _bound(data, label)
        dataset = pydicom.dcmread(BytesIO(data), force=not is_dicom(data))
        if not len(dataset):
            raise MediaError(f"{label} holds no DICOM: check the file.")
        found = DicomFile(dataset, sha256(data).hexdigest(), str(source), label)
        told = identifiers(dataset)
    if any(text in str(path.absolute()).casefold() for text in told):
        found = DicomFile(dataset, found.sha256, "", f"A DICOM file ({found.name})")
    return found


def read_dicom(source: str | Path, window: str = "auto", data: bytes | None = None) -> Picture:
    """A single DICOM picture: rescaled, windowed to [0, 1], upright in grey or colour, padding marked as not seen.

    Args:
        source: the file.
        window: see `pellucid.media.window.chosen_window`.
        data: its bytes, where they are read already.

    Raises:
        MediaError: no picture, damaged, or a window that makes no sense.
    """
    file = open_dicom(source, data)
    slide = in_tiles(file)
    if not slide:
        file.check(frames=1)
    notes = [] if file.frames == 1 or slide else [f"The first of its {file.frames} frames is taken."]
    address = file.source if window == "auto" or not file.source else f"window:{window}:{Path(file.source).absolute()}"
    stored, lies = whole(file) if slide else (file.at(0).stored(), None)
    file = file.at(0)
    header = None if slide else file.header()  # a slide's tiles are no picture of the size of the whole
    if in_colour(file, stored):
        if window != "auto":
            raise MediaError(f"{file.label} is a picture in colour, which has no window: leave --window out.")
        return Picture(
            coloured(file, stored), file.name, address, file.sha256, tuple(notes), lies, medical=True, made_from=header
        )
    padded = file.padded(stored)
    chosen = chosen_window(file, window, file.rescaled(stored if padded is None else stored[~padded]))
    unit, seen = framed(file, stored, chosen)
    if lies is not None:
        seen, unit = lies if seen is None else seen & lies, np.where(lies, unit, np.float32(0))
    remarks = [f"{file.modality} shown in {chosen.words}."]
    if file.colours == "MONOCHROME1":
        remarks.append("Its tag says MONOCHROME1: it was turned over, once, so that bright is more.")
    if padded is not None:
        remarks.append(f"Padding, {padded.mean():.1%} of the picture, is black for the model and counts as not seen.")
    pixels = np.repeat(unit[..., None], 3, axis=-1)
    told = tuple(notes), seen, tuple(remarks)
    return Picture(pixels, file.name, address, file.sha256, *told, medical=True, made_from=header)


def in_colour(file: DicomFile, stored: NDArray[Any]) -> bool:
    """Whether a frame's stored numbers `(H, W)` or `(H, W, 3)` stand for colours."""
    return stored.ndim == 3 or file.colours == "PALETTE COLOR"


def framed(file: DicomFile, stored: NDArray[Any], window: Window) -> tuple[NDArray[np.float32], NDArray[Any] | None]:
    """Grey `(H, W)` in [0, 1] of a frame's stored numbers, padding black; and where something was measured."""
    padded = file.padded(stored)
    unit = window.apply(file.rescaled(stored))
    if file.colours == "MONOCHROME1":
        unit = 1 - unit
    if padded is None:
        return unit, None
    return np.where(padded, np.float32(0), unit), ~padded


def coloured(file: DicomFile, stored: NDArray[Any]) -> NDArray[Any]:
    """RGB of a picture in colour, uint8 or floats in [0, 1]."""
    if file.colours == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        with quiet(), unpacked(file.label):
            stored = apply_color_lut(stored, file.dataset)
        return stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)  # as every viewer does
    bits = int(file.number("BitsStored", 8 * stored.dtype.itemsize))
    stored = stored[..., :3]
    if stored.dtype == np.uint8 and bits == 8:
        return np.ascontiguousarray(stored)
    return (stored / (2.0**bits - 1)).clip(0, 1).astype(np.float32)


def identifiers(dataset: Any) -> set[str]:
    """What names the patient or the study, in small letters: of names each part of three letters and more."""
    found: set[str] = set()
    for keyword in _IDENTIFYING:
        try:
            value = dataset.get(keyword)
        except Exception:
            continue
        for text in value if isinstance(value, list | tuple) else [value] if value else []:
            whole = str(text).casefold().strip()
            parts = whole.replace("=", "^").replace(" ", "^").split("^") if "Name" in keyword else [whole]
            found |= {part for part in (whole, *parts) if len(part) >= 3}
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """The library's warnings and log, which quote the values of tags, are not let out."""
    if getattr(_INSIDE, "quiet", False):  # within another: to silence twice costs a third of reading a series
        yield
        return
    log = logging.getLogger("pydicom")
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = log.level
        log.setLevel(logging.CRITICAL + 1)
        _INSIDE.quiet = True
        try:
            yield
        finally:
            _INSIDE.quiet = False
            log.setLevel(level)


@contextmanager
def unpacked(label: str) -> Iterator[None]:
    """Say in one sentence what reading raises, without the values that the library may quote."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        text = str(error)
        if "missing dependencies" in text:
            raise MediaError(
                f"{label} is compressed in a way that nothing installed here can read: pip install pylibjpeg "
                "pylibjpeg-libjpeg pylibjpeg-openjpeg pyjpegls, or decompress it."
            ) from None
        if "available plugins" in text:
            raise MediaError(
                f"{label} is damaged, or compressed in a way that what is installed here cannot unpack: decompress it."
            ) from None
        kind = type(error).__name__
        raise MediaError(f"{label} is damaged, cut short or no DICOM ({kind}): get or export it again.") from None


def _bound(data: bytes, label: str) -> None:
    """Refuse a deflated stream that swells beyond what is read of any file."""
    if not is_dicom(data):
        return
    at = data.find(_DEFLATED.encode(), 132, 132 + 2000)
    if at < 0:
        return
    length = int.from_bytes(data[140:144], "little")  # of the group's other elements: (0002,0000) UL 4
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    stream.decompress(data[144 + length :], MAX_BYTES)
    if stream.unconsumed_tail:
        raise MediaError(f"{label} swells to more than {MAX_BYTES / 2**20:g} MiB when it is unpacked: check the file.")


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise MediaError('DICOM needs pydicom: pip install "pellucid[medical]".') from None
    return pydicom
