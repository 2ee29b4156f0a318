"""Long clips: explained window by window as they are decoded, and put together by overlap-add.

Only one window of frames is in memory at a time, whatever the length, and what is kept of each window is written into
rows that were made at the start: small blocks kept one by one between the frames' large ones would hold the heap open,
and the memory of a process grow with the clip. Neighbouring windows overlap by half. Each map is
weighed by a triangle over its window, and the sum divided by the sum of the weights, so that where windows agree their
value stays as it is. What is explained is the same throughout: the top class is that of the mean score over windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import gcd
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.errors import MediaError, MethodError
from pellucid.heatmaps import Method, explain_all
from pellucid.media import Clip, Footage, Geometry, Plan
from pellucid.models.model import VisionModel
from pellucid.models.targets import Target
from pellucid.progress import task
from pellucid.results import Heatmaps, VideoHeatmap
from pellucid.verbs.records import record

_SHOWN, _SIDE = 48, 480  # frames kept for drawing, and their longer side


def windows(footage: Footage, plan: Plan) -> Iterator[tuple[int, Clip]]:
    """Windows of `plan.count` frames, every `plan.step`-th, each half a window on: (number of its first frame, clip).

    Numbers count the frames taken. The last window repeats the last frame where the clip ends before it.
    """
    count = plan.count or 1
    hop, taken = hop_of(plan), frames_taken(footage, plan)
    held: deque[Any] = deque()
    start = 0
    for number, pixels in enumerate(footage.read(taken)):
        if number >= start:
            held.append(pixels)
        ended = number == len(taken) - 1
        if len(held) == count or (ended and held):
            times = tuple(footage.times[taken[start + i]] for i in range(len(held)))
            yield (
                start,
                Clip(np.stack(held), times, footage.name, footage.source, footage.sha256, count - len(held), str(plan)),
            )
            if ended:
                return
            start += hop
            for _ in range(min(hop, len(held))):
                held.popleft()


def hop_of(plan: Plan) -> int:
    """Frames from one window to the next."""
    return max(1, (plan.count or 1) // 2)


def frames_taken(footage: Footage, plan: Plan) -> range:
    """The frames that windows are made of."""
    return range(0, len(footage), int(plan.step))


class OverlapAdd:
    """Maps `(cells, *grid)` of windows, put together over all the time.

    Args:
        count: frames of a window.
        hop: frames from one window to the next.
        total: frames in all.
        cells: of time, of one window's map; must divide `count`.

    Raises:
        MethodError: the cells of time do not divide the window.
    """

    def __init__(self, count: int, hop: int, total: int, cells: int) -> None:
        if count % cells:
            raise MethodError(
                f"Maps of {cells} steps do not divide windows of {count} frames: give windows:{cells * 4}."
            )
        cell = count // cells
        self.unit = gcd(cell, hop)  # frames of a cell of the result
        self._repeat, self._total = cell // self.unit, -(-total // self.unit)
        middle = (torch.arange(cells * self._repeat) + 0.5) / (cells * self._repeat)
        self._triangle = torch.minimum(middle, 1 - middle).double()
        self._sum: Tensor | None = None
        self._weight = torch.zeros(self._total + cells * self._repeat, dtype=torch.float64)

    def add(self, start: int, tube: Tensor) -> None:
        """The map of the window whose first frame is number `start`."""
        fine = tube.double().repeat_interleave(self._repeat, 0)
        if self._sum is None:
            self._sum = torch.zeros((len(self._weight), *tube.shape[1:]), dtype=torch.float64)
        at = slice(start // self.unit, start // self.unit + len(fine))
        self._sum[at] += fine * self._triangle.reshape(-1, *[1] * (fine.ndim - 1))
        self._weight[at] += self._triangle

    def result(self) -> Tensor:
        """`(cells over all, *grid)`."""
        assert self._sum is not None
        weight = self._weight[: self._total].clamp(min=1e-12)
        return (self._sum[: self._total] / weight.reshape(-1, *[1] * (self._sum.ndim - 1))).float()


def explain_windows(
    model: VisionModel,
    footage: Footage,
    source: str,
    methods: Sequence[Method],
    targets: Sequence[Target],
    seed: int,
) -> Heatmaps:
    """Explanations of the whole of a clip, however long; two passes over it, one of which explains.

    Args:
        model: a model of clips whose plan says `windows`.
        footage: the clip.
        source: what opens it again.
        methods: all must give maps.
        targets: what is explained.
        seed: for the record.
    """
    plan = model.clips.plan
    if wrong := next((m.name for m in methods if m.kind != "map"), None):
        raise MethodError(f"{wrong} gives no map over time, so windows cannot be put together: leave it out.")
    count, hop, total = plan.count or 1, hop_of(plan), len(frames_taken(footage, plan))
    number = 1 + max(0, -(-(total - count) // hop))
    first, scores = None, torch.empty(0)
    with task("windows, scores", number) as advance:
        for i, (_, clip) in enumerate(windows(footage, plan)):
            x = model.clips(clip)[0][None].to(model.device, model.dtype)
            output = model.outputs(x)
            model = model.settled(x, output)
            score = model.reading.tensor(output).cpu()
            if first is None:  # all rows at once: one small block kept for each window holds the heap above it open
                first, scores = x, score.new_empty(number, *score.shape[1:])
            scores[i] = score[0]
            advance(1)
    if first is None:
        raise MediaError(f"{footage.name} holds no frame.")
    mean = scores.mean(0, keepdim=True)
    named = [model.bound(t, first) for t in targets]
    bound = [t.freeze(mean) for t in named]
    sums: dict[tuple[int, int], OverlapAdd] = {}
    shown = sorted({round(k) for k in np.linspace(0, total - 1, min(_SHOWN, total))})
    drawn: Any = None  # `(shown, h, w, 3)`, made at once for the same reason
    with task("windows, maps", number) as advance:
        for start, clip in windows(footage, plan):
            x, geometry = model.clips(clip)
            found = explain_all(methods, model, x[None].to(model.device, model.dtype), bound)
            for a, row in enumerate(found):
                for b, one in enumerate(row):
                    tube = _folded(one.values[0].detach().cpu(), methods[a], len(geometry.input_size))
                    key = (a, b)
                    sums[key] = sums.get(key) or OverlapAdd(count, hop, total, len(tube))
                    sums[key].add(start, tube)
            for place, i in enumerate(shown):
                if start <= i < start + len(clip.frames):
                    small = _small(clip.frames[i - start])
                    drawn = np.empty((len(shown), *small.shape), np.uint8) if drawn is None else drawn
                    drawn[place] = small
            advance(1)
    taken = frames_taken(footage, plan)
    picture = Clip(
        drawn,
        tuple(footage.times[taken[i]] for i in shown),
        footage.name,
        footage.source,
        footage.sha256,
        plan=str(plan),
    )
    about = {
        "source": source,
        "name": footage.name,
        "sha256": footage.sha256,
        "plan": str(plan),
        "windows": len(scores),
        "frames": [taken[i] for i in shown],
    }
    ticks = [footage.times[i] for i in taken]
    weights = model.fingerprint()
    prediction = model.ranked(mean)[0]
    made = Heatmaps()
    for b, (asked, target) in enumerate(zip(named, bound, strict=True)):
        for a, m in enumerate(methods):
            add, layer = sums[a, b], found[a][b].layer
            tube = add.result()
            length = len(tube) * add.unit
            over = Geometry(
                (total, *geometry.source_size[1:]),
                (length, *geometry.input_size[1:]),
                ((0.0, float(length)), *geometry.box[1:]),
                geometry.known,
                tuple(ticks),
                "s",
            )
            run = {"seed": seed, "layer": layer.name if layer else None}
            made.append(
                VideoHeatmap(
                    attribution=tube[None],
                    method=m.name,
                    target=target.name(model.labels) if m.uses_target else "any target",
                    prediction=prediction,
                    geometry=over,
                    record=record(model, weights, about, m.name, m.parameters(), asked, run),
                    layer=f"{layer.name} ({layer.layout})" if layer else None,
                    signed=m.signed,
                    notes=[
                        *footage.notes,
                        f"Explained in {len(scores)} windows of {count} frames that overlap by half; the prediction is "
                        "the mean over windows.",
                    ],
                    extras={"window_scores": _score(target, scores)},
                    picture=picture,
                    ran=m,
                    explained=target,
                )
            )
    return made


def _folded(values: Tensor, method: Method, axes: int) -> Tensor:
    """The map `(*grid)` with its channel axis folded."""
    if values.ndim == axes:
        return values
    return values.amax(0) if method.channels == "max" else values.sum(0)


def _score(target: Target, scores: Tensor) -> Tensor:
    """The target's score in each window, `(1, windows)`; NaN where it cannot be read from scores alone."""
    try:
        return torch.stack([target(row)[0].float() for row in scores[:, None]])[None]
    except Exception:
        return torch.full((1, len(scores)), float("nan"))


def _small(frame: Any) -> Any:
    image = Image.fromarray(frame)
    image.thumbnail((_SIDE, _SIDE))
    return np.asarray(image)
