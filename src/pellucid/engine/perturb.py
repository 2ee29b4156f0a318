"""The scorer of masked inputs: the one engine under every method that needs only a model's outputs.

Given inputs, a baseline and targets it yields the scores of `mask * x + (1 - mask) * baseline` for many masks: masks
drawn batch by batch on the device, blended into one buffer, run without a graph, each different mask once, batches
filled across inputs. Everything else is left to the methods, which are sums over scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine.batching import adaptive_batches, default_batch
from pellucid.engine.capture import Capture, Cost
from pellucid.engine.masks import Masks
from pellucid.errors import ModelError

Scores = Callable[[Any, Mapping[str, Tensor], Tensor], Sequence[Tensor]]
"""(model output, watched activations, rows `(m,)` of the inputs) -> one score `(m,)` for each target."""


class Scorer:
    """Scores of masked inputs; a context, since the model is borrowed while it is open.

    Args:
        module: the model.
        inputs: `(N, C, *space)`.
        baseline: `(N, C, *space)`, shown where a mask is 0.
        score: see `Scores`.
        targets: how many targets `score` yields.
        watch: layers that `score` reads.
        batch: masked inputs at a time; halved when memory runs out.

    Example:
        with Scorer(module, x, zeros, score, targets=1) as scorer:
            values = scorer(SegmentMasks(coalitions, labels))  # (N, M, 1)
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        baseline: Tensor,
        score: Scores,
        *,
        targets: int = 1,
        watch: Sequence[str] = (),
        batch: int | None = None,
    ) -> None:
        self.inputs, self.baseline = inputs.detach(), baseline.detach().expand_as(inputs)
        self.score, self.targets = score, targets
        self.batch = batch or default_batch(self.inputs)
        self.cost = Cost()
        self._capture = Capture(module, watch=watch)

    def __enter__(self) -> Scorer:
        self._capture.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.__exit__(kind, error, trace)

    def __call__(self, masks: Masks | Sequence[Masks], label: str = "masked inputs") -> Tensor:
        """Scores `(N, M, targets)`, double precision.

        Args:
            masks: the same for all inputs, or one `Masks` of equal length for each input.
            label: of the progress bar.
        """
        per_input = [masks] * len(self.inputs) if isinstance(masks, Masks) else list(masks)
        unique, inverse = zip(*(m.distinct() for m in per_input), strict=True)
        counts = [len(u) for u in unique]
        owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        which = torch.cat([torch.arange(c) for c in counts])
        out = torch.empty(len(owner), self.targets, dtype=torch.float64, device=self.inputs.device)
        buffer = torch.empty((min(self.batch, len(owner)), *self.inputs.shape[1:])).to(self.inputs)

        def run(start: int, stop: int) -> None:
            blended = buffer[: stop - start]
            for n in sorted(set(owner[start:stop].tolist())):
                mine = (owner[start:stop] == n).nonzero()[:, 0]
                low, high = int(mine[0]), int(mine[-1]) + 1
                at = which[start + low : start + high]
                mask = unique[n].render(slice(int(at[0]), int(at[-1]) + 1)).to(self.inputs)
                torch.lerp(self.baseline[n : n + 1], self.inputs[n : n + 1], mask, out=blended[low:high])
            out[start:stop] = self.evaluate(blended, owner[start:stop])

        self.batch = adaptive_batches(run, len(owner), self.batch, label=label)
        parts = out.split(counts)  # type: ignore[no-untyped-call]
        return torch.stack([part[i.to(part.device)] for part, i in zip(parts, inverse, strict=True)])

    def evaluate(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Scores `(m, targets)` of ready inputs `(m, C, *space)`, which belong to the samples `rows` `(m,)`.

        Raises:
            ModelError: the model answers with something else than one finite score a sample.
        """
        with torch.no_grad():
            output = self._capture.forward(inputs)
            scores = torch.stack([s.double() for s in self.score(output, self._capture.watched, rows)], dim=1)
        self.cost.forwards += len(inputs)
        if len(scores) != len(inputs):
            raise ModelError(
                f"The model answered {len(scores)} scores for {len(inputs)} inputs; it must answer one each."
            )
        if not torch.isfinite(scores).all():
            raise ModelError(
                "The model answered NaN or infinity to a masked input: check its weights and preprocessing."
            )
        return scores

    def plain(self) -> Tensor:
        """Scores `(N, targets)` of the inputs as they are."""
        return self._over(self.inputs)

    def blank(self) -> Tensor:
        """Scores `(N, targets)` of the baselines."""
        return self._over(self.baseline)

    def _over(self, inputs: Tensor) -> Tensor:
        out = torch.empty(len(inputs), self.targets, dtype=torch.float64, device=inputs.device)

        def run(start: int, stop: int) -> None:
            out[start:stop] = self.evaluate(inputs[start:stop], torch.arange(start, stop))

        adaptive_batches(run, len(inputs), self.batch)
        return out
