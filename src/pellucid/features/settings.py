"""How a synthesis is run, as data: frozen, comparable, and plain values for the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from pellucid.errors import MethodError
from pellucid.features.colour import Colours
from pellucid.features.cppn import CPPN
from pellucid.features.maco import MACO
from pellucid.features.parametrisations import PARAMETRISATIONS, Fourier, Parametrisation, Pixel, get_parametrisation
from pellucid.features.robustness import Robustness
from pellucid.registry import settings_of

__all__ = ["CPPN", "MACO", "PRESETS", "Fourier", "Pixel", "Settings"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """How pictures are made.

    Attributes:
        parametrisation: what is optimised: `Fourier()`, `MACO()`, `Pixel()`, `CPPN()`.
        robustness: the random views that the model is shown.
        steps: of gradient ascent.
        views: of each picture in a step.
        zoom: sides of the canvas over the sides of the model's input; above 1 the views show parts of a larger picture.
        shape: `(C, *space)` of the model's input, where it is not its preprocessing's.
        colours: statistics for decorrelation; None: the natural sample pictures' for 1 and 3 channels.
        alpha: which places matter: `gradient` (accumulated gradient magnitude, Fel et al. 2023), `learnt` (an alpha
            channel over random backgrounds, optimised along), or None.
        plateau: stop when the smoothed objective has gained less than this share of its whole gain over `patience`
            steps; 0 never stops.
        patience: steps to wait, and to smooth over.
        factor: given natural activations, stop when the smoothed objective exceeds their maximum by this factor.
    """

    parametrisation: Parametrisation = field(default_factory=Fourier)
    robustness: Robustness = field(default_factory=Robustness)
    steps: int = 256
    views: int = 2
    zoom: float = 1.0
    shape: tuple[int, ...] | None = None
    colours: Colours | None = None
    alpha: Literal["gradient", "learnt"] | None = None
    plateau: float = 0.01
    patience: int = 48
    factor: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.views < 1 or self.patience < 1 or not self.zoom > 0 or self.plateau < 0:
            raise MethodError(
                "A synthesis takes at least one step, one view and a patience of one step, a zoom above 0 and a "
                "plateau of at least 0."
            )
        if self.factor is not None and not self.factor >= 1:
            raise MethodError(f"The factor over the natural maximum is at least 1, not {self.factor}.")
        if self.alpha not in (None, "gradient", "learnt"):
            raise MethodError(f"alpha is gradient, learnt or None, not {self.alpha!r}.")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Settings:
        """`fast`, `standard` or `fine`, with changes; a parametrisation may be given by name.

        With MACO a preset takes random crops of a larger canvas, as that method wants, unless told otherwise.

        Raises:
            MethodError: no such preset, parametrisation or setting.
        """
        if name not in PRESETS:
            raise MethodError(f"There is no preset {name!r}: choose {', '.join(PRESETS)}.")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(changes) - known):
            raise MethodError(f"There is no setting {unknown[0]!r}; there are {', '.join(sorted(known))}.")
        given = changes.get("parametrisation")
        if isinstance(given, str):
            changes["parametrisation"] = given = get_parametrisation(given)
        base = PRESETS[name]
        if isinstance(given, MACO):
            base = replace(base, **_CROPS[name])
        return replace(base, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; measured tensors as nested lists."""
        values = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        own = {name: _plain(getattr(self.parametrisation, name)) for name in settings_of(self.parametrisation)}
        return values | {"parametrisation": {"name": self.parametrisation.name, **own}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of `as_dict`, through JSON or not."""
        import torch

        changes = dict(values)
        own = dict(changes.pop("parametrisation"))
        name = own.pop("name")
        if isinstance(own.get("spectrum"), list):
            own["spectrum"] = torch.tensor(own["spectrum"])
        views: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in changes.pop("robustness").items()
        }
        if changes.get("colours") is not None:
            changes["colours"] = Colours(**{k: torch.tensor(v) for k, v in changes["colours"].items()})
        if changes.get("shape") is not None:
            changes["shape"] = tuple(changes["shape"])
        chosen = PARAMETRISATIONS[name](**own)
        return cls(parametrisation=chosen, robustness=Robustness(**views), **changes)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


PRESETS: dict[str, Settings] = {
    "fast": Settings(steps=128, views=1),
    "standard": Settings(steps=320, views=2),
    "fine": Settings(steps=768, views=8),
}

_CROPS: dict[str, dict[str, Any]] = {
    "fast": {"robustness": Robustness.crops(), "alpha": "gradient", "views": 2},
    "standard": {"robustness": Robustness.crops(), "alpha": "gradient", "views": 4, "zoom": 1.5},
    "fine": {"robustness": Robustness.crops(), "alpha": "gradient", "views": 16, "zoom": 2.0},
}
