import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from helpers.nets import noise, pooled, random_net, seeded
from pellucid.errors import MethodError
from pellucid.heatmaps.vit_masks import TIS, ViTCX, complete_linkage, k_means

SIZE = 32
TINY = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "depth": 2}  # 4 x 4 patches
QUICK = [TIS(masks=40), ViTCX(threshold=0.2)]
NAMES = [m.name for m in QUICK]


def vit(**options):
    return random_net("vit_tiny_patch16_224", **{**TINY, **options})


class Bright(nn.Module):
    """A transformer that answers how bright its brightest patches are: its first channel is the patch's brightness."""

    def __init__(self, channels=48):
        super().__init__()
        self.embed = nn.Conv2d(3, channels, 8, 8)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(2)))
        with torch.no_grad():
            self.embed.weight[0] = 1 / 192
            self.embed.bias[0] = 0

    def forward(self, x):
        t = self.blocks(self.embed(x).flatten(2).mT)
        return torch.stack([t[..., 0].exp().mean(1), t[..., 1].mean(1)], 1)


class Block(nn.Module):
    """Leaves the first channel alone."""

    def __init__(self, channels):
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.mlp.weight[0])
        nn.init.zeros_(self.mlp.bias[:1])

    def forward(self, t):
        return t + self.mlp(self.norm(t)).tanh()


@pytest.mark.parametrize("m", QUICK, ids=NAMES)
def test_finds_a_planted_patch(m):
    net, x = seeded(Bright).eval(), 0.1 * noise(2, 3, SIZE, SIZE)
    x[0, :, 8:16, 24:32] += 2
    x[1, :, 24:32, 0:8] += 2
    found = m.attribute(net, x, 0)
    cells = interpolate(found[:, None], size=(4, 4), mode="area")[:, 0]
    assert cells.flatten(1).argmax(1).tolist() == [1 * 4 + 3, 3 * 4 + 0]


# --- tis ---


@pytest.mark.parametrize("soundly", [True, False])
def test_tis_by_hand(soundly):
    """Masks rebuilt from hooks and an independent k-means of the same start; scores one pass a mask."""
    net = vit() if soundly else random_net("vit_relpos_small_patch16_224", **{**TINY, "embed_dim": 24})
    x, blocks = noise(1, 3, SIZE, SIZE), []
    handles = [b.register_forward_hook(lambda _m, _a, y: blocks.append(y)) for b in net.blocks]
    with torch.no_grad():
        net(x)
    for h in handles:
        h.remove()
    prefix = blocks[0].shape[1] - 16
    channels = torch.cat([b[0, prefix:].T for b in blocks])
    points = k_means(channels, 10, torch.Generator().manual_seed(0x70CE))
    kept = torch.stack([torch.isin(torch.arange(16), p.topk(8).indices) for p in points])

    def score(k):
        with torch.no_grad():
            if not soundly:
                mask = interpolate(k.float().reshape(1, 1, 4, 4), size=(SIZE, SIZE), mode="nearest")
                return net(x * mask)[0, 1]
            t = net.patch_drop(net._pos_embed(net.patch_embed(x)))
            t = net.norm(net.blocks(torch.cat([t[:, :1], t[:, 1:][:, k]], 1)))
            return net.head(t[:, 0])[0, 1]

    scores = torch.stack([score(k) for k in kept])
    expected = torch.stack(
        [scores[kept[:, c]].mean() - scores.mean() if kept[:, c].any() else torch.zeros(()) for c in range(16)]
    )
    (found,) = TIS(masks=10).explain(net, x, [1])
    torch.testing.assert_close(found.values.flatten(), expected, rtol=1e-3, atol=1e-5)
    assert any("cannot be dropped" in n for n in found.notes) is not soundly
    assert found.cost.forwards <= (1 + 1 + 11 if soundly else 1 + 1 + 5 + 1 + 10 + 1)


def test_tis_does_not_hang_on_a_constant_in_the_score():
    net, x = vit(), noise(1, 3, SIZE, SIZE)
    a = TIS(masks=20).attribute(net, x, lambda y: y[:, 1])
    b = TIS(masks=20).attribute(net, x, lambda y: y[:, 1] + 100)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


# --- vit-cx ---


@pytest.mark.parametrize("centred", [True, False])
def test_vit_cx_by_hand(centred):
    net, x, z = vit(), noise(1, 3, SIZE, SIZE), 0.1 * noise(3, SIZE, SIZE, seed=5)[None]
    entering = []
    handle = net.blocks[-1].norm1.register_forward_hook(lambda _m, _a, y: entering.append(y))
    with torch.no_grad():
        net(x)
    handle.remove()
    maps = entering[0][0, 1:].T.reshape(24, 4, 4)
    drawn = interpolate(maps[:, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]
    low, high = (f(drawn.flatten(1), 1) for f in (torch.amin, torch.amax))
    scaled = (maps - low[:, None, None]) / (high - low)[:, None, None]
    flat = scaled.flatten(1) / scaled.flatten(1).norm(dim=1, keepdim=True)
    labels = complete_linkage(1 - flat @ flat.T, 0.2)
    masks = torch.stack([scaled[labels == k].mean(0) for k in range(int(labels.max()) + 1)])
    M = interpolate(masks[:, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    with torch.no_grad():
        s = net(x * M + z * (1 - M))[:, 1] - net(x + z * (1 - M))[:, 1]
        s = s - s.mean() if centred else s + net(x)[0, 1] - net(z)[0, 1]
    expected = (s[:, None, None] * M[:, 0]).sum(0) / M[:, 0].sum(0) / len(M)
    (found,) = ViTCX(threshold=0.2, seed=5, centred=centred).explain(net, x, [1])
    torch.testing.assert_close(found.values[0], expected, rtol=1e-3, atol=1e-5)
    assert found.facts == {"masks": [len(M)]}
    assert len(M) < 24


def test_vit_cx_of_a_batch_is_that_of_each_input():
    """Shorter lists of masks are filled up: neither they nor the mean that is taken off may count those."""
    net, x = vit(), noise(3, 3, SIZE, SIZE)
    x[1] *= 0.1
    (found,) = ViTCX(threshold=0.3).explain(net, x, [1])
    assert len(set(found.facts["masks"])) > 1
    for each, values in zip(x, found.values, strict=True):
        torch.testing.assert_close(ViTCX(threshold=0.3).attribute(net, each[None], 1)[0], values, rtol=1e-3, atol=1e-6)


def test_vit_cx_wants_a_norm():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(48, 48)

        def forward(self, t):
            return t + self.linear(t).tanh()

    net = seeded(Bright).eval()
    net.blocks = seeded(lambda: nn.Sequential(Bare(), Bare()))
    with pytest.raises(MethodError, match="use tis"):
        ViTCX().attribute(net, noise(1, 3, SIZE, SIZE), 0)
    assert TIS(masks=4).attribute(net, noise(1, 3, SIZE, SIZE), 0).any()


# --- both ---


@pytest.mark.parametrize("m", QUICK, ids=NAMES)
def test_other_models_are_refused_with_a_cure(m):
    for net in (pooled(), random_net("swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(2, 2, 2, 2))):
        with pytest.raises(MethodError, match=r"use .*rise"):
            m.attribute(net, noise(1, 3, SIZE, SIZE), 1)


@pytest.mark.parametrize("m", QUICK, ids=NAMES)
def test_samples_targets_and_seeds(m):
    net, x = vit(), noise(3, 3, SIZE, SIZE)
    together = m.explain(net, x, [1, 2])
    for n, t in itertools.product(range(3), range(2)):
        alone = m.attribute(net, x[n : n + 1], (1, 2)[t])
        torch.testing.assert_close(together[t].values[n], alone[0], rtol=1e-3, atol=1e-5)
    torch.manual_seed(9)
    assert torch.equal(m.attribute(net, x, 1), together[0].values)
    assert not torch.equal(type(m)(**{**m.parameters(), "seed": 1}).attribute(net, x, 1), together[0].values)


@pytest.mark.parametrize("m", QUICK, ids=NAMES)
def test_leaves_no_trace(m):
    net, x = vit().train(), noise(1, 3, SIZE, SIZE)
    weights, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    calls = [0]

    def failing(y):
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return y[:, 1]

    with pytest.raises(KeyboardInterrupt):
        m.attribute(net, x, failing)
    assert net.training
    assert net.blocks[0].training
    assert not any(k._forward_hooks or k._forward_pre_hooks for k in net.modules())
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in net.parameters())


# --- clusters ---


def test_k_means_finds_groups_and_settles():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    points = centres.repeat_interleave(20, 0) + 0.1 * torch.randn(60, 2, generator=generator)
    found = k_means(points, 3, torch.Generator().manual_seed(1))
    nearest = torch.cdist(points, found).argmin(1)
    for k in range(3):  # each centre is the mean of what is nearest to it
        if (nearest == k).any():
            torch.testing.assert_close(found[k], points[nearest == k].mean(0))
    assert torch.equal(k_means(points[:2], 3, generator), points[:2])


def test_complete_linkage_against_scipy():
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    distances = torch.cdist(points, points)
    tree = linkage(squareform(distances.numpy(), checks=False), "complete")
    for threshold in (0.0, 0.5, 1.5, 3.0, 100.0):
        found = complete_linkage(distances, threshold)
        expected = torch.from_numpy(fcluster(tree, threshold, "distance"))
        assert torch.equal(found[:, None] == found, expected[:, None] == expected)


@pytest.mark.parametrize("make", [lambda: TIS(masks=1), lambda: TIS(kept=1), lambda: ViTCX(noise=-1)])
def test_bad_parameters(make):
    with pytest.raises(MethodError):
        make()
