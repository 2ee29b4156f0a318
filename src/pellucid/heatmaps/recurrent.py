"""What each step of a recurrent network was worth: relevance led back through the gates, gradients, forgetting.

All methods find the first recurrent layer (LSTM, GRU, RNN) of the network and what it is given at each step. Maps are
`(N, T, h, w)` where a step is a frame seen by a convolutional network of its own, over the cells of its last layer;
else `(N, T, 1, 1)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, Cost
from pellucid.engine.frames import FrameScorer
from pellucid.engine.hooks import Hooks
from pellucid.engine.recurrent import State, Unrolled, called_with, excitation, lrp_epsilon
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, Method, method
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze, score_of

_STEPPED = 1e-3  # outputs stepped by hand may differ by so much: half precision, fused kernels
_STABLE = 1e-9  # of the largest feature: smaller ones take no relevance with them to the frame's cells


@dataclass
class RecurrentPass:
    """One pass of a recurrent network.

    Attributes:
        layer: the recurrent module.
        given: `(N, T, F)`, its input, in the graph behind the frames' cells.
        state: what it starts from, detached; None for zeros.
        outputs: `(N, T, H)`, what it answered, detached.
        slopes: for each target, the gradient `(N, T, H)` of its score to the module's output.
        cells: `(N * T, C, h, w)`, the activation of the frames' last convolutional layer; None where there is none.
        name: of that layer.
    """

    layer: nn.RNNBase
    given: Tensor
    state: State | None
    outputs: Tensor
    slopes: list[Tensor]
    cells: Tensor | None
    name: str | None

    def unrolled(self, given: Tensor) -> Unrolled:
        """The layer run step by step over `given`, from the state that the model starts it from.

        Raises:
            MethodError: that is not what the layer itself answers.
        """
        steps = Unrolled(self.layer, given, self.state)
        off = (steps.outputs.detach() - self.outputs).abs().max()
        if not off <= _STEPPED * max(1.0, float(self.outputs.abs().max())):
            raise MethodError(
                f"This {type(self.layer).__name__} answers otherwise than its cells run one step after another (a cell "
                "of its own, or dropout in evaluation mode): use occlusion, or the importance of frames."
            )
        return steps


def recurrent_layer(module: nn.Module) -> tuple[str, nn.RNNBase]:
    """The first recurrent module of a network.

    Raises:
        MethodError: there is none.
    """
    found = next(((n, m) for n, m in module.named_modules() if isinstance(m, nn.RNNBase)), None)
    if found is None:
        looped = any(isinstance(m, nn.RNNCellBase) for m in module.modules())
        has = "only cells in a loop of its own" if looped else "none"
        raise MethodError(
            f"This method needs a recurrent layer (nn.LSTM, nn.GRU or nn.RNN), and the model has {has}: use grad-cam, "
            "occlusion, or the importance of frames."
        )
    return found


def frame_layer(job: Job, layer: nn.RNNBase) -> str | None:
    """The last layer before the recurrent one that holds a picture for each step, frames folded into the batch."""
    found: list[tuple[str, int]] = []
    steps: list[int] = []

    def note(name: str) -> Any:
        def seen(_module: nn.Module, _args: Any, output: Any) -> None:
            if not steps and isinstance(output, Tensor) and output.ndim == 4:
                found.append((name, len(output) if output.shape[2:].numel() > 1 else 0))

        return seen

    def first(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given, _ = called_with(args, kwargs)
        if isinstance(given, Tensor) and given.ndim == 3:
            steps.append(given.shape[1 if layer.batch_first else 0])

    with Capture(job.module) as capture, torch.no_grad(), Hooks() as hooks:
        for name, module in capture.module.named_modules():
            if name:
                hooks.behind(module, note(name))
        hooks.before(layer, first)
        capture.forward(job.inputs[:1])
    return next((name for name, count in reversed(found) if steps and count == steps[0]), None)


@contextmanager
def reading(job: Job) -> Iterator[RecurrentPass]:
    """One forward pass, the slopes at the recurrent layer's outputs for each target; the graph lives meanwhile.

    Raises:
        MethodError: no recurrent layer, one that runs several times, or one whose cell state is read.
    """
    name, layer = recurrent_layer(job.module)
    cut = frame_layer(job, layer)
    seen: list[tuple[Any, State | None]] = []
    answers: list[Any] = []
    with Capture(job.module, [cut] if cut else [], watch=job.watch, input_gradient=cut is None) as capture:
        with Hooks() as hooks:
            hooks.before(layer, lambda _module, args, kwargs: seen.append(called_with(args, kwargs)))
            hooks.behind(layer, lambda _module, _args, output: answers.append(output))
            _, scores = capture.scored(job.inputs, lambda y, w: [t.score(y, w) for t in job.targets])
        given, state = _once(name, layer, seen)
        sequence = answers[0][0].detach()
        if not layer.batch_first:
            given, sequence = given.transpose(0, 1), sequence.transpose(0, 1)
        slopes = [_slopes(score, answers[0], layer) for score in scores]
        cells = capture.activations.get(cut) if cut else None
        yield RecurrentPass(layer, given, state, sequence, slopes, cells, cut)


def _once(name: str, layer: nn.RNNBase, seen: Sequence[tuple[Any, State | None]]) -> tuple[Tensor, State | None]:
    """What the one call of a recurrent layer is given: whole sequences, and the state that it starts from."""
    if seen and isinstance(seen[0][0], nn.utils.rnn.PackedSequence):
        raise MethodError(
            f"The recurrent layer {name!r} is given a PackedSequence, whose steps are not taken apart: let the model "
            "run on padded clips of one length, or use occlusion, or the importance of frames."
        )
    if len(seen) != 1 or seen[0][0].ndim != 3 or layer.input_size != seen[0][0].shape[-1]:
        raise MethodError(
            f"The recurrent layer {name!r} runs {len(seen)} times in a pass, not once over a batch of whole "
            "sequences: use occlusion, or the importance of frames."
        )
    given, state = seen[0]
    if state is None or not any(bool(s.any()) for s in _parts(state)):
        return given, None  # zeros, given or not
    return given, (state[0].detach(), state[1].detach()) if isinstance(state, tuple) else state.detach()


def _slopes(score: Tensor, output: Any, layer: nn.RNNBase) -> Tensor:
    """`(N, T, H)`: gradient of a score to the outputs; to the last state too, which is the output of the last step."""
    sequence, state = output
    h, c = state if isinstance(state, tuple) else (state, None)
    leaves = [sequence, h, *([] if c is None else [c])]
    found = torch.autograd.grad(score.sum(), leaves, retain_graph=True, allow_unused=True)
    ways = 2 if layer.bidirectional else 1
    lower = found[1][:-ways] if found[1] is not None else None
    if (lower is not None and bool(lower.any())) or (c is not None and found[2] is not None and bool(found[2].any())):
        raise MethodError(
            "The score reads the recurrent layer's cell state or the last states of its lower layers, which are not "
            "taken apart: use state-ablation, occlusion, or the importance of frames."
        )
    slope = torch.zeros_like(sequence) if found[0] is None else found[0].clone()
    slope = slope if layer.batch_first else slope.transpose(0, 1)
    if found[1] is not None:
        slope[:, -1, : layer.hidden_size] += found[1][-ways]
        if ways == 2:
            slope[:, 0, layer.hidden_size :] += found[1][-1]
    if not slope.any():
        raise MethodError(
            "The score does not depend on the recurrent layer's output: name a target behind it, or use grad-cam."
        )
    return slope.detach()


class RecurrentMethod(Method):
    """Base: one pass; a subclass says what each step's features are worth, `worth`."""

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[Any], job: Job) -> list[list[Attribution]]:
        """Each method on its own."""
        return [m.explain_job(job) for m in methods]

    @abstractmethod
    def worth(self, unrolled: Unrolled, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the layer's inputs `(N, T, F)` and its first state `(N,)` are worth, and their right sum `(N,)`."""

    def explain_job(self, job: Job) -> list[Attribution]:
        """One attribution per target."""
        with reading(job) as read:
            unrolled = read.unrolled(read.given.detach())
            return [self._attribution(job, read, *self.worth(unrolled, slopes)) for slopes in read.slopes]

    def scale(self, total: Tensor) -> Tensor:
        """What gaps and shares are measured against, `(N,)`."""
        return total.abs().clamp(min=1e-12)

    def _attribution(self, job: Job, read: RecurrentPass, worth: Tensor, kept: Tensor, total: Tensor) -> Attribution:
        steps = worth.sum(-1).float()
        gap = (worth.double().flatten(1).sum(1) + kept.double() - total).abs() / self.scale(total)
        values, notes = steps[:, :, None, None], list[str]()
        facts = {"conservation_gap": gap.tolist()}
        if read.state is not None:
            facts["start_state"] = (kept.double() / self.scale(total)).tolist()
            notes += _started(facts["start_state"])
        if read.cells is not None:
            values = _on_cells(read, worth).float()
        if not values.any():
            notes.append(f"{self.name} found nothing that reaches the score through the recurrent layer.")
        return Attribution(
            values,
            notes=notes,
            facts=facts,
            extras={"steps": steps},
            cost=Cost(2 * len(job.inputs), len(job.inputs)),
        )


def _started(shares: Sequence[float]) -> list[str]:
    """A note on how much of the relevance, for each input, belongs to the state that the model starts from."""
    low, high = (f"{bound:.1%}" for bound in (min(shares), max(shares)))
    part = low if low == high else f"between {low} and {high}"
    return [
        "The model starts its recurrent layer from a state of its own (learned or carried over), which is worth "
        f"{part} of what is explained: that belongs to no step."
    ]


def _on_cells(read: RecurrentPass, worth: Tensor) -> Tensor:
    """Each step's worth spread over the cells of its frame: gradient x activation of its features, `(N, T, h, w)`.

    With weights `worth / feature` held fixed, the features' weighted sum is the worth itself, and behind rectifiers,
    convolutions and pooling without biases it is the sum over cells of gradient x activation.
    """
    assert read.cells is not None
    features = read.given.detach()
    small = _STABLE * features.abs().amax()
    weights = torch.where(features.abs() > small, worth / torch.where(features.abs() > small, features, 1.0), 0.0)
    (gradient,) = torch.autograd.grad((weights * read.given).sum(), read.cells, retain_graph=True)
    cells = (gradient * read.cells.detach()).sum(1)
    return cells.reshape(*features.shape[:2], *cells.shape[1:])


@method(
    "lstm-lrp",
    family="recurrent",
    needs="gradients, a recurrent layer",
    cost="2 forwards + tail backward",
    paper="Arras et al. 2017, arXiv:1706.07206, sec. 3; 2019, arXiv:1909.12114",
)
@dataclass(frozen=True, kw_only=True)
class LSTMLRP(RecurrentMethod):
    """`R_j = sum_k z_jk / (z_k + eps sign z_k) R_k` at sums; of gate x signal the signal takes all. `(N, T, h, w)`.

    It starts at the recurrent layer's outputs with `dy/dh h`. What the biases of the cells take is lost, and the fact
    `conservation_gap` says how much: `|sum_t R_t + R_0 - sum dy/dh h| / |sum dy/dh h|`. `R_0` is what the first state
    is worth where the model starts the layer from one of its own; the fact `start_state` is its share.

    Args:
        epsilon: keeps small sums from blowing up.
    """

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise MethodError("The epsilon of lstm-lrp is a small positive number, such as 0.001.")

    def worth(self, unrolled: Unrolled, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Relevance at the inputs and at the first state, in units of the score."""
        start = slopes * unrolled.outputs
        return *unrolled.relevance(start, lrp_epsilon(self.epsilon)), start.double().flatten(1).sum(1)


@method(
    "ceb-r",
    family="recurrent",
    needs="gradients, a recurrent layer",
    cost="2 forwards + tail backward",
    paper="Bargal et al. 2018, arXiv:1711.06778; Zhang et al. 2016, arXiv:1608.00507",
)
@dataclass(frozen=True, kw_only=True)
class ContrastiveExcitationBackprop(RecurrentMethod):
    """Winning probabilities led back through time, those of "not the target" taken off. `(N, T, h, w)`.

    A unit hands its probability to what drives it, `P_j = sum_k P_k (z_jk)+ / sum_i (z_ik)+`, and nothing to the rest.
    The first units are the recurrent layer's outputs, by `(dy/dh h)+`; for the contrast, by `(-dy/dh h)+`. Activations
    here have both signs where the paper's have one: what drives a unit is what has its sign. Gates take nothing. Each
    of the two sums to 1, so the contrast sums to 0; `conservation_gap` says what was lost on the way of each.

    Args:
        contrastive: False keeps the target's own probabilities alone, which sum to 1.
    """

    contrastive: bool = True

    def worth(self, unrolled: Unrolled, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities at the inputs and at the first state."""
        drive = slopes * unrolled.outputs
        ends = [_normalised(drive.relu()), _normalised((-drive).relu())][: 1 + self.contrastive]
        found = [unrolled.relevance(end, excitation) for end in ends]
        totals = [end.double().flatten(1).sum(1) for end in ends]
        if not self.contrastive:
            return *found[0], totals[0]
        (steps, kept), (against, kept_against) = found
        return steps - against, kept - kept_against, totals[0] - totals[1]

    def scale(self, total: Tensor) -> Tensor:
        """The contrast sums to zero, so it is measured against one."""
        return torch.ones_like(total) if self.contrastive else super().scale(total)


def _normalised(drive: Tensor) -> Tensor:
    """Sums to 1 for each sample; zero where nothing drives."""
    total = drive.flatten(1).sum(1).reshape(-1, *[1] * (drive.ndim - 1))
    return drive / total.clamp(min=1e-30)


@method(
    "state-gradient",
    family="recurrent",
    needs="gradients, a recurrent layer",
    cost="2 forwards + tail backward",
    paper="gradient x activation (Shrikumar et al. 2016) at each hidden state",
)
@dataclass(frozen=True, kw_only=True)
class StateGradient(Method):
    """`sum_k dy/dh_tk h_tk`: how much of the score, to first order, lives in the state after step t. `(N, T, 1, 1)`.

    The derivative is the total one: through the outputs read at step t and through all later steps. Each value speaks
    of the whole memory at one moment, so values of different steps must not be added up.
    """

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[StateGradient], job: Job) -> list[list[Attribution]]:
        """One pass for all."""
        return [_state_gradients(job) for _ in methods]


def _state_gradients(job: Job) -> list[Attribution]:
    cost = Cost(2 * len(job.inputs), len(job.inputs) * len(job.targets))
    found = []
    with reading(job) as read, torch.enable_grad():
        first = [] if read.state is None else [s.requires_grad_() for s in _parts(read.state)]
        unrolled = read.unrolled(read.given.detach().requires_grad_())
        top = unrolled.layers[-1]
        for slopes in read.slopes:
            total = torch.zeros(())
            reached = torch.zeros(())
            for k, steps in enumerate(top):
                part = slopes.split(steps.cell.size, -1)[k]  # type: ignore[no-untyped-call]
                states = steps.h[1:]
                reach = (torch.stack(states, 1) * (part.flip(1) if k else part)).sum()
                reached = reached + reach
                gradients = torch.autograd.grad(reach, states, retain_graph=True)
                values = torch.stack([(g * h).sum(1) for g, h in zip(gradients, states, strict=True)], 1).detach()
                total = total + (values.flip(1) if k else values)
            facts, notes = dict[str, list[float]](), list[str]()
            if first:
                slope = torch.autograd.grad(reached, first, retain_graph=True, allow_unused=True)
                worth = sum((g * s).sum((0, 2)) for g, s in zip(slope, first, strict=True) if g is not None)
                whole = (slopes * unrolled.outputs).flatten(1).sum(1).abs().clamp(min=1e-12)
                facts["start_state"] = (worth / whole).tolist()
                notes = _started(facts["start_state"])
            values = total.detach().float()[:, :, None, None]
            found.append(Attribution(values, notes=notes, facts=facts, cost=cost))
    return found


def _parts(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@method(
    "state-ablation",
    family="recurrent",
    needs="outputs, a clip, a recurrent layer",
    cost="3 forwards, and the recurrent steps of T others",
    paper="hidden-state ablation: leave-one-out over the memory",
)
@dataclass(frozen=True, kw_only=True)
class StateAblation(Method):
    """Score lost when all that was carried from before step t is forgotten. `(N, T, 1, 1)`.

    The recurrent layer starts afresh at step t, from a state of zeros. Nothing is linearised. The first value is what a
    state that the model starts from is worth, 0 where there is none. How much a single frame is worth is another
    question, that of frame importance.
    """

    def pass_key(self) -> Hashable:
        """Runs alone."""
        return id(self)

    @classmethod
    def run(cls, methods: Sequence[StateAblation], job: Job) -> list[list[Attribution]]:
        """Each method on its own, input by input."""
        return [_ablated(job) for _ in methods]


def _ablated(job: Job) -> list[Attribution]:
    name, _ = recurrent_layer(job.module)
    cost, rows = Cost(), []
    for n in range(len(job.inputs)):
        row = torch.tensor([n])
        job_n = Job(job.module, job.inputs[n : n + 1].detach(), tuple(t.select(row) for t in job.targets))
        if not job.is_clip:
            raise MethodError(f"state-ablation needs clips (N, C, T, H, W); this input is {tuple(job.inputs.shape)}.")
        targets = freeze(job_n)
        nothing = job_n.inputs[0, :, :0].transpose(0, 1)
        with FrameScorer(
            job.module, job_n.inputs, nothing, score_of(targets), targets=len(targets), watch=job.watch
        ) as scorer:
            if not scorer.resumes:
                raise MethodError(
                    f"The recurrent layer {name!r} cannot be stopped between frames (it reads them both ways, not one "
                    "by one, or from a state made of the clip): use the importance of frames."
                )
            rows.append(scorer.forgetting())
            cost.forwards += scorer.cost.forwards + 1
    lost = torch.stack(rows)  # (N, T, targets)
    return [Attribution(lost[:, :, k, None, None].float(), cost=cost) for k in range(len(job.targets))]
