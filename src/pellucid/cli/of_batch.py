"""A batch in the place of inputs: what was explained in it, by the model that explained it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli.options import DEFAULT_MODEL
from pellucid.errors import MethodError, ModelError, StorageError
from pellucid.keep.journal import Journal

if TYPE_CHECKING:
    from pellucid.models.model import VisionModel
    from pellucid.runs.batch import BatchJob


@dataclass(frozen=True)
class GivenBatch:
    """What the folder of a batch says to a command."""

    job: BatchJob

    def load(self) -> VisionModel:
        """Its model.

        Raises:
            ModelError: it cannot be loaded, or its weights are others by now.
        """
        model = self.job.plan.load()
        if model.fingerprint() != Journal(self.job.folder).about()["weights"]:
            raise ModelError(
                f"The weights of the model are no longer those of the batch {self.job.folder}: run the batch again, or "
                "name its inputs in place of the batch."
            )
        return model

    def inputs(self) -> list[str]:
        """What was explained.

        Raises:
            StorageError: nothing yet.
        """
        from pellucid.verbs.results import results

        found = results(self.job.folder).inputs()
        if not found:
            raise StorageError(
                f"The batch {self.job.folder} has no finished row yet: see `pellucid batch status {self.job.folder}`."
            )
        return found

    def pictures(self) -> str | list[str | Path]:
        """The folder that the batch is of, whose sub-folders may be classes; else its inputs."""
        given = self.job.manifest.given
        whole = len(given) == 1 and os.path.isdir(given[0]) and self.job.manifest.limit is None
        return given[0] if whole else [*self.inputs()]

    def asked(self, target: str) -> tuple[list[Any], Any]:
        """Its methods, each once, and its target, unless another than `top` is named.

        Raises:
            MethodError: it draws no maps, or asks for several targets.
        """
        from pellucid.verbs.explain import ExplainRequest

        requests = [r for r in self.job.plan.asked() if isinstance(r, ExplainRequest)]
        if not requests:
            raise MethodError(f"The batch {self.job.folder} draws no maps: name --methods to evaluate.")
        first = requests[0].target
        if target != "top":
            return [r.method for r in requests if r.target == first], target
        if other := next((r.target for r in requests if r.target != first), None):
            raise MethodError(f"The batch {self.job.folder} asks for {first} and for {other}: choose a --target.")
        return [r.method for r in requests], first


def given_batch(inputs: Sequence[str], model: str) -> GivenBatch | None:
    """The batch among a command's inputs; None: there is none.

    Raises:
        StorageError: it is not alone.
        ModelError: another model is named beside it.
    """
    named = [item for item in inputs if Journal(Path(item)).exists]
    if not named:
        return None
    if len(inputs) > 1:
        raise StorageError(f"{named[0]} is a batch, which stands for its own inputs: give it alone.")
    if model != DEFAULT_MODEL:
        raise ModelError(f"{named[0]} is a batch, which names its own model: leave out --model.")
    from pellucid.runs.batch import BatchJob

    return GivenBatch(BatchJob.opened(named[0]))
