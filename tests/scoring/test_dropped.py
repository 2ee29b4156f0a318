"""The baseline `dropped`: every method's masked inputs are the transformer run on the kept tokens, by hand."""

import math

import pytest
import torch

from helpers.nets import noise, pooled, random_net
from pellucid.engine.masks import grid_labels
from pellucid.errors import MethodError
from pellucid.heatmaps import (
    AISE,
    HSIC,
    LIME,
    RISE,
    FeatureAblation,
    IntegratedGradients,
    KernelSHAP,
    MeaningfulPerturbation,
    Occlusion,
    Owen,
    ScoreCAM,
    Shapley,
    Sobol,
    TraceOrder,
)
from pellucid.numerics.games import exact_shapley
from pellucid.scoring.job import prepare
from pellucid.scoring.masked import masked
from pellucid.scoring.tokens import TokenScorer

SIDE, PATCH, GRID = 32, 8, (4, 4)
ALL = {
    "occlusion": Occlusion(baseline="dropped"),
    "occlusion of 2 x 2 patches": Occlusion(baseline="dropped", window=16, stride=8),
    "feature-ablation": FeatureAblation(baseline="dropped"),
    "feature-ablation, own": FeatureAblation(baseline="dropped", segments=grid_labels((SIDE, SIDE), (2, 4))),
    "rise": RISE(baseline="dropped", samples=128, cells=2),
    "rise, auto": RISE(baseline="dropped", max_samples=128, cells=3),
    "sobol": Sobol(baseline="dropped", samples=16 * 11, cells=3),
    "hsic": HSIC(baseline="dropped", samples=64, cells=3),
    "lime": LIME(baseline="dropped", samples=40, count=6),
    "kernel-shap": KernelSHAP(baseline="dropped", samples=40, count=9),
    "shapley": Shapley(baseline="dropped", count=6),
    "owen": Owen(baseline="dropped", count=16, max_evaluations=64),
    "trace-order": TraceOrder(baseline="dropped", cells=2),
}


def vit(**options):
    return random_net(
        "vit_tiny_patch16_224", img_size=SIDE, patch_size=PATCH, embed_dim=24, num_heads=2, depth=2, **options
    )


def by_hand(net, x, kept):
    """Scores of one input of which the blocks see only some patches."""
    with torch.no_grad():
        t = torch.cat([net.cls_token, net.patch_embed.proj(x).flatten(2).mT], 1) + net.pos_embed
        t = torch.cat([t[:, :1], t[:, 1:][:, kept]], 1)
        for block in net.blocks:
            t = block(t)
        return net.head(net.norm(t)[:, 0])


def drawn_on_patches(masks):
    """Which patches each mask shows, by looking at their middles."""
    mask = masks.render(slice(None))[:, 0]
    return (mask if mask.shape[1:] == GRID else mask[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]).flatten(1) > 0.5


@pytest.mark.parametrize("name", ALL)
def test_every_method_scores_the_kept_tokens(name, monkeypatch):
    net, x = vit(), noise(1, 3, SIDE, SIDE)
    asked = []
    score = TokenScorer.score_masks

    def spy(self, masks, out, label):
        score(self, masks, out, label)
        asked.extend(zip(drawn_on_patches(masks[0]), out[0][:, 0].tolist(), strict=True))

    monkeypatch.setattr(TokenScorer, "score_masks", spy)
    (found,) = ALL[name].explain(net, x, [1])
    assert found.values.any()
    assert torch.isfinite(found.values).all()
    step = max(1, len(asked) // 12)
    for kept, value in asked[::step]:
        assert value == pytest.approx(float(by_hand(net, x, kept)[0, 1]), rel=1e-3, abs=1e-4)
    assert len({tuple(k.tolist()) for k, _ in asked}) > 3


@pytest.mark.parametrize("name", ALL)
def test_company_does_not_matter(name):
    net, x = vit(), noise(2, 3, SIDE, SIDE)
    (both,) = ALL[name].explain(net, x, [1])
    if name == "trace-order":  # a rank may turn by rounding
        return
    for n in range(2):
        alone = ALL[name].attribute(net, x[n : n + 1], 1)[0]
        torch.testing.assert_close(alone, both.values[n], rtol=1e-2, atol=1e-3 * float(both.values.abs().max()))


def test_maps_in_closed_form():
    net, x = vit(), noise(1, 3, SIDE, SIDE)
    whole = float(by_hand(net, x, torch.ones(16, dtype=torch.bool))[0, 1])
    lost = torch.tensor([whole - float(by_hand(net, x, torch.arange(16) != k)[0, 1]) for k in range(16)])
    for method in (Occlusion(baseline="dropped"), FeatureAblation(baseline="dropped")):
        found = method.attribute(net, x, 1)
        assert found.shape == (1, *GRID)
        torch.testing.assert_close(found.flatten(), lost, rtol=1e-3, atol=1e-4)
    labels = grid_labels((SIDE, SIDE), (2, 2))
    own = FeatureAblation(baseline="dropped", segments=labels).attribute(net, x, 1)
    assert own.shape == (1, SIDE, SIDE)

    patches = grid_labels(GRID, (2, 2)).flatten()

    def value(coalitions):
        return torch.stack([by_hand(net, x, c[patches] > 0)[0, 1:2].double() for c in coalitions])

    truth = exact_shapley(value, 4).values[:, 0].float()
    found = Shapley(baseline="dropped", segments=labels).attribute(net, x, 1)
    torch.testing.assert_close(found[0], truth[labels], rtol=1e-3, atol=1e-4)


def test_superpixels_are_moved_to_whole_patches():
    net, x = vit(), noise(1, 3, SIDE, SIDE)
    (found,) = LIME(baseline="dropped", samples=40, count=6).explain(net, x, [1])
    labels = found.extras["labels"][0]
    tiles = labels.reshape(4, PATCH, 4, PATCH).movedim(2, 1).flatten(2)
    assert (tiles == tiles[..., :1]).all()
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))
    job = prepare(net, x, [1])
    with masked(job, "dropped") as scorer:
        fine = torch.arange(SIDE).expand(SIDE, -1) // 5  # columns of 5 pixels over patches of 8
        fitted = scorer.fit_segments(fine)
    for row in range(4):
        for column in range(4):
            tile = slice(PATCH * row, PATCH * (row + 1)), slice(PATCH * column, PATCH * (column + 1))
            most = fine[tile].flatten().bincount().argmax()
            assert (fitted[tile] == fitted[fine == most].mode().values).all() or column == 0
    assert fitted.unique().tolist() == list(range(4))


def test_fewer_passes_are_told():
    net, x = vit(), noise(1, 3, SIDE, SIDE)
    dropped, zero = (RISE(baseline=b, samples=256, cells=2).explain(net, x, [1])[0] for b in ("dropped", "zero"))
    assert dropped.cost.forwards < 0.7 * zero.cost.forwards


def test_blocks_of_a_round_fill_batches_together(monkeypatch):
    net, x = vit(), noise(1, 3, SIDE, SIDE)
    batches, run = [], TokenScorer._run

    def counted(self, cells, owners):
        batches.append(len(cells))
        return run(self, cells, owners)

    monkeypatch.setattr(TokenScorer, "_run", counted)
    found, ran = {}, {}
    for samples, ahead in (("auto", 4), (256, 4), ("auto", 1)):  # blocks of 32 masks
        monkeypatch.setattr("pellucid.heatmaps.sampling._FIRST_CHECK", ahead)
        batches.clear()
        method = RISE(baseline="dropped", cells=2, samples=samples, max_samples=256, tolerance=1e-9)
        found[samples, ahead] = method.attribute(net, x, 1)
        ran[samples, ahead] = len(batches)
    for other in ((256, 4), ("auto", 1)):
        torch.testing.assert_close(found["auto", 4], found[other], rtol=1e-3, atol=1e-5)
    assert ran["auto", 4] < 0.6 * ran["auto", 1]


def test_what_cannot_be_dropped_says_so():
    net, x = vit(), noise(1, 3, SIDE, SIDE)
    with pytest.raises(MethodError, match=r"plain vision transformer.*zero or blur"):
        RISE(baseline="dropped").attribute(pooled(), x, 1)
    for method in (AISE(baseline="dropped"), ScoreCAM(baseline="dropped")):
        with pytest.raises(MethodError, match=r"whole patches away.*zero or blur"):
            method.attribute(net, x, 1)
    own = torch.arange(SIDE).expand(SIDE, -1) // 5
    for method in (Shapley(baseline="dropped", segments=own), FeatureAblation(baseline="dropped", segments=own)):
        with pytest.raises(MethodError, match="whole patches away"):
            method.attribute(net, x, 1)
    with pytest.raises(MethodError, match=r"multiple of the patch \(8, 8\)"):
        Occlusion(baseline="dropped", window=12).attribute(net, x, 1)
    with pytest.raises(MethodError, match=r"window of \[40, 40\] is larger"):
        Occlusion(baseline="dropped", window=40).attribute(net, x, 1)
    for method in (IntegratedGradients(baseline="dropped"), MeaningfulPerturbation(baseline="inpaint")):
        with pytest.raises(MethodError, match="depends on what is hidden"):
            method.attribute(net, x, 1)
    pooling = vit(class_token=False, global_pool="avg")
    with pytest.raises(MethodError, match="no class token"):
        Shapley(baseline="dropped", count=4).attribute(pooling, x, 1)
    assert math.isfinite(float(Occlusion(baseline="dropped").attribute(pooling, x, 1).sum()))


@pytest.mark.parametrize("baseline", ["noisy-linear", "inpaint"])
@pytest.mark.parametrize(
    "method",
    [
        Occlusion(window=8),
        FeatureAblation(),
        RISE(samples=64),
        HSIC(samples=64, cells=4),
        Sobol(samples=4 * 18, cells=4),
        LIME(samples=40),
        KernelSHAP(samples=64, count=9),
        ScoreCAM(),
        AISE(samples=24),
    ],
    ids=lambda m: m.name,
)
def test_fillings_by_name(method, baseline):
    """Each method takes them, twice the same, and they are not zeros."""
    net = pooled()
    x = noise(1, 3, 24, 24)
    found = type(method)(**{**vars(method), "baseline": baseline}).explain(net, x, [1])[0]
    assert found.values.any()
    assert torch.isfinite(found.values).all()
    again = type(method)(**{**vars(method), "baseline": baseline}).attribute(net, x, 1)
    assert torch.equal(found.values, again)
    assert not torch.allclose(found.values, method.attribute(net, x, 1))
