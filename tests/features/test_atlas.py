"""The atlas: planted clusters come out as places; cells hold the means of their vectors and the nearest crop."""

import numpy as np
import pytest
import torch

from helpers.cases import PLAIN, SIDE, save
from helpers.nets import pooled
from pellucid import media
from pellucid.errors import MediaError, MethodError
from pellucid.features.atlas import make_atlas, neighbours_kept, project
from pellucid.models.layers import describe
from pellucid.models.sources import wrap


@pytest.fixture
def model():
    return wrap(pooled(channels=8), transform=PLAIN)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(9):
        base = np.array([(250, 10, 10), (10, 250, 10), (10, 10, 250)][i % 3])
        array = (base + generator.integers(-10, 6, (64, 64, 3))).clip(0, 255).astype(np.uint8)
        save(tmp_path / "p" / f"{i}.png", array)
    return tmp_path / "p"


def clusters(kinds=3, each=40, width=20):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(kinds, width, generator=generator) * 6
    vectors = centres.repeat_interleave(each, 0) + torch.randn(kinds * each, width, generator=generator)
    return vectors, torch.arange(kinds).repeat_interleave(each)


@pytest.mark.parametrize("projection", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_planted_clusters_stay_together(projection):
    if projection == "umap":
        pytest.importorskip("umap")
    vectors, kind = clusters()
    plane = project(vectors, projection, 0)
    assert plane.shape == (120, 2)
    centres = torch.stack([plane[kind == k].mean(0) for k in range(3)])
    assert torch.equal(torch.cdist(plane, centres).argmin(1), kind)
    assert torch.equal(project(vectors, projection, 0), plane)


def test_umap_without_its_package_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MethodError, match=r"pip install 'pellucid\[umap\]'"):
        project(clusters()[0], "umap", 0)


def test_neighbours_kept_is_one_on_the_plane_itself_and_chance_on_noise():
    angles = torch.linspace(0, 1.5, 60, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    kept, chance = neighbours_kept(circle, circle)
    assert kept == pytest.approx(1, abs=0.02)
    assert chance == 10 / 59
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    vectors = torch.randn(400, 30, generator=torch.Generator().manual_seed(2))
    kept, chance = neighbours_kept(vectors, noise)
    assert kept == pytest.approx(chance, abs=0.01)


def test_cells_hold_the_mean_of_their_vectors_and_their_nearest_crop(model, folder):
    x = torch.zeros(1, 3, SIDE, SIDE)
    layer = describe(model.module, x, "3")
    atlas = make_atlas(model, folder, layer, size=3, projection="pca", samples=90, least=2)
    assert atlas.pictures == 9
    assert len(atlas.points) == 90
    assert ((atlas.points >= 0) & (atlas.points <= 1)).all()
    assert sum(c.count for c in atlas.cells) <= 90
    where = (atlas.points * 3).long().clamp(max=2)
    counts = {(r, c): int(((where[:, 1] == r) & (where[:, 0] == c)).sum()) for r in range(3) for c in range(3)}
    assert {c.position: c.count for c in atlas.cells} == {k: v for k, v in counts.items() if v >= 2}
    for cell in atlas.cells:
        with torch.no_grad():
            seen, _ = model.preprocess(media.read_image(cell.nearest.origin.source))
            maps = model.module[:4](seen[None])[0]
        vector = maps[(slice(None), *cell.nearest.cell)]
        likeness = torch.cosine_similarity(vector, cell.direction, dim=0)
        assert likeness > 0.8
    again = make_atlas(model, folder, layer, size=3, projection="pca", samples=90, least=2)
    assert torch.equal(again.points, atlas.points)


def test_each_picture_gives_as_many_vectors_and_few_samples_mean_few_pictures(model, folder):
    layer = describe(model.module, torch.zeros(1, 3, SIDE, SIDE), "3")
    atlas = make_atlas(model, folder, layer, size=2, projection="pca", samples=4, least=1)
    assert atlas.pictures == 4
    assert len(atlas.points) == 4


def test_wrong_asks(model, folder, tmp_path):
    layer = describe(model.module, torch.zeros(1, 3, SIDE, SIDE), "3")
    with pytest.raises(MethodError, match="pca, tsne, umap, not 'mds'"):
        make_atlas(model, folder, layer, projection="mds")
    with pytest.raises(MethodError, match="at least 2 cells a side"):
        make_atlas(model, folder, layer, size=1)
    with pytest.raises(MediaError, match="give more pictures or a smaller size"):
        make_atlas(model, folder, layer, size=9, projection="pca", samples=9, least=9)
    with pytest.raises(MediaError, match="make no atlas"):
        make_atlas(model, folder, layer, samples=1, projection="pca")
    (tmp_path / "none").mkdir()
    with pytest.raises(MediaError, match="holds no picture"):
        make_atlas(model, tmp_path / "none", layer)
