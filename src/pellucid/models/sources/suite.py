"""Networks of the certified suites, trained on the spot."""

from __future__ import annotations

from pellucid.errors import ModelError
from pellucid.media import Plan, generated
from pellucid.models import suites
from pellucid.models.clips import as_clips
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources.registry import Built, source


@source("suite", "tiny video networks, trained here on clips of known truth", suites.names)
def build(name: str, classes: int | None, pretrained: bool) -> Built:
    """A suite's network with its clips' preprocessing and labels."""
    if not pretrained:
        raise ModelError(
            "A suite's network is trained here, on its own clips: leave out --weights and --random-weights."
        )
    net = suites.trained(name)
    side = (generated.SIDE, generated.SIDE)
    frame = Preprocess(input_size=side, mean=(0.0,) * 3, std=(1.0,) * 3)
    return net, as_clips(frame, Plan("uniform", generated.FRAMES)), generated.suite(suites.recipe(name).suite).labels
