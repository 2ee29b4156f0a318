"""Maps of clips: a planted moving bar, weights a frame, the tube of a CAM, temporal baselines, supervoxels."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from helpers.nets import noise, seeded
from pellucid.errors import MediaError, MethodError
from pellucid.heatmaps import (
    CAM,
    LIME,
    RISE,
    STEP,
    ExtremalPerturbation,
    GradCAM,
    GradCAMPlusPlus,
    IntegratedGradients,
    KernelSHAP,
    Occlusion,
    SaliencyTubes,
    XGradCAM,
)
from pellucid.heatmaps.step import averaged, ellipsoid
from pellucid.media.segments import stretches, supervoxels


class Layered(nn.Module):
    """Class 1 by how much bright moves one place to the right between frames: a 3-D convolution, pooled, linear."""

    def __init__(self):
        super().__init__()
        self.conv, self.detector, self.fc = nn.Conv3d(1, 1, (2, 1, 3), padding=(0, 0, 1)), nn.ReLU(), nn.Linear(1, 2)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.fill_(-1.0)
            self.conv.weight[0, 0, 0, 0, 0] = self.conv.weight[0, 0, 1, 0, 1] = 1.0  # was left of here, is here now
            self.conv.weight[0, 0, 0, 0, 1] = -1.0  # was not here
            self.fc.weight.copy_(torch.tensor([[-1.0], [1.0]]) * 200)
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.detector(self.conv(x)).mean((2, 3, 4)))


def bar(frames=12, side=16):
    """A bar that stands, steps to the right in frames 5 to 8, and stands again; and a bright block that never moves."""
    clip, tube = torch.zeros(1, 1, frames, side, side), torch.zeros(1, frames, side, side, dtype=torch.bool)
    for t in range(frames):
        x = 4 + min(max(t - 4, 0), 4)
        clip[0, 0, t, 4:9, x : x + 1] = 1
        tube[0, t, 4:9, x] = 4 <= t <= 8
        clip[0, 0, t, 12:15, 12:15] = 1
    return clip, tube


def share_inside(values, tube, reach=1):
    """Of a map's positive mass, what lies in the tube or within `reach` of it."""
    drawn = interpolate(values[:, None].float().relu(), size=tube.shape[1:], mode="trilinear", align_corners=False)[
        :, 0
    ]
    near = nn.functional.max_pool3d(tube[:, None].float(), 2 * reach + 1, 1, reach)[:, 0] > 0
    return float(drawn[near].sum() / drawn.sum()), float(near.float().mean())


@pytest.mark.parametrize(
    ("m", "reach"),
    [
        (GradCAM(layer="detector"), 1),
        (GradCAM(layer="detector", per_frame=True), 1),
        (SaliencyTubes(layer="detector"), 1),
        (Occlusion(window=(2, 4, 2), stride=(1, 2, 1), baseline="time-mean"), 2),
        (STEP(volumes=(0.03,), cells=(12, 8, 8), baseline="time-mean"), 2),
        (ExtremalPerturbation(areas=(0.03,), cells=(12, 8, 8), baseline="time-mean"), 2),
        (RISE(cells=(6, 4, 4), samples=1024, baseline="time-mean"), 3),
        (KernelSHAP(segments="grid", count=96, samples=1500, baseline="time-mean"), 3),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_a_planted_moving_bar_is_found(m, reach):
    clip, tube = bar()
    values = m.attribute(Layered(), clip, 1)
    inside, chance = share_inside(values, tube, reach)
    assert inside > 0.8, inside
    assert inside > 2 * chance
    curve = values.relu().flatten(2).sum(2)[0]
    peak = (int(curve.argmax()) + 0.5) * 12 / len(curve)
    assert 3 <= peak <= 9.5


@pytest.mark.parametrize("cls", [GradCAM, GradCAMPlusPlus, XGradCAM])
def test_weights_a_frame_are_those_of_each_frame_alone(cls):
    A, G = noise(2, 4, 5, 3, 3), noise(2, 4, 5, 3, 3, seed=1)
    per_frame = cls(per_frame=True).combine(A, G)
    for t in range(5):
        torch.testing.assert_close(per_frame[:, t], cls().combine(A[:, :, t], G[:, :, t]))
    assert not torch.allclose(per_frame, cls().combine(A, G))
    with pytest.raises(MethodError, match="need a clip"):
        cls(per_frame=True).combine(A[:, :, 0], G[:, :, 0])


def test_saliency_tubes_are_cam_and_refuse_pictures():
    net = seeded(
        lambda: nn.Sequential(nn.Conv3d(3, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    )
    x = noise(2, 3, 5, 8, 8)
    tube = SaliencyTubes(layer="1").attribute(net.eval(), x, 2)
    A = net[:2](x).detach()
    torch.testing.assert_close(tube, torch.einsum("c,nc...->n...", net[4].weight[2].detach(), A), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(CAM(layer="1").attribute(net, x, 2), tube)
    flat = nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(MethodError, match="use cam"):
        SaliencyTubes(layer="1").attribute(flat, noise(1, 3, 8, 8), 0)


def test_step_asks_for_its_volume_and_stays_solid():
    clip, _ = bar()
    (found,) = STEP(volumes=(0.05, 0.2), cells=(12, 8, 8), baseline="time-mean").explain(Layered(), clip, [1])
    assert found.extras["masks"].shape == (1, 2, 12, 8, 8)
    for v in (0.05, 0.2):
        assert found.facts[f"volume_{v:g}"][0] == pytest.approx(v, abs=0.03)
        assert found.facts[f"score_{v:g}"][0] > 0.8
    core = ellipsoid((3.0, 3.0, 3.0))
    assert core.shape == (3, 3, 3)
    assert float(core.sum()) == pytest.approx(1)
    assert core[0, 0, 0] == 0 < core[1, 1, 0]
    masks = noise(2, 4, 5, 6)
    brute = torch.zeros(2, 4, 5, 6)
    for t in range(4):
        for y in range(5):
            for x in range(6):
                for dt in (-1, 0, 1):
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            at = (min(max(t + dt, 0), 3), min(max(y + dy, 0), 4), min(max(x + dx, 0), 5))
                            brute[:, t, y, x] += core[dt + 1, dy + 1, dx + 1] * masks[:, at[0], at[1], at[2]]
    torch.testing.assert_close(averaged(masks, core), brute)
    for bad in ({"volumes": (1.5,)}, {"core": (0.1, 0.1)}, {"volumes": ()}):
        with pytest.raises(MethodError, match=r"shares|share"):
            STEP(**bad)
    with pytest.raises(MethodError, match="use extremal-perturbation"):
        STEP().attribute(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), noise(1, 3, 8, 8), 0)


@pytest.mark.parametrize("baseline", ["zero", "freeze", "time-mean", "time-blur", "time-shuffle", "time-reverse"])
def test_integrated_gradients_are_complete_on_every_baseline(baseline):
    net = seeded(
        lambda: nn.Sequential(nn.Conv3d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 4 * 4 * 4, 3))
    ).double()
    x = noise(2, 2, 6, 6, 6).double()
    (found,) = IntegratedGradients(baseline=baseline, tolerance=0.001, seed=3).explain(net, x, [1])
    from pellucid.engine.baselines import make_baseline

    start = make_baseline(baseline, x, torch.Generator().manual_seed(3))
    change = (net(x) - net(start))[:, 1].detach()
    torch.testing.assert_close(found.values.double().flatten(1).sum(1), change, rtol=2e-3, atol=1e-6)
    assert change.abs().min() > 1e-3
    if baseline == "freeze":
        assert not found.values[:, :, 0].any()  # the first frame is its own baseline


def test_windows_over_whole_frames():
    clip, _ = bar()
    values = Occlusion(window=(2, 0, 0), stride=(1, 1, 1), baseline="time-mean").attribute(Layered(), clip, 1)
    assert torch.equal(values, values[:, :, :1, :1].expand_as(values))
    assert 3 <= int(values[0, :, 0, 0].argmax()) <= 8
    with pytest.raises(MethodError, match="window"):
        Occlusion(window=(0, 0, 0)).attribute(Layered(), clip, 1)


def test_supervoxels_part_time_where_superpixels_do_not():
    clip = 0.1 * noise(3, 8, 48, 48)
    clip[:, 4:, :, 24:] += 2
    labels = supervoxels(clip, 40)
    assert labels.shape == (8, 48, 48)
    assert sorted(torch.unique(labels).tolist()) == list(range(int(labels.max()) + 1))
    spans = [len(torch.unique((labels == k).nonzero()[:, 0])) for k in range(int(labels.max()) + 1)]
    assert sum(spans) / len(spans) < 5  # of 8 frames
    bright = torch.zeros(8, 48, 48, dtype=torch.bool)
    bright[4:, :, 24:] = True
    shares = torch.stack([bright[labels == k].float().mean() for k in range(int(labels.max()) + 1)])
    assert float(torch.maximum(shares, 1 - shares)[labels].mean()) > 0.9  # hardly one holds bright and dark
    assert stretches(clip, 3)[:, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert stretches(clip, 20)[:, 5, 5].tolist() == list(range(8))
    for cut in (supervoxels, stretches):
        with pytest.raises(MediaError, match="use slic"):
            cut(clip[:, 0])


def test_lime_over_supervoxels_and_frames():
    clip, tube = bar()
    (found,) = LIME(segments="frames", count=12, samples=400, baseline="time-mean").explain(Layered(), clip, [1])
    lead = found.extras["segments"][0].topk(5).indices.tolist()
    assert set(lead) <= {4, 5, 6, 7, 8}
    values = LIME(segments="supervoxels", count=60, samples=600, baseline="time-mean").attribute(Layered(), clip, 1)
    inside = values[tube].mean()
    assert inside > 3 * values[~tube].abs().mean()
