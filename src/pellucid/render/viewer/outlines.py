"""What is drawn over a map in layers: boxes answered, what is asked for, what is true, regions that suffice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.explanation import Explanation
from pellucid.media.orientation import turned
from pellucid.render.paper.display import display_geometry, region_cells, regions_at
from pellucid.render.paper.marks import asked_box, asked_boxes, is_asked, is_place
from pellucid.render.viewer.anatomy import laid

_FINE = 480  # pixels of the longer side of a region, before its edge is drawn
_DEEP = 96  # voxels of an axis of a volume's region, likewise
_RING = 0.025  # of the longer side: around what is but a place

Edge = tuple[int, int, int]
Shape = dict[str, Any]
"""A `box` [x0, y0, x1, y1] or a `path`, in the original's pixels, with its `layer`, its `name`, and where that stands
(`at`); the number of the `map` that it belongs to, its `rank` among its like, and where it is: a frame (`index`), or of
a volume the `slices` [first, last] of a `plane`, all as the viewer lays them."""


def outlines(explanations: Sequence[Explanation]) -> list[Shape]:
    """All shapes over the maps of one input, those of one layer beside each other."""
    first = explanations[0]
    asked = asked_boxes(explanations)
    found: list[Shape] = [
        {"layer": "answers", "box": list(p.place), "at": list(p.place[:2]), "name": f"{p.label} {p.said()}"}
        for p in first.prediction
        if p.place is not None and not is_asked(p, asked)
    ]
    for k, e in enumerate(explanations):
        box = asked_box(e)
        if box is not None:
            found.append({"layer": "asked", "box": list(box), "at": list(box[:2]), "name": e.target, "map": k})
    for k, e in enumerate(explanations):
        regions = (*_region(e, "truth"), *_region(e, "region"), *_sufficient(e))
        found += [shape | {"map": k} for shape in regions]
    return found


def _region(e: Explanation, layer: str) -> Iterator[Shape]:
    """The region that is asked for, or the true one."""
    region = e.extras.get(layer)
    if region is None or region.ndim != 3 or tuple(region.shape[-2:]) != tuple(e.geometry.source_size):
        return
    inside = region[0].numpy().astype(bool)
    if not inside.any():
        return
    shape: Shape = {"layer": layer, "name": e.target if layer == "region" else ""}
    if is_place(inside):
        y, x = np.argwhere(inside).mean(0) + 0.5
        r = _RING * max(inside.shape)
        path = f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0"
        yield shape | {"path": path, "at": [round(x + r, 1), round(y - r, 1)]}
        return
    share = min(1.0, _FINE / max(inside.shape))
    small = [max(1, round(n * share)) for n in inside.shape]
    rows, columns = (np.arange(n) * m // n for n, m in zip(small, inside.shape, strict=True))
    yield shape | _edge(inside[rows][:, columns], inside.shape)


def _sufficient(e: Explanation) -> Iterator[Shape]:
    """Regions that are enough for the answer; of a clip frame by frame, of a volume slice by slice in all planes."""
    size = e.geometry.source_size
    if "regions" not in e.extras:
        return
    if e.geometry.affine:
        yield from _in_planes(e)
        return
    for index in range(size[0]) if len(size) == 3 else [None]:
        found = regions_at(e, display_geometry(e.geometry, _FINE, index)[0])
        if found is None:
            return
        for rank, region in enumerate(found):
            inside = np.nan_to_num(region) > 0.5
            if inside.any():
                shape: Shape = {"layer": "sufficient", "name": str(rank + 1), "rank": rank % 4}
                yield shape | _edge(inside, size[-2:]) | ({} if index is None else {"index": index})


def _in_planes(e: Explanation) -> Iterator[Shape]:
    """Regions of a volume as the viewer lays it: of each plane the edges, with the slices where they are the same."""
    cells = region_cells(e)
    if cells is None:
        return
    geometry = e.geometry
    _, whole = laid(geometry)
    small = [min(n, _DEEP) for n in geometry.source_size]
    along = [abs(t) - 1 for t in geometry.turn or (1, 2, 3)]
    shares = [small[a] / geometry.source_size[a] for a in along]
    box = tuple((start * s, stop * s) for (start, stop), s in zip(geometry.box, shares, strict=True))
    fewer = replace(geometry, source_size=tuple(small), box=box)
    sizes = [geometry.source_size[abs(t) - 1] for t in whole]
    for rank, region in enumerate(fewer.to_source(cells.float()).numpy()):
        inside = turned((np.nan_to_num(region) > 0.5).astype(np.float32), whole) > 0
        for plane in range(3):
            slices = np.moveaxis(inside, plane, 0)
            share = sizes[plane] / len(slices)
            starts = [0, *(np.flatnonzero((slices[1:] != slices[:-1]).any((1, 2))) + 1).tolist(), len(slices)]
            for first, stop in pairwise(starts):
                if slices[first].any():
                    shape: Shape = {"layer": "sufficient", "name": str(rank + 1), "rank": rank % 4, "plane": plane}
                    shape["slices"] = [math.ceil(first * share), math.ceil(stop * share) - 1]
                    yield shape | _edge(slices[first], [n for axis, n in enumerate(sizes) if axis != plane])


def _edge(inside: NDArray[np.bool_], size: Sequence[int]) -> Shape:
    """The edge of a region `(h, w)` that stands for `size` pixels, and a place in it for its name."""
    down, across = size[0] / inside.shape[0], size[1] / inside.shape[1]
    top = int(np.flatnonzero(inside.any(1))[0])
    left = int(np.flatnonzero(inside[top])[0])
    return {"path": edge_path(inside, down, across), "at": [round(left * across, 1), round(top * down, 1)]}


def edge_path(inside: NDArray[np.bool_], down: float = 1.0, across: float = 1.0) -> str:
    """The lines between the inside and the outside of a region `(h, w)`, as the path of a drawing.

    Args:
        inside: the region; outside the array there is none of it.
        down: height of a row.
        across: width of a column.
    """
    rows, columns = edge_runs(inside)
    found = [f"M{start * across:.1f} {y * down:.1f}H{stop * across:.1f}" for y, start, stop in rows]
    found += [f"M{x * across:.1f} {start * down:.1f}V{stop * down:.1f}" for x, start, stop in columns]
    return "".join(found).replace(".0", "")


def edge_runs(inside: NDArray[np.bool_]) -> tuple[list[Edge], list[Edge]]:
    """The lines between the inside and the outside of a region `(h, w)`: along rows, then along columns.

    Each is where it lies across, where it begins and where it stops, in cells.
    """
    padded = np.pad(inside, 1)
    rows, columns = padded[1:, 1:-1] != padded[:-1, 1:-1], (padded[1:-1, 1:] != padded[1:-1, :-1]).T
    lying, standing = ([(n, *run) for n, line in enumerate(lines) for run in _runs(line)] for lines in (rows, columns))
    return lying, standing


def _runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where a line is true: [start, stop) of each stretch."""
    ends = np.flatnonzero(np.diff(np.pad(line.astype(np.int8), 1)))
    return [(int(a), int(b)) for a, b in ends.reshape(-1, 2)]
