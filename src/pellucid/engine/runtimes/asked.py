"""What the user asks of the runtime, and what a record says of the one that answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pellucid.errors import ModelError

AUTO, TORCH = "auto", "torch"
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
"""Runtime -> the package that brings it."""
EXTRAS = {"openvino": "fast", "onnx": "onnx"}
NAMES = (AUTO, TORCH, *PACKAGES)
PRECISIONS = ("f32", "bf16")


@dataclass(frozen=True)
class RuntimeRequest:
    """Which runtime, and in which precision its sums are taken.

    Attributes:
        name: `auto`: the quickest that is installed, proven and worth its conversion; or one by name.
        precision: `f32`; `bf16` is never chosen by itself.
    """

    name: str = AUTO
    precision: str = "f32"


@dataclass(frozen=True)
class Ran:
    """Which runtime has answered.

    Attributes:
        name: of the runtime.
        version: of its package; empty for torch, which every record names already.
        precision: of its sums.
        why: why it was torch although another was asked for or would have paid; empty where there is nothing to say.
        notes: what the reader must know.
    """

    name: str = TORCH
    version: str = ""
    precision: str = "f32"
    why: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        told = {"name": self.name, "version": self.version, "precision": self.precision, "why": self.why}
        return {name: value for name, value in told.items() if value}


_ASKED: ContextVar[RuntimeRequest | None] = ContextVar("asked", default=None)
_LEFT: ContextVar[int | None] = ContextVar("left", default=None)


def asked() -> RuntimeRequest:
    """What is asked for here."""
    return _ASKED.get() or RuntimeRequest()


@contextmanager
def runtime(name: str = AUTO, precision: str = "f32") -> Iterator[None]:
    """What runs plain passes for as long as the context lasts, in this thread.

    Args:
        name: `auto` (the default everywhere: OpenVINO where it is installed, gives the model's own scores and pays),
            `torch`, `openvino` or `onnx`.
        precision: `f32`, or `bf16`: about twice as fast where the processor has it, and good to two or three digits.
            How far the map of some masks then keeps its order is measured, and said in a note.

    Raises:
        ModelError: no such runtime or precision, or it is not installed.

    Example:
        with pl.runtime("openvino", precision="bf16"):
            pl.explain(model, "cat.png", "rise")
    """
    if name not in NAMES:
        raise ModelError(f"There is no runtime {name!r}: choose one of {', '.join(NAMES)}.")
    if precision not in PRECISIONS:
        raise ModelError(f"There is no precision {precision!r}: choose {' or '.join(PRECISIONS)}.")
    if name in PACKAGES and installed(name) is None:
        raise ModelError(f"The runtime {name} is not installed: pip install 'pellucid[{EXTRAS[name]}]'.")
    if name in ("onnx", TORCH) and precision == "bf16":
        raise ModelError(f"The runtime {name} takes no sums in bf16 here: choose openvino for it.")
    token = _ASKED.set(RuntimeRequest(name, precision))
    try:
        yield
    finally:
        _ASKED.reset(token)


@contextmanager
def to_come(count: int) -> Iterator[None]:
    """Says inside that as many inputs are asked alike, this one among them, before the work ends."""
    token = _LEFT.set(count)
    try:
        yield
    finally:
        _LEFT.reset(token)


def left() -> int | None:
    """How many inputs are asked alike from here on; None: nobody has said so."""
    return _LEFT.get()


def installed(name: str) -> str | None:
    """The version of a runtime's package; None where it is not there."""
    try:
        return _version(PACKAGES[name])
    except PackageNotFoundError:
        return None


_version = cache(version)  # it reads and parses a file, for every explanation otherwise
