"""Players that are concepts of a layer: a concept that is out is subtracted from what the layer says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.concepts.dictionary import Dictionary
from pellucid.engine import Capture
from pellucid.engine.tail import Tail
from pellucid.errors import MethodError
from pellucid.importance.game import Game, Players
from pellucid.models.opens import LAYERS, Need
from pellucid.models.places import Places
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze, score_of


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptPlayers(Players):
    """Concepts of one layer, scored by the tail behind it alone: `a - sum over the concepts that are out of u_k d_k`.

    What the concepts cannot say stays in, so with all of them in the model is as it was.

    Args:
        dictionary: a fitted dictionary of the layer's activations.
        layer: module path.
        names: what the concepts are called; empty: `concept 0`, `concept 1`, ...
    """

    dictionary: Dictionary
    layer: str
    names: tuple[str, ...] = ()
    kind: ClassVar[str] = "concepts"
    needs: ClassVar[frozenset[Need]] = LAYERS

    @contextmanager
    def game(self, job: Job) -> Iterator[Game]:
        """Changed activations through the tail."""
        if job.watch:
            raise MethodError("Concepts are scored at the model's output: give a class, not a Unit.")
        places = self._places(job)
        targets = freeze(job)
        with Tail(job.module, job.inputs, self.layer, score_of(targets), targets=len(targets)) as tail:
            tail.cost.forwards += 1
            cells = places.rows(tail.activation.float(), job.inputs)
            codes, D = self._said(cells)
            codes = codes.reshape(*cells.shape[1:-1], -1)

            def value(coalitions: Tensor) -> Tensor:
                def change(A: Tensor, start: int, stop: int) -> Tensor:
                    out = 1 - coalitions[start:stop].to(codes)
                    taken = torch.einsum("...k,mk,kc->m...c", codes, out, D)
                    return places.back(cells - taken, A, job.inputs).to(A)

                return tail(change, len(coalitions), label="concepts").cpu()

            yield Game(value, self._named(), tail.cost, {"maps": codes.movedim(-1, 0).float().cpu()})

    def first_order(self, job: Job) -> Tensor:
        """`(K, T)`: sum over places of `u_k <d_k, dy/da>`; exact where the tail is linear."""
        places = self._places(job)
        with Capture(job.module, [self.layer], watch=job.watch) as capture:
            _, scores = capture.scored(job.inputs, lambda y, w: [t.score(y, w) for t in job.targets])
            cells = places.rows(capture.activations[self.layer].detach().float(), job.inputs)
            slopes = [places.rows(g[self.layer].float(), job.inputs) for g in capture.gradients(scores)]
        codes, D = self._said(cells)
        flat = [g.reshape(-1, g.shape[-1]).double() @ D.double().T for g in slopes]
        return torch.stack([(codes.double() * slope).sum(0) for slope in flat], dim=1)

    def settings(self) -> dict[str, Any]:
        """The dictionary by its parameters."""
        return {"by": self.dictionary.name, "layer": self.layer, "dictionary": self.dictionary.get_params()}

    def _places(self, job: Job) -> Places:
        places = Places(job.module, self.layer)
        places.layout(job.inputs)
        return places

    def _said(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `(cells, K)` of one input's places, and the directions `(K, C)`."""
        codes = self.dictionary.encode(cells.reshape(-1, cells.shape[-1]).cpu().numpy())
        return torch.from_numpy(codes).to(cells), torch.from_numpy(self.dictionary.components_).to(cells)

    def _named(self) -> list[str]:
        count = len(self.dictionary.components_)
        if self.names and len(self.names) != count:
            raise MethodError(f"There are {count} concepts but {len(self.names)} names: give one for each.")
        return list(self.names) or [f"concept {k}" for k in range(count)]
