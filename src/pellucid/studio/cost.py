"""How long a method will take, said before: the passes of its sentence of cost, times what a pass takes here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.verbs.costs import PlannedPasses, whole

CHECK = {False: 190, True: 420}  # forwards that `--check` takes for a map: of a picture, of a clip
_BATCH = 4
_PLAYERS = 256  # in a table; beyond it costs grow evenly
_SIZES = {"channel": 512, "cell": 49, "window": 225, "segment": 196}  # where nothing better is known


@dataclass(frozen=True)
class Pace:
    """What a pass of a model takes on this machine, in seconds an input, and how finely it looks.

    Attributes:
        forward: in a batch.
        backward: a gradient beside its forward pass.
        sizes: how many there are of what methods go through one by one: `channel`, `cell`, `window`, `segment`.
    """

    forward: float
    backward: float
    sizes: Mapping[str, int]

    def seconds(self, passes: PlannedPasses) -> float:
        """How long they take."""
        return passes.forwards * self.forward + passes.backwards * self.backward


def pace(vision: Any, given: str) -> Pace:
    """Time a model on an input: a batch forward, and a gradient.

    Args:
        vision: the model; left as it was.
        given: a picture, clip or volume that it takes.
    """
    from pellucid.errors import PellucidError
    from pellucid.heatmaps import get_method
    from pellucid.verbs.inputs import one

    x = one(vision, given).x[None].to(vision.device, vision.dtype)
    batch = x.repeat(_BATCH, *[1] * (x.ndim - 1))
    forward = min(_timed(lambda: vision.outputs(batch)) for _ in range(2)) / _BATCH
    backward, sizes = 0.0, dict(_SIZES)
    try:
        saliency, cam = get_method("saliency"), get_method("grad-cam")
        backward = max(0.0, min(_timed(lambda: saliency.explain(vision, x, [None])) for _ in range(2)) - forward)
        layer = cam.explain(vision, x, [None])[0].layer
        if layer is not None:
            sizes |= {"channel": layer.layout.channels, "cell": layer.layout.cells}
    except PellucidError:  # a black box has neither gradients nor layers
        pass
    return Pace(forward, backward, sizes)


def presets() -> dict[str, tuple[int, int]]:
    """Steps and views of each preset of feature visualisation."""
    from pellucid.features.settings import PRESETS

    return {name: (found.steps, found.views) for name, found in PRESETS.items()}


def made(steps: int, views: int, measured: Pace) -> float:
    """Seconds that a made picture takes at most."""
    return steps * views * measured.seconds(PlannedPasses(1, 1))


def players_costs(sizes: Mapping[str, int]) -> dict[str, Any]:
    """The most passes that importance takes, for the form to add up.

    Args:
        sizes: see `Pace`.

    Returns:
        `players`: of each kind, how many there are unless a number is asked for; `most`: of each estimator, passes by
        the number of players, from 0 on, where it samples until its error is small; `each`: passes a sample, alone and
        times the players, where a number of samples is asked for; both 0 of an estimator that does not sample.
    """
    from pellucid.importance import ESTIMATORS, FEATURES
    from pellucid.importance.measure import most_passes

    cut = {"channels": sizes["channel"], "tokens": sizes["cell"]}
    players = {name: cut.get(name) or whole(getattr(kind, "count", None)) or 49 for name, kind in FEATURES.items()}
    budget = max(kind.budget for kind in FEATURES.values())
    most, each = {}, {}
    for name, estimator in ESTIMATORS.items():
        if estimator.of_a_set:
            continue
        usual, one, two = estimator(), estimator(samples=1), estimator(samples=2)
        most[name] = [most_passes(usual, k, budget) for k in range(_PLAYERS)]
        few, many = (two.cost(k, budget) - one.cost(k, budget) for k in (100, 200))
        each[name] = [few - (many - few), (many - few) / 100]
    return {"players": players, "most": most, "each": each}


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
