"""`evaluate` where the truth is known: a suite's network on its own pictures or clips, the oracle among the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import MediaError, MethodError
from pellucid.evaluation.anchors import Painted
from pellucid.evaluation.banks.oracle import ORACLE
from pellucid.evaluation.banks.parts import SceneOracle
from pellucid.evaluation.suites import pictures, scenes
from pellucid.media import generated
from pellucid.models.sources import load, wrap
from pellucid.results.scoreboard import Scoreboard
from pellucid.verbs.evaluate import evaluate

SCENE = "scene"
SUITES = (*pictures.SUITES, SCENE, *generated.SUITES)
"""Of pictures, of scenes, then of clips."""


def evaluate_suite(
    name: str,
    methods: str | Sequence[str] = "grad-cam,layer-cam,integrated-gradients",
    metrics: str | Sequence[str] = "default",
    *,
    count: int = 8,
    baseline: str | None = None,
    seed: int = 0,
    **how: Any,
) -> Scoreboard:
    """Which method, and which metric, deserves belief where the truth is known?

    Args:
        name: of the suite (see `pellucid.evaluation.suites.pictures` and `pellucid.media.generated`).
        methods: by name; the oracle joins them: of pictures what each place adds by algebra, of scenes what each part
            adds by drawing all coalitions of parts, of clips where the evidence is painted.
        metrics: as `evaluate` takes them; localisation is against the truth.
        count: pictures or clips.
        baseline: what shows where something is hidden; None: `blur`, and `time-mean` for clips, which hides what moves.
        seed: of the pictures, and of whatever is random; clips are those that `suite:NAME:NUMBER` names.
        how: further settings of `evaluate`.

    Raises:
        MediaError: there is no such suite.
        MethodError: no such method, or one called like the oracle.
        ModelError: the network has not learned its suite here.
    """
    names = [m.strip() for m in (methods.split(",") if isinstance(methods, str) else methods) if m.strip()]
    if ORACLE in names:
        raise MethodError("The oracle is measured in any case: leave it out.")
    if name in generated.SUITES:
        return _on_clips(name, names, metrics, count, baseline=baseline or "time-mean", seed=seed, **how)
    if name == SCENE:
        return _on_scenes(names, metrics, count, baseline=baseline or "blur", seed=seed, **how)
    if name not in pictures.SUITES:
        raise MediaError(f"There is no suite {name!r}: choose {', '.join(SUITES)}, or mosaic with inputs of your own.")
    net, batch = pictures.draw(name, count, seed)

    def truth(_model: Any, x: Tensor, _target: Any) -> Tensor:
        with torch.no_grad():
            return net.truth(x)

    model = wrap(net, labels=("otherwise", name))
    given: dict[str, Any] = {ORACLE: truth, **dict.fromkeys(names)}
    how |= {"baseline": baseline or "blur", "seed": seed}
    return evaluate(model, batch.pictures, given, metrics, target=1, masks=list(batch.masks.numpy()), **how)


def _on_scenes(names: Sequence[str], metrics: str | Sequence[str], count: int, **how: Any) -> Scoreboard:
    drawn, net = scenes.scenes(count, how["seed"]), scenes.SceneDetectors().eval()
    twin = scenes.SceneDetectors(heeds=False).eval()
    oracle = SceneOracle(ORACLE, drawn, lambda x: net(x)[:, 1], twin)
    masks = [scene.spread(oracle.of(scene.whole[None])[1]).numpy() > 0 for scene in drawn]
    kept = sum(scenes.keeps_score(scene, lambda x: net(x)[:, 1]) for scene in drawn)
    given: dict[str, Any] = {ORACLE: oracle, **dict.fromkeys(names)}
    model = wrap(net, labels=("otherwise", SCENE))
    board = evaluate(model, torch.stack([s.whole for s in drawn]), given, metrics, target=1, masks=masks, **how)
    board.notes.append(f"Without the part in the background the network keeps its score in {kept} of {count} scenes.")
    return board


def _on_clips(name: str, names: Sequence[str], metrics: str | Sequence[str], count: int, **how: Any) -> Scoreboard:
    sources = [f"{generated.PREFIX}{name}:{k}" for k in range(count)]
    given: dict[str, Any] = {ORACLE: Painted(ORACLE), **dict.fromkeys(names)}
    masks = [generated.clip(source).tube for source in sources]
    return evaluate(load(f"{generated.PREFIX}{name}"), sources, given, metrics, masks=masks, **how)
