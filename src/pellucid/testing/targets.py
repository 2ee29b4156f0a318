"""What every target promises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.engine import Capture
from pellucid.heatmaps.gradient import Saliency
from pellucid.models.targets import Target, as_target
from pellucid.scoring.job import prepare
from pellucid.testing.networks import Sound, noise
from pellucid.testing.snapshot import differences, snapshot


def check_target(target: Target, *, network: Callable[[], nn.Module] = Sound, inputs: Tensor | None = None) -> None:
    """Hold a target to the contract of all targets.

    It gives one finite score a sample; a sample scores the same alone and in a batch; frozen, it stays what it was; its
    text, if it has one, reads back as the same question; gradients reach the input; and no trace is left.

    Args:
        target: the question, unbound.
        network: makes a network that it can be asked of.
        inputs: a batch for it of two at least; default: noise.

    Raises:
        AssertionError: which promise is broken.
    """
    x = noise(2, 3, 16, 16) if inputs is None else inputs
    net = network()
    before = snapshot(net, x)
    bound = prepare(net, x, [target]).targets[0]
    with Capture(net, watch=bound.layers) as capture, torch.no_grad():
        output = capture.forward(x)
        frozen = bound.freeze(output)
        scores = frozen.score(output, capture.watched)
        for k in range(len(x)):
            row = torch.tensor([k])
            alone = frozen.select(row).score(capture.forward(x[k : k + 1]), capture.watched)
            apart = float((alone - scores[k]).abs().max())
            assert apart <= 1e-4 * max(float(scores.abs().max()), 1e-6), f"Sample {k} scores differently alone."
    assert scores.shape == (len(x),), f"It gives scores of shape {tuple(scores.shape)} for {len(x)} samples."
    assert scores.isfinite().all(), "A score is NaN or infinite."
    text = target.spec()
    if text is not None:
        assert as_target(text) == target, f"Its text {text!r} reads back as {as_target(text)!r}."
    assert bool(Saliency().attribute(net, x, target).any()), "No gradient leads from the score to the input."
    left = differences(before, snapshot(net, x))
    assert not left, f"A trace is left on the model: {'; '.join(left)}."
