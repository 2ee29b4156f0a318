"""Any black box as a model: a function of pictures to scores, an ONNX session, a remote predictor.

It has no layers and no gradients, so only methods that need nothing but outputs can explain it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.engine import leave_no_trace, unwrap
from pellucid.errors import ModelError
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess

_PREPROCESS, _LABELS = "pellucid.preprocess", "pellucid.labels"

Predictor = Callable[[Any], Any]


class BlackBox(nn.Module):
    """A function of a batch `(N, C, *space)` to scores `(N, classes)`, as a module without parameters.

    Args:
        function: takes and returns a tensor or an array.
        numpy: give it float32 arrays instead of tensors.
        identity: what tells it from others, for the record (such as the hash of its file).

    Raises:
        ModelError: on a call, when the function fails, answers another number of rows than it was given, answers no
            finite numbers, or answers the same input differently.
    """

    def __init__(self, function: Predictor, *, numpy: bool = False, identity: str = "") -> None:
        super().__init__()
        self.function, self.numpy, self.identity = function, numpy, identity
        self.eval()
        self._steady = threading.Event()  # it has answered the same input twice alike

    def forward(self, inputs: Tensor) -> Tensor:
        """The function's scores, checked; its first answer is asked for twice."""
        scores = self._answer(inputs)
        if not self._steady.is_set():
            again = self._answer(inputs[:1])
            if not torch.allclose(again, scores[:1], rtol=1e-3, atol=1e-5):
                raise ModelError(
                    "The black box changes its answer on the same input (or with the batch around it): switch off "
                    "whatever is random in it, such as dropout, before it is explained."
                )
            self._steady.set()
        return scores

    def _answer(self, inputs: Tensor) -> Tensor:
        given: Any = inputs.detach().cpu().float().numpy() if self.numpy else inputs.detach()
        try:
            answer = self.function(given)
        except Exception as error:
            reason = str(error).strip().splitlines()[:1]
            raise ModelError(
                f"The black box failed on a batch of shape {tuple(inputs.shape)} "
                f"({type(error).__name__}{': ' + reason[0] if reason else ''}): it must take batches (N, C, H, W)."
            ) from error
        scores = answer if isinstance(answer, Tensor) else torch.from_numpy(np.asarray(answer, dtype=np.float32))
        scores = scores.detach().to(inputs.device).float()
        if scores.ndim == 1 and len(scores) == len(inputs):
            scores = scores[:, None]
        if scores.ndim < 2 or len(scores) != len(inputs):
            raise ModelError(
                f"The black box answered shape {tuple(scores.shape)} to {len(inputs)} inputs: it must answer one row "
                "of scores for each, (N, classes)."
            )
        return scores


@dataclass(frozen=True)
class OnnxMeta:
    """What an ONNX file says of itself.

    Attributes:
        shape: its input's shape without the batch, 0 where it is free.
        preprocess: the preprocessing that `to_onnx` wrote into it, if it did.
        labels: the class names that `to_onnx` wrote into it, if it did.
    """

    shape: tuple[int, ...]
    preprocess: dict[str, Any] | None
    labels: tuple[str, ...] | None


def onnx_box(path: str | Path) -> tuple[BlackBox, OnnxMeta]:
    """An ONNX file as a black box, and what it says of itself.

    Raises:
        ModelError: no such file, not an ONNX model, or onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("ONNX models need onnxruntime: pip install 'pellucid[onnx]'.") from error
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base
        raise ModelError(f"{path} is no ONNX model that onnxruntime can run: export it again.") from error
    if len(session.get_inputs()) != 1:
        raise ModelError(f"{path} takes {len(session.get_inputs())} inputs; only models of one input can be explained.")
    wanted = session.get_inputs()[0]
    shape = tuple(d if isinstance(d, int) else 0 for d in wanted.shape)
    fixed = shape[0] if shape and shape[0] > 0 else 0

    def run(batch: Any) -> Any:
        if not fixed or fixed == len(batch):
            return session.run(None, {wanted.name: batch})[0]
        # A file exported for one batch size is fed that many at a time, the last batch padded.
        rows = []
        for start in range(0, len(batch), fixed):
            part = batch[start : start + fixed]
            padded = np.concatenate([part, np.repeat(part[-1:], fixed - len(part), axis=0)])
            rows.append(session.run(None, {wanted.name: padded})[0][: len(part)])
        return np.concatenate(rows)

    box = BlackBox(run, numpy=True, identity=f"onnx sha256 {hashlib.sha256(data).hexdigest()}")
    notes = session.get_modelmeta().custom_metadata_map
    preprocess, labels = (json.loads(notes[k]) if k in notes else None for k in (_PREPROCESS, _LABELS))
    return box, OnnxMeta(shape[1:], preprocess, None if labels is None else tuple(labels))


def to_onnx(model: VisionModel, path: str | Path) -> Path:
    """Export a model as ONNX for any batch size, its preprocessing and labels written into the file.

    Raises:
        ModelError: the packages onnx and onnxscript are missing, or the model cannot be exported.
    """
    path = Path(path)
    if not isinstance(model.preprocess, Preprocess):
        raise ModelError("Only a `Preprocess` can be written into an ONNX file, not a transform of your own.")
    x = torch.zeros(2, model.preprocess.channels, *model.preprocess.input_size, device=model.device, dtype=model.dtype)
    try:
        with leave_no_trace(unwrap(model.module)), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(unwrap(model.module), (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    except ImportError as error:
        raise ModelError("Exporting needs onnx and onnxscript: pip install 'pellucid[onnx]'.") from error
    except Exception as error:  # exporters raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"The model cannot be exported as ONNX ({reason}): simplify it, or explain it as it is."
        ) from error
    assert program is not None
    program.model.metadata_props[_PREPROCESS] = json.dumps(model.preprocess.as_dict())
    if model.labels is not None:
        program.model.metadata_props[_LABELS] = json.dumps(list(model.labels))
    program.save(path)
    return path
