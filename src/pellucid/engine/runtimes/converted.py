"""A network in another runtime: made, kept, and believed only where it answers as the model does.

What is converted is a function from the input to all tensors of the output and of the layers that are read. A trace
follows one input, and a model may take another way for the next; so a program is used only after it has given the
model's own answers for the input that is explained, and for two others made of it, in batches of other sizes than the
one it was made with. That holds as well for a program that was kept: its file may be anything.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pellucid.engine.fingerprint import fingerprint
from pellucid.engine.folding import TOLERANCE
from pellucid.engine.hooks import Behind, Hooks
from pellucid.engine.leaves import first_tensor
from pellucid.engine.runtimes import shelf
from pellucid.engine.runtimes.asked import installed

ROUGH = 0.05  # how far answers in bfloat16 may differ, relative to the largest: some five times what it does
PROOF = 3  # passes of the model that a proof takes

_PLAIN = (type(None), bool, int, float, str)
_TENSOR = object()


Program = Callable[[Tensor], list[Tensor]]
"""Inputs `(N, C, *space)` -> the tensors of the answer."""


class ConversionError(Exception):
    """Why there is no program, in words that a record can hold."""


@dataclass(frozen=True)
class Reply:
    """What the tensors of a program are: those of the network's output, in its structure, then activations of layers.

    Attributes:
        layers: their names, in order.
        output: whether the output is among them.
        structure: of the output.
        leaves: of the output, a tensor's place holding `_TENSOR`.
    """

    layers: tuple[str, ...]
    output: bool
    structure: TreeSpec
    leaves: tuple[Any, ...]

    def told(self, tensors: Sequence[Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """The output as the network gives it (None where it is not wanted), and activations by layer."""
        left = iter(tensors)
        output = None
        if self.output:
            output = tree_unflatten([next(left) if leaf is _TENSOR else leaf for leaf in self.leaves], self.structure)
        return output, dict(zip(self.layers, left, strict=True))


class Reader(nn.Module):
    """A network as a function of its input to a tuple of tensors.

    Args:
        module: the network.
        layers: names of layers whose activations are read, in order.
        output: whether the output is wanted.

    Attributes:
        reply: what the tensors of the last pass were.
    """

    reply: Reply

    def __init__(self, module: nn.Module, layers: Sequence[str], output: bool = True) -> None:
        super().__init__()
        self.module = module
        self.layers, self.output = tuple(layers), output

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The tensors.

        Raises:
            ConversionError: they are not all there is to the answer.
        """
        read: dict[str, Tensor] = {}
        parts = dict(self.module.named_modules())

        def reads(name: str) -> Behind:
            return lambda _part, _args, output: read.__setitem__(name, _first(output))

        with Hooks() as hooks:
            for name in self.layers:
                hooks.behind(parts[name], reads(name))
            output = self.module(x)
        leaves, structure = tree_flatten(output)
        odd = next((leaf for leaf in leaves if not isinstance(leaf, (Tensor, *_PLAIN))), None)
        if self.output and odd is not None:
            raise ConversionError(f"its output holds a {type(odd).__name__}")
        if len(read) < len(self.layers):
            raise ConversionError("a layer that is read does not run")
        kept = tuple(_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        self.reply = Reply(self.layers, self.output, structure, kept)
        return (*(t for t in leaves if self.output and isinstance(t, Tensor)), *(read[name] for name in self.layers))


def _first(output: Any) -> Tensor:
    found = first_tensor(output)
    if found is None:
        raise ConversionError("a layer that is read gives no tensor")
    return found


class Converted(nn.Module):
    """A network that answers as another does, sooner. It holds no part of it, so the model may be forgotten.

    Attributes:
        runtime: its name.
        precision: of its sums.
        gain: how many times less time a batch took than the model's, when it was proven.
        read: activations of the last pass, by layer.
    """

    def __init__(self, program: Program, runtime: str, precision: str) -> None:
        super().__init__()
        self.program, self.runtime, self.precision, self.gain = program, runtime, precision, 1.0
        self.reply: Reply | None = None
        self.read: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def tensors(self, x: Tensor) -> list[Tensor]:
        """All that it answers to `(N, C, *space)`.

        Raises:
            MemoryError: the runtime finds no memory.
        """
        try:
            with self._lock:
                return self.program(x)
        except Exception as error:
            if any(word in str(error).casefold() for word in ("alloc", "out of memory")):
                raise MemoryError(str(error)) from error
            raise

    def forward(self, x: Tensor) -> Any:
        """What the network answers to `(N, C, *space)`."""
        assert self.reply is not None
        output, self.read = self.reply.told(self.tensors(x))
        return output


def key_of(reader: Reader, x: Tensor, runtime: str, precision: str) -> shelf.Key:
    """All that a program hangs on but the values that a pass computes by itself: those the proof sees."""
    module = reader.module
    code = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}\n{module!r}".encode())
    return {
        "weights": fingerprint(module),
        "code": code.hexdigest(),
        "shape": list(x.shape[1:]),
        "layers": list(reader.layers),
        "output": reader.output,
        "runtime": f"{runtime} {installed(runtime)}",
        "torch": torch.__version__,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processor": room(runtime).processor(),
    }


def shown(x: Tensor) -> Tensor:
    """What a program is proven on, `(3, C, *space)`: the input, the input fading out, and its bare contrast."""
    ramp = torch.linspace(-1, 1, x.shape[-1], device=x.device)
    return torch.cat([x, x * ramp, x * (ramp > 0)])


def opened(reader: Reader, key: shelf.Key, x: Tensor, *, kept: bool = True) -> Converted:
    """A program from the shelf, or made anew and put there; not yet proven.

    Args:
        reader: what is converted.
        key: see `key_of`.
        x: one input `(1, C, *space)`.
        kept: whether what is on the shelf may be used.

    Raises:
        ConversionError: the network cannot be traced, or some of its operations are not known.
    """
    runtime, precision = str(key["runtime"]).split()[0], str(key["precision"])
    maker = room(runtime)
    blob = shelf.taken(key) if kept else None
    if blob is not None:
        try:
            return Converted(maker.load(blob, precision), runtime, precision)
        except Exception:  # whatever a library says to a file that is none of its own
            shelf.forget(key)
    try:
        blob = maker.convert(reader, torch.cat([x, x.flip(-1)]), precision)
        blob = shelf.keep(key, blob) or blob  # as it lies on disk: it need not be in memory twice
        return Converted(maker.load(blob, precision), runtime, precision)
    except ConversionError:
        raise
    except Exception as error:  # tracers and front ends raise what they like
        shelf.forget(key)
        raise ConversionError(f"{runtime} cannot take it over ({_line(error)})") from error


def proven(made: Converted, expected: Sequence[Tensor], inputs: Tensor) -> bool:
    """Whether it gives the model's tensors for `inputs`, all at once and the first alone."""
    tolerance = TOLERANCE if made.precision == "f32" else ROUGH
    for count in (1, len(inputs)):
        found = made.tensors(inputs[:count])
        if len(found) != len(expected):
            return False
        for ours, whole in zip(found, expected, strict=True):
            theirs = whole[:count] if whole.ndim and len(whole) == len(inputs) else whole
            if ours.shape != theirs.shape or not _close(ours, theirs, tolerance):
                return False
    return True


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if not b.numel():
        return True
    if not b.is_floating_point():
        return torch.equal(a.to(b.dtype), b)
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-12))


def room(runtime: str) -> Any:
    """The module of a runtime: `convert`, `load`, `processor`, `takes`."""
    return import_module(f"pellucid.engine.runtimes.{runtime}")


def _line(error: Exception) -> str:
    """The first line of what a library raised, cut short."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 100 else f"{text[:97]}..."
