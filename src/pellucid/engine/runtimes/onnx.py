"""ONNX Runtime: an exported network."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import torch
from torch import Tensor, nn

from pellucid.engine.runtimes import shelf


def processor() -> str:
    """ONNX programs hold for every processor."""
    return ""


def takes(precision: str) -> bool:
    """Its kernels for processors take single precision."""
    return precision == "f32"


def convert(network: nn.Module, sample: Tensor, precision: str) -> bytes:
    """The program of a network that answers a tuple of tensors; its batch is free (see `openvino.convert`)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                network, (sample,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
            assert exported is not None
            return bytes(exported.model_proto.SerializeToString())
    finally:
        logger.setLevel(level)


def load(blob: shelf.Blob, precision: str) -> OnnxProgram:
    """A program as `convert` gave it, ready to run."""
    return OnnxProgram(bytes(blob), precision)


class OnnxProgram:
    """A network in an ONNX session (see `OpenVinoProgram`)."""

    def __init__(self, blob: bytes, precision: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, torch.get_num_threads())
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The answers to inputs `(N, C, *space)`."""
        answers = self._session.run(None, {self._input: x.detach().contiguous().numpy()})
        return [torch.from_numpy(answer) for answer in answers]
