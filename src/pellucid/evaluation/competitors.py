"""Whoever draws maps: methods of this package, functions and objects of others, files.

A rival is a function `(model, inputs, target) -> array`: the bare module, inputs `(N, C, *space)` as it takes them, and
the class as a number (a `Target` where it is no class); the answer is `(N, *grid)` or `(N, C, *space)`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pellucid.engine import Cost, leave_no_trace, unwrap
from pellucid.engine.hooks import Hooks
from pellucid.errors import MethodError, PellucidError
from pellucid.evaluation.sample import Candidate, Sample
from pellucid.explanation import folded
from pellucid.heatmaps.base import Attribution, Method, explain_all
from pellucid.media.geometry import Geometry
from pellucid.models.model import VisionModel
from pellucid.models.targets import Class, PerSample, Target

Rival = Callable[[nn.Module, Tensor, Any], Any]


@dataclass(eq=False)
class Drawing:
    """Maps of one competitor over a batch.

    Attributes:
        native: `(N, *grid)`, as they were drawn.
        geometry: from the native grid over the model's input and to the original.
        signed: whether negative values speak against the target.
        cost: passes, where they are known.
        seconds: of processor time, of all inputs together.
        layer: that was explained, if any.
        spread: over the model's input, where that is known already.
    """

    native: Tensor
    geometry: Geometry
    signed: bool = True
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0
    layer: str | None = None
    spread: Tensor | None = None

    def maps(self) -> Tensor:
        """Over the model's input, `(N, *space)`."""
        return self.geometry.to_input(self.native) if self.spread is None else self.spread

    def candidates(self, competitor: Competitor) -> list[Candidate]:
        """Each input's map."""
        rows = zip(self.maps(), self.native, strict=True)
        return [Candidate(competitor, m, n, self.signed, self.geometry) for m, n in rows]


@dataclass(eq=False)
class Competitor(ABC):
    """Whoever draws maps, under a name that no other has."""

    name: str

    redraws: ClassVar[bool] = True  # other inputs than those of the samples
    remodels: ClassVar[bool] = True  # and models with other weights
    blind: ClassVar[bool] = False  # never looks at the model: an anchor

    @abstractmethod
    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """Maps of `x` `(N, C, *space)`, the sample's own input or ones like it, for a target of N rows."""

    @property
    def baseline(self) -> str:
        """What it hides parts of the input behind, if it does and says so."""
        return ""

    def written(self) -> list[Any] | None:
        """What makes it again, as plain values; None: it cannot be written down."""
        return None


@dataclass(eq=False)
class Drawer(Competitor):
    """A method of this package."""

    method: Method

    @property
    def baseline(self) -> str:
        """The method's own."""
        found = getattr(self.method, "baseline", "")
        return found if isinstance(found, str) else ""

    def written(self) -> list[Any] | None:
        """Name and settings."""
        settings = self.method.parameters()
        named = any(isinstance(v, str) and v.startswith("sha256:") for v in settings.values())
        return None if named else [self.name, self.method.name, settings]

    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """One run of the method."""
        return draw_together([self], model, x, target, sample)[0]


def draw_together(
    drawers: Sequence[Drawer], model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample
) -> list[Drawing]:
    """Methods that share a pass, in that pass; the time is the whole pass's, as each alone would take it."""
    began = time.process_time()
    found = [row[0] for row in explain_all([d.method for d in drawers], model, x, [target])]
    seconds = time.process_time() - began
    return [drawing(d.method, a, sample, seconds) for d, a in zip(drawers, found, strict=True)]


def drawing(method: Method, found: Attribution, sample: Sample, seconds: float) -> Drawing:
    """What a method found, as maps.

    Raises:
        MethodError: it is one number a channel.
    """
    if method.kind == "channels":
        raise MethodError(f"{method.name} gives one number per channel, not a map: leave it out.")
    native = folded(found.values.detach().cpu().float(), len(sample.space), method.channels)
    layer = None if found.layer is None else found.layer.name
    return Drawing(native, found.over(sample.over), method.signed, found.cost, seconds, layer)


@dataclass(eq=False)
class Foreign(Competitor):
    """A function of the user's, or an object of another library behind an adapter.

    Attributes:
        rival: see `Rival`.
        bound: it belongs to one model, so it cannot be asked about another.
    """

    rival: Rival
    bound: bool = False

    @property
    def remodels(self) -> bool:  # type: ignore[override]
        """Unless it is bound to its model."""
        return not self.bound

    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """One call, with the model put back as it was."""
        module = unwrap(model.module if isinstance(model, VisionModel) else model)
        began = time.process_time()
        counted = Cost()
        with leave_no_trace(module) if isinstance(module, nn.Module) else nullcontext(), Hooks() as hooks:
            hooks.before(module, lambda _m, given, _named: _count(counted, given))
            found = self.rival(module, x.detach().clone(), class_of(target))
        native = as_maps(found, len(x), sample.space, self.name)
        return Drawing(native, sample.over, cost=counted, seconds=time.process_time() - began)


def _count(cost: Cost, given: Sequence[Any]) -> None:
    cost.forwards += len(given[0]) if given and isinstance(given[0], Tensor) else 1


def class_of(target: Target) -> Any:
    """The one class that a frozen target asks for, as a number; the target itself where it is none."""
    if isinstance(target, PerSample) and len(set(target.indices)) == 1:
        return target.indices[0]
    return target.index if isinstance(target, Class) and isinstance(target.index, int) else target


def as_maps(found: Any, count: int, space: Sequence[int], name: str) -> Tensor:
    """What a rival gave as maps `(N, *grid)`.

    Raises:
        MethodError: it is none, or holds NaN.
    """
    if isinstance(found, list | tuple) and len(found) == 1 and count != 1:
        found = found[0]
    try:
        if isinstance(found, list | tuple):
            found = torch.stack([torch.as_tensor(np.asarray(_plain(f))) for f in found])
        values = torch.as_tensor(np.asarray(_plain(found))).float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise MethodError(f"{name} gave a {type(found).__name__}, not maps: return an array (N, *grid).") from error
    values = values[None] if count == 1 and values.ndim == len(space) else values
    if values.ndim == len(space) + 2:
        values = values.sum(1)
    if values.ndim != len(space) + 1 or len(values) != count or not values.numel():
        raise MethodError(f"{name} gave {tuple(values.shape)} for {count} inputs: return (N, *grid) or (N, C, *space).")
    if not values.isfinite().all():
        raise MethodError(f"The map of {name} holds NaN or infinity, so it is not measured.")
    return values


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


@dataclass(eq=False)
class Filed(Competitor):
    """Maps in a folder of `.npy` files, each named after its input: over the model's input or over the original."""

    folder: Path

    redraws: ClassVar[bool] = False
    remodels: ClassVar[bool] = False

    def draw(self, model: VisionModel | nn.Module, x: Tensor, target: Target, sample: Sample) -> Drawing:
        """The file, brought to the model's input.

        Raises:
            MethodError: there is none, it is no array, or of another size.
        """
        stem = Path(sample.name.partition(":")[2] or sample.name).stem
        path = self.folder / f"{stem}.npy"
        try:
            values = torch.as_tensor(np.load(path, allow_pickle=False)).float()
        except (OSError, ValueError, TypeError) as error:
            raise MethodError(f"{self.name} has no map of {sample.name}: {path} cannot be read ({error}).") from error
        over = sample.over
        if values.shape == torch.Size(over.source_size) != torch.Size(sample.space) and not over.turn:
            values = _cropped(values, over)
        if values.shape != torch.Size(sample.space):
            raise MethodError(
                f"{path} has shape {tuple(values.shape)}: a map is of the model's input {tuple(sample.space)} or of "
                f"the original {tuple(over.source_size)}."
            )
        return Drawing(as_maps(values[None], 1, sample.space, self.name), over)


def _cropped(values: Tensor, over: Geometry) -> Tensor:
    """A map over the original as one over what the model saw of it."""
    part = values[tuple(slice(max(0, round(a)), max(1, round(b))) for a, b in over.box)]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[values.ndim]
    return interpolate(part[None, None], size=over.input_size, mode=mode, align_corners=False)[0, 0]


def draw_all(
    competitors: Sequence[Competitor],
    model: VisionModel | nn.Module,
    x: Tensor,
    target: Target,
    sample: Sample,
    ahead: Mapping[int, Drawing] | None = None,
) -> list[Drawing | Exception]:
    """What all competitors draw; one that fails takes none of the others with it.

    Args:
        competitors: each once.
        model: the sample's, or one with other weights.
        x: inputs `(N, C, *space)`.
        target: of N rows, frozen.
        sample: that the inputs are made of.
        ahead: what is drawn already, by the competitor's `id`.
    """
    found: dict[int, Drawing | Exception] = dict(ahead or {})
    groups: dict[Any, list[Drawer]] = {}
    for c in competitors:
        if isinstance(c, Drawer) and id(c) not in found:
            groups.setdefault(c.method.pass_key(), []).append(c)
    for group in groups.values():
        try:
            found |= zip(map(id, group), draw_together(group, model, x, target, sample), strict=True)
        except PellucidError as error:
            found |= {id(c): _tried(c, model, x, target, sample) if len(group) > 1 else error for c in group}
    for c in competitors:
        if id(c) not in found:
            found[id(c)] = _tried(c, model, x, target, sample)
    return [found[id(c)] for c in competitors]


def _tried(c: Competitor, *given: Any) -> Drawing | Exception:
    try:
        return c.draw(*given)
    except PellucidError as error:
        return error
    except Exception as error:  # whatever another library's code raises
        return MethodError(f"{c.name} failed: {type(error).__name__}: {error}")


def competitor(name: str, given: Any, adapters: Mapping[str, Callable[[Any], tuple[Rival, bool]]]) -> Competitor:
    """Whoever was given, under a name.

    Args:
        name: that no other competitor has.
        given: a method, a function, an object of another library, or a folder of `.npy` files.
        adapters: by the library's module: from its objects to `(rival, bound to one model)`.

    Raises:
        MethodError: it is none of these.
    """
    if isinstance(given, Competitor):
        given.name = name
        return given
    if isinstance(given, Method):
        return Drawer(name, given)
    if isinstance(given, str | Path):
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise MethodError(f"{given} is no folder: name one that holds a .npy file for each input.")
        return Filed(name, folder)
    home = (given if isinstance(given, type) else type(given)).__module__.partition(".")[0]
    if home in adapters:
        return Foreign(name, *adapters[home](given))
    if callable(given):
        return Foreign(name, given)
    raise MethodError(
        f"{name} is a {type(given).__name__}, which draws no maps: give a method, a function (model, inputs, target) "
        "-> array, or a folder of .npy files."
    )
