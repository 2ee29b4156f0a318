"""Recurrent layers taken apart: the cells of LSTM, GRU and RNN layers run step by step, and relevance led back through.

A rule says how what a sum is worth is shared among its summands; everything else is the cell's own equations. Gates
carry nothing: of a product of a gate and a signal, the signal takes all (Arras et al. 2017, sec. 3). `written_out` says
in functions what torch's fused ones answer, so that tables of rules meet their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import MethodError

Shares = Callable[[Tensor, Tensor], Tensor]
"""(summands `(..., J)`, their sum with whatever else belongs to it `(...)`) -> each one's share of it `(..., J)`."""


def lrp_epsilon(epsilon: float) -> Shares:
    """`z_j / (z + eps sign z)`: in proportion to the summands, signs kept; the bias keeps its own share."""

    def shares(parts: Tensor, total: Tensor) -> Tensor:
        stable = total + epsilon * torch.where(total < 0, -1.0, 1.0)
        return parts / stable[..., None]

    return shares


def excitation(parts: Tensor, total: Tensor) -> Tensor:
    """In proportion to the summands that drive a unit to what it is (of its own sign); nothing for the others."""
    driving = (parts * torch.where(total < 0, -1.0, 1.0)[..., None]).relu()
    return driving / driving.sum(-1, keepdim=True).clamp(min=1e-30)


State = Tensor | tuple[Tensor, Tensor]
"""Of a recurrent module: `h` `(layers * ways, N, H)`, or `(h, c)` of an LSTM."""


def called_with(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, State | None]:
    """What a recurrent module is given in a call: its input, and the state that it starts from, None for zeros."""
    given = args[0] if args else kwargs.get("input")
    return given, args[1] if len(args) > 1 else kwargs.get("hx")


@dataclass(frozen=True)
class Cell:
    """One direction of one layer: its weights as torch stores them, gate by gate.

    Attributes:
        kind: `lstm` (gates i, f, g, o), `gru` (r, z, n), `tanh` or `relu`.
        w: `(gates * H, I)`; u: `(gates * H, H)`; b, d: biases `(gates * H,)` of the input and of the state.
    """

    kind: Literal["lstm", "gru", "tanh", "relu"]
    w: Tensor
    u: Tensor
    b: Tensor
    d: Tensor

    @property
    def size(self) -> int:
        """H."""
        return self.u.shape[1]

    def steps(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> Steps:
        """Run over `(N, T, I)` from a state `h` (and `c`) `(N, H)`, of zeros if there is none."""
        steps = Steps(self, x)
        zeros = x.new_zeros(len(x), self.size)
        h, c = zeros if h is None else h, zeros if c is None else c
        fed = functional.linear(x, self.w, self.b)
        for t in range(x.shape[1]):
            steps.h.append(h)
            steps.c.append(c)
            back = functional.linear(h, self.u, self.d)
            if self.kind == "lstm":
                i, f, g, o = (fed[:, t] + back).chunk(4, 1)
                i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
                c = f * c + i * g.tanh()
                steps.gates.append((i, f, o, g))
                h = o * c.tanh()
            elif self.kind == "gru":
                (r, z, n), (rb, zb, nb) = fed[:, t].chunk(3, 1), back.chunk(3, 1)
                r, z = (r + rb).sigmoid(), (z + zb).sigmoid()
                n = n + r * nb
                steps.gates.append((r, z, n))
                h = (1 - z) * n.tanh() + z * h
            else:
                n = fed[:, t] + back
                steps.gates.append((n,))
                h = n.tanh() if self.kind == "tanh" else n.relu()
        steps.h.append(h)
        steps.c.append(c)
        return steps


class Steps:
    """What a cell did: its states before each step and after the last, its gates and pre-activations of each step."""

    def __init__(self, cell: Cell, x: Tensor) -> None:
        self.cell, self.x = cell, x
        self.h: list[Tensor] = []
        self.c: list[Tensor] = []
        self.gates: list[tuple[Tensor, ...]] = []

    @property
    def outputs(self) -> Tensor:
        """`(N, T, H)`."""
        return torch.stack(self.h[1:], 1)

    def relevance(self, R: Tensor, shares: Shares) -> tuple[Tensor, Tensor]:
        """What the outputs are worth, `(N, T, H)`, led back: to the inputs `(N, T, I)`, to the first state `(N,)`."""
        cell, size = self.cell, self.cell.size
        found = torch.zeros_like(self.x)
        h_worth = c_worth = torch.zeros_like(R[:, 0])
        for t in reversed(range(self.x.shape[1])):
            h_worth = h_worth + R[:, t]
            h, x = self.h[t], self.x[:, t]
            if cell.kind == "lstm":
                i, f, _, g = self.gates[t]
                c_worth = c_worth + h_worth  # h = o tanh(c)
                split = shares(torch.stack([f * self.c[t], i * g.tanh()], -1), self.c[t + 1])
                carried, worth = (c_worth * part for part in split.unbind(-1))
                w, u, total = cell.w[2 * size : 3 * size], cell.u[2 * size : 3 * size], g
                given = torch.cat([w * x[:, None], u * h[:, None]], -1)
            elif cell.kind == "gru":
                r, z, total = self.gates[t]
                split = shares(torch.stack([(1 - z) * total.tanh(), z * h], -1), self.h[t + 1])
                worth, carried = (h_worth * part for part in split.unbind(-1))
                w, u = cell.w[2 * size :], cell.u[2 * size :]
                given = torch.cat([w * x[:, None], r[..., None] * u * h[:, None]], -1)
            else:
                (total,), worth, carried = self.gates[t], h_worth, torch.zeros_like(h_worth)
                given = torch.cat([cell.w * x[:, None], cell.u * h[:, None]], -1)
            back = torch.einsum("nk,nkj->nj", worth, shares(given, total))
            found[:, t], h_worth = back[:, : x.shape[1]], back[:, x.shape[1] :]
            if cell.kind == "lstm":
                c_worth = carried
            else:
                h_worth = h_worth + carried
        return found, (h_worth + c_worth if cell.kind == "lstm" else h_worth).sum(-1)


def cells(layer: nn.RNNBase) -> list[list[Cell]]:
    """The cells of a recurrent module: a list a layer, of one cell for each direction.

    Raises:
        MethodError: an LSTM with projections.
    """
    if getattr(layer, "proj_size", 0):
        raise MethodError(
            "LSTM layers with projections (proj_size) are not taken apart: use occlusion or state-ablation."
        )
    kind = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "tanh", "RNN_RELU": "relu"}[layer.mode]
    found = []
    for k in range(layer.num_layers):
        names = [f"l{k}{way}" for way in (["", "_reverse"] if layer.bidirectional else [""])]
        found.append([_cell(layer, kind, name) for name in names])
    return found


def _cell(layer: nn.RNNBase, kind: str, name: str) -> Cell:
    w, u = (getattr(layer, f"weight_{which}_{name}").detach() for which in ("ih", "hh"))
    zeros = w.new_zeros(len(w))
    b, d = (getattr(layer, f"bias_{which}_{name}").detach() if layer.bias else zeros for which in ("ih", "hh"))
    return Cell(kind, w, u, b, d)  # type: ignore[arg-type]


class Unrolled:
    """A whole recurrent module run over `(N, T, I)`, layer by layer, both ways where it runs both ways.

    Args:
        layer: the module.
        x: its input, batch first.
        state: what it starts from; None for zeros.
    """

    def __init__(self, layer: nn.RNNBase, x: Tensor, state: State | None = None) -> None:
        self.layers: list[list[Steps]] = []
        h, c = state if isinstance(state, tuple) else (state, None)
        at = 0
        for directions in cells(layer):
            steps = []
            for backwards, cell in enumerate(directions):
                first = [None if s is None else s[at] for s in (h, c)]
                steps.append(cell.steps(x if not backwards else x.flip(1), *first))
                at += 1
            self.layers.append(steps)
            x = torch.cat([s.outputs if not k else s.outputs.flip(1) for k, s in enumerate(steps)], -1)
        self.outputs = x

    def relevance(self, R: Tensor, shares: Shares) -> tuple[Tensor, Tensor]:
        """What the outputs `(N, T, H)` are worth, led back to the inputs `(N, T, I)`, and to the first state `(N,)`."""
        kept = R.new_zeros(len(R))
        for steps in reversed(self.layers):
            size = steps[0].cell.size
            found = [
                s.relevance(part if not k else part.flip(1), shares)
                for k, (s, part) in enumerate(zip(steps, R.split(size, -1), strict=True))  # type: ignore[no-untyped-call]
            ]
            kept = sum((first for _, first in found), kept)
            R = found[0][0] if len(found) == 1 else found[0][0] + found[1][0].flip(1)
        return R, kept


_KINDS: dict[str, Literal["lstm", "gru", "tanh", "relu"]] = {
    "lstm": "lstm", "gru": "gru", "rnn_tanh": "tanh", "rnn_relu": "relu",
}  # fmt: skip
RECURRENT = frozenset({*_KINDS, *(f"{name}_cell" for name in _KINDS)})
"""Names of torch's fused recurrent functions: of whole sequences, and of one step."""


def written_out(name: str, args: tuple[Any, ...]) -> Any:
    """What a fused recurrent function answers, step by step in functions that can be met.

    None for packed sequences, for projections, and where dropout is at work.
    """
    if name.endswith("_cell"):
        return _one_step(_KINDS[name.removesuffix("_cell")], *args)
    if len(args) != 9 or not isinstance(args[3], bool):  # packed: sizes of its batches stand before the state
        return None
    x, state, weights, biased, layers, dropout, training, both_ways, batch_first = args
    each = len(weights) // (layers * (1 + both_ways))
    if each != (4 if biased else 2) or (dropout and training):
        return None
    first = state if isinstance(state, tuple | list) else (state,)
    x = x if batch_first else x.transpose(0, 1)
    last: list[list[Tensor]] = [[] for _ in first]
    for layer in range(layers):
        answers = []
        for way in range(1 + both_ways):
            at = layer * (1 + both_ways) + way
            cell = _given(_KINDS[name], *weights[at * each : (at + 1) * each])
            steps = cell.steps(x.flip(1) if way else x, *[s[at] for s in first])
            answers.append(steps.outputs.flip(1) if way else steps.outputs)
            for kept, each_state in zip(last, (steps.h, steps.c), strict=False):
                kept.append(each_state[-1])
        x = torch.cat(answers, -1) if both_ways else answers[0]
    return x if batch_first else x.transpose(0, 1), *[torch.stack(s) for s in last]


def _given(kind: Literal["lstm", "gru", "tanh", "relu"], w: Tensor, u: Tensor, *biases: Tensor | None) -> Cell:
    zeros = w.new_zeros(len(w))
    b, d = (zeros if t is None else t.detach() for t in biases or (None, None))
    return Cell(kind, w.detach(), u.detach(), b, d)


def _one_step(kind: Literal["lstm", "gru", "tanh", "relu"], x: Tensor, state: Any, *weights: Tensor | None) -> Any:
    w, u, *biases = weights
    assert isinstance(w, Tensor)
    assert isinstance(u, Tensor)
    first = state if isinstance(state, tuple | list) else (state,)
    steps = _given(kind, w, u, *biases).steps(x[:, None], *first)
    return (steps.h[-1], steps.c[-1]) if kind == "lstm" else steps.h[-1]
