"""Networks whose units are planted filters: what the synthetic picture must look like is known."""

import math

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.canvases import model_of
from pellucid.features import (
    MACO,
    Channel,
    Contrast,
    Fourier,
    Neuron,
    Pixel,
    Robustness,
    Settings,
    synthesise,
)
from pellucid.features.quality import static_equivalent
from pellucid.media.samples import SAMPLES

SIDE, SIZE, FRAMES = 25, 9, 7


def gabor(channels=3):
    y, x = torch.meshgrid(*[torch.arange(SIZE) - SIZE // 2.0] * 2, indexing="ij")
    wave = torch.cos(2 * math.pi * (0.8 * x + 0.6 * y) / 5) * torch.exp(-(x**2 + y**2) / 18)
    return (wave - wave.mean()).expand(channels, SIZE, SIZE).clone()


def patch():
    """Red in the middle of its field, the opposite colour around it."""
    colour = torch.tensor([1.0, -0.6, -0.4])[:, None, None]
    inside = torch.full((SIZE, SIZE), -0.5)
    inside[2:7, 2:7] = 1
    return colour * inside


def bar():
    """A vertical bar that moves right by two pixels a frame, dark elsewhere."""
    clip = torch.full((3, 3, SIZE, SIZE), -1 / SIZE)
    for t in range(3):
        clip[:, t, :, 2 + 2 * t] = 1.0
    return clip - clip.mean()


def planted(weight):
    conv = {3: nn.Conv2d, 4: nn.Conv3d}[weight.ndim]
    net = nn.Sequential(conv(len(weight), 1, tuple(weight.shape[1:]), padding=tuple(n // 2 for n in weight.shape[1:])))
    with torch.no_grad():
        net[0].weight[0] = weight
        net[0].bias.fill_(-0.5 * float(weight.sum()))
    return net.eval()


def centre(picture, like):
    """The part of a picture that the unit in its middle sees."""
    sizes = zip(picture.shape[1:], like.shape[1:], strict=True)
    return picture[:, *(slice((n - k) // 2, (n - k) // 2 + k) for n, k in sizes)]


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.flatten() - a.mean(), b.flatten() - b.mean(), dim=0))


FILTERS = {"gabor": gabor(), "colour patch": patch(), "moving bar": bar()}


def soft(weight, canvas):
    """A price on contrast: `g.x - l mean (x - 1/2)^2` is greatest at `x = 1/2 + g P / 2 l`, here within 0.15..0.85."""
    return float(weight.abs().max()) * math.prod(canvas) / 0.7


@pytest.mark.parametrize(
    ("name", "parametrisation"),
    [("gabor", Pixel()), *((name, Fourier()) for name in FILTERS)],
    ids=lambda v: getattr(v, "name", v),
)
def test_the_picture_is_the_planted_filter(name, parametrisation):
    weight = FILTERS[name]
    shape = (3, *[FRAMES] * (weight.ndim - 3), SIDE, SIDE)
    model = model_of(planted(weight), shape)
    unit = Neuron("0", 0)
    settings = Settings(
        parametrisation=parametrisation, robustness=Robustness.none(), steps=60, views=1, plateau=0.0, shape=shape
    )
    (found,) = synthesise(model, [unit - soft(weight, shape) * Contrast()], settings)
    assert cosine(centre(found.picture, weight), weight) > 0.97
    assert found.picture.shape == torch.Size(shape)
    assert found.reached == pytest.approx(float(((centre(found.picture, weight) - 0.5) * weight).sum()), rel=1e-4)
    # Without a price on contrast the same unit goes to the corner of the box, g.sign(g) / 2.
    (hard,) = synthesise(model, [unit], settings)
    assert hard.reached > 0.8 * float(weight.abs().sum()) / 2
    assert hard.reached > found.reached


@pytest.mark.parametrize("name", ["gabor", "colour patch"])
def test_the_picture_excites_the_unit_more_than_any_place_of_any_sample(name):
    weight = FILTERS[name]
    model = model_of(planted(weight), (3, SIDE, SIDE))
    (found,) = synthesise(model, [Neuron("0", 0)], Settings(steps=60, views=1))
    best = []
    for sample in SAMPLES:
        pixels = torch.from_numpy(pl.read_image(f"sample:{sample}").pixels).permute(2, 0, 1)[None].float() / 255
        whole = torch.nn.functional.interpolate(pixels, scale_factor=0.5, mode="bilinear", antialias=True)
        with torch.no_grad():
            best.append(float(model.module(whole).max()))
    assert len(best) == len(SAMPLES)
    assert found.reached > max(best)


def test_a_channel_seen_through_views_is_full_of_the_filter():
    """Jitter and mean over places: somewhere, at some shift, the filter itself must stand."""
    weight = gabor()
    model = model_of(planted(weight), (3, SIDE, SIDE))
    rectified = model_of(nn.Sequential(*planted(weight), nn.ReLU()).eval(), (3, SIDE, SIDE))
    for m, layer in ((model, "0"), (rectified, "1")):
        settings = Settings(steps=80, views=2, robustness=Robustness(rotate=2, scale=(0.97, 1.03)))
        (found,) = synthesise(m, [Channel(layer, 0)] if layer == "1" else [Neuron(layer, 0)], settings)
        windows = found.picture.unfold(1, SIZE, 1).unfold(2, SIZE, 1)
        values = windows.movedim(0, 2).flatten(2).flatten(0, 1)
        values = values - values.mean(1, keepdim=True)
        assert float(torch.nn.functional.cosine_similarity(values, weight.flatten()[None], dim=1).max()) > 0.6


def test_maco_turns_its_phases_to_the_filter():
    weight = gabor()
    model = model_of(planted(weight), (3, SIDE, SIDE))
    settings = Settings(parametrisation=MACO(spectrum="synthetic"), robustness=Robustness.none(), steps=200, views=1)
    (found,) = synthesise(model, [Neuron("0", 0)], settings)
    assert found.history[-1] > 5 * abs(found.history[0])
    assert cosine(centre(found.picture, weight), weight) > 0.5  # the magnitudes are not the filter's


def test_motion_is_told_from_standing_still():
    shape = (3, FRAMES, SIDE, SIDE)
    settings = Settings(robustness=Robustness.none(), steps=60, views=1, shape=shape)
    still = gabor()[:, None].expand(3, 3, SIZE, SIZE)
    for weight, low, high in ((bar(), -1, 0.5), (still, 0.9, 1.01)):
        model = model_of(planted(weight), shape)
        (found,) = synthesise(model, [Neuron("0", 0)], settings)
        assert low < static_equivalent(model, Neuron("0", 0), found.picture) < high
