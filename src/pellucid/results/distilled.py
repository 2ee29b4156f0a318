"""What users hold of a readable model: it predicts, says why, can be corrected by hand, drawn, saved and reopened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pellucid.errors import DataError
from pellucid.explanation import Brief
from pellucid.interpretable.base import Reason
from pellucid.interpretable.distilled import Surrogate, from_files, to_files
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.net import ReadableNet
from pellucid.interpretable.opening import as_net, backbone
from pellucid.interpretable.tree import Tree
from pellucid.interpretable.words import Parts
from pellucid.media import Picture, read_image
from pellucid.models.model import VisionModel
from pellucid.results.base import Result
from pellucid.results.shown import slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

_SIZE, _CROPS = 96, 3  # pixels of a square, and squares a word


@dataclass
class Evidence:
    """Why a readable model gives its answer on one picture.

    Attributes:
        label: its answer.
        probability: of that.
        reasons: the strongest first.
        words: every word's value.
        path: of a tree: the nodes the picture comes through.
    """

    label: str
    probability: float
    reasons: list[Reason]
    words: dict[str, float]
    path: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.label} {self.probability:.0%}"]
        for r in self.reasons[:8]:
            amount = f" ({r.contribution:+.2f})" if np.isfinite(r.contribution) else ""
            lines.append(f"  {r.text}{amount}")
        return "\n".join(lines)


@dataclass(repr=False)
class Distilled(Brief, Surrogate, Result):
    """A readable model of `pl.distill`; see `Surrogate` for what it holds."""

    base: VisionModel | None = field(default=None, repr=False)

    @classmethod
    def of(cls, surrogate: Surrogate, base: VisionModel | None = None) -> Distilled:
        """With its network, so that pictures can be looked at."""
        return cls(**{f.name: getattr(surrogate, f.name) for f in fields(Surrogate)}, base=base)

    @classmethod
    def load(cls, path: str | Path, base: VisionModel | None = None) -> Distilled:
        """Read what `save` wrote; `base` is its network, where no name loads that again."""
        return cls.of(from_files(path), base)

    def network(self) -> VisionModel:
        """The network that its words are read from."""
        if self.base is None:
            self.base = backbone(self)
        return self.base

    def model(self) -> VisionModel:
        """The readable model as a model, to be explained like any other."""
        base = self.network()
        net = as_net(self, base)
        return VisionModel(net, base.preprocess, tuple(self.labels), f"{self.into} for {self.name}")

    def predict(self, picture: Any) -> tuple[str, float]:
        """Its answer on a picture, and the probability."""
        found = self.explain(picture)
        return found.label, found.probability

    def explain(self, picture: Any, label: str | None = None) -> Evidence:
        """Its answer on a picture, and the reasons for it, or for another label."""
        return self._evidence(self._row(picture), label)

    def set(self, picture: Any, changes: Mapping[str, float]) -> Evidence:
        """Its answer on a picture some of whose words are set by hand: a concept bottleneck's intervention.

        Raises:
            DataError: no such word.
        """
        row = self._row(picture)
        for name, value in changes.items():
            if name not in self.words.names:
                raise DataError(
                    f"There is no word {name!r} to set: choose among {', '.join(self.words.names[:10])} ..."
                )
            row[self.words.names.index(name)] = value
        return self._evidence(row, None)

    def _evidence(self, row: NDArray[np.float64], label: str | None) -> Evidence:
        probabilities = self.head.predict_proba(row[None])[0]
        k = int(probabilities.argmax()) if label is None else self.head.code(row, label)
        return Evidence(
            self.labels[k],
            float(probabilities[k]),
            self.head.reasons(row, self.head.classes_[k]),
            dict(zip(self.words.names, map(float, row), strict=True)),
            self.head.path(row) if isinstance(self.head, Tree) else [],
        )

    def _row(self, picture: Any) -> NDArray[np.float64]:
        x, _ = self.network().pictures(picture if isinstance(picture, Picture) else read_image(picture))
        with torch.no_grad():
            net = self._net()
            row: NDArray[np.float64] = net.words(net.activation(x[None]))[0].double().numpy()
        return row

    def _net(self) -> ReadableNet:
        return as_net(self, self.network())

    def figure(self, picture: Any = None) -> Figure:
        """The sheet: the card, the model, where it disagrees; the way of a picture through a tree in red."""
        from pellucid.render.surrogate import Gallery, surrogate_figure

        path = self.explain(picture).path if picture is not None else []
        squares = lru_cache(maxsize=None)(self._square)
        return surrogate_figure(self, Gallery(squares, self._portraits(), path))

    def _square(self, index: int) -> NDArray[np.uint8]:
        return _fitted(read_image(self.sources[index]).pil())

    def _portraits(self) -> dict[int, list[NDArray[np.uint8]]]:
        """For each word the model uses, crops of where it is most, in different pictures."""
        if self.words.domain != "layer":
            return {}
        train = self.learned_from
        if isinstance(self.words, Parts):
            return {p: [self._crop(int(i), int(cell))] for p, (i, cell) in enumerate(self.words.where)}
        places: dict[int, Tensor] = {}
        found: dict[int, list[NDArray[np.uint8]]] = {}
        net = self._net()
        for j in self._used():
            crops = []
            for i in self.exemplars(j, _CROPS, rows=train):
                if i not in places:
                    places[i] = self._places(net, i)
                if places[i].numel():
                    crops.append(self._crop(i, int(places[i][:, j].argmax())))
            found[j] = crops
        return found

    def _places(self, net: ReadableNet, index: int) -> Tensor:
        """How much of each word is at each cell of a picture; empty where words have no place."""
        x, _ = self.network().pictures(read_image(self.sources[index]))
        with torch.no_grad():
            found = net.words.places(net.activation(x[None]))
        return torch.zeros(0) if found is None else found[0]

    def _used(self) -> list[int]:
        """Columns that are drawn."""
        head = self.head
        if isinstance(head, Tree):
            return sorted({int(j) for j in head.feature_ if j >= 0})
        if isinstance(head, SparseLinear):
            top = np.argsort(-np.abs(head.weights_), axis=0, kind="stable")[:6]
            return sorted({int(j) for k in range(top.shape[1]) for j in top[:, k] if head.weights_[j, k]})
        columns = getattr(head, "columns_", None)
        if columns is not None:
            return [int(j) for j in columns]
        return sorted({c.feature for rule in getattr(head, "rules_", []) for c in rule})

    def _crop(self, index: int, cell: int) -> NDArray[np.uint8]:
        """The part of a picture around a cell of the layer's grid, twice as large, at least a quarter of a side."""
        picture = read_image(self.sources[index])
        box = self._box(picture, cell)
        image = picture.pil()
        if box is None:
            return _fitted(image)
        sides = (image.width, image.height, image.width, image.height)
        return _fitted(image.crop([round(share * side) for share, side in zip(box, sides, strict=True)]))  # type: ignore[arg-type]

    def _box(self, picture: Picture, cell: int) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom of what `_crop` shows, as shares of the picture; None where that is not known."""
        _, geometry = self.network().pictures(picture)
        if self.layout is None or not geometry.known:
            return None
        at = np.unravel_index(cell, self.layout.grid)[-2:]
        sides = []
        for (start, stop), n, c, size in zip(geometry.box[-2:], self.layout.grid[-2:], at, picture.size, strict=True):
            width = (stop - start) / n
            middle, half = start + (c + 0.5) * width, max(width, 0.125 * size)
            sides.append((max(0.0, middle - half) / size, min(float(size), middle + half) / size))
        (top, bottom), (left, right) = sides
        return left, top, right, bottom

    def evidence(self, picture: Any, label: str | None = None, most: int = 6) -> Figure:
        """Why it answers what it does for a picture: the strongest reasons, each where it is in the picture, beside
        what it is about in pictures it was made from (for prototypes: the pairs that match).
        """
        from pellucid.render.surrogate_evidence import EvidenceRow, Match, evidence_figure

        opened = picture if isinstance(picture, Picture) else read_image(picture)
        found = self.explain(opened, label)
        x, _ = self.network().pictures(opened)
        net = self._net()
        with torch.no_grad():
            places = net.words.places(net.activation(x[None])) if self.words.domain == "layer" else None
        here = _shown(opened)
        rows = []
        for reason in found.reasons[:most]:
            box = None
            if reason.feature >= 0 and places is not None:
                box = self._box(opened, int(places[0, :, reason.feature].argmax()))
            there = [Match(*shown) for shown in self._elsewhere(net, reason)]
            rows.append(EvidenceRow(reason, None if box is None else Match(here, box), there))
        return evidence_figure(opened.name, Match(here), found.label, found.probability, rows)

    def _elsewhere(
        self, net: ReadableNet, reason: Reason
    ) -> list[tuple[NDArray[np.uint8], tuple[float, float, float, float] | None]]:
        """What a reason points to among the pictures it was made from, with boxes."""
        train = self.learned_from
        if reason.row >= 0:
            return [(_shown(read_image(self.sources[int(np.flatnonzero(train)[reason.row])])), None)]
        if reason.feature < 0 or self.words.domain != "layer":
            return []
        if isinstance(self.words, Parts):
            where = [(int(self.words.where[reason.feature, 0]), int(self.words.where[reason.feature, 1]))]
        else:
            where = []
            for i in self.exemplars(reason.feature, 2, rows=train):
                places = self._places(net, i)
                if places.numel():
                    where.append((i, int(places[:, reason.feature].argmax())))
        opened = [(read_image(self.sources[i]), cell) for i, cell in where]
        return [(_shown(p), self._box(p, cell)) for p, cell in opened]

    @property
    def caption(self) -> str:
        """What it is, and in whose place."""
        return f"{self.into} learned from {self.name}: {self.card.line}"

    def on_page(self, file: str = "") -> Card:
        """A part of a page: the sheet as SVG, the card, the model as text; for a tree, pictures whose way through it is
        shown when they are pointed at.
        """
        return self._part(self.figure(), file)

    def _part(self, figure: Figure, file: str) -> Card:
        from pellucid.render.pages.readable import readable_card

        ways = []
        if isinstance(self.head, Tree):
            for i in [*self.card.wrong[:6], *(int(h) for h in self.held if int(h) not in set(self.card.wrong))][:14]:
                ways.append((self._square(i), self.head.path(self.X[i]), self.labels[int(self.answers[i].argmax())]))
        return readable_card(self, figure, ways, file)

    def save(self, folder: str | Path, name: str | None = None) -> list[Path]:
        """Write values, record, sheet (.png, .svg) and page (.html) into `folder`; returns the files."""
        from pellucid.render import figure_png
        from pellucid.render.pages.page import figure_svg
        from pellucid.render.pages.report import report_page

        stem = Path(folder) / (name or f"{slug(self.name)}.{self.into}")
        sheet = self.figure()
        beside = {
            stem.with_name(f"{stem.name}.png"): figure_png(sheet),
            stem.with_name(f"{stem.name}.svg"): figure_svg(sheet).encode(),
            stem.with_name(f"{stem.name}.html"): report_page(self.caption, [self._part(sheet, "")]).encode(),
        }
        return to_files(self, stem, beside)

    def __str__(self) -> str:
        return f"{self.head}\n{self.card.line}"


def _shown(picture: Picture, size: int = 256) -> NDArray[np.uint8]:
    """A picture small enough to draw, its sides in proportion."""
    image = picture.pil()
    scale = size / max(image.size)
    how = Image.Resampling.NEAREST if scale > 4 else Image.Resampling.LANCZOS
    sides = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(sides, how).convert("RGB"))


def _fitted(image: Image.Image) -> NDArray[np.uint8]:
    """The middle square of a picture, small."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    how = Image.Resampling.NEAREST if side < _SIZE // 2 else Image.Resampling.LANCZOS
    return np.asarray(square.resize((_SIZE, _SIZE), how).convert("RGB"))
