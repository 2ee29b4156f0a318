"""Shortcuts of torch that change what is explained: fused attention and gradient checkpointing, off during passes.

`nn.TransformerEncoder` with a padding mask answers otherwise without gradients than with them, and hooks inside are
given nested tensors. A checkpointed block runs again in the backward pass, when modes and hooks are gone, and the
reentrant kind admits no `torch.autograd.grad` at all. So in a thread that explains, each function below answers as if
its shortcut were switched off. Other threads keep theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint

_here = threading.local()


def takes_shortcuts() -> bool:
    """Whether this thread takes them."""
    return bool(getattr(_here, "on", True))


def take_shortcuts(on: bool) -> None:
    """Let this thread take them, or not, while something keeps them borrowed (see `borrow_shortcuts`)."""
    _here.on = on


@contextmanager
def shortcuts(on: bool) -> Iterator[None]:
    """The same for as long as the context lasts."""
    before = takes_shortcuts()
    try:
        take_shortcuts(on)
        yield
    finally:
        take_shortcuts(before)


def borrow_shortcuts(restores: dict[Hashable, Callable[[], object]]) -> None:
    """Let torch's shortcuts ask which thread calls them; how to undo that goes into the table."""
    fused: Any = torch.backends.mha
    checkpointing: Any = torch.utils.checkpoint
    for owner, name, plain in (
        (fused, "get_fastpath_enabled", lambda: False),
        (checkpointing.CheckpointFunction, "apply", lambda function, _preserve, *args: function(*args)),
        (checkpointing, "_checkpoint_hook", lambda *_args: nullcontext()),  # what drops the tensors of a block
    ):
        if (owner, name) not in restores and hasattr(owner, name):
            own, quick = name in vars(owner), getattr(owner, name)
            restores[owner, name] = _restore(owner, name, quick if own else None)
            setattr(owner, name, _asking(quick, plain))


def _restore(owner: Any, name: str, value: Any) -> Callable[[], None]:
    def restore() -> None:  # a second time too, should the first have been interrupted
        if value is not None:
            setattr(owner, name, value)
        elif name in vars(owner):
            delattr(owner, name)

    return restore


def _asking(quick: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def asking(*args: Any, **kwargs: Any) -> Any:
        return quick(*args, **kwargs) if takes_shortcuts() else plain(*args, **kwargs)

    return asking
