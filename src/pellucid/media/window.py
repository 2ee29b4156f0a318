"""Windows: which values of a medical picture are shown from black to white (DICOM PS3.3, C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError

Shape = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

WINDOWS = {
    "brain": (40.0, 80.0),
    "stroke": (40.0, 40.0),
    "soft": (40.0, 400.0),
    "mediastinum": (50.0, 350.0),
    "liver": (60.0, 160.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
}
"""Name -> centre and width in Hounsfield units, as radiologists commonly set them."""


@dataclass(frozen=True)
class Window:
    """Centre and width, in the units of the rescaled values, and the shape of the curve between black and white."""

    centre: float
    width: float
    shape: Shape = "LINEAR_EXACT"
    told: str = ""

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values as brightness in [0, 1], as the standard's formulas say."""
        x = values.astype(np.float64)
        if self.shape == "SIGMOID":
            y = 1 / (1 + np.exp(-4 * (x - self.centre) / self.width))
        elif self.shape == "LINEAR":
            y = (x - (self.centre - 0.5)) / max(self.width - 1, 1e-9) + 0.5
        else:
            y = (x - self.centre) / self.width + 0.5
        return y.clip(0, 1).astype(np.float32)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Centre and width of a straight line from black to white; None where it is none of that kind."""
        return (self.centre, self.width)

    @property
    def words(self) -> str:
        """What was done, for a note."""
        return f"{self.told or 'the window'}, {self.centre:g} wide {self.width:g}"


@dataclass(frozen=True)
class LookupTable(Window):
    """A VOI lookup table of the file, which only the library knows how to read."""

    dataset: Any = None
    bits: int = 16

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Through the table, whose entries have `bits` bits."""
        from pydicom.pixels.processing import apply_voi

        looked: NDArray[Any] = apply_voi(np.rint(values).astype(np.int64), self.dataset)
        return (looked / (2.0**self.bits - 1)).clip(0, 1).astype(np.float32)

    @property
    def ends(self) -> None:
        """None: a table is no line."""

    @property
    def words(self) -> str:
        """What was done."""
        return "the file's own lookup table"


def chosen_window(file: Any, asked: str, seen: NDArray[Any]) -> Window:
    """The window that was asked for.

    Args:
        file: a `pellucid.media.dicom.DicomFile`.
        asked: `auto` (the file's first window, else its lookup table, else the range of what it can hold or does hold),
            a name such as `bone`, `CENTRE,WIDTH`, or the number of one of the file's own windows, from 1.
        seen: the rescaled values that are no padding.

    Raises:
        MediaError: no such window.
    """
    own = _own(file)
    if asked == "auto":
        return own[0] if own else _whole(file, seen)
    if asked.isdecimal():
        if not 1 <= int(asked) <= len(own):
            raise MediaError(f"{file.label} has {len(own)} windows of its own, and no window {asked}: use auto.")
        return own[int(asked) - 1]
    return said_window(asked, file.unit, file.label)


def said_window(asked: str, unit: str, label: str) -> Window:
    """The window of that name, or `CENTRE,WIDTH`, for values in `unit`.

    Raises:
        MediaError: no such window, or one in Hounsfield units for other values.
    """
    if asked in WINDOWS:
        if unit != "HU":
            raise MediaError(f"{label} is not in Hounsfield units, which the window {asked!r} is: give CENTRE,WIDTH.")
        return Window(*WINDOWS[asked], told=f"the {asked} window")
    try:
        centre, width = (float(part) for part in asked.split(","))
        if not (width > 0 and np.isfinite(centre) and np.isfinite(width)):
            raise ValueError
    except ValueError:
        names = ", ".join(WINDOWS)
        raise MediaError(
            f"A window is auto, CENTRE,WIDTH, the number of one in the file, or {names}; not {asked!r}."
        ) from None
    return Window(centre, width)


def _own(file: Any) -> list[Window]:
    """The windows in the file, and behind them its lookup table."""
    centres, widths = _numbers(file.tag("WindowCenter")), _numbers(file.tag("WindowWidth"))
    said = str(file.tag("VOILUTFunction", "LINEAR")).upper()
    shape: Shape = said if said in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else "LINEAR"  # type: ignore[assignment]
    found: list[Window] = [
        Window(c, w, shape, "the file's window")
        for c, w in zip(centres, widths, strict=False)
        if w > (shape == "LINEAR")
    ]
    if table := file.tag("VOILUTSequence"):
        found.append(LookupTable(0, 1, told="table", dataset=file.dataset, bits=int(table[0].LUTDescriptor[2])))
    return found


def _whole(file: Any, seen: NDArray[Any]) -> Window:
    bits = int(file.number("BitsStored", 16))
    if bits <= 8 and file.unit != "HU":
        low, high = file.rescaled(np.array([0, 2**bits - 1])).tolist()
        if file.number("PixelRepresentation", 0):
            low, high = file.rescaled(np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1])).tolist()
        told = f"all that {bits} bits hold"
    else:
        finite = seen[np.isfinite(seen)]
        low, high = (float(q) for q in np.quantile(finite, (0.005, 0.995))) if finite.size else (0.0, 1.0)
        told = "the range of its own values (0.5 % at either end cut off)"
    low, high = min(low, high), max(low, high)
    return Window((low + high) / 2, (high - low) or 1.0, told=told)


def _numbers(value: Any) -> list[float]:
    several = (
        value
        if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str))
        else [value]
    )
    try:
        return [float(v) for v in several if v is not None]
    except (TypeError, ValueError):
        return []
