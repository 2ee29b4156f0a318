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


def _off() -> bool:
    return bool(getattr(_here, "off", False))


@contextmanager
def shortcuts(on: bool) -> Iterator[None]:
    """Whether this thread takes them, while something keeps them borrowed (see `borrow_shortcuts`)."""
    before, _here.off = _off(), not on
    try:
        yield
    finally:
        _here.off = before


def borrow_shortcuts(restores: dict[Hashable, Callable[[], None]]) -> None:
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
    return lambda: delattr(owner, name) if value is None else setattr(owner, name, value)


def _asking(quick: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*args: Any, **kwargs: Any) -> Any:
        return (plain if _off() else quick)(*args, **kwargs)

    return ask
