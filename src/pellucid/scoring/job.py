"""A question, checked and bound: which model, which batch, which targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from pellucid.engine import unwrap
from pellucid.engine.ahead import Ahead
from pellucid.engine.memory import Memory
from pellucid.errors import ModelError
from pellucid.media import Medium
from pellucid.models.model import VisionModel
from pellucid.models.reading import Reading
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.models.task import Scores, task_of

ModelLike = VisionModel | nn.Module


@dataclass(frozen=True)
class Job:
    """A model, a batch and the targets to explain, checked and bound; and what is known of its scores already."""

    module: nn.Module
    inputs: Tensor
    targets: tuple[Target, ...]
    memory: Memory | None = None
    reading: Reading = field(default_factory=Reading)  # what the output means
    medium: Medium | None = None  # what the inputs are, where the model says it
    ahead: Ahead | None = None  # the answer to the inputs, and perhaps the pass that gave it

    @property
    def watch(self) -> tuple[str, ...]:
        """Layers that some target reads."""
        return tuple(dict.fromkeys(name for target in self.targets for name in target.layers))

    @property
    def is_clip(self) -> bool:
        """Whether the inputs are clips `(N, C, T, H, W)`: said by the model, or (of a bare module) three axes."""
        return self.inputs.ndim == 5 if self.medium is None else self.medium.moving

    @property
    def space(self) -> tuple[int, ...]:
        """The input's size along its space axes."""
        return tuple(self.inputs.shape[2:])


def prepare(model: ModelLike, inputs: Tensor, targets: Sequence[TargetLike]) -> Job:
    """Check and bind what the user gave.

    Raises:
        ModelError: inputs that are no batch `(N, C, *space)` of finite floats.
        TargetError: targets that don't fit the model or the batch.
    """
    module = unwrap(model.module if isinstance(model, VisionModel) else model)
    if not isinstance(module, nn.Module):
        raise ModelError(f"The model is a {type(model).__name__}; give a torch.nn.Module or a VisionModel.")
    if not isinstance(inputs, Tensor) or inputs.ndim < 3 or not inputs.is_floating_point() or not len(inputs):
        shape = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ModelError(f"Inputs are a batch of floats (N, C, *space), N > 0; got {shape}.")
    if not inputs.isfinite().all():
        raise ModelError("The input holds NaN or infinity: clean it before explaining it.")
    inputs = inputs.clone() if inputs.is_inference() else inputs
    reading = model.reading if isinstance(model, VisionModel) else Reading()
    if isinstance(model, VisionModel):
        asked = tuple(model.bound(as_target(t), inputs) for t in targets)
    else:
        task = task_of(module) or Scores()
        asked = tuple(task.asked(as_target(t)).read_by(reading).bind(module, inputs, None) for t in targets)
    medium = model.medium if isinstance(model, VisionModel) and inputs.ndim == 2 + model.medium.axes else None
    return Job(module, inputs, asked, reading=reading, medium=medium)


def plain_setting(value: Any) -> Any:
    """A setting as JSON can hold it; a tensor by its hash."""
    if not isinstance(value, Tensor):
        return value
    data = value.detach().cpu().contiguous()
    data = data.float() if data.is_floating_point() else data
    return f"sha256:{hashlib.sha256(data.numpy().tobytes()).hexdigest()}"
