"""Whether another runtime is worth while: what it saves of the passes to come, against what it takes to make it.

What passes take is measured on those that run anyway. How many are to come is said by who asks for them, and by who
goes through many inputs; where nobody says so, what was asked for again and again, picture by picture, is taken for
what will be. The proof counts for each input anew. So one that ends sooner without converts nothing.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pellucid.engine.folding import PAYS, foldable, may_have_twin
from pellucid.engine.runtimes import shelf
from pellucid.engine.runtimes.asked import AUTO, TORCH, Ran, RuntimeRequest, asked, installed, left
from pellucid.engine.runtimes.converted import (
    PROOF,
    ConversionError,
    Converted,
    Reader,
    key_of,
    opened,
    proven,
    room,
    shown,
)  # fmt: skip
from pellucid.engine.shells import UNSOUND

SAVES = {True: 0.4, False: 0.1}  # of a pass, with normalised convolutions as measured, and without: the least
_READY = 16  # passes from which on a program that is there already may be worth its proof
_PROVES = 1 + 2 * PROOF  # passes of the program, that its proof takes
_BASE, _A_MODULE, _A_BYTE, _SOME_PASSES = 0.5, 2e-3, 1e-9, 3  # seconds of a conversion: as measured, within a half
_READ, _A_BYTE_READ = 0.1, 2e-9  # seconds to take one from the shelf
_HELD = 2  # programs of a model in memory
_LEAST, _LEAST_BESIDE_TWIN = 1.05, 1.3  # times quicker than the model, alone or where it has a quicker twin as well

Place = tuple[tuple[int, ...], tuple[str, ...], bool]
"""Shape of an input, layers that are read, and whether the output is."""


@dataclass
class _Known:
    """What is known of a model."""

    pace: dict[Place, float] = field(default_factory=dict)  # seconds of one input
    wanted: dict[Place, int] = field(default_factory=dict)  # passes that were asked for so far
    held: OrderedDict[Hashable, tuple[object, Converted]] = field(default_factory=OrderedDict)  # of weights in a state
    refused: dict[tuple[Place, RuntimeRequest], tuple[object, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        network: that answers in the model's place; None: the model itself.
        ran: for the record.
        passes: of one input, that the decision took.
    """

    network: Converted | None = None
    ran: Ran = field(default_factory=Ran)
    passes: int = 0


_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def note_pace(module: nn.Module, place: Place, seconds: float, count: int) -> None:
    """Notes what a pass of `count` inputs has taken; the least that was seen is kept."""
    known = _of(module)
    known.pace[place] = min(known.pace.get(place, torch.inf), seconds / max(1, count))


def clock() -> float:
    """Processor time a thread, which other work on the machine does not lengthen."""
    return time.process_time() / max(1, torch.get_num_threads())


def choose(module: nn.Module, x: Tensor, place: Place, passes: int, fresh: int) -> Decision:
    """What runs the passes to come.

    Args:
        module: the model, in evaluation mode, inside its guard.
        x: one input `(1, C, *space)`.
        place: what is run and read.
        passes: of one input, that are asked for here altogether.
        fresh: how many of them had not been asked for before.
    """
    want, known = asked(), _of(module)
    known.wanted[place] = known.wanted.get(place, 0) + fresh
    by_name = want != RuntimeRequest()
    name = "openvino" if want.name == AUTO else want.name
    if name == TORCH or (not by_name and passes < _READY):
        return Decision()
    if installed(name) is None:
        return Decision(ran=Ran(why=f"{want.precision} needs {name}" if by_name else ""))
    if unfit := _unfit(module, x, name):
        return Decision(ran=Ran(why=unfit if by_name else ""))
    state = _state(module)
    kept, why = known.refused.get((place, want), (None, ""))
    if why and kept == state:
        return Decision(ran=Ran(why=why))
    precision = want.precision if room(name).takes(want.precision) else "f32"
    attempt = _Attempt(module, x, place, name, precision, known, state)
    if not by_name and not attempt.pays(passes):
        return Decision()
    try:
        made = attempt.made(by_name)
    except ConversionError as error:
        known.refused[place, want] = state, str(error)
        return Decision(ran=Ran(why=str(error)), passes=attempt.spent)
    lacks = "" if precision == want.precision else f"this processor has no {want.precision}"
    return Decision(made, Ran(name, installed(name) or "", precision, lacks), attempt.spent)


@dataclass
class _Attempt:
    """One try to find a program that answers as the model does."""

    module: nn.Module
    x: Tensor
    place: Place
    name: str
    precision: str
    known: _Known
    state: object
    spent: int = 0  # passes

    @property
    def _held(self) -> Hashable:
        return self.place, self.name, self.precision, torch.get_num_threads()

    @cached_property
    def _key(self) -> shelf.Key:
        return key_of(self._reader, self.x, self.name, self.precision)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.module, *self.place[1:])

    def _at_hand(self) -> Converted | None:
        """The program in memory, if the weights are still those that it was made of."""
        state, made = self.known.held.get(self._held, (None, None))
        return made if state == self.state else None

    def pays(self, passes: int) -> bool:
        """Whether what the passes to come save is likely to be more than what a program and its proofs take."""
        twin = foldable(self.module, self.x)
        at_hand = self._at_hand()
        if at_hand is not None:  # what it saves was measured, beside the model
            rival = _LEAST_BESIDE_TWIN if twin and passes >= PAYS else 1.0
            return _net(1 - rival / at_hand.gain, passes) > 0
        if passes < PAYS or self.place not in self.known.pace:
            return False  # what a pass takes is known once one has run
        pace, ahead = self.known.pace[self.place], left()
        inputs = max(1.0, self.known.wanted[self.place] / passes) if ahead is None else ahead
        saved = _net(SAVES[twin], passes) * inputs * pace
        size = sum(t.nbytes for t in self.module.state_dict().values() if isinstance(t, Tensor))
        if saved < _READ + _A_BYTE_READ * size:
            return False
        if shelf.there(self._key):
            return True
        parts = sum(1 for _ in self.module.modules())
        return saved >= _BASE + _A_MODULE * parts + _A_BYTE * size + _SOME_PASSES * pace

    def made(self, by_name: bool) -> Converted:
        """A program that is proven and quicker, or was asked for by name.

        Raises:
            ConversionError: there is none.
        """
        inputs = shown(self.x)
        try:
            with torch.no_grad():
                self._reader(self.x.clone())  # sets things up
                start = clock()
                expected = self._reader(inputs.clone())
                plain = clock() - start
        except (*UNSOUND, MemoryError) as error:
            raise ConversionError("it does not run on what would prove a conversion") from error
        self.spent += PROOF + 1
        for made in self._candidates():
            made.reply = self._reader.reply
            if not self._proven(made, expected, inputs):
                shelf.forget(self._key)
                continue
            start = clock()
            made.tensors(inputs)
            made.gain = plain / max(clock() - start, 1e-9)
            if not by_name and made.gain < (_LEAST_BESIDE_TWIN if may_have_twin(self.module, self.x) else _LEAST):
                raise ConversionError(f"{self.name} is no quicker than torch")
            self._hold(made)
            return made
        raise ConversionError(f"{self.name} does not answer as the model does")

    def _candidates(self) -> Iterator[Converted]:
        """From memory, from the shelf, made anew."""
        at_hand = self._at_hand()
        if at_hand is not None:
            yield at_hand
        if shelf.there(self._key):
            yield opened(self._reader, self._key, self.x)
        yield opened(self._reader, self._key, self.x, kept=False)

    def _proven(self, made: Converted, expected: Sequence[Tensor], inputs: Tensor) -> bool:
        try:
            return proven(made, expected, inputs)
        except Exception:  # a program from the shelf may be anything
            return False

    def _hold(self, made: Converted) -> None:
        held = self.known.held
        held[self._held] = self.state, made
        held.move_to_end(self._held)
        while len(held) > _HELD:
            held.popitem(last=False)


def _net(saves: float, passes: int) -> float:
    """How many passes of the model an input saves, its own proof taken off."""
    return saves * passes - (PROOF + 1) - _PROVES * (1 - saves)


def _unfit(module: nn.Module, x: Tensor, name: str) -> str:
    """Why a model cannot be converted, as far as that can be seen; empty where it can be tried."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return f"{name} runs single precision on a processor, and the model is {x.dtype} on {x.device.type}"
    parts = list(module.modules())
    if any(isinstance(part, torch.jit.ScriptModule) for part in parts) or not any(p._parameters for p in parts):
        return "the model shows no layers"
    return ""


def _state(module: nn.Module) -> object:
    """Changes with the weights, wherever torch counts their changes."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return tuple((id(t), -1 if t.is_inference() else t._version) for t in tensors)


def _of(module: nn.Module) -> _Known:
    return _known.setdefault(module, _Known())
