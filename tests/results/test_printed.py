"""A result in a console is a line, not its arrays."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.features import Settings

CLIP = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)


def model():
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    look = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(nn.Sequential(*parts).eval(), transform=look)


def of_many(m):
    return pl.importance(m, [f"digits:{i}" for i in range(5)], "patches", "ablation", count=16)


RESULTS = {
    "Heatmap": lambda m: pl.explain(m, "sample:moon", "saliency"),
    "VideoHeatmap": lambda m: pl.explain(pl.per_frame(m, frames="uniform:4"), CLIP, "saliency"),
    "Importance": of_many,
    "Share": lambda m: of_many(m).shares[0],
    "Activations": lambda m: pl.activations(m, "sample:moon"),
    "FeatureImage": lambda m: pl.visualize(
        m, layer="1", channel=0, exemplars="sample:c*", settings=Settings.preset("fast", steps=2), seeds=1, cache=False
    ),
    "AtlasSheet": lambda m: pl.atlas(m, "sample:c*", layer="1", size=2, projection="pca", samples=60, steps=2),
    "Concepts": lambda m: pl.concepts(m, "sample:c*", "1", "kmeans", count=2, stable=False, limit=4, cache=None),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_prints_as_a_line(kind):
    text = repr(RESULTS[kind](model()))
    assert text.startswith(f"{kind}(")
    assert "\n" not in text
    assert "tensor(" not in text
    assert "array(" not in text
    assert len(text) < 900


def test_the_line_says_what_it_is_of():
    text = repr(of_many(model()))
    assert "features='patches', by='ablation'" in text
    assert "names=<16>" in text
    share = repr(of_many(model()).shares[0])
    assert "values=<16>" in share
    assert "count=5" in share
