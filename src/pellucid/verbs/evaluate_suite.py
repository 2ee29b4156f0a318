"""`evaluate` where the truth is known: a suite's network on its own pictures, the oracle among the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.evaluation.suites.pictures import draw
from pellucid.models.sources import wrap
from pellucid.results.scoreboard import Scoreboard
from pellucid.verbs.evaluate import evaluate

ORACLE = "oracle"


def evaluate_suite(
    name: str,
    methods: str | Sequence[str] = "grad-cam,layer-cam,integrated-gradients",
    metrics: str | Sequence[str] = "default",
    *,
    count: int = 8,
    seed: int = 0,
    **how: Any,
) -> Scoreboard:
    """Which method, and which metric, deserves belief where the truth is known?

    Args:
        name: of the suite (see `pellucid.evaluation.suites.pictures`).
        methods: by name; the oracle, which is what each place adds by algebra, joins them.
        metrics: as `evaluate` takes them; localisation is against the truth.
        count: pictures.
        seed: of the pictures, and of whatever is random.
        how: further settings of `evaluate`.

    Raises:
        MediaError: there is no such suite.
        MethodError: no such method, or one called like the oracle.
    """
    net, batch = draw(name, count, seed)
    names = [m.strip() for m in (methods.split(",") if isinstance(methods, str) else methods) if m.strip()]
    if ORACLE in names:
        raise MethodError("The oracle is measured in any case: leave it out.")

    def truth(_model: Any, x: Tensor, _target: Any) -> Tensor:
        with torch.no_grad():
            return net.truth(x)

    model = wrap(net, labels=("otherwise", name))
    given: dict[str, Any] = {ORACLE: truth, **dict.fromkeys(names)}
    return evaluate(model, batch.pictures, given, metrics, target=1, masks=list(batch.masks.numpy()), seed=seed, **how)
