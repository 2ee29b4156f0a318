"""An activation atlas: a layer's activations over a folder, laid out on a plane (Carter et al. 2019, Distill).

Activation vectors at random cells of the pictures are projected to two dimensions, a grid is laid over the plane, and
each of its cells is drawn: by a picture made for the mean direction of its vectors, and by the natural crop whose
vector is nearest to that mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.engine import unwrap
from pellucid.errors import MediaError, MethodError
from pellucid.explanation import Record
from pellucid.features.exemplars import LEAST_CROP
from pellucid.features.folder import Folder, Loader, Patch
from pellucid.features.learn import learn
from pellucid.features.measures import ByActivation
from pellucid.features.receptive_field import ReceptiveField, receptive_field
from pellucid.media import Geometry, Origin
from pellucid.models.layers import Layer
from pellucid.models.model import VisionModel
from pellucid.numerics.grids import coordinates
from pellucid.progress import task

Projection = Literal["pca", "tsne", "umap"]
PROJECTIONS = ("pca", "tsne", "umap")


@dataclass(frozen=True)
class AtlasCell:
    """One place of the atlas.

    Attributes:
        position: `(row, column)`; row 0 is at the top.
        direction: `(C,)`, the mean of its vectors.
        count: vectors in it.
        nearest: the natural crop whose vector is nearest to the mean (cosine).
    """

    position: tuple[int, int]
    direction: Tensor
    count: int
    nearest: Patch


@dataclass(frozen=True)
class Atlas:
    """A layer's activations over a folder.

    Attributes:
        layer: the layer.
        projection: how the plane was found.
        size: rows and columns.
        points: `(M, 2)` in [0, 1], where each vector lies (x, y).
        cells: those that hold enough vectors.
        pictures: how many were read.
        data: hash of the pictures, in order.
        kept: neighbourhood kept by the projection: mean share of a vector's 10 nearest that are among its 10 nearest on
            the plane.
        chance: the same for a random plane.
    """

    layer: Layer
    projection: str
    size: tuple[int, int]
    points: Tensor
    cells: tuple[AtlasCell, ...]
    pictures: int
    data: str
    kept: float
    chance: float


@dataclass
class DrawnAtlas:
    """An atlas with a picture for each of its cells.

    Attributes:
        layer: the layer's name.
        projection, size, points, cells, kept, chance: see `Atlas`.
        count: pictures that were read.
        pictures: `(cells, C, H, W)`, display values in [0, 1], made for the cells' directions.
        record: provenance.
    """

    layer: str
    projection: str
    size: tuple[int, int]
    points: Tensor
    cells: tuple[AtlasCell, ...]
    count: int
    kept: float
    chance: float
    pictures: Tensor
    record: Record

    @property
    def line(self) -> str:
        """How far the layout may be believed, in plain words."""
        keeps = (
            f"of a vector's 10 nearest neighbours {self.kept:.0%} are neighbours here too (chance {self.chance:.0%})"
        )
        sure = "near means alike" if self.kept > 0.3 else "near often means nothing, so read cells one by one"
        return f"{keeps}: {sure}; far apart does not mean different."


def make_atlas(
    model: VisionModel,
    pictures: str | Path | Sequence[str | Path],
    layer: Layer,
    *,
    size: int = 8,
    projection: Projection = "tsne",
    samples: int = 4000,
    least: int = 3,
    seed: int = 0,
) -> Atlas:
    """Lay out a layer's activations over a folder.

    Costs one forward pass a picture up to the layer, and the projection (some 20 s for t-SNE of 4000 vectors).

    Args:
        model: left as it was.
        pictures: folder, glob, files, `sample:*`, or a list of these.
        layer: the layer, with its proven layout.
        size: cells along each side of the atlas.
        projection: `pca` (linear, fast), `tsne` (neighbours together), or `umap` (needs the extra `umap`).
        samples: vectors at the most, spread evenly over the pictures.
        least: vectors that a cell of the atlas must hold to be drawn.
        seed: of the cells taken and of the projection.
    """
    if projection not in PROJECTIONS:
        raise MethodError(f"An atlas is laid out by {', '.join(PROJECTIONS)}, not {projection!r}.")
    if size < 2 or samples < 1 or least < 1:
        raise MethodError("An atlas has at least 2 cells a side, 1 sample, and 1 vector to a cell.")
    folder = Folder.of(pictures)
    collected = _collect(Loader(model, folder, model.batch), layer, samples, seed)
    vectors = collected.vectors
    if len(vectors) < 3:
        raise MediaError(f"{len(vectors)} activation vectors make no atlas: name a folder with more pictures.")
    points = _spread(project(vectors, projection, seed))
    field = receptive_field(unwrap(model.module), collected.inputs, layer, seed=seed)
    where = (points * size).long().clamp(max=size - 1)
    cells = []
    for row, column in itertools.product(range(size), repeat=2):
        inside = ((where[:, 1] == row) & (where[:, 0] == column)).nonzero()[:, 0]
        if len(inside) < least:
            continue
        mean = vectors[inside].mean(0)
        best = int(inside[torch.cosine_similarity(vectors[inside], mean[None]).argmax()])
        cells.append(AtlasCell((row, column), mean, len(inside), collected.patch(best, field)))
    if not cells:
        raise MediaError(
            f"No cell of the atlas holds {least} of its {len(points)} vectors: give more pictures or a smaller size."
        )
    kept, chance = neighbours_kept(vectors, points, seed=seed)
    return Atlas(
        layer, projection, (size, size), points, tuple(cells), len(collected.seen), folder.digest, kept, chance
    )


@dataclass(frozen=True)
class _Collected:
    """Activation vectors of random cells.

    Attributes:
        vectors: `(M, C)`.
        rows: `(M,)`, the picture each comes from.
        cells: `(M, axes)`, its place on the layer's grid.
        inputs: the first few inputs.
        seen: the pictures.
    """

    vectors: Tensor
    rows: Tensor
    cells: Tensor
    inputs: Tensor
    seen: dict[int, tuple[Origin, Geometry]]

    def patch(self, index: int, field: ReceptiveField) -> Patch:
        """What the cell of a vector looks at."""
        origin, geometry = self.seen[int(self.rows[index])]
        cell = tuple(int(i) for i in self.cells[index])
        box = field.crop(cell, LEAST_CROP * min(field.input_size))
        return Patch(origin, cell, box, geometry)


def _collect(loader: Loader, layer: Layer, samples: int, seed: int) -> _Collected:
    """Vectors of random cells, as many from each picture; of more pictures than samples only some are read."""
    folder, measure = loader.folder, ByActivation(layer)
    rows = [row for row in range(len(folder)) if row not in folder.copies]
    rows = [rows[i * len(rows) // min(samples, len(rows))] for i in range(min(samples, len(rows)))]
    each = -(-samples // max(1, len(rows)))
    vectors, owners, cells = [], [], []
    seen: dict[int, tuple[Origin, Geometry]] = {}
    first: Tensor | None = None
    with (
        task("activations", len(rows)) as advance,
        measure.opened(unwrap(loader.model.module)) as capture,
    ):
        for part, loaded in loader.batches(rows):
            for places, inputs in loader.stacked(loaded):
                if first is None:
                    first = inputs[:4].clone()
                elif inputs.shape[1:] != first.shape[1:]:
                    raise MediaError(
                        "An atlas is of pictures that reach the model in one size: give it a preprocessing that crops."
                    )
                maps = measure.maps(capture, inputs).detach().cpu()
                for place, found in zip(places, maps, strict=True):
                    row, item = part[place], loaded[place]
                    assert item is not None
                    generator = torch.Generator().manual_seed(seed * 1_000_003 + row)
                    flat = found.flatten(1)
                    taken = torch.randperm(flat.shape[1], generator=generator)[:each]
                    vectors.append(flat[:, taken].T.clone())
                    owners += [row] * len(taken)
                    cells.append(torch.stack(coordinates(taken, found.shape[1:]), 1))
                    seen[row] = Origin.of(item[0]), item[2]
            advance(len(part))
    if first is None:
        raise MediaError("None of the pictures could be read: name a folder with sound pictures.")
    return _Collected(torch.cat(vectors), torch.tensor(owners), torch.cat(cells), first, seen)


def project(vectors: Tensor, projection: Projection, seed: int) -> Tensor:
    """Vectors `(M, C)` on a plane, `(M, 2)`.

    Raises:
        MethodError: `umap` without the package of that name.
    """
    data = vectors.double().numpy()
    fitted = learn("decomposition").PCA(min(2 if projection == "pca" else 50, *data.shape), random_state=seed)
    reduced = fitted.fit_transform(data - data.mean(0))
    if projection == "pca":
        plane = np.zeros((len(data), 2))
        plane[:, : reduced.shape[1]] = reduced
    elif projection == "tsne":
        perplexity = min(30.0, (len(data) - 1) / 3)
        tsne = learn("manifold").TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
        plane = tsne.fit_transform(reduced)
    else:
        try:
            from umap import UMAP
        except ImportError as error:
            raise MethodError("The projection umap needs a further package: pip install 'pellucid[umap]'.") from error
        neighbours = min(15, len(data) - 1)
        plane = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1).fit_transform(reduced)
    found: Tensor = torch.from_numpy(np.asarray(plane)).double()
    return found


def _spread(plane: Tensor, outliers: float = 0.01) -> Tensor:
    """A plane stretched to [0, 1] an axis; the outermost points are moved in, so that they do not shrink the rest."""
    edges = torch.tensor([outliers / 2, 1 - outliers / 2], dtype=plane.dtype)
    low, high = torch.quantile(plane, edges, dim=0)
    stretched: Tensor = ((plane - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return stretched


def neighbours_kept(
    vectors: Tensor, points: Tensor, k: int = 10, most: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Mean share of a vector's `k` nearest (cosine) that are among its `k` nearest on the plane; what chance gives."""
    chosen = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:most]
    v, p = torch.nn.functional.normalize(vectors[chosen].double(), dim=1), points[chosen].double()
    k = min(k, len(chosen) - 1)
    alike = (v @ v.T).fill_diagonal_(-torch.inf).topk(k, dim=1).indices
    near = (-torch.cdist(p, p)).fill_diagonal_(-torch.inf).topk(k, dim=1).indices
    common: Tensor = (alike[:, :, None] == near[:, None, :]).any(2).double().mean()
    return float(common), k / (len(chosen) - 1)
