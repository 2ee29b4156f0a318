"""Does a model rest on what decides its suite? Measured on fresh clips, without any explanation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.engine import adaptive_batches, default_batch, leave_no_trace
from pellucid.engine.run import run_model
from pellucid.media import generated
from pellucid.models.reading import Reading

_SEED = 3_000_000  # apart from training, testing and showing


@dataclass(frozen=True)
class Certificate:
    """Shares of fresh clips.

    Attributes:
        suite: the question.
        clips: how many were asked.
        right: classed right.
        frozen: classed right when only one frame, drawn at random, stands still for the whole clip.
        reversed: classed, when played backwards, as the suite says that a reversed clip is.
        shuffled: classed right with the frames in a random order.
        hidden: classed right with the evidence painted over by the clip's own mean.
        chance: of a model that guesses.
    """

    suite: str
    clips: int
    right: float
    frozen: float
    reversed: float
    shuffled: float
    hidden: float
    chance: float

    @property
    def holds(self) -> bool:
        """Whether the model knows its suite, by the evidence that decides it, and by no other way."""
        ordered = generated.suite(self.suite).ordered
        margin = 3 * (self.chance * (1 - self.chance) / self.clips) ** 0.5 + 0.05
        needs_evidence = self.hidden < self.chance + margin
        needs_time = not ordered or self.frozen < self.chance + margin
        return self.right > 0.95 and self.reversed > 0.9 and needs_evidence and needs_time

    @property
    def line(self) -> str:
        """One plain sentence."""
        return (
            f"{self.suite}: {self.right:.0%} right on {self.clips} fresh clips; {self.frozen:.0%} on one frozen frame, "
            f"{self.hidden:.0%} with the evidence hidden ({self.chance:.0%} is chance); reversed clips are classed as "
            f"reversed in {self.reversed:.0%}, shuffled ones as before in {self.shuffled:.0%}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"holds": self.holds}


def certify(module: nn.Module, suite: str, *, clips: int = 192, seed: int = _SEED) -> Certificate:
    """Measure on fresh clips of a suite what a model rests on.

    Args:
        module: takes clips `(N, 3, FRAMES, SIDE, SIDE)` of pixels 0 to 1; left as it was.
        suite: the question.
        clips: fresh ones; a few hundred make the shares sure to some per cent.
        seed: of the clips, the frozen frames and the orders.
    """
    asked = generated.suite(suite)
    drawn = generated.draw(suite, clips, seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(clips)
    at = torch.randint(generated.FRAMES, (clips,), generator=generator)
    still = drawn.clips[rows, :, at][:, :, None].expand_as(drawn.clips)
    order = torch.rand(clips, generated.FRAMES, generator=generator).argsort(1)
    shuffled = drawn.clips.gather(2, order[:, None, :, None, None].expand_as(drawn.clips))
    mean = drawn.clips.mean((2, 3, 4), keepdim=True)
    hidden = torch.where(drawn.tubes[:, None], mean, drawn.clips)
    backwards = torch.tensor(asked.reversed)[drawn.labels]

    def share(inputs: Tensor, labels: Tensor) -> float:
        return float((_classes(module, inputs) == labels).float().mean())

    return Certificate(
        suite,
        clips,
        right=share(drawn.clips, drawn.labels),
        frozen=share(still, drawn.labels),
        reversed=share(drawn.clips.flip(2), backwards),
        shuffled=share(shuffled, drawn.labels),
        hidden=share(hidden, drawn.labels),
        chance=1 / len(asked.labels),
    )


def _classes(module: nn.Module, inputs: Tensor) -> Tensor:
    device = next((p.device for p in module.parameters()), inputs.device)
    found = torch.empty(len(inputs), dtype=torch.long)

    def run(start: int, stop: int) -> None:
        found[start:stop] = Reading().class_scores(run_model(module, inputs[start:stop].to(device))).argmax(1).cpu()

    with leave_no_trace(module), torch.no_grad():
        adaptive_batches(run, len(inputs), 4 * default_batch(device), label="certificate")
    return found
