"""Score-CAM and its kin against loops over masked inputs; what all CAMs that mask or change a layer share."""

import pytest
import torch
from pytorch_grad_cam import ScoreCAM as PeerScoreCAM
from torch import nn
from torchcam import methods as torchcam

from helpers.cam_cases import CASES, close, drawn, mask_by_hand, masked_scores, opened, tiny_vit, weighted
from helpers.nets import Sevens, Shuffled, noise, pooled, random_net, seeded
from helpers.oracles import activation_and_gradient
from pellucid.engine import perturb
from pellucid.engine.baselines import make_baseline
from pellucid.errors import LayerError, MethodError
from pellucid.heatmaps import tail_cam
from pellucid.heatmaps.cam import GradCAM
from pellucid.heatmaps.masked_cam import ISCAM, SSCAM, GroupCAM, NoisyMasks, ScoreCAM, channel_masks, rounded
from pellucid.heatmaps.tail_cam import AblationCAM, ReciproCAM
from pellucid.models.layers import describe
from pellucid.models.targets import Class, Contrast, PerSample, TopClass, Unit

QUICK = [ScoreCAM(), SSCAM(samples=2), ISCAM(samples=2), GroupCAM(groups=3), AblationCAM(), ReciproCAM()]
NAMES = [m.name for m in QUICK]


@pytest.fixture(params=CASES)
def case(request):
    return opened(request.param)


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
    monkeypatch.setattr(perturb, "default_batch", lambda *_, **__: 5)
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
