"""Targets of detectors of anomalies: why this picture, or this place in it, is said to be odd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import AbsentError, TargetError
from pellucid.media.geometry import Geometry
from pellucid.models.parts import described, taken
from pellucid.models.targets.base import Labels, Target, target

SCORES = ("pred_score", "anomaly_score", "score")
MAPS = ("anomaly_map", "map")
_TEXT = re.compile(r"anomaly(?:@(?P<x>-?[\d.]+),(?P<y>-?[\d.]+))?")
_ON = 0.5  # whole numbers are the centres of pixels


def score_of(output: Any) -> Tensor | None:
    """How odd each picture is, `(N,)`: the part called so, or a tensor `(N,)` or `(N, 1)`; else None."""
    names = [output] if isinstance(output, Tensor) else [taken(output, name) for name in SCORES]
    for found in names:
        if found is not None and found.ndim in (1, 2) and found.is_floating_point() and found[0].numel() == 1:
            return found.reshape(-1)
    return None


def map_of(output: Any) -> Tensor | None:
    """How odd each place is, `(N, h, w)`; None where the model says nothing of places."""
    for name in MAPS:
        found = None if isinstance(output, Tensor) else taken(output, name)
        if found is not None and found.ndim in (3, 4):
            return found.reshape(len(found), *found.shape[-2:])
    return None


@target("anomaly", form="anomaly[@X,Y]")
@dataclass(frozen=True)
class AnomalyTarget(Target):
    """How odd the picture is; with a place, how odd the model's own map says that this place is.

    A model that gives a map and no score is asked for the map's greatest value.

    Args:
        at: `(x, y)` in the original picture's pixels.

    Raises:
        AbsentError: the place lies outside of what the model sees.
        TargetError: the model gives no such score or map.
    """

    at: tuple[float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()  # `at` as shares of the model's input, for each sample

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> AnomalyTarget:
        """A place without a picture is one on the input itself."""
        if self.at is None or self.points:
            return self
        height, width = inputs.shape[-2:]
        return replace(self, points=(((self.at[0] + _ON) / width, (self.at[1] + _ON) / height),) * len(inputs))

    def placed(self, geometries: Sequence[Geometry]) -> AnomalyTarget:
        """The place on each picture's input."""
        if self.at is None:
            return self
        points = []
        for geometry in geometries:
            x, y = self.at
            left, top, *_ = geometry.input_box((x + _ON, y + _ON, x + 1, y + 1))
            height, width = geometry.input_size[-2:]
            if not (0 <= left < width and 0 <= top < height):
                raise AbsentError(f"The place {x:g},{y:g} lies outside of what the model sees of this picture.")
            points.append((left / width, top / height))
        return replace(self, points=tuple(points))

    def select(self, rows: Tensor) -> AnomalyTarget:
        """The places of these samples."""
        return replace(self, points=tuple(self.points[r] for r in rows.tolist())) if self.points else self

    def __call__(self, output: Any) -> Tensor:
        """The score, or the value of the map at the place, `(N,)`."""
        places = map_of(output)
        if self.at is None:
            score = score_of(output)
            if score is None and places is not None:
                score = places.flatten(1).amax(1)
            if score is None:
                raise TargetError(
                    f"The model answers {described(output)}, and no score of an anomaly: let it answer "
                    "{'score': (N,), 'anomaly_map': (N, h, w)}."
                )
            return score
        if places is None:
            raise TargetError(f"The model answers {described(output)}, and no map: ask for anomaly, without a place.")
        height, width = places.shape[1:]
        chosen = self.points[: len(places)]  # the layer probe runs one sample: any of the places serves there
        rows = torch.tensor([min(int(y * height), height - 1) for _, y in chosen], device=places.device)
        columns = torch.tensor([min(int(x * width), width - 1) for x, _ in chosen], device=places.device)
        value: Tensor = places[torch.arange(len(chosen), device=places.device), rows, columns]
        return value

    def name(self, labels: Labels) -> str:
        """`anomaly`, `anomaly at 120,40`."""
        return "anomaly" if self.at is None else f"anomaly at {self.at[0]:g},{self.at[1]:g}"

    def spec(self) -> str:
        """`anomaly`, `anomaly@X,Y`."""
        return "anomaly" if self.at is None else f"anomaly@{self.at[0]:g},{self.at[1]:g}"

    @classmethod
    def read(cls, text: str) -> AnomalyTarget | None:
        """As `spec` writes it."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            return None
        return cls() if match["x"] is None else cls((float(match["x"]), float(match["y"])))
