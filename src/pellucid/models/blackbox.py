"""Any black box as a model: a function of pictures to scores, an ONNX session, a remote predictor.

It has no layers and no gradients, so only methods that need nothing but outputs can explain it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.engine import leave_no_trace, unwrap
from pellucid.engine.names import names_of
from pellucid.errors import ModelError, UnsteadyError
from pellucid.models.detections import Detections, padded
from pellucid.models.model import VisionModel
from pellucid.models.opens import OUTPUTS
from pellucid.models.parts import lists_boxes, speaks_of_boxes
from pellucid.models.preprocess import Preprocess

_PREPROCESS, _LABELS = "pellucid.preprocess", "pellucid.labels"

_ONNX_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_REMEMBERED = 2**28  # bytes of scores
_FIRST_RECHECK = 16  # calls, and every time that their number has doubled

Predictor = Callable[[Any], Any]
Answer = dict[str, Tensor]
"""Outputs by name, each with a row for each input; a lone output has no name."""

_LONE = ""


class _Answers:
    """What a black box has answered, by the name or hash of each input; the oldest go when there are too many.

    No plain container: what a forward pass writes to those of a module is undone (see `leave_no_trace`).
    """

    def __init__(self) -> None:
        self.rows: OrderedDict[Hashable, Answer] = OrderedDict()
        self.first: tuple[Tensor, Answer] | None = None  # an input and its answer, to be asked again
        self.calls = 0

    def keep(self, keys: Sequence[Hashable], rows: Sequence[Answer]) -> None:
        """Remember what was answered to inputs."""
        self.rows.update(zip(keys, ({n: row.cpu().clone() for n, row in r.items()} for r in rows), strict=True))
        while len(self.rows) * sum(row.nbytes for row in rows[0].values()) > _REMEMBERED:
            self.rows.popitem(last=False)


def _key(x: Tensor) -> int:
    """The name of an input, in this process: Python's own hash, 64 bits, takes a quarter of the time of blake2b."""
    return hash(x.contiguous().numpy().tobytes())


def _rows(answer: Answer) -> list[Answer]:
    return [dict(zip(answer, row, strict=True)) for row in zip(*answer.values(), strict=True)]


class BlackBox(nn.Module):
    """A function of a batch `(N, C, *space)` to scores `(N, classes)`, as a module without parameters.

    A detector answers a list with `{boxes, labels, scores}` for each input, and comes out as `Detections`.

    What it has answered is remembered, so that work which broke off can be run again at the price of the rest.

    Args:
        function: takes a tensor or an array, and returns one, or a mapping of names to several.
        numpy: give it float32 arrays instead of tensors.
        identity: what tells it from others, for the record (such as the hash of its file).

    Raises:
        ModelError: on a call, when the function fails, answers another number of rows than it was given or another
            number of classes than before, answers no finite numbers, or answers the same input differently.
    """

    opens = OUTPUTS
    remembers = True

    def __init__(self, function: Predictor, *, numpy: bool = False, identity: str = "") -> None:
        super().__init__()
        self.function, self.numpy, self.identity = function, numpy, identity
        self.eval()
        self._answers = _Answers()

    def forward(self, inputs: Tensor) -> Tensor | Answer | Detections:
        """The function's answer, checked; only inputs that it has not answered yet are given to it."""
        keys = names_of(inputs) or [_key(x) for x in inputs.detach().cpu().float()]
        known = self._answers.rows
        fresh = [n for n, key in enumerate(keys) if key not in known]
        answers = {key: known[key] for key in keys if key in known}
        found: Answer = {}
        if fresh:
            asked = self._asked(inputs[fresh] if len(fresh) < len(keys) else inputs)
            rows = _rows(asked)
            self._answers.keep([keys[n] for n in fresh], rows)
            answers |= zip((keys[n] for n in fresh), rows, strict=True)
            found = asked if len(fresh) == len(keys) else {}  # the usual case, and large answers take long to copy
        for name in answers[keys[0]].keys() - found.keys():
            found[name] = torch.stack([answers[key][name].to(inputs.device) for key in keys])
        return Detections.of(found) if speaks_of_boxes(found) else found.get(_LONE, found)

    def _asked(self, inputs: Tensor) -> Answer:
        """What is answered to new inputs. The first input of all is asked for twice, and now and then again."""
        answers = self._answers
        answer = self._answer(inputs)
        if answers.first is None:
            answers.first = inputs[:1].detach().clone(), {name: each[:1].clone() for name, each in answer.items()}
            self._compare()
        answers.calls += 1
        if answers.calls >= _FIRST_RECHECK and answers.calls & (answers.calls - 1) == 0:
            self._compare()
        return answer

    def _compare(self) -> None:
        assert self._answers.first is not None
        given, before = self._answers.first
        again = self._answer(given)
        if not all(torch.allclose(again[n].to(b.device), b, rtol=1e-3, atol=1e-5) for n, b in before.items()):
            self._answers = _Answers()  # nothing it said can be relied on
            raise UnsteadyError(
                "The black box changes its answer on the same input (or with the batch around it): switch off "
                "whatever is random in it, such as dropout, before it is explained."
            )

    def _answer(self, inputs: Tensor) -> Answer:
        given: Any = inputs.detach().cpu().float().numpy() if self.numpy else inputs.detach()
        try:
            answer = self.function(given)
            answer = padded(answer) if lists_boxes(answer) else answer
            several = isinstance(answer, Mapping) and bool(answer)
            parts = {str(name): _tensor(part) for name, part in answer.items()} if several else {}
            found = parts or {_LONE: _tensor(answer, np.float32).float()}
        except ModelError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[:1]
            told = f" What it has answered ({len(self._answers.rows)} inputs) is kept: run it again to go on."
            raise ModelError(
                f"The black box failed on a batch of shape {tuple(inputs.shape)} "
                f"({type(error).__name__}{': ' + reason[0] if reason else ''}): it must take batches (N, C, H, W) and "
                f"answer numbers.{told if self._answers.rows else ''}"
            ) from error
        before = self._answers.first
        if before is not None and found.keys() != before[1].keys():
            raise ModelError(
                f"The black box answered {_named(found)}, and {_named(before[1])} before: it must answer alike."
            )
        return {name: self._checked(name, part.detach().to(inputs.device), len(inputs)) for name, part in found.items()}

    def _checked(self, name: str, scores: Tensor, count: int) -> Tensor:
        """One output, a row for each of so many inputs, of the shape that it had before."""
        called = f" in its output {name!r}" if name else ""
        if scores.ndim == 1 and len(scores) == count:
            scores = scores[:, None]
        if scores.ndim < 2 or len(scores) != count:
            raise ModelError(
                f"The black box answered shape {tuple(scores.shape)} to {count} inputs{called}: it must answer one row "
                "of scores for each, (N, classes)."
            )
        before = scores if self._answers.first is None else self._answers.first[1][name]
        if scores.shape[1:] != before.shape[1:]:
            raise ModelError(
                f"The black box answered {tuple(scores.shape[1:])} scores an input{called}, and "
                f"{tuple(before.shape[1:])} before: it must answer the same classes each time."
            )
        if scores.sum().isfinite():  # a sum of numbers one of which is NaN or infinite is neither, and soon taken
            return scores
        broken = int((~scores.isfinite()).flatten(1).any(1).sum())
        if broken:
            raise ModelError(
                f"The black box answered NaN or infinity to {broken} of {count} inputs{called}: check its "
                "preprocessing, or choose a baseline that it can take."
            )
        return scores


def _named(answer: Answer) -> str:
    return "scores alone" if _LONE in answer else ", ".join(map(repr, answer))


def _tensor(answer: Any, dtype: Any = None) -> Tensor:
    """What a function answered, in single precision where it is a floating number."""
    found = answer if isinstance(answer, Tensor) else torch.from_numpy(np.asarray(answer, dtype))
    return found.float() if found.is_floating_point() else found


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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # as many as torch: threads that wait for a core spin
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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

    names = _answered(session, fixed)

    def asked(batch: Any) -> list[Any]:
        return list(session.run(names, {wanted.name: batch}))

    def run(batch: Any) -> Any:
        batch = batch.astype(dtype, copy=False)
        if not fixed or fixed == len(batch):
            found = asked(batch)
        else:  # a file exported for one batch size is fed that many at a time, the last batch padded
            rows = []
            for start in range(0, len(batch), fixed):
                part = batch[start : start + fixed]
                short = fixed - len(part)
                whole = np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part
                rows.append([each[: len(part)] for each in asked(whole)])
            found = [np.concatenate(each) for each in zip(*rows, strict=True)]
        return found[0] if len(found) == 1 else dict(zip(names, found, strict=True))

    box = BlackBox(run, numpy=True, identity=f"onnx sha256 {hashlib.sha256(data).hexdigest()}")
    notes = session.get_modelmeta().custom_metadata_map
    preprocess, labels = (json.loads(notes[k]) if k in notes else None for k in (_PREPROCESS, _LABELS))
    return box, OnnxMeta(shape[1:], preprocess, None if labels is None else tuple(labels))


def _answered(session: Any, batch: int) -> list[str]:
    """Names of the outputs of a session that hold a row for each input; `batch` is 0 where its size is free."""
    tensors = [o for o in session.get_outputs() if o.type.startswith("tensor(") and "string" not in o.type]
    rows = [o for o in tensors if o.shape and (not isinstance(o.shape[0], int) or o.shape[0] == batch)]
    return [o.name for o in rows or tensors[:1] or session.get_outputs()[:1]]


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
