"""Memory is a budget: work is cut into micro-batches, and a batch that doesn't fit is halved and tried again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.errors import OutOfMemoryError
from pellucid.progress import task

OUT_OF_MEMORY = "Memory ran out on the smallest batch: give a smaller input, or run it on the CPU or a larger device."
_CPU_BATCH, _GPU_BATCH = 16, 64
_CPU_BYTES = 2_500_000  # of inputs at a time: 4 pictures of 224 x 224
_BOX_BYTES = 8_000_000  # of a model whose activations lie elsewhere


def default_batch(like: Tensor | torch.device | str, nbytes: int = 0, *, elsewhere: bool = False) -> int:
    """Inputs per micro-batch: small on a CPU, where a larger batch gains nothing, larger on an accelerator.

    On a CPU a large batch even loses. Activations of more than 32 MB, an early layer's some 5 to 10 times the input,
    are given back to the system after each layer and fetched anew page by page; a ResNet-50 then takes up to half as
    long again, an EfficientNet twice as long.

    Args:
        like: the inputs `(N, C, *space)`, whose size sets the batch on a CPU; or only their device.
        nbytes: of one input, where `like` does not tell; 0 for unknown.
        elsewhere: the model is a black box, whose activations are none of torch's: nothing is lost, and more inputs
            share what a call costs beside it.
    """
    device = like.device if isinstance(like, Tensor) else torch.device(like)
    if device.type != "cpu":
        return _GPU_BATCH
    size = like[0].nbytes if isinstance(like, Tensor) else nbytes
    most = _BOX_BYTES if elsewhere else _CPU_BYTES
    return max(1, min(_CPU_BATCH, most // size)) if size else _CPU_BATCH


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def adaptive_batches(run: Callable[[int, int], None], total: int, batch: int, label: str | None = None) -> int:
    """Call `run(start, stop)` over `range(total)` in batches; halve the batch when memory runs out.

    `run` must have no effect until it has succeeded; the slice that failed is then repeated from the same start.

    With a `label`, progress is reported under it.

    Returns:
        The batch size that fitted.
    """
    if label is not None:
        with task(label, total) as advance:

            def reported(start: int, stop: int) -> None:
                run(start, stop)
                advance(stop - start)

            return adaptive_batches(reported, total, batch)
    start = 0
    while start < total:
        stop = min(start + batch, total)
        try:
            run(start, stop)
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if not is_out_of_memory(error) or (isinstance(error, OutOfMemoryError) and stop - start == 1):
                raise
            if stop - start == 1:
                raise OutOfMemoryError(OUT_OF_MEMORY) from error
            batch = max(1, (stop - start) // 2)
        else:
            start = stop
            continue
        if torch.cuda.is_available():  # outside the handler: the failed frame's tensors are gone by now
            torch.cuda.empty_cache()
    return batch
