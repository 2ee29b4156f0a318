"""Parametrisations, colours and views, each against an independent truth."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from helpers.canvases import Levels, model_of
from helpers.nets import noise, pooled
from pellucid.errors import MethodError, ModelError
from pellucid.features import CPPN, MACO, Canvas, Colours, Fourier, Pixel, Robustness, measured_spectrum
from pellucid.features.colour import samples
from pellucid.features.maco import hermitian
from pellucid.features.parametrisations import PARAMETRISATIONS, falloff, get_parametrisation, half_spectrum
from pellucid.features.quality import high_share
from pellucid.models.preprocess import Preprocess, TransformPreprocess

SHAPES = [(3, 16, 16), (3, 15, 20), (1, 9, 13), (5, 12, 7), (3, 4, 10, 11), (1, 5, 8, 9)]


def canvas(shape):
    return Canvas(shape, torch.zeros(shape[0]), torch.ones(shape[0]))


def generators(*seeds):
    return [torch.Generator().manual_seed(s) for s in seeds]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_any_size_any_channels_and_each_picture_for_itself(name, shape):
    c, colours = canvas(shape), Colours.natural(shape[0])
    p = get_parametrisation(name).prepared(c, colours)
    both = p.draw(p.start(c, generators(1, 2)), c, colours)
    assert both.shape == (2, *shape)
    assert both.isfinite().all()
    for i in (0, 1):
        torch.testing.assert_close(p.draw(p.start(c, generators(i + 1)), c, colours)[0], both[i])
    assert not torch.equal(both[0], both[1])
    leaves = [q.requires_grad_() for q in p.start(c, generators(1, 2))]
    slopes = torch.autograd.grad(p.draw(leaves, c, colours)[0].square().sum(), leaves)
    assert all(s[0].any() and not s[1].any() for s in slopes if s[0].any())
    assert any(s[0].any() for s in slopes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spectrum", ["natural", "synthetic", "measured"])
def test_maco_keeps_every_magnitude_whatever_the_phases(shape, spectrum):
    c = canvas(shape)
    colours = Colours.natural(shape[0])
    if spectrum == "measured":
        spectrum = measured_spectrum(torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)), colours)
    p = MACO(spectrum=spectrum).prepared(c, colours)
    phases = noise(2, shape[0], *half_spectrum(c.space)) * 40
    pictures = p.draw([phases], c, colours).double()
    z = colours.decorrelate(pictures.float()).double()
    axes = tuple(range(2, z.ndim))
    magnitude = torch.fft.rfftn(z, dim=axes).abs()
    assert p.spectrum.max() > 0
    torch.testing.assert_close(
        magnitude, p.spectrum.double().expand_as(magnitude), rtol=1e-3, atol=1e-4 * float(p.spectrum.max())
    )


def test_hermitian_phases_leave_the_others_alone():
    for space in ((8, 8), (7, 9), (4, 6, 8)):
        phase = noise(1, 2, *half_spectrum(space))
        odd = hermitian(phase, space)
        last = phase.shape[-1] - 1 if space[-1] % 2 == 0 else phase.shape[-1]
        assert torch.equal(odd[..., 1:last], phase[..., 1:last])
        axes = tuple(range(-len(space), 0))
        full = torch.fft.rfftn(torch.fft.irfftn(torch.polar(torch.ones_like(odd), odd), s=space, dim=axes), dim=axes)
        torch.testing.assert_close(full, torch.polar(torch.ones_like(odd), odd), rtol=1e-4, atol=1e-5)


def test_the_natural_spectrum_is_the_sample_pictures():
    colours = Colours.natural(3)
    found = MACO().prepared(canvas((3, 256, 256)), colours).spectrum
    z = colours.decorrelate(samples(3, 256))
    mean = torch.fft.rfft2(z - z.mean((2, 3), keepdim=True)).abs().mean(0)
    power = lambda m: float(m[..., 1:-1].square().sum() * 2 + m[..., 0].square().sum() + m[..., -1].square().sum())
    assert power(found) == pytest.approx(power(mean), rel=1e-3)
    rings = torch.hypot(torch.fft.fftfreq(256)[:, None], torch.fft.rfftfreq(256)[None])
    for low, high in ((0.01, 0.02), (0.05, 0.1), (0.2, 0.4)):
        ring = (rings >= low) & (rings < high)
        assert float(found[:, ring].mean()) == pytest.approx(float(mean[:, ring].mean()), rel=0.1)


def test_wrong_spectra():
    colours = Colours.natural(3)
    for spectrum in (torch.ones(3, 16, 8), -torch.ones(3, 16, 9), torch.ones(2, 16, 9), "pink"):
        with pytest.raises(MethodError, match="spectrum"):
            MACO(spectrum=spectrum).prepared(canvas((3, 16, 16)), colours)
    with pytest.raises(MethodError, match="choose pixel"):
        get_parametrisation("pixels")
    with pytest.raises(MethodError, match="no parameter 'speed'"):
        get_parametrisation("fourier", speed=2)


def test_fourier_start_has_the_falloff_of_natural_pictures():
    c = canvas((1, 64, 64))
    many = Fourier().draw(Fourier().start(c, generators(*range(200))), c, Colours.independent(1))
    z = torch.logit(many)
    power = torch.fft.rfft2(z, norm="ortho").abs().square().mean((0, 1)).sqrt()
    expected = falloff((64, 64), 1.0, 1.0)
    ratio = (power / expected)[1:20, 1:20]
    assert float(ratio.std() / ratio.mean()) < 0.1
    clip = falloff((8, 16, 16), 1.0, 2.0)
    assert clip[0, 0, 1] == pytest.approx(1.0)  # what stands still, one cycle a side
    assert clip[1, 0, 1] == pytest.approx(1.0)  # the first harmonic
    assert clip[3, 0, 1] == pytest.approx(1 / 9)
    assert clip[-3, 0, 2] == pytest.approx(1 / 18)


def test_cppn_activations_stay_standard_whatever_the_depth():
    c = canvas((3, 24, 24))
    pictures = CPPN(depth=12).draw(CPPN(depth=12).start(c, generators(*range(20))), c, Colours.independent(3))
    assert 0.005 < float(pictures.std(dim=(2, 3)).mean()) < 0.3


def test_colours_are_the_moments_of_the_pictures():
    pictures = torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    pictures *= torch.tensor([1, 0.5, 0.1])[:, None, None]
    colours = Colours.measured(pictures)
    points = pictures.movedim(1, -1).reshape(-1, 3).double().numpy()
    np.testing.assert_allclose(colours.mean, points.mean(0), rtol=1e-5)
    np.testing.assert_allclose(colours.root @ colours.root.T, np.cov(points.T, bias=True), rtol=1e-4, atol=1e-6)
    z = colours.decorrelate(pictures)
    np.testing.assert_allclose(np.cov(z.movedim(1, -1).reshape(-1, 3).T, bias=True), np.eye(3), atol=1e-3)
    torch.testing.assert_close(colours.correlate(z), pictures, rtol=1e-4, atol=1e-5)
    grey = colours.squash(torch.zeros(1, 3, 2, 2))
    assert torch.equal(grey, torch.full_like(grey, 0.5))
    natural = Colours.natural(3)
    covariance = natural.root @ natural.root.T
    assert float((covariance / (covariance.diagonal().sqrt()[:, None] * covariance.diagonal().sqrt())).min()) > 0.4
    with pytest.raises(MethodError, match="finite"):
        Colours.measured(torch.full((1, 3, 4, 4), math.nan))


# --- views ---


def views(picture, size=None, count=1, seed=0, **settings):
    none = {"scale": (1.0, 1.0), "jitter": 0.0, "rotate": 0.0, "roll": 0.0}
    robust = Robustness(**(none | settings))
    return robust.views(picture, count, generators(seed), size or picture.shape[-2:])


def test_no_robustness_is_the_picture_itself():
    x = torch.rand(1, 3, 9, 14)
    assert torch.equal(views(x, count=2), x.repeat(2, 1, 1, 1))
    assert Robustness.none().is_none
    assert torch.equal(Robustness.none().views(x, 1, generators(0), (9, 14)), x)


def test_jitter_moves_the_picture_by_the_drawn_shift():
    x = torch.zeros(1, 1, 40, 40)
    x[..., 20, 20] = 1
    robust = Robustness(scale=(1.0, 1.0), rotate=0, roll=0, jitter=0.2)
    maps = robust.maps(6, generators(3), (40, 40))
    found = robust.views(x, 6, generators(3), (40, 40))
    assert float(maps[:, :, 2].abs().max()) <= 0.4
    for view, theta in zip(found, maps, strict=True):
        mass = view[0] / view.sum()
        at = [float((mass.sum(1 - axis) * torch.arange(40)).sum()) for axis in (0, 1)]
        assert at[1] == pytest.approx(20 - float(theta[0, 2]) * 20, abs=0.02)
        assert at[0] == pytest.approx(20 - float(theta[1, 2]) * 20, abs=0.02)
    assert len({round(float(t), 4) for t in maps[:, 0, 2]}) == 6


def test_a_turn_is_one_in_pixels_on_an_oblong_picture():
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = torch.exp(-((y / 6) ** 2 + (x / 6) ** 2))[None, None]
    found = views(disc, rotate=30.0, seed=5)
    torch.testing.assert_close(found, disc, atol=0.02, rtol=0)
    dot = torch.exp(-(((y - 0) / 2) ** 2 + ((x - 12) / 2) ** 2))[None, None]
    turned = views(dot, rotate=30.0, seed=5)[0, 0]
    mass = turned / turned.sum()
    dy, dx = float((mass * y).sum()), float((mass * x).sum())
    assert math.hypot(dy, dx) == pytest.approx(12, abs=0.1)
    assert abs(dy) > 0.5


def test_scale_shows_that_share_of_the_sides():
    x = torch.rand(1, 3, 32, 32)
    half = views(x, (16, 16), scale=(0.5, 0.5))
    torch.testing.assert_close(half, x[..., 8:24, 8:24], atol=1e-5, rtol=0)
    inside = Robustness(scale=(0.25, 0.5), inside=True, jitter=0, rotate=0)
    maps = inside.maps(500, generators(1), (32, 32))
    sides = maps[:, 0, 0]
    assert 0.25 <= float(sides.min()) < 0.26
    assert 0.49 < float(sides.max()) <= 0.5  # not 0.5 to 0.75, as in one peer
    edge = maps[:, :, 2].abs() + sides[:, None]
    assert float(edge.max()) <= 1 + 1e-6
    assert float(edge.max()) > 0.98


@pytest.mark.parametrize("pad", ["reflection", "border", "grey"])
def test_what_is_beyond_the_canvas(pad):
    x = torch.rand(1, 2, 12, 12)
    found = views(x, (24, 24), scale=(2.0, 2.0), pad=pad)
    torch.testing.assert_close(found[..., 6:18, 6:18], x, atol=1e-5, rtol=0)
    corner = found[..., :5, :5]
    expected = {"grey": torch.full_like(corner, 0.5), "border": x[..., :1, :1].expand_as(corner)}
    if pad == "reflection":
        expected["reflection"] = torch.nn.functional.pad(x, (6,) * 4, mode="reflect")[..., :5, :5]
        mirrored = torch.cat([x.flip(-1)[..., -6:], x], -1)
        mirrored = torch.cat([mirrored.flip(-2)[..., -6:, :], mirrored], -2)
        expected["reflection"] = mirrored[..., :5, :5]
    torch.testing.assert_close(corner, expected[pad], atol=1e-5, rtol=0)


def test_noise_is_per_picture_and_of_its_deviation():
    x = torch.full((2, 3, 50, 50), 0.5)
    robust = Robustness(scale=(1.0, 1.0), jitter=0, rotate=0, roll=0, noise=0.1)
    both = robust.views(x, 4, generators(1, 2), (50, 50))
    assert float((both - 0.5).std()) == pytest.approx(0.1, rel=0.05)
    for i in (0, 1):
        alone = robust.views(x[i : i + 1], 4, generators(i + 1), (50, 50))
        assert torch.equal(alone, both[4 * i : 4 * i + 4])


def test_clips_take_one_map_for_all_frames_and_roll_in_time():
    clip = torch.rand(1, 3, 6, 20, 20)
    found = views(clip, rotate=15.0, jitter=0.1, seed=4)
    frames = torch.cat([views(clip[:, :, t], rotate=15.0, jitter=0.1, seed=4) for t in range(6)])
    torch.testing.assert_close(found[0], frames.movedim(0, 1), atol=1e-6, rtol=0)
    rolled = Robustness(scale=(1.0, 1.0), jitter=0, rotate=0, roll=0.5).views(clip, 8, generators(0), (20, 20))
    for view in rolled:
        assert any(torch.allclose(view, clip[0].roll(s, 1), atol=1e-5) for s in range(-3, 4))


def test_settings_of_views_are_checked():
    for wrong in ({"scale": (0, 1)}, {"scale": (1.2, 1.0)}, {"noise": -1}, {"inside": True}, {"pad": "black"}):
        with pytest.raises(MethodError):
            Robustness(**wrong)


# --- canvas ---


def test_display_and_model_units():
    preprocess = Preprocess(input_size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    model = model_of(pooled(), (3, 8, 8))
    model.preprocess = preprocess
    c = Canvas.of(model)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(preprocess.display(c.to_input(x)), x)
    torch.testing.assert_close(c.to_display(c.to_input(x)), x)
    from torchvision.transforms import v2

    steps = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Resize((8, 8))]
    steps.append(v2.Normalize((0.5,) * 3, (0.25,) * 3))
    model.preprocess = TransformPreprocess(v2.Compose(steps))
    c = Canvas.of(model)
    torch.testing.assert_close(c.black, torch.full((3,), -2.0))
    torch.testing.assert_close(c.white, torch.full((3,), 2.0))
    raw = model_of(pooled(), (3, 8, 8), white=255.0)
    assert (Canvas.of(raw).black.tolist(), Canvas.of(raw).white.tolist()) == ([0.0] * 3, [255.0] * 3)
    model.preprocess = TransformPreprocess(v2.Compose([*steps[:3], lambda x: x - x.mean()]))
    assert Canvas.of(model).white.tolist() == [2.0] * 3
    model.preprocess = preprocess
    with pytest.raises(ModelError, match="3 channels"):
        Canvas.of(model, (5, 8, 8))
    with pytest.raises(ModelError, match="canvas is"):
        Canvas.of(model, (3, 8))
    assert Canvas.of(model_of(pooled(), (3, 8, 8)), (3, 4, 9, 9)).space == (4, 9, 9)
    assert Levels(3, (8, 8)).channels == 3


def test_the_share_of_high_frequencies():
    assert high_share(noise(3, 64, 64)) == pytest.approx(1 - math.pi / 16, abs=0.02)
    smooth = interpolate(noise(1, 3, 4, 4), (64, 64), mode="bicubic")[0]
    assert high_share(smooth) < 0.01
    assert high_share(samples(3)[1]) < 0.02
    assert math.isnan(high_share(torch.ones(3, 8, 8)))
    assert Pixel().rate > 0
