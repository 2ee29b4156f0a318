"""Why a model failed, and what to do about it: one sentence from what it raised, and from where."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pellucid.engine.batching import OUT_OF_MEMORY, is_out_of_memory

_OF_TORCH = str(Path(torch.__file__).parent)
_OF_PELLUCID = str(Path(__file__).parents[1])
_SIZES = ("size", "shape", "channels", "dimension", "expected input", "must match")  # words of an unfit input
_NO_GRAPH = ("requires grad", "does not require grad", "inference tensor", "is not implemented for", "derivative for")
OUTPUTS_ONLY = "use a method that needs only outputs, such as occlusion, rise or kernel-shap"
NO_SLOPE = (
    "The map is zero everywhere: the score has no slope at this input (rounding, quantised numbers, rectifiers that "
    f"are shut): {OUTPUTS_ONLY}."
)
NEVER_MOVES = "The baseline equals the input (or the score never moves), so the map is zero: choose another."
_LONGEST = 200  # letters of a reason


def forward_sentence(network: nn.Module, inputs: Tensor, error: Exception) -> str:
    """What a forward pass on `inputs` `(N, C, *space)` failed of, and the cure."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    empty = without_values(network)
    if empty is not None:
        return empty
    shape, where = tuple(inputs.shape), _Place(network, error)
    if isinstance(error, TypeError) and len(wanted := _required(network)) > 1:
        return (
            f"The model takes {len(wanted)} inputs ({', '.join(wanted)}), and a picture is one: wrap it in a module "
            "whose forward takes the picture alone and holds the others."
        )
    layer = where.layer
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and where.reads_input(inputs):
        axes = layer.weight.ndim
        if axes != inputs.ndim:
            taken = {3: "signals (N, C, L)", 4: "pictures (N, C, H, W)", 5: "clips or volumes (N, C, T, H, W)"}[axes]
            return f"The model takes {taken}, and the input has shape {shape}: give it a tensor of that kind."
        if layer.in_channels != inputs.shape[1]:
            count = layer.in_channels
            return (
                f"The model takes {count} channel{'s' * (count > 1)} but the input has {inputs.shape[1]}: wrap it with "
                f"a preprocessing of {count} channels, pl.wrap(module, transform=Preprocess(..., channels={count}))."
            )
    cause = reason(error)
    told = f"The model failed on an input of shape {shape} ({cause}{where})"
    if torch.is_grad_enabled() and any(word in cause for word in _NO_GRAPH):
        return f"{told}: no gradients lead through it, so {OUTPUTS_ONLY}."
    if any(word in cause.lower() for word in _SIZES) and not isinstance(error, IndexError | KeyError | AttributeError):
        return f"{told}: give it the input size and preprocessing it was made for, with pl.wrap(module, transform=...)."
    return (
        f"{told}: mend its forward, which is given one float tensor (N, C, *space); where it takes something else, "
        "wrap it in a module that makes that of the tensor."
    )


def backward_sentence(error: Exception) -> str:
    """What a backward pass failed of, and the cure."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return f"The model's backward pass failed ({reason(error)}): {OUTPUTS_ONLY}."


LAZY = (
    "The model holds lazy modules (such as nn.LazyConv2d) that have seen no input yet, so it has no weights to be "
    "explained: run it once, model(inputs), then explain it."
)


def without_values(network: nn.Module) -> str | None:
    """The sentence on a network whose weights hold no values; None where all do."""
    held = (t for part in network.modules() for t in (*part._parameters.values(), *part._buffers.values()))
    odd = next((t for t in held if t is not None and (is_lazy(t) or t.is_meta)), None)  # names cost
    if odd is None:
        return None
    if is_lazy(odd):
        return LAZY
    name = next(name for name, t in (*network.named_parameters(), *network.named_buffers()) if t.is_meta)
    return (
        f"The model's weights (first {name!r}) are on the meta device and hold no values: load them, as with "
        "module.to_empty(device='cpu') and module.load_state_dict(...)."
    )


def reason(error: BaseException) -> str:
    """What an error says, in one line; TorchScript says it in its last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[-1] if "TorchScript" in lines[0] else lines[0]
    line = line.rstrip(".:") if len(line) <= _LONGEST else line[:_LONGEST] + " ..."
    known = type(error) in (RuntimeError, ValueError, AssertionError, TypeError)  # others say little without their name
    return line if known else f"{type(error).__name__}: {line}"


def _required(network: nn.Module) -> list[str]:
    """The inputs that a network's forward cannot do without."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]


class _Place:
    """Where an error arose: the innermost layer that ran, and the innermost line of the user's own code."""

    def __init__(self, network: nn.Module, error: BaseException) -> None:
        names = {module: name for name, module in network.named_modules()}
        self.layer: nn.Module | None = None
        self.name, self.line = "", ""
        self._frame: FrameType | None = None
        for frame, number in _frames(error):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and owner in names:
                self.layer, self.name, self._frame = owner, names[owner], frame
            file = frame.f_code.co_filename
            if not file.startswith((_OF_TORCH, _OF_PELLUCID)):
                self.line = linecache.getline(file, number).strip()

    def reads_input(self, inputs: Tensor) -> bool:
        """Whether the layer was given something with the axes and channels of the model's own input."""
        given = self._frame.f_locals.get("input") if self._frame is not None else None
        return isinstance(given, Tensor) and given.shape[1:] == inputs.shape[1:]

    def __str__(self) -> str:
        at = f", in {self.name!r}" if self.name else ""
        return at + (f", at `{self.line}`" if 0 < len(self.line) <= _LONGEST else "")


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
