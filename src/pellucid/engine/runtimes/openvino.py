"""OpenVINO: a traced network, compiled for this processor.

`openvino.convert_model` does the same and more: it traces twice, freezes twice, and tells of itself over the network.
Here the trace goes to its front end directly, which takes a third of the time.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.engine.runtimes import shelf

Config = dict[str, Any]

_PART = 1_300_000  # bytes of inputs at a time: two pictures of 224 x 224, whose activations a core keeps near


@cache
def processor() -> str:
    """What programs are compiled for: one for another processor is another program."""
    core = _core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}: {', '.join(sorted(able))}"


def takes(precision: str) -> bool:
    """Whether this processor multiplies in a precision; bfloat16 would elsewhere be emulated or ignored."""
    return precision == "f32" or precision.upper() in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def convert(network: nn.Module, sample: Tensor, precision: str) -> memoryview:
    """The program of a network that answers a tuple of tensors; its batch is free.

    Args:
        network: in evaluation mode.
        sample: inputs `(2, C, *space)`: at one input a batch axis looks like others of length 1.
        precision: `f32` or `bf16`.
    """
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, that values become constants: the proof is for that
        traced = torch.jit.trace(network, sample, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        front_end = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)  # the front end does not keep it alive
        model = front_end.convert(front_end.load(decoder))
    model.reshape({model.input(0): ov.PartialShape([-1, *sample.shape[1:]])})
    program = io.BytesIO()
    _core().compile_model(model, "CPU", _config(precision)).export_model(program)
    return program.getbuffer()


def load(blob: shelf.Blob, precision: str) -> OpenVinoProgram:
    """A program as `convert` gave it, ready to run."""
    return OpenVinoProgram(blob, precision)


class OpenVinoProgram:
    """A compiled network.

    It reads its weights where they lie in `blob`, and packs for its kernels those that these want another way.

    Args:
        blob: as `convert` gave it, or as the shelf maps it.
        precision: that it was compiled for.
    """

    def __init__(self, blob: shelf.Blob, precision: str) -> None:
        import openvino as ov

        blob = bytearray(blob) if isinstance(blob, bytes) else blob
        weights = ov.Tensor(np.frombuffer(blob, np.uint8), shared_memory=True)
        compiled = _core().import_model(weights, "CPU", _config(precision))
        shelf.unread(blob)
        self._requests = [compiled.create_infer_request() for _ in range(_threads())]
        self._outputs = len(compiled.outputs)
        self._blob, self._packed = blob, False  # set last, so that it goes after what reads it

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The answers to inputs `(N, C, *space)`, read where they lie; the cores take turns at small parts of them."""
        size = max(1, min(_PART // max(1, x[0].nbytes), -(-len(x) // len(self._requests))))
        whole = x.detach().contiguous()
        parts = [whole[k : k + size] for k in range(0, len(whole), size)]
        streams = len(self._requests)
        answers = [answer for k in range(0, len(parts), streams) for answer in self._together(parts[k : k + streams])]
        found = list(zip(*answers, strict=True))
        if not self._packed:  # some weights are packed as the first inputs come
            shelf.unread(self._blob)
            self._packed = True
        return [torch.cat(each) if each[0].ndim else each[0] for each in found]

    def _together(self, parts: Sequence[Tensor]) -> list[list[Tensor]]:
        """Each part in a stream of its own."""
        import openvino as ov

        used = self._requests[: len(parts)]
        try:
            for request, part in zip(used, parts, strict=True):
                request.set_input_tensor(ov.Tensor(part.numpy(), shared_memory=True))
                request.start_async()
        finally:  # they read memory of ours, so none may be left running
            for request in used:
                request.wait()
        return [[torch.from_numpy(r.get_output_tensor(k).data.copy()) for k in range(self._outputs)] for r in used]


def _threads() -> int:
    return max(1, torch.get_num_threads())


def _config(precision: str) -> Config:
    """One stream a core: many inputs need no core to wait for another."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": _threads(),
        "NUM_STREAMS": _threads(),
        "ENABLE_CPU_PINNING": False,
    }


def _core() -> Any:
    import openvino as ov

    if _Held.core is None:
        _Held.core = ov.Core()
    return _Held.core


class _Held:
    core: Any = None
