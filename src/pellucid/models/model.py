"""VisionModel: a network together with what is needed to use it on a picture."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine import default_batch, leave_no_trace, unwrap
from pellucid.engine.fingerprint import fingerprint
from pellucid.engine.run import require_values, run_model
from pellucid.engine.trace import interruptible
from pellucid.errors import ModelError, TargetError
from pellucid.explanation import Prediction
from pellucid.media import CLIP, PICTURE, VOLUME, Medium
from pellucid.media.image import read_image
from pellucid.models.clips import ClipPreprocessing
from pellucid.models.parts import nothing_to_explain, parts
from pellucid.models.preprocess import Preprocess, Preprocessing
from pellucid.models.reading import Reading
from pellucid.models.recognition import doubts, settle
from pellucid.models.targets import Target
from pellucid.models.targets.base import Met
from pellucid.models.targets.classes import label_of
from pellucid.models.tasks import Scores, Task, recognised_task, task_of
from pellucid.models.volume_preprocess import VolumePreprocessing


@dataclass
class VisionModel:
    """A `torch.nn.Module` with its preprocessing and labels.

    Attributes:
        module: the network; its output holds class scores `(N, classes)`, or whatever your targets read.
        preprocess: picture -> (input `(C, H, W)`, geometry), or clip -> (input `(C, T, H, W)`, geometry).
        labels: class names by index, if known.
        name: what people call it; for loaded models the name that `pl.load` takes.
        source: the arguments of `pl.load` that load it again; empty for wrapped modules.
        reading: what its output means; what is not declared is recognised from its first output (see `settled`).
        task: what kind of answer it gives, where that is declared or the module says it; else recognised likewise.
    """

    module: nn.Module
    preprocess: Preprocessing | ClipPreprocessing | VolumePreprocessing
    labels: tuple[str, ...] | None = None
    name: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)
    task: Task | None = None

    def __post_init__(self) -> None:
        self.task = self.task or task_of(self.module)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' floating type."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    @property
    def medium(self) -> Medium:
        """What it takes: pictures, clips or volumes."""
        if isinstance(self.preprocess, Preprocess):  # a class is asked about quickly, a protocol is not
            return PICTURE
        if isinstance(self.preprocess, VolumePreprocessing):
            return VOLUME
        return CLIP if isinstance(self.preprocess, ClipPreprocessing) else PICTURE

    @property
    def takes_clips(self) -> bool:
        """Whether it takes clips."""
        return self.medium is CLIP

    @property
    def pictures(self) -> Preprocessing:
        """The preprocessing of an image model.

        Raises:
            ModelError: it takes clips or volumes.
        """
        if isinstance(self.preprocess, Preprocess):
            return self.preprocess
        if isinstance(self.preprocess, ClipPreprocessing):
            raise ModelError(f"{self.name or 'The model'} takes clips, not pictures: give it a clip.")
        if isinstance(self.preprocess, VolumePreprocessing):
            raise ModelError(f"{self.name or 'The model'} takes volumes, not pictures: give it a volume.")
        return self.preprocess

    @property
    def volumes(self) -> VolumePreprocessing:
        """The preprocessing of a model of volumes.

        Raises:
            ModelError: it takes something else.
        """
        if not isinstance(self.preprocess, VolumePreprocessing):
            raise ModelError(
                f"{self.name or 'The model'} takes {self.medium.name}s: pl.per_slice(model) makes it one of volumes."
            )
        return self.preprocess

    @property
    def clips(self) -> ClipPreprocessing:
        """The preprocessing of a video model.

        Raises:
            ModelError: it takes pictures.
        """
        if not isinstance(self.preprocess, ClipPreprocessing):
            raise ModelError(f"{self.name or 'The model'} takes pictures: pl.per_frame(model) makes it one of clips.")
        return self.preprocess

    @property
    def batch(self) -> int:
        """Inputs per micro-batch that suit their size and the device (see `default_batch`)."""
        elements = self.preprocess.channels * prod(self.preprocess.input_size)
        return default_batch(self.device, elements * self.dtype.itemsize)

    def label(self, index: int) -> str:
        """The name of a class, or `class 7` where there is none."""
        return label_of(index, self.labels)

    @interruptible
    def outputs(self, inputs: Tensor) -> Any:
        """The model's output for `(N, C, H, W)`, without a graph and without a trace.

        Raises:
            ModelError: the model fails on such inputs, or answers with NaN.
        """
        module = unwrap(self.module)
        require_values(module)
        with leave_no_trace(module), torch.no_grad():
            try:
                output = run_model(module, inputs.detach().clone())
            except ModelError as error:
                if inputs.ndim == 5 and _fits(module, inputs.movedim(2, 1)):
                    raise ModelError(
                        f"The model failed on a clip of shape {tuple(inputs.shape)}, read as (N, C, T, H, W), and "
                        "works on (N, T, C, H, W): wrap it with pl.wrap(module, layout='BTCHW', ...)."
                    ) from error.__cause__
                raise
        return self.sound(output)

    def sound(self, output: Any) -> Any:
        """An output, if something in it can be explained.

        Raises:
            ModelError: it holds no scores, or NaN alone.
        """
        if not any(p.scores for p in parts(output)):
            raise ModelError(nothing_to_explain(output))
        try:
            read = [self.reading.tensor(output)]
        except TargetError:  # no class scores, but perhaps what a function of the output reads
            read = [p.tensor for p in parts(output) if p.scores]
        if not any(bool(scores.isfinite().all()) for scores in read):
            raise ModelError(_not_finite(self.module))
        return output

    @property
    def answering(self) -> Task:
        """The task, as far as it is known: a row of scores for each input where nothing says otherwise."""
        if isinstance(self.task, Scores):
            return replace(self.task, reading=self.reading)
        return self.task or Scores(self.reading)

    @interruptible
    def settled(self, inputs: Tensor, output: Any) -> VisionModel:
        """This model with its task and reading recognised, as far as not declared, from its output for these inputs.

        Raises:
            ModelError: what was declared does not fit the output.
        """
        task = self.task or recognised_task(output, self.reading, len(inputs), self.labels)
        if task is not None and not task.of_scores:
            return self if task == self.task else replace(self, task=task)
        reading = settle(self.reading, self.module, inputs, output, self.labels)
        reading = task.settled(reading) if isinstance(task, Scores) else reading
        return self if reading == self.reading else replace(self, reading=reading)

    @property
    def declared(self) -> dict[str, Any]:
        """What is known of its reading, for the keys under which results are kept; empty where nothing is."""
        return {} if self.reading == Reading() else {"reading": self.reading.as_dict()}

    @interruptible
    def bound(self, target: Target, inputs: Tensor) -> Target:
        """A target for this model and these inputs: names resolved, the output read as this model's is."""
        read = self.answering.asked(target).read_by(self.reading).met(self._answer_to)
        return read.bind(self.module, inputs, self.labels)

    def _answer_to(self, source: str) -> Met:
        """A picture by its source, and what it answers to that."""
        picture = read_image(source)
        x, geometry = self.pictures(picture)
        x = x.to(self.device, self.dtype)
        return Met(picture, x, geometry, self.outputs(x[None]))

    def frozen(self, target: Target, inputs: Tensor, output: Any) -> Target:
        """A bound target with what it takes from the output fixed to what that says of the untouched inputs.

        Raises:
            TargetError: it cannot be asked of this output.
        """
        self.answering.check(target, self.module, inputs, output)
        return target.freeze(output)

    def ranked(self, output: Any, k: int = 5, *, count: int = 1) -> list[list[Prediction]]:
        """The first k answers to each of `count` samples of an output; empty where it has none in words."""
        return self.answering.answers(output, count, self.labels, k)

    def predict(self, inputs: Tensor, k: int = 5) -> list[list[Prediction]]:
        """The top-k classes of each input `(N, C, H, W)`, with their probabilities where the output has any."""
        output = self.outputs(inputs)
        found = self.settled(inputs, output).ranked(output, k, count=len(inputs))
        for row, doubt in zip(found, self.doubts(output, len(inputs)), strict=True):
            row[:] = [replace(p, probability=math.nan) for p in row] if doubt else row
        return found

    def doubts(self, output: Any, count: int) -> list[bool]:
        """For each of so many inputs, whether its scores alone leave open if labels exclude each other."""
        if self.task is not None:
            return [False] * count
        return doubts(self.reading, self.module, output, count, self.labels)

    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and values of all that the module's `state_dict` holds.

        Raises:
            ModelError: the weights hold no values yet: lazy modules, the `meta` device.
        """
        identity = getattr(self.module, "identity", None)
        if isinstance(identity, str) and identity:  # a black box has no weights to look at
            return hashlib.sha256(identity.encode()).hexdigest()
        return fingerprint(self.module)


def check_labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """Labels as a tuple of texts, or None."""
    return None if labels is None else tuple(str(label) for label in labels)


def _fits(module: nn.Module, inputs: Tensor) -> bool:
    try:
        module(inputs.detach().clone())
    except Exception:
        return False
    return True


def _not_finite(module: nn.Module) -> str:
    held = itertools.chain(module.named_parameters(), module.named_buffers())
    bad = next((n for n, p in held if p.is_floating_point() and not p.isfinite().all()), None)
    if bad is None:
        return "The model's scores hold NaN or infinity: check its preprocessing, or run it in single precision."
    return f"The model's weights hold NaN or infinity (first in {bad!r}): load a sound checkpoint."
