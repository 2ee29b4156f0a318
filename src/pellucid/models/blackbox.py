"""Any black box as a model: a function of pictures to scores, an ONNX session, a remote predictor.

It has no layers and no gradients, so only methods that need nothing but outputs can explain it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.engine import leave_no_trace, unwrap
from pellucid.errors import ModelError, UnsteadyError
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess

_PREPROCESS, _LABELS = "pellucid.preprocess", "pellucid.labels"

_ONNX_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_REMEMBERED = 2**28  # bytes of scores
_FIRST_RECHECK = 16  # calls, and every time that their number has doubled

Predictor = Callable[[Any], Any]


class _Answers:
    """What a black box has answered, by the hash of each input; the oldest go when there are too many.

    No plain container: what a forward pass writes to those of a module is undone (see `leave_no_trace`).
    """

    def __init__(self) -> None:
        self.rows: OrderedDict[bytes, Tensor] = OrderedDict()
        self.first: tuple[Tensor, Tensor] | None = None  # an input and its scores, to be asked again
        self.calls = 0

    def keep(self, keys: Sequence[bytes], scores: Tensor) -> None:
        """Remember the scores `(m, ...)` of inputs."""
        self.rows.update(zip(keys, scores.cpu().clone(), strict=True))
        while len(self.rows) * scores[0].nbytes > _REMEMBERED:
            self.rows.popitem(last=False)


class BlackBox(nn.Module):
    """A function of a batch `(N, C, *space)` to scores `(N, classes)`, as a module without parameters.

    What it has answered is remembered, so that work which broke off can be run again at the price of the rest.

    Args:
        function: takes and returns a tensor or an array.
        numpy: give it float32 arrays instead of tensors.
        identity: what tells it from others, for the record (such as the hash of its file).

    Raises:
        ModelError: on a call, when the function fails, answers another number of rows than it was given or another
            number of classes than before, answers no finite numbers, or answers the same input differently.
    """

    def __init__(self, function: Predictor, *, numpy: bool = False, identity: str = "") -> None:
        super().__init__()
        self.function, self.numpy, self.identity = function, numpy, identity
        self.eval()
        self._answers = _Answers()

    def forward(self, inputs: Tensor) -> Tensor:
        """The function's scores, checked; only inputs that it has not answered yet are given to it."""
        keys = [hashlib.blake2b(x.numpy().tobytes(), digest_size=16).digest() for x in inputs.detach().cpu().float()]
        known = self._answers.rows
        fresh = [n for n, key in enumerate(keys) if key not in known]
        answers = {key: known[key] for key in keys if key in known}
        if fresh:
            scores = self._asked(inputs[fresh] if len(fresh) < len(keys) else inputs)
            self._answers.keep([keys[n] for n in fresh], scores)
            answers |= zip((keys[n] for n in fresh), scores, strict=True)
        return torch.stack([answers[key].to(inputs.device) for key in keys])

    def _asked(self, inputs: Tensor) -> Tensor:
        """Scores of new inputs. The first input of all is asked for twice, and now and then again."""
        answers = self._answers
        scores = self._answer(inputs)
        if answers.first is None:
            answers.first = inputs[:1].detach().clone(), scores[:1].clone()
            self._compare()
        answers.calls += 1
        if answers.calls >= _FIRST_RECHECK and answers.calls & (answers.calls - 1) == 0:
            self._compare()
        return scores

    def _compare(self) -> None:
        assert self._answers.first is not None
        given, before = self._answers.first
        if not torch.allclose(self._answer(given).to(before.device), before, rtol=1e-3, atol=1e-5):
            self._answers = _Answers()  # nothing it said can be relied on
            raise UnsteadyError(
                "The black box changes its answer on the same input (or with the batch around it): switch off "
                "whatever is random in it, such as dropout, before it is explained."
            )

    def _answer(self, inputs: Tensor) -> Tensor:
        given: Any = inputs.detach().cpu().float().numpy() if self.numpy else inputs.detach()
        try:
            answer = self.function(given)
            scores = answer if isinstance(answer, Tensor) else torch.from_numpy(np.asarray(answer, dtype=np.float32))
        except Exception as error:
            reason = str(error).strip().splitlines()[:1]
            told = f" What it has answered ({len(self._answers.rows)} inputs) is kept: run it again to go on."
            raise ModelError(
                f"The black box failed on a batch of shape {tuple(inputs.shape)} "
                f"({type(error).__name__}{': ' + reason[0] if reason else ''}): it must take batches (N, C, H, W) and "
                f"answer numbers.{told if self._answers.rows else ''}"
            ) from error
        scores = scores.detach().to(inputs.device).float()
        if scores.ndim == 1 and len(scores) == len(inputs):
            scores = scores[:, None]
        if scores.ndim < 2 or len(scores) != len(inputs):
            raise ModelError(
                f"The black box answered shape {tuple(scores.shape)} to {len(inputs)} inputs: it must answer one row "
                "of scores for each, (N, classes)."
            )
        before = self._answers.first
        if before is not None and scores.shape[1:] != before[1].shape[1:]:
            raise ModelError(
                f"The black box answered {tuple(scores.shape[1:])} scores an input, and {tuple(before[1].shape[1:])} "
                "before: it must answer the same classes each time."
            )
        broken = int((~scores.isfinite()).flatten(1).any(1).sum())
        if broken:
            raise ModelError(
                f"The black box answered NaN or infinity to {broken} of {len(inputs)} inputs: check its preprocessing, "
                "or choose a baseline that it can take."
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
    if wanted.type not in _ONNX_FLOATS:
        raise ModelError(
            f"{path} takes {wanted.type}, and a picture is given as floats: export it with an input of float, double "
            "or float16."
        )
    dtype = _ONNX_FLOATS[wanted.type]
    shape = tuple(d if isinstance(d, int) else 0 for d in wanted.shape)
    fixed = shape[0] if shape and shape[0] > 0 else 0

    def run(batch: Any) -> Any:
        batch = batch.astype(dtype, copy=False)
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
