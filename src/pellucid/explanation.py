"""Results as data: what was found, for what, how, and how far it can be trusted. No numerics, no drawing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.media.clip import Clip
from pellucid.media.geometry import Geometry
from pellucid.media.medium import CLIP, PICTURE, VOLUME, Medium
from pellucid.media.picture import Picture
from pellucid.media.volume import Volume

Kind = Literal["map", "channels"]
REDACTED = "redacted"
"""Among the extras: boxes `(1, K, 4)` of the original that nobody is shown."""


_LONG = 60  # letters of a text that are shown


class Brief:
    """A result that prints on one line: of arrays their shape, of collections their length."""

    def __repr__(self) -> str:
        """Its name, and what is short of its fields."""
        shown = [(f.name, _brief(getattr(self, f.name))) for f in dataclasses.fields(self) if f.repr]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in shown if text)})"


def _brief(value: Any) -> str:
    """A few letters for a value; none for nothing, and for objects that say more than that."""
    if value is None or isinstance(value, bool | int):
        return "" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONG else f"{value[:_LONG]}...")
    if isinstance(value, Prediction):
        return repr(value)
    if hasattr(value, "shape"):
        return f"<{'x'.join(map(str, value.shape))}>"
    if isinstance(value, Mapping | Sequence):
        return f"<{len(value)}>" if len(value) else ""
    return ""


@dataclass(frozen=True)
class Prediction:
    """One of the model's answers.

    Attributes:
        index: of the class.
        label: of the class.
        probability: in [0, 1]; NaN where the model's output is known to be none and has no way to be made one.
        score: the number that the model answers itself, such as a logit; NaN in records of old.
        place: of a box, `(x0, y0, x1, y1)` in the original picture's pixels.
    """

    index: int
    label: str
    probability: float
    score: float = math.nan
    place: tuple[float, ...] | None = None

    def placed(self, geometry: Geometry) -> Prediction:
        """This answer, its place on the model's input brought to the original picture."""
        return self if self.place is None else dataclasses.replace(self, place=geometry.source_box(self.place))

    @property
    def where(self) -> str:
        """Its place in whole pixels, `120,40,260,310`; empty where it has none."""
        return "" if self.place is None else ",".join(f"{v:.0f}" for v in self.place)

    def said(self, digits: int = 0) -> str:
        """The probability in percent, or the score where there is none."""
        return f"{self.score:.3g}" if math.isnan(self.probability) else f"{self.probability:.{digits}%}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prediction:
        """The inverse of `dataclasses.asdict`, where JSON's null stands for NaN."""
        known: dict[str, Any] = {k: math.nan if v is None else v for k, v in values.items()}
        known["place"] = tuple(values["place"]) if values.get("place") else None
        return cls(**known)


@dataclass(frozen=True)
class Curve:
    """An insertion or deletion curve, beside that of random masks over the same picture.

    Attributes:
        auc: area under the curve of the explanation's order, in [0, 1] where the score is a probability.
        random_mean: area under the mean scores of random masks that show as much.
        random_std: the standard deviation of that area, as the masks were drawn.
        fractions: share of cells shown (insertion) or hidden (deletion), from 0 to 1.
        scores: the target's score at each fraction, in the explanation's order.
        random_scores: mean over the random masks, at each fraction.
    """

    auc: float
    random_mean: float
    random_std: float
    fractions: list[float]
    scores: list[float]
    random_scores: list[float]


@dataclass
class Quality:
    """How far an explanation can be trusted, as measured by `check()`.

    Attributes:
        insertion: higher than random is better.
        deletion: lower than random is better.
        temporal_insertion: of clips, frame by frame in the order of the temporal curve.
        temporal_deletion: the same for deletion.
        sanity: rank correlation of the map with maps of the same model with shuffled weights; near 0 is good.
        completeness_gap: `|sum of the map - (f(x) - f(baseline))| / |f(x) - f(baseline)|`, where it is defined; a score
            that jumps right at the baseline counts as its limit beside it.
        verdict: `faithful`, `partly faithful`, `not faithful`, `unproven` (nothing to compare with), `meaningless`.
        line: the whole in one plain line.
        agreement: correlation of the map's share inside random masks with their effect on the score, in [-1, 1].
        p_value: the chance that the same map, shifted, mirrored or turned at random, agrees as well.
    """

    verdict: str
    line: str
    insertion: Curve | None = None
    deletion: Curve | None = None
    sanity: float | None = None
    completeness_gap: float | None = None
    temporal_insertion: Curve | None = None
    temporal_deletion: Curve | None = None
    agreement: float | None = None
    p_value: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Quality:
        """The inverse of `as_dict`."""
        names = ("insertion", "deletion", "temporal_insertion", "temporal_deletion")
        curves = {k: Curve(**_numbers(values[k])) if values.get(k) else None for k in names}
        return cls(**{**values, **curves})


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """The figures of a curve, where JSON's null stands for NaN."""
    nan = float("nan")
    lists = {k: [nan if x is None else x for x in v] for k, v in values.items() if isinstance(v, list)}
    return {k: nan if v is None else v for k, v in values.items()} | lists


@dataclass
class Record:
    """Provenance: everything needed to get the same numbers again.

    Attributes:
        model: `source` (how to load it; empty for a wrapped module), `name`, `weights` (SHA-256), `preprocess`,
            `reading` (what its output means).
        input: `source` (path or sample; empty for something in memory), `name`, `sha256`.
        method: `name`, `parameters`.
        target: the text `parse_target` reads, or None for a target that cannot be written down.
        run: `seed`, `device`, `dtype`, `layer`; `forwards`, `backwards`: of several inputs explained together each has
            its share.
        software: versions of pellucid, torch, timm, Python and the platform.
    """

    model: dict[str, Any]
    input: dict[str, Any]
    method: dict[str, Any]
    target: str | None
    run: dict[str, Any]
    software: dict[str, str]
    created: str = ""

    @property
    def model_name(self) -> str:
        """The model's name for a heading; of one out of a file its name alone, whatever folder the file lies in."""
        name = str(self.model.get("name") or "model")
        kind, colon, path = name.partition(":")
        return f"{kind}:{Path(path).name}" if colon and (Path(path).is_absolute() or path[:1] in ("~", ".")) else name


@dataclass(frozen=True)
class TemporalCurve:
    """How much each stretch of time counts: a tube summed over its frames' places, on the map's own time grid.

    Attributes:
        times: of the middle of each cell, in `unit`.
        values: one a cell, in the map's units.
        error: standard error of each value, where the method measures one.
        half: half of the 95 % interval of each value, where there is one.
        unit: `s`, or `frame` where the clip has no times.
    """

    times: tuple[float, ...]
    values: tuple[float, ...]
    error: tuple[float, ...] | None = None
    unit: str = "s"
    half: tuple[float, ...] | None = None

    @property
    def peak(self) -> float:
        """The time of the largest value."""
        return self.times[max(range(len(self.values)), key=lambda i: self.values[i])]

    def points_at(self, start: float, stop: float) -> bool:
        """The pointing game in time: whether the peak lies in [start, stop]."""
        return start <= self.peak <= stop

    def share(self, start: float, stop: float) -> float:
        """The share of positive evidence that lies in [start, stop]; NaN if there is none."""
        positive = [max(0.0, v) for v in self.values]
        inside = sum(v for v, t in zip(positive, self.times, strict=True) if start <= t <= stop)
        return inside / total if (total := sum(positive)) > 0 else float("nan")


def folded(values: Tensor, axes: int, how: Literal["sum", "max"]) -> Tensor:
    """Raw values `(N, *grid)` or `(N, C, *space)` over `axes` axes as `(N, *grid)`: a channel axis is folded."""
    if values.ndim != axes + 2:
        return values
    return values.amax(1) if how == "max" else values.sum(1)


@dataclass(repr=False)
class Explanation(Brief):
    """What a method found for one target on one picture.

    Attributes:
        attribution: raw signed values on the native grid: `(1, *grid)`, `(1, C, *space)`, or `(1, C)` for channels.
        method: the method's name.
        target: the target as people call it.
        prediction: the model's top classes.
        geometry: where the model looked on the original picture.
        record: provenance.
        layer: the layer explained and how its axes read, if any.
        kind: `map`, or `channels` for one number per channel.
        signed: whether negative values are evidence against the target.
        fold: how a channel axis is folded into one map (`sum` or `max`).
        notes: what a reader must know.
        remarks: what was measured of the model and of the question asked; no fault of the map, and read beside it.
        others: the pictures that it is compared with, while in memory; not stored.
        facts: measured figures, such as the completeness gap.
        quality: filled by `check()`.
        extras: further arrays, such as the channels' activation maps.
        picture: the original, while in memory; not stored.
    """

    attribution: Tensor
    method: str
    target: str
    prediction: list[Prediction]
    geometry: Geometry
    record: Record
    layer: str | None = None
    kind: Kind = "map"
    signed: bool = True
    fold: Literal["sum", "max"] = "sum"
    notes: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    quality: Quality | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    picture: Picture | Clip | Volume | None = field(default=None, repr=False)
    remarks: list[str] = field(default_factory=list)
    others: tuple[Picture, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The name of the explained input."""
        return str(self.record.input.get("name") or "input")

    def map(self) -> Tensor:
        """The map `(1, *grid)` on the native grid, its channel axis folded.

        Raises:
            MediaError: one number per channel is no map.
        """
        if self.kind == "channels":
            raise MediaError(f"{self.method} gives one number per channel, not a map: see `.ranking()`.")
        return folded(self.attribution, len(self.geometry.input_size), self.fold)

    def error_map(self) -> Tensor | None:
        """The standard error of the map `(1, *grid)`, raw, for methods that draw samples; None where there is none.

        It is kept in `extras["standard_error"]`: for each place, or for each of the segments `extras["labels"]`.
        """
        error = self.extras.get("standard_error")
        if error is None or self.kind == "channels":
            return None
        labels = self.extras.get("labels")
        return error if labels is None else error[0][labels]

    def interval(self) -> tuple[Tensor, Tensor] | None:
        """Both ends `(1, *grid)` of the 95 % interval of each value of the map, for methods that draw samples.

        It says where the value would lie with unlimited samples. None where nothing is sampled, where samples are too
        few (a note says so), and in results of older versions, which know the standard error only.
        """
        ends = [self.extras.get(name) for name in ("low", "high")]
        if self.kind == "channels" or any(e is None or not e.isfinite().any() for e in ends):
            return None
        labels = self.extras.get("labels")
        low, high = (e if labels is None else e[0][labels] for e in ends if e is not None)
        return low, high

    @property
    def medium(self) -> Medium:
        """What was explained: a picture, a clip or a volume."""
        return CLIP if self.geometry.is_clip else VOLUME if self.geometry.affine else PICTURE

    @property
    def is_clip(self) -> bool:
        """Whether the first axis of the map is time."""
        return self.medium.moving

    def tube(self) -> Tensor:
        """A clip's map `(T', H', W')` on the native grid: never interpolated.

        Raises:
            MediaError: the explanation is not of a clip, or has no map.
        """
        if not self.is_clip:
            raise MediaError(f"This explanation is of a picture, not of a clip: see `.map()` ({self.name}).")
        return self.map()[0]

    def spatial(self) -> Tensor:
        """Where, over all the time: the tube summed over time, `(H', W')`."""
        return self.tube().sum(0)

    def temporal(self) -> TemporalCurve:
        """When, over all places: the tube summed over space, with its error where the method measures one.

        Errors of places, or of segments, are added as if independent, as those of sampling methods nearly are. All
        places of a segment have one and the same error.
        """
        tube = self.tube().double()
        error = self._temporal_error(tube, self.extras.get("standard_error"))
        half = None
        if self.interval() is not None:
            half = self._temporal_error(tube, (self.extras["high"] - self.extras["low"]) / 2)
        times = tuple(self._time((k + 0.5) / len(tube)) for k in range(len(tube)))
        return TemporalCurve(times, tuple(tube.flatten(1).sum(1).tolist()), error, self.geometry.unit, half)

    def _temporal_error(self, tube: Tensor, error: Tensor | None) -> tuple[float, ...] | None:
        labels = self.extras.get("labels")
        if error is None:
            return None
        if labels is not None:  # places of each segment in each cell of time, (T', segments)
            places = labels[0].long().flatten(1)
            counts = tube.new_zeros(len(places), error.shape[1])
            counts.scatter_add_(1, places, tube.new_ones(places.shape))
            spread = torch.where(counts > 0, counts * error[0].double(), 0.0)
        elif error.shape[1:] == tube.shape:
            spread = error[0].double().flatten(1)
        else:
            return None
        return tuple(spread.square().sum(1).sqrt().tolist())

    def _time(self, share: float) -> float:
        """The time at a share of the model's input; frames are shown from their own time on."""
        start, stop = self.geometry.box[0]
        ticks = self.geometry.ticks
        at = start + share * (stop - start) - 0.5
        low = min(max(int(at // 1), 0), len(ticks) - 1)
        high = min(low + 1, len(ticks) - 1)
        return ticks[low] + (ticks[high] - ticks[low]) * min(max(at - low, 0.0), 1.0)

    def heatmap(self) -> Tensor:
        """The map in the ORIGINAL picture's pixels, float32 `(1, H, W)`: crop and resize undone, NaN where the
        model never looked. Of a clip `(1, T, H, W)`, over the frames that the model was shown.
        """
        values = self.geometry.to_source(self.map())
        seen = self.extras.get("seen")  # of a medical picture: padding was never measured
        return values if seen is None else values.masked_fill(~seen, float("nan"))

    def ranking(self) -> list[tuple[int, float]]:
        """Channels by absolute relevance, largest first, for methods that give one number per channel."""
        if self.kind != "channels":
            raise MediaError(f"{self.method} gives a map, not one number per channel: see `.heatmap()`.")
        values = self.attribution[0]
        order = values.abs().argsort(descending=True, stable=True)
        return [(int(i), float(values[i])) for i in order]
