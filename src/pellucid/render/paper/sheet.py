"""A sheet of paper measured in inches from its top left corner, on a matplotlib figure: few artists, no axes.

Only imported when a figure is drawn, since it imports matplotlib. Every style is explicit, so that a user's
settings neither change a figure nor are changed by it; no pyplot, so that threads may draw side by side.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findSystemFonts, fontManager, get_font
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox, TransformedBbox
from numpy.typing import NDArray

from pellucid.language import chosen, translated
from pellucid.language.breaks import pieces

_FONT = "DejaVu Sans"  # comes with matplotlib: the same figure everywhere
_CHINESE_FILES = re.compile(r"(Noto|Source|wqy|msyh|PingFang|simhei|Droid|ArialUnicode)", re.IGNORECASE)
_CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Microsoft YaHei",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP", "Noto Serif CJK JP", "SimHei",
    "Arial Unicode MS", "Droid Sans Fallback",
)  # fmt: skip
INK, QUIET, FAINT, TRACK, PAPER = "#1b1e23", "#666c75", "#9aa0a8", "#e9ebee", "#ffffff"
WARNING, FOR, AGAINST = "#a34700", "#b2202f", "#2a6cab"

Align = Literal["left", "center", "right"]


@dataclass(frozen=True)
class Column:
    """A column on a sheet, in inches: its top left corner, its width, the most a picture in it may take."""

    x: float
    y: float
    width: float
    picture: tuple[float, float] = (0.0, 0.0)

    def down(self, y: float) -> Column:
        """The rest of the column, from y."""
        return replace(self, y=y)

    def fit(self, size: tuple[int, ...]) -> tuple[float, float]:
        """(width, height) of a picture of ``size`` (H, W) made as large as it may be."""
        scale = min(self.picture[0] / size[1], self.picture[1] / size[0])
        return size[1] * scale, size[0] * scale


class Sheet:
    """A figure that grows downwards: draw first, then `finish` with the height that was needed."""

    def __init__(self, width: float) -> None:
        self.figure = Figure(figsize=(width, 1.0), dpi=110, facecolor=PAPER, edgecolor=PAPER)
        FigureCanvasAgg(self.figure)
        self.width = width
        self._down = Affine2D().scale(1, -1)
        self._place = self._down + self.figure.dpi_scale_trans

    def finish(self, height: float) -> Figure:
        """The figure, ``height`` inches high."""
        self._down.translate(0, height)
        self.figure.set_size_inches(self.width, height)
        return self.figure

    def image(self, pixels: NDArray[np.uint8], x: float, y: float, width: float, height: float) -> None:
        """uint8 RGB (H, W, 3), its top left corner at (x, y)."""
        frame = TransformedBbox(Bbox([[x, y], [x + width, y + height]]), self._place)
        picture = BboxImage(frame, interpolation="antialiased", origin="upper", cmap="gray", resample=True)
        picture.set_data(pixels)
        self.figure.add_artist(picture)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        colour: str,
        alpha: float = 1.0,
        name: str = "",
        under: bool = False,
    ) -> None:
        """A filled rectangle without an edge, over pictures or under them; ``name`` is its id in SVG."""
        shape = Rectangle(
            (x, y), width, height, transform=self._place, facecolor=colour, alpha=alpha, linewidth=0, fill=True
        )
        if name:
            shape.set_gid(name)
        if under:
            shape.set_zorder(-1)
        self.figure.add_artist(shape)

    def stroke(self, points: Sequence[tuple[float, float]], *, colour: str, width: float = 1.0, name: str = "") -> None:
        """A line through points, ``width`` in points; ``name`` is its id where the figure becomes SVG."""
        xs, ys = zip(*points, strict=True)
        line = Line2D(xs, ys, transform=self._place, color=colour, linewidth=width, marker="", linestyle="-")
        line.set_solid_capstyle("round")
        if name:
            line.set_gid(name)
        self.figure.add_artist(line)

    def outline(
        self, x: float, y: float, width: float, height: float, *, colour: str, under: str, points: float
    ) -> None:
        """The edge of a rectangle, ``points`` wide, on a wider one of the colour ``under``."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        self.stroke(corners, colour=under, width=2.2 * points)
        self.stroke(corners, colour=colour, width=points)

    def dots(self, xs: Sequence[float], ys: Sequence[float], size: float, *, colour: str, alpha: float = 1.0) -> None:
        """Discs at points, ``size`` inches wide."""
        self.figure.add_artist(
            Line2D(
                list(xs), list(ys), transform=self._place, linestyle="none", marker="o", markersize=72 * size,
                markerfacecolor=colour, markeredgewidth=0, alpha=alpha, antialiased=True,
            )
        )  # fmt: skip

    def line(
        self,
        text: str,
        x: float,
        y: float,
        size: float,
        *,
        colour: str = INK,
        bold: bool = False,
        align: Align = "left",
        width: float | None = None,
    ) -> float:
        """One line of text with its top at y, cut with an ellipsis at ``width`` inches; the height it takes."""
        shown = plain(text) if width is None else ellipsised(plain(text), width, size, bold=bold)
        self.figure.add_artist(
            Text(
                x,
                y + 0.8 * leading(size),  # the base line
                shown,
                transform=self._place,
                color=colour,
                fontproperties=_font(size, bold),
                horizontalalignment=align,
                verticalalignment="baseline",
                multialignment="left",
                rotation=0,
                linespacing=1.2,
                parse_math=False,
                usetex=False,
                antialiased=True,
            )
        )
        return leading(size)

    def fitted(self, image: NDArray[np.uint8], x: float, y: float, side: float) -> None:
        """A picture in the middle of a square of ``side`` inches, as large as it fits."""
        scale = side / max(image.shape[:2])
        height, width = image.shape[0] * scale, image.shape[1] * scale
        self.image(image, x + (side - width) / 2, y + (side - height) / 2, width, height)

    def paragraph(
        self, text: str, x: float, y: float, width: float, size: float, *, colour: str = INK, rows: int = 4
    ) -> float:
        """Text broken into at most ``rows`` lines; the height it takes."""
        lines = wrapped(plain(text), width, size, rows=rows)
        for number, words in enumerate(lines):
            self.line(words, x, y + number * leading(size), size, colour=colour)
        return len(lines) * leading(size)

    def heading(
        self, text: str, x: float, y: float, width: float, size: float, *, align: Align = "left", rows: int = 2
    ) -> float:
        """Bold text broken into at most ``rows`` lines; the height it takes."""
        lines = wrapped(plain(text), width, size, rows=rows, bold=True)
        for number, words in enumerate(lines):
            self.line(words, x, y + number * leading(size), size, bold=True, align=align)
        return len(lines) * leading(size)


def leading(size: float) -> float:
    """The height of a line, in inches, of a font size in points."""
    return 1.35 * size / 72


def plain(text: str) -> str:
    """The text on one line, in the reader's language, characters that no font can draw replaced."""
    known, text = _known(), _spoken(text)
    return "".join(c if ord(c) in known else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def ellipsised(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """The text, cut with an ellipsis if it is wider than ``width`` inches."""
    if text_width(text, size, bold=bold) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(text[:middle].rstrip() + "…", size, bold=bold) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip(" ,.;:") + "…"


def wrapped(text: str, width: float, size: float, *, rows: int, bold: bool = False) -> list[str]:
    """The text broken into lines at most ``width`` inches wide; the last one is ellipsised.

    Lines break at spaces, and beside Chinese characters, but not in front of the marks that end a clause.
    """
    lines: list[str] = []
    words = pieces(text)
    while words and len(lines) < rows - 1:
        count = 1
        while count < len(words) and text_width("".join(words[: count + 1]).strip(), size, bold=bold) <= width:
            count += 1
        lines.append(ellipsised("".join(words[:count]).strip(), width, size, bold=bold))
        words = words[count:]
    return [*lines, ellipsised("".join(words).strip(), width, size, bold=bold)] if words else lines


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """The width of one line of text, in inches, of a font size in points."""
    widths = _widths(bold)
    total = sum(widths.get(c) or _measure(c, bold) for c in text)
    return 1.08 * total * size / 72  # hinting at low resolution makes letters wider


@lru_cache(maxsize=32)
def _font(size: float, bold: bool) -> FontProperties:
    family = [_FONT, *filter(None, [_chinese_font()])]
    return FontProperties(
        family=family,
        style="normal",
        variant="normal",
        weight="bold" if bold else "normal",
        stretch="normal",
        size=size,
    )


@lru_cache(maxsize=2)
def _widths(bold: bool) -> dict[str, float]:
    return {}


def _measure(character: str, bold: bool) -> float:
    """The advance of a character, in units of the font size; kept for the next time."""
    family = _FONT if ord(character) in _charmap(_FONT) else _chinese_font() or _FONT
    font: Any = get_font(fontManager.findfont(FontProperties(family=family, weight="bold" if bold else "normal")))
    font.set_size(100.0, 72)
    width = float(font.load_char(ord(character)).linearHoriAdvance) / 65536 / 100
    _widths(bold)[character] = width
    return width


@lru_cache(maxsize=1)
def _known() -> frozenset[int]:
    return frozenset().union(*map(_charmap, filter(None, [_FONT, _chinese_font()])))


@lru_cache(maxsize=4)
def _charmap(family: str) -> frozenset[int]:
    font: Any = get_font(fontManager.findfont(FontProperties(family=family)))
    return frozenset(font.get_charmap())


@lru_cache(maxsize=1)
def _chinese_font() -> str | None:
    """The name of an installed font with Chinese glyphs, those of the mainland first.

    matplotlib's list of fonts is of the day when it first ran, so files that came later are added to it.
    """
    listed = {Path(font.fname).name for font in fontManager.ttflist}
    for file in findSystemFonts():
        if _CHINESE_FILES.match(name := Path(file).name) and name not in listed:
            with suppress(OSError, RuntimeError):  # not a font after all
                fontManager.addfont(file)
    installed = {font.name for font in fontManager.ttflist}
    return next((name for name in _CHINESE_FONTS if name in installed), None)


def _spoken(text: str) -> str:
    """The text in the reader's language, or in English where no installed font can draw that, which is said once."""
    if chosen() == "en" or _chinese_font():
        return translated(text)
    _say_once()
    return text


@lru_cache(maxsize=1)
def _say_once() -> None:
    print(
        "pellucid: no installed font has Chinese glyphs, so figures stay in English: install one, such as the package "
        "fonts-noto-cjk.",
        file=sys.stderr,
    )
