"""Players that are whole layers or blocks of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pellucid.engine import Capture, Cost, find_layer
from pellucid.engine.hooks import Behind, Hooks
from pellucid.engine.leaves import first_tensor, replace_first_tensor
from pellucid.errors import LayerError, MethodError
from pellucid.importance.game import Game, Players
from pellucid.importance.internals import removed
from pellucid.models.layouts import readings
from pellucid.models.opens import LAYERS, Need
from pellucid.progress import task
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze, score_of

_STUCK = "Output and input differ in shape, so out means the output's mean over places rather than a bypass: {}."
_FINEST = 56  # cells an axis of the maps shown


@dataclass(frozen=True, kw_only=True)
class Blocks(Players):
    """Whole layers or blocks. Out: `bypass` lets a block's input go on in its output's place.

    A block whose output differs in shape from its input cannot be bypassed; its output is then replaced by its mean
    over places, which takes away all it knows of places.

    Args:
        layers: module paths; None: the network's repeated building blocks.
        removal: `bypass`, or what stands in each channel's place: `zero`, `mean`, `resample`.
        seed: of `resample`.
        donor: an input whose outputs stand in for those of what is out.
    """

    layers: tuple[str, ...] | None = None
    removal: Literal["bypass", "zero", "mean", "resample"] = "bypass"
    seed: int = 0
    donor: Tensor | None = None
    kind: ClassVar[str] = "layers"
    needs: ClassVar[frozenset[Need]] = LAYERS
    budget: ClassVar[int] = 1024  # each coalition is another network: nothing to batch or to play back

    def __post_init__(self) -> None:
        if self.removal not in ("bypass", "zero", "mean", "resample"):
            raise MethodError(f"Layers are removed by bypass, zero, mean or resample, not {self.removal!r}.")

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """One forward a coalition, with hooks on the layers that are out."""
        names = list(self.layers or building_blocks(job.module))
        if len(names) < 2:
            raise MethodError("There are fewer than two layers to compare: name them.")
        targets = freeze(job)
        score, cost = score_of(targets), Cost(forwards=2)
        given: dict[str, Tensor] = {}
        with Capture(job.module, watch=names) as capture:
            capture.forward(job.inputs)
            looks = _energies([capture.watched[name] for name in names], job.space)
            if self.donor is not None:
                capture.forward(self.donor.to(job.inputs))
                given, cost.forwards = dict(capture.watched), cost.forwards + 1
        out: set[str] = set()
        stuck: set[str] = set()
        notes: list[str] = []
        with ExitStack() as stack:
            capture = stack.enter_context(Capture(job.module, watch=job.watch, edited=True))
            hooks = stack.enter_context(Hooks())
            for name in names:
                hooks.behind(find_layer(capture.module, name), self._removal(name, out, given, stuck))

            def value(coalitions: Tensor) -> Tensor:
                scores = []
                with task("layers", len(coalitions)) as advance, torch.no_grad():
                    for coalition in coalitions.tolist():  # each coalition is another network: no batch to fill
                        out.clear()
                        out.update(n for n, kept in zip(names, coalition, strict=True) if not kept)
                        output = capture.forward(job.inputs)
                        found = score(output, capture.watched, torch.zeros(1, dtype=torch.long))
                        out.clear()  # the model may be run for something else while this is open
                        scores.append(torch.stack([s[0].double().cpu() for s in found]))
                        cost.forwards += 1
                        advance(1)
                if stuck:
                    notes[:] = [_STUCK.format(", ".join(n for n in names if n in stuck))]
                return torch.stack(scores)

            yield Game(value, names, cost, looks, notes)

    def donated(self, donor: Tensor) -> Blocks:
        """Another picture's outputs stand in for those of what is out."""
        return replace(self, donor=donor)

    def _removal(self, name: str, out: set[str], given: Mapping[str, Tensor], stuck: set[str]) -> Behind:
        """What stands in for the layer's answer while it is out."""

        def removal(_module: nn.Module, args: Any, output: Any) -> Any:
            if name not in out:
                return None
            activation, before = first_tensor(output), first_tensor(args)
            if activation is None:
                raise LayerError(f"Layer {name!r} returns no activation tensor; name another.")
            if name in given:
                return replace_first_tensor(output, given[name].clone())
            if self.removal == "bypass" and before is not None and before.shape == activation.shape:
                return replace_first_tensor(output, before.clone())
            axis = activation.ndim - 1 if activation.ndim == 3 else 1
            removal = "mean" if self.removal == "bypass" else self.removal
            if self.removal == "bypass":
                stuck.add(name)
            return replace_first_tensor(output, removed(activation, axis, removal, self.seed).clone())

        return removal


def _energies(outputs: Sequence[Tensor], space: tuple[int, ...]) -> dict[str, Tensor]:
    """How strong each layer's output is where, `(K, *grid)`: the root mean square over channels, for pictures only.

    Axes are read as they most likely are. Layers that keep no places have no picture, and then none has.
    """
    layouts = [next(readings(tuple(o.shape), space), None) for o in outputs]
    if any(layout is None for layout in layouts) or len(space) != 2:
        return {}
    maps = [
        layout.to_map(o).float().square().mean(1, keepdim=True).sqrt()
        for layout, o in zip(layouts, outputs, strict=True)
        if layout is not None
    ]
    finest = [min(_FINEST, max(m.shape[axis] for m in maps)) for axis in (2, 3)]
    spread = [interpolate(m, size=finest, mode="bilinear", align_corners=False) for m in maps]
    return {"maps": torch.cat(spread)[:, 0].cpu()}


def building_blocks(module: nn.Module) -> list[str]:
    """A network's repeated building blocks, by structure: what containers of several modules with parts hold.

    Blocks do not nest. A network without such containers is cut into its top-level modules.
    """
    found: list[str] = []
    for name, container in module.named_modules():
        if not isinstance(container, nn.Sequential | nn.ModuleList) or any(name.startswith(f"{f}.") for f in found):
            continue
        children = list(container.named_children())
        plain = [c for _, c in children if not isinstance(c, nn.Sequential | nn.ModuleList) and any(c.children())]
        if len(plain) * 2 > len(children):
            found += [f"{name}.{child}" if name else child for child, c in children if any(c.children())]
    if len(found) < 2:
        found = [n for n, m in module.named_children() if any(True for _ in m.parameters())]
    return found
