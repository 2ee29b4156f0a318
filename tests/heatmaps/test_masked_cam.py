import itertools

import pytest
import torch
from pytorch_grad_cam import ScoreCAM as PeerScoreCAM
from torch import nn
from torch.nn.functional import interpolate
from torchcam import methods as torchcam

from helpers.nets import Sevens, Shuffled, noise, pooled, random_net, seeded
from helpers.oracles import activation_and_gradient
from pellucid.engine import perturb
from pellucid.engine.baselines import make_baseline
from pellucid.engine.tail import Tail
from pellucid.errors import LayerError, MethodError
from pellucid.heatmaps import tail_cam
from pellucid.heatmaps.cam import GradCAM, HiResCAM
from pellucid.heatmaps.masked_cam import ISCAM, SSCAM, GroupCAM, NoisyMasks, ScoreCAM, channel_masks, rounded
from pellucid.heatmaps.tail_cam import AblationCAM, ReciproCAM
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout
from pellucid.models.targets import Class, Contrast, PerSample, TopClass, Unit

QUICK = [ScoreCAM(), SSCAM(samples=2), ISCAM(samples=2), GroupCAM(groups=3), AblationCAM(), ReciproCAM()]
NAMES = [m.name for m in QUICK]


def close(a, b, tolerance=1e-5):
    """Equal up to `tolerance` of the largest value, and not for want of values."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    assert a.shape == b.shape
    assert b.abs().max() > 0
    assert (a - b).abs().max() <= tolerance * b.abs().max()


class LastChannels(nn.Module):
    """A net whose layer `body` keeps its channels last, with views behind it that want memory in order."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6 * 64, 5)

    def forward(self, x):
        cells = self.body(self.stem(x).movedim(1, -1))
        return self.fc(cells.view(len(cells), -1).tanh())


class Concat(nn.Module):
    """Dense: what comes before the layer `grow` is put beside it, so that the tail does not broadcast."""

    def __init__(self):
        super().__init__()
        self.stem, self.grow = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 6, 3, 1, 1)
        self.mix, self.fc = nn.Conv2d(10, 6, 3, 2, 1), nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.fc(self.mix(torch.cat([x, self.grow(x)], 1)).relu().mean((2, 3)))


def tiny_vit(**options):
    return random_net("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=2, **options)


CASES = {
    "pictures": (pooled, "3", (32, 32)),
    "places matter": (lambda: seeded(Sevens).eval(), "body", (32, 32)),
    "channels last": (lambda: seeded(LastChannels).eval(), "body", (32, 32)),
    "tokens": (tiny_vit, "blocks.1.norm1", (32, 32)),
    "tokens without prefix": (lambda: tiny_vit(class_token=False, global_pool="avg"), "blocks.0", (32, 32)),
    "dense": (lambda: seeded(Concat).eval(), "grow", (32, 32)),
    "signals": (lambda: pooled(1), "3", (40,)),
    "volumes": (lambda: pooled(3), "3", (12, 16, 16)),
}


@pytest.fixture(params=CASES)
def case(request):
    """(net, layer, inputs, the layer's activation as a map, a function to put another map in its place)"""
    build, layer, space = CASES[request.param]
    net, x = build(), noise(2, 3, *space, seed=1)
    layout = describe(net, x, layer).layout
    kept = {}

    def keep(_module, _args, output):
        kept["A"] = output.detach().clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    with torch.no_grad():
        net(x)
    handle.remove()

    def score_changed(n, cells, target):
        """The score of sample n with its cells `(C, *grid)` at the layer changed, by a hook and one full pass."""
        raw = kept["A"][n : n + 1].clone()
        if layout.kind == "channels-first":
            raw[0] = cells
        elif layout.kind == "channels-last":
            raw[0] = cells.movedim(0, -1)
        else:
            raw[0, layout.prefix :] = cells.flatten(1).T
        handle = net.get_submodule(layer).register_forward_hook(lambda _m, _a, _o: raw)
        with torch.no_grad():
            y = net(x[n : n + 1])[0, target].double()
        handle.remove()
        return y

    return net, layer, x, layout.to_map(kept["A"]), score_changed


def drawn(cells, space):
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    return interpolate(cells[None, None], size=space, mode=mode, align_corners=False)[0, 0]


def mask_by_hand(cells, space):
    m = drawn(cells, space)
    return torch.zeros_like(m) if m.max() == m.min() else (m - m.min()) / (m.max() - m.min())


def masked_scores(net, x, A, target, changes=(lambda m: m,), score=lambda y, t: y[0, t]):
    """`(N, C)`: mean over `changes` of the score of the input times each channel's changed mask, one pass each."""
    out = torch.zeros(A.shape[:2], dtype=torch.float64)
    with torch.no_grad():
        for n, c in itertools.product(range(A.shape[0]), range(A.shape[1])):
            m = mask_by_hand(A[n, c], tuple(x.shape[2:]))
            out[n, c] = sum(score(net(x[n : n + 1] * change(m)), target).double() for change in changes) / len(changes)
    return out


def weighted(A, w):
    return sum(w[:, c].reshape(-1, *[1] * (A.ndim - 2)) * A[:, c] for c in range(A.shape[1])).relu()


# --- score-cam ---


def test_score_cam_is_a_loop_over_masked_inputs(case):
    net, layer, x, A, _ = case
    s = masked_scores(net, x, A, 3)
    found = ScoreCAM(layer=layer).explain(net, x, [3])[0]
    close(found.extras["weights"], s.softmax(1))
    close(found.values, weighted(A, s.softmax(1)), 1e-4)  # cancels where a layer norm makes channels add up to zero


def test_the_other_weights():
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    A = activation_and_gradient(net, "body", x, lambda y: y[:, 1])[0]
    gain = masked_scores(net, x, A, 1) - net(torch.zeros(1, 3, 32, 32))[0, 1].item()
    close(ScoreCAM(layer="body", weights="increase").attribute(net, x, 1), weighted(A, gain), 1e-4)
    p = masked_scores(net, x, A, 1, score=lambda y, t: y.softmax(1)[0, t])
    close(ScoreCAM(layer="body", weights="probability").attribute(net, x, 1), weighted(A, p))
    with pytest.raises(MethodError, match="softmax, increase or probability"):
        ScoreCAM(weights="sum")


def test_another_baseline_shows_through():
    net, x = pooled(), noise(1, 3, 32, 32)
    found = ScoreCAM(layer="1", weights="increase", baseline="mean").explain(net, x, [2])[0]
    with torch.no_grad():
        A, b = net[:2](x), x.mean((2, 3), keepdim=True).expand_as(x)
        masks = [mask_by_hand(A[0, c], (32, 32)) for c in range(4)]
        expected = torch.stack([net(m * x + (1 - m) * b)[0, 2] - net(b)[0, 2] for m in masks])
    close(found.extras["weights"][0], expected, 1e-4)


def thirds():
    """The grid's cells lie on pixels of the input, so that to scale before drawing and after it is the same."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
        ).eval()
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(ScoreCAM(layer="1"), torchcam.ScoreCAM), (ISCAM(layer="1", samples=4, path="cumulative"), torchcam.ISCAM)],
    ids=["score-cam", "is-cam"],
)
def test_torchcam_agrees(ours, theirs):
    net, x = thirds(), noise(2, 3, 33, 33)
    options = {"num_samples": 4} if theirs is torchcam.ISCAM else {}
    with theirs(net, "1", input_shape=(3, 33, 33), **options) as extractor:
        net(x)
        peer = extractor(class_idx=[1, 2], normalized=False)[0]
    close(ours.attribute(net, x, PerSample((1, 2))), peer)


def test_pytorch_grad_cam_agrees_where_nothing_is_drawn_larger():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
        ).eval()
    )
    x = noise(2, 3, 12, 12)
    found = ScoreCAM(layer="1").explain(net, x, [2])[0]
    peer = PeerScoreCAM(net, [net[1]])
    A = net[:2](x).detach().numpy()
    w = peer.get_cam_weights(x, net[1], [lambda y: y[2]] * 2, A, None)
    close(found.extras["weights"], torch.from_numpy(w))


COUNT = []


class Counting(nn.Module):
    """Notes how many inputs run through it, outside of itself."""

    def forward(self, x):
        COUNT.append(len(x))
        return x


def counted(method, net, x, target):
    COUNT.clear()
    found = method.explain(net, x, [target])[0]
    return found, sum(COUNT)


def test_dead_and_equal_channels_are_scored_once_and_change_nothing():
    net, x = nn.Sequential(Counting(), *pooled(channels=8)).eval(), noise(2, 3, 32, 32)
    with torch.no_grad():
        net[3].weight[2:5] = 0
        net[3].bias[2:5] = torch.tensor([-1.0, 0.3, -2.0])  # dead, constant, dead
        for p in (net[3].weight, net[3].bias):
            p[6], p[7] = p[5], 2 * p[5]  # equal, and equal once scaled
        A = net[:5](x)
    assert (A[:, 5] > 0).any()
    describe(net, x, "4")  # found once for all
    s = masked_scores(net, x, A, 1)
    found, forwards = counted(ScoreCAM(layer="4"), net, x, 1)
    close(found.values, weighted(A, s.softmax(1)))
    # Per input: the targets, the layer, and of eight channels three plus one for the dead plus one for the equal.
    assert forwards == 2 * (2 + 4)
    assert found.cost.forwards == forwards
    assert counted(SSCAM(layer="4", samples=3), net, x, 1)[1] == 2 * (2 + 3 * 4)
    assert counted(ISCAM(layer="4", samples=3), net, x, 1)[1] == 2 * (2 + 3 * 4)


def test_rounding_is_not_taken_for_a_pattern():
    A = 0.3 + 1e-8 * noise(3, 4, 4)
    assert not channel_masks(A, (33, 33)).values.any()


def test_channels_of_one_cell_share_a_mask_whatever_their_height():
    heights = torch.rand(40, generator=torch.Generator().manual_seed(0)) * 30 + 1e-3
    A = torch.zeros(80, 7, 7)
    A[torch.arange(40), 2, 3] = heights
    A[torch.arange(40, 80), 6, 0] = heights
    masks = rounded(channel_masks(A, (224, 224)))
    assert masks.values.flatten(1).unique(dim=0).shape[0] == 2
    unique, which = masks.distinct()
    assert len(unique) == 2
    assert which.tolist() == [0] * 40 + [1] * 40


def test_masks_fill_the_range_once_drawn():
    masks = channel_masks(noise(5, 4, 4), (32, 32)).render(slice(None))
    close(masks.amin((1, 2, 3)) + 1, torch.ones(5))
    close(masks.amax((1, 2, 3)), torch.ones(5))


def test_many_channels_are_drawn_in_parts(monkeypatch):
    A = noise(7, 4, 4)
    whole = channel_masks(A, (32, 32)).values
    monkeypatch.setattr("pellucid.heatmaps.masked_cam._DRAWN_VALUES", 2 * 32 * 32)
    assert torch.equal(channel_masks(A, (32, 32)).values, whole)


def test_weights_that_choose_nothing_or_one_channel_are_said_out_loud():
    net, x = pooled(), noise(2, 3, 32, 32)
    flat = ScoreCAM(layer="3").explain(net, x, [lambda y: 1e-3 * y[:, 0]])[0]
    assert "nearly the same" in flat.notes[0]
    sharp = ScoreCAM(layer="3").explain(net, x, [lambda y: 1e5 * y[:, 0]])[0]
    assert "single channel" in sharp.notes[0]
    assert not ScoreCAM(layer="3", weights="increase").explain(net, x, [lambda y: 1e-3 * y[:, 0]])[0].notes


# --- ss-cam and is-cam ---


@pytest.mark.parametrize("std", [0.0, 0.5])
def test_ss_cam_is_a_loop_over_noise(std):
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    A = activation_and_gradient(net, "body", x, lambda y: y[:, 1])[0]
    generator = torch.Generator().manual_seed(5)
    noises = [std * torch.randn(32, 32, generator=generator) for _ in range(3)]
    s = masked_scores(net, x, A, 1, [lambda m, d=d: m + d for d in noises])
    found = SSCAM(layer="body", samples=3, std=std, seed=5).attribute(net, x, 1)
    close(found, weighted(A, s.softmax(1)))
    if std == 0:
        close(found, ScoreCAM(layer="body").attribute(net, x, 1))


@pytest.mark.parametrize("path", ["straight", "cumulative"])
def test_is_cam_is_a_loop_over_steps(path):
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    A = activation_and_gradient(net, "body", x, lambda y: y[:, 1])[0]
    steps = [0.25, 0.5, 0.75, 1.0] if path == "straight" else [0.25, 0.75, 1.5, 2.5]
    s = masked_scores(net, x, A, 1, [lambda m, k=k: k * m for k in steps])
    close(ISCAM(layer="body", samples=4, path=path).attribute(net, x, 1), weighted(A, s.softmax(1)))


def test_a_single_straight_step_is_score_cam():
    net, x = pooled(), noise(1, 3, 32, 32)
    close(ISCAM(samples=1).attribute(net, x, 1), ScoreCAM().attribute(net, x, 1))


def test_noisy_masks_add_up():
    masks = NoisyMasks(noise(6, 3, 3), (9, 9), "linear", noise=noise(9, 9, seed=2))
    w = noise(6, 2, seed=3)
    close(masks.accumulate(w), torch.einsum("mt,mhw->thw", w, masks.render(slice(None))[:, 0]))
    assert torch.equal(masks.take(torch.tensor([4, 1])).render(slice(None)), masks.render(torch.tensor([4, 1])))


def test_settings_are_checked():
    for build in (
        lambda: SSCAM(samples=0),
        lambda: SSCAM(std=-1),
        lambda: ISCAM(path="round"),
        lambda: GroupCAM(groups=0),
        lambda: GroupCAM(quantile=1),
    ):
        with pytest.raises(MethodError):
            build()


def test_quick_versions_do_less():
    assert SSCAM().quick().samples < SSCAM().samples
    assert ISCAM(seed=3).quick() == ISCAM(seed=3, samples=3)


# --- group-cam ---


@pytest.mark.parametrize("probability", [True, False])
def test_group_cam_is_a_loop_over_groups(probability):
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32)
    A, G = activation_and_gradient(net, "body", x, lambda y: y[:, 1])

    def p(x):
        with torch.no_grad():
            return (net(x).softmax(1) if probability else net(x))[0, 1]

    expected = torch.zeros(2, 8, 8)
    for n in range(2):
        blurred = make_baseline("blur", x[n : n + 1], torch.Generator())
        for group in ([0, 1], [2, 3], [4, 5]):
            cells = sum(G[n, c].mean() * A[n, c] for c in group).relu()
            cells = torch.where(cells > cells.flatten().quantile(0.7), cells, 0.0)
            m = drawn(cells, (32, 32))
            if m.max() > m.min():
                gain = p(x[n : n + 1] * mask_by_hand(cells, (32, 32)) + blurred * (1 - mask_by_hand(cells, (32, 32))))
                expected[n] += (gain - p(blurred)) * (cells - m.min()) / (m.max() - m.min())
    close(GroupCAM(layer="body", groups=3, probability=probability).attribute(net, x, 1), expected.relu(), 1e-4)


def test_group_cam_costs_its_groups():
    net, x = nn.Sequential(Counting(), *pooled(channels=12)).eval(), noise(2, 3, 32, 32)
    describe(net, x, "4")
    found, forwards = counted(GroupCAM(layer="4", groups=3), net, x, 1)
    assert forwards == found.cost.forwards <= 2 * (3 + 3)
    assert found.extras["weights"].shape == (2, 3)
    assert found.cost.backwards == 2
    assert GroupCAM(layer="4", groups=99).explain(net, x, [1])[0].extras["weights"].shape == (2, 12)


# --- ablation-cam ---


def test_ablation_cam_is_a_loop_over_zeroed_channels(case):
    net, layer, x, A, score_changed = case
    w = torch.zeros(A.shape[:2], dtype=torch.float64)
    for n, c in itertools.product(range(A.shape[0]), range(A.shape[1])):
        cells = A[n].clone()
        cells[c] = 0
        w[n, c] = score_changed(n, A[n], 3) - score_changed(n, cells, 3)
    found = AblationCAM(layer=layer).explain(net, x, [3])[0]
    close(found.extras["weights"], w, 1e-4)
    close(found.values, weighted(A, w), 1e-4)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_ablation_cam_in_closed_form(dims):
    net, x = pooled(dims), noise(2, 3, *[16] * dims)
    found = AblationCAM(layer="3").explain(net, x, [2])[0]
    A = net[:4](x).detach()
    close(found.extras["weights"], net[6].weight[2].detach() * A.flatten(2).mean(2))


def test_dead_channels_are_not_ablated():
    net, x = pooled(channels=300, inplace=True), noise(1, 3, 32, 32)
    with torch.no_grad():
        net[2].bias[:200] = -100
    describe(net, x, "3")
    seen = []
    handle = net[4].register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    found = AblationCAM(layer="3").explain(net, x, [1])[0]
    handle.remove()
    assert sum(seen) <= 1 + 2 + 100 + 1  # plain, unchanged once more, the living, the empty
    A = net[:4](x).detach()
    close(found.extras["weights"], net[6].weight[1].detach() * A.flatten(2).mean(2), 1e-4)


# --- recipro-cam ---


@pytest.mark.parametrize("gaussian", [True, False])
def test_recipro_cam_is_a_loop_over_cells(case, gaussian):
    net, layer, x, A, score_changed = case
    grid, expected = A.shape[2:], torch.zeros(2, *A.shape[2:], dtype=torch.float64)
    for n in range(2):
        empty = score_changed(n, torch.zeros_like(A[n]), 3)
        for p in itertools.product(*map(range, grid)):
            keep = torch.zeros(grid)
            for q in itertools.product(*map(range, grid)):
                far = [abs(a - b) for a, b in zip(p, q, strict=True)]
                if gaussian and max(far) <= 1:
                    keep[q] = 2.0 ** -sum(1 + f for f in far)
                elif max(far) == 0:
                    keep[q] = 1
            expected[n][p] = score_changed(n, A[n] * keep, 3) - empty
    close(ReciproCAM(layer=layer, gaussian=gaussian).attribute(net, x, 3), expected, 1e-4)


def test_the_kernel_of_the_paper():
    net, x = pooled(), noise(1, 3, 32, 32)
    A = net[:4](x).detach()
    found = ReciproCAM(layer="3").attribute(net, x, 2)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    share = torch.einsum("c,nchw->nhw", net[6].weight[2].detach(), A) / 64
    close(found, torch.conv2d(share[:, None], kernel[None, None], padding=1)[:, 0])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_single_cells_on_pooling_and_linear_are_hires_cam(dims):
    net, x = pooled(dims), noise(2, 3, *[16] * dims)
    close(ReciproCAM(layer="3", gaussian=False).attribute(net, x, 2), HiResCAM(layer="3").attribute(net, x, 2), 1e-4)


def test_probabilities_in_place_of_scores():
    net, x = pooled(), noise(1, 3, 32, 32)
    A = net[:4](x).detach()
    keep = torch.zeros(8, 8)
    keep[2, 5] = 1
    p = [net[4:](cells).softmax(1)[0, 2].item() for cells in (A * keep, A * 0)]
    found = ReciproCAM(layer="3", gaussian=False, probability=True).attribute(net, x, 2)
    close(found[0, 2, 5], p[0] - p[1], 1e-3)


# --- all of them ---


def bright_spot(space, at):
    x = 0.01 * torch.rand(1, 3, *space, generator=torch.Generator().manual_seed(0))
    x[(..., *(slice(a, a + 8) for a in at))] += 2
    return x


@pytest.mark.parametrize("method", QUICK, ids=NAMES)
def test_a_planted_object_is_found_in_pictures(method):
    net = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        for weights in (net[0].weight, net[0].bias, net[4].weight, net[4].bias):
            weights.zero_()
        net[0].weight[0], net[0].weight[1] = 1 / 192, -1 / 192  # bright patches, dark patches
        net[0].bias.copy_(torch.tensor([0.0, 1.0, 0.2, 0.0]))
        net[4].weight[0, :2] = torch.tensor([200.0, -1.0])
    found = method.attribute(net, bright_spot((64, 64), (16, 40)), 0)
    assert found.shape == (1, 8, 8)
    assert divmod(int(found.argmax()), 8) == (2, 5)


@pytest.mark.parametrize("method", QUICK, ids=NAMES)
def test_a_planted_object_is_found_in_shuffled_tokens(method):
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3)).tolist()
    net = seeded(lambda: Shuffled((4, 4), 8, order, prefix=2)).eval()
    with torch.no_grad():
        net.fc.weight[0] *= 10
    found = method.attribute(net, bright_spot((32, 32), (8, 16)), 0)
    assert found.shape == (1, 4, 4)
    assert divmod(int(found.argmax()), 4) == (1, 2)


@pytest.mark.parametrize("method", QUICK, ids=NAMES)
def test_batches_inputs_and_targets_do_not_meet(method, monkeypatch):
    # Group-CAM's weights are differences, of about 0.002, of probabilities of about 0.14, which single precision knows
    # to 1.5e-8: good to 1e-5 of themselves, whatever the order of summation; the map adds up several.
    within = 1e-4 if isinstance(method, GroupCAM) else 1e-5
    net, x = seeded(Sevens).eval(), noise(3, 3, 32, 32)
    targets = [1, TopClass(), Contrast(0, 4)]
    whole = [a.values for a in method.explain(net, x, targets)]
    for t, target in enumerate(targets):
        close(method.attribute(net, x, target), whole[t], within)
        close(torch.cat([method.attribute(net, x[n : n + 1], target) for n in range(3)]), whole[t], within)
    monkeypatch.setattr(perturb, "default_batch", lambda _device: 5)
    monkeypatch.setattr(tail_cam, "_CHANGES", 5)
    for a, b in zip(method.explain(net, x, targets), whole, strict=True):
        close(a.values, b, within)


@pytest.mark.parametrize("method", QUICK, ids=NAMES)
def test_a_layer_is_found_for_every_rank(method):
    for dims, grid in ((1, (10,)), (2, (10, 10)), (3, (5, 5, 5))):
        net, x = pooled(dims), noise(2, 3, *[4 * grid[0]] * dims)
        found = method.explain(net, x, [Class(1)])[0]
        assert found.layer.name == "3"
        assert found.values.shape == (2, *grid)
        assert torch.equal(found.values, type(method)(**{**method.parameters(), "layer": "3"}).attribute(net, x, 1))


@pytest.mark.parametrize("method", QUICK, ids=NAMES)
def test_the_net_is_left_as_it_was(method):
    net, x = random_net("mobilenetv2_050").train(), noise(1, 3, 32, 32)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random_before = torch.get_rng_state()
    type(method)(**{**method.parameters(), "layer": "blocks.0"}).attribute(net, x, 1)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(m.training and not m._forward_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), random_before)


@pytest.mark.parametrize("method", QUICK, ids=NAMES)
def test_units_inside_the_net_are_targets(method):
    net, x = pooled(), noise(2, 3, 32, 32)
    inner = type(method)(**{**method.parameters(), "layer": "1"})
    cut = nn.Sequential(*net[:3], nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    close(inner.attribute(net, x, Unit("2", 4)), inner.attribute(cut, x, lambda y: y[:, 4]), 1e-4)


@pytest.mark.parametrize(
    "method", [GroupCAM(layer="blocks.1"), AblationCAM(layer="blocks.1"), ReciproCAM(layer="blocks.1")]
)
def test_a_layer_whose_patches_are_not_read_is_refused(method):
    net, x = tiny_vit(), noise(1, 3, 32, 32)
    with pytest.raises(LayerError, match=r"use 'blocks\.1\.norm1'"):
        method.attribute(net, x, 2)


def test_nothing_in_favour_is_said_out_loud():
    net, x = pooled(), noise(1, 3, 32, 32)
    with torch.no_grad():
        net[6].weight[0] = -net[6].weight[0].abs()
    found = AblationCAM().explain(net, x, [0])[0]
    assert not found.values.any()
    assert not GradCAM().attribute(net, x, 0).any()
    assert "nothing in favour" in found.notes[0]


# --- what they rest on ---


class Twice(nn.Module):
    """One ReLU and one convolution, both run twice."""

    def __init__(self):
        super().__init__()
        self.front, self.shared, self.act, self.fc = (
            nn.Conv2d(3, 4, 4, 4),
            nn.Conv2d(4, 4, 3, 1, 1),
            nn.ReLU(),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        return self.fc(self.act(self.shared(self.act(self.shared(self.front(x))))).mean((2, 3)))


def test_a_layer_that_is_used_twice_is_changed_where_it_runs_last():
    net, x = seeded(Twice).eval(), noise(1, 3, 32, 32)
    A = net.act(net.shared(net.act(net.shared(net.front(x))))).detach()
    found = AblationCAM(layer="act").explain(net, x, [1])[0]
    close(found.extras["weights"], net.fc.weight[1].detach() * A.mean((2, 3)), 1e-4)


def test_a_tail_reads_watched_layers_as_changed():
    net, x = pooled(), noise(1, 3, 32, 32)
    for layer, watch in (("1", "3"), ("3", "3")):
        with Tail(net, x, layer, lambda _y, w, _r, n=watch: [w[n].mean((1, 2, 3))], watch=[watch]) as changed:
            assert not changed.way[1]
            halves = changed(lambda A, _start, _stop: torch.cat([A, A / 2]), 2)[:, 0]
        A = net[: int(layer) + 1](x).detach()
        close(halves, [net[int(layer) + 1 : int(watch) + 1](a).mean().item() for a in (A, A / 2)])


@pytest.mark.parametrize(
    "layout",
    [
        Layout("channels-first", (3, 4), 5),
        Layout("channels-last", (2, 3, 4), 5),
        Layout("tokens", (3, 4), 5),
        Layout("tokens", (2, 3), 5, prefix=2, order=(3, 0, 5, 1, 4, 2)),
    ],
)
def test_layouts_lead_to_maps_and_back(layout):
    activation = noise(*layout.shape(2))
    cells = layout.to_map(activation)
    assert torch.equal(layout.from_map(cells, activation), activation)
    many = layout.from_map(torch.cat([cells[:1], 2 * cells[:1]]), activation[:1])
    assert torch.equal(layout.to_map(many), torch.cat([cells[:1], 2 * cells[:1]]))
    assert torch.equal(many[1, : layout.prefix], activation[0, : layout.prefix])
    assert many.is_contiguous()
