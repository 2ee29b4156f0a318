import json
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import transforms as T  # noqa: N812
from torchvision.transforms import _presets as presets
from torchvision.transforms import v2

from pellucid.errors import MediaError, ModelError
from pellucid.media import Geometry, read_image
from pellucid.models.preprocess import Preprocess, TransformPreprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(48, 64), (65, 40), (31, 31), (20, 133), (96, 224), (301, 199)]


def noise(height, width, seed=0):
    generator = np.random.default_rng(seed)
    return read_image(generator.integers(0, 256, (height, width, 3)).astype(np.uint8))


def timm_config(size, **changes):
    config = {
        "input_size": (3, *size),
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
        "crop_pct": 0.875,
    }
    return {**config, "crop_mode": "center", **changes}


TIMM = {
    "usual": timm_config((56, 56)),
    "tight": timm_config((56, 56), crop_pct=1.0, interpolation="bilinear"),
    "loose": timm_config((60, 60), crop_pct=0.95, mean=(0.5,) * 3, std=(0.5,) * 3),
    "oblong": timm_config((48, 80), crop_pct=0.9),
    "oblong tight": timm_config((80, 48), crop_pct=1.0),
    "squash": timm_config((56, 56), crop_mode="squash", crop_pct=0.9),
    "squash oblong": timm_config((40, 72), crop_mode="squash", crop_pct=1.0),
    "border": timm_config((56, 56), crop_mode="border", crop_pct=1.0),
    "border loose": timm_config((57, 64), crop_mode="border", crop_pct=0.9),
    "wide crop": timm_config((56, 56), crop_pct=1.2),
    "lanczos": timm_config((33, 33), interpolation="lanczos"),
    "nearest": timm_config((56, 56), interpolation="nearest"),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TIMM)
def test_equals_timm_bit_for_bit(name, size):
    picture, config = noise(*size), TIMM[name]
    x, geometry = Preprocess.from_timm(config)(picture)
    assert torch.equal(x, create_transform(**config, is_training=False)(picture.pil()))
    assert geometry.source_size == size
    assert geometry.input_size == tuple(x.shape[1:])


@pytest.mark.parametrize("size", SIZES)
def test_equals_torchvision_bit_for_bit(size):
    picture = noise(*size)
    bicubic = T.InterpolationMode.BICUBIC
    for preset in (
        presets.ImageClassification(crop_size=56),
        presets.ImageClassification(crop_size=56, resize_size=58, interpolation=bicubic, mean=(0.5,) * 3),
        presets.ImageClassification(crop_size=64, resize_size=48),
        presets.SemanticSegmentation(resize_size=52),
    ):
        x, geometry = Preprocess.from_torchvision(preset)(picture)
        assert torch.equal(x, preset(picture.pil()))
        assert geometry.input_size == tuple(x.shape[1:])


def test_a_preset_that_is_not_known_is_refused_with_the_cure():
    with pytest.raises(ModelError, match="as a transform"):
        Preprocess.from_torchvision(presets.ObjectDetection())


def test_grey_models_see_the_luma():
    config = timm_config((56, 56), input_size=(1, 56, 56), mean=(0.3,), std=(0.2,))
    picture = noise(70, 90)
    expected = create_transform(**config, is_training=False)(picture.pil().convert("L"))
    assert torch.equal(Preprocess.from_timm(config)(picture)[0], expected)
    averaged = Preprocess.from_timm(timm_config((56, 56)), channels=1)
    assert averaged.mean == pytest.approx((sum(MEAN) / 3,))


@pytest.mark.parametrize("name", ["usual", "oblong", "squash oblong", "border", "wide crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_pictures_give_what_eight_bits_give_but_finer(name, channels):
    shallow = read_image(noise(75, 61).pixels // 2 + 64)  # no overshoot to be clipped between the passes
    deep = read_image(shallow.pixels.astype(np.float32) / 255)
    preprocess = Preprocess.from_timm(TIMM[name], channels=channels)
    (x, geometry), (y, same) = preprocess(shallow), preprocess(deep)
    assert geometry == same
    # 8 bits round after each of two passes, and the kernel can amplify the first rounding
    assert (preprocess.display(x) - preprocess.display(y)).abs().max() < 1.5 / 255


def test_depth_survives():
    ramp = np.tile(np.linspace(0, 1, 2000, dtype=np.float32), (50, 1))
    x, _ = Preprocess(input_size=(50, 2000), mean=(0, 0, 0), std=(1, 1, 1))(read_image(ramp))
    assert len(x.unique()) > 1900


def dotted(height, width, at):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[at[0] - 4 : at[0] + 5, at[1] - 4 : at[1] + 5] = 255
    return read_image(pixels)


PLACES = [((240, 320), (100, 140)), ((400, 180), (210, 60)), ((90, 60), (50, 33))]


@pytest.mark.parametrize("name", ["usual", "oblong", "squash", "border loose", "wide crop", "nearest"])
@pytest.mark.parametrize(("size", "at"), PLACES)
def test_a_dot_in_the_source_is_found_and_a_peak_there_goes_back(name, size, at):
    preprocess = Preprocess.from_timm(TIMM[name])
    x, geometry = preprocess(dotted(*size, at))
    light = (x - preprocess(read_image(np.zeros((*size, 3), np.uint8)))[0]).mean(0)
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in light.shape), indexing="ij"))
    centroid = ((grid * light).sum((1, 2)) / light.sum()).tolist()
    assert centroid == pytest.approx(geometry.input_point(at), abs=0.6)
    peak = torch.zeros_like(light)
    peak[tuple(round(c) for c in centroid)] = 1
    back = divmod(int(geometry.to_source(peak).nan_to_num(-1).argmax()), size[1])
    cell = [(stop - start) / n for (start, stop), n in zip(geometry.box, light.shape, strict=True)]
    assert all(abs(b - a) <= max(c, 1) for a, b, c in zip(at, back, cell, strict=True))


def test_the_unseen_region_is_what_the_crop_left_out():
    # 480 x 640 -> shorter side 256 -> 256 x 341 -> the middle 224 x 224 from (16, round(58.5) = 58)
    config = timm_config((224, 224))
    _, geometry = Preprocess.from_timm(config)(noise(480, 640))
    across, down = 640 / 341, 480 / 256
    assert geometry.box == (
        pytest.approx((16 * down, 240 * down)),
        pytest.approx((58 * across, 282 * across)),
    )
    spread = geometry.to_source(torch.ones(7, 7))
    seen = torch.zeros(480, 640, dtype=torch.bool)
    seen[30:450, 109:529] = True  # pixel centres in [30, 450) and in [108.86, 529.27)
    assert torch.equal(geometry.seen(), seen)
    assert torch.equal(~spread.isnan(), seen)


def test_what_is_unseen_does_not_matter_and_what_is_seen_does():
    picture = noise(120, 200)
    preprocess = Preprocess.from_timm(TIMM["usual"])
    x, geometry = preprocess(picture)
    far = ~torch.nn.functional.max_pool2d(geometry.seen()[None].float(), 17, 1, 8)[0].bool().numpy()
    assert far.any()
    changed = picture.pixels.copy()
    changed[far] = 255 - changed[far]
    assert torch.equal(preprocess(read_image(changed))[0], x)
    rows, columns = np.nonzero(geometry.seen().numpy())
    for row, column in [(rows.min(), columns.min()), (rows.max(), columns.max())]:
        changed = picture.pixels.copy()
        changed[row, column] = np.where(changed[row, column] < 128, 255, 0)
        assert not torch.equal(preprocess(read_image(changed))[0], x)


def test_display_undoes_the_normalisation():
    picture = noise(56, 56)
    preprocess = Preprocess.from_timm(timm_config((56, 56), crop_pct=1.0))
    x, _ = preprocess(picture)
    shown = preprocess.display(torch.stack([x, x]))
    expected = torch.from_numpy(picture.pixels).permute(2, 0, 1) / 255
    torch.testing.assert_close(shown[1], expected, atol=1e-6, rtol=0)
    assert preprocess.display(x * 100).max() == 1


def test_json_round_trip():
    for config in TIMM.values():
        preprocess = Preprocess.from_timm(config)
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.as_dict()))) == preprocess


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (0, 5)}, "positive"),
        ({"resize": (5,)}, "positive"),
        ({"resize": -3}, "positive"),
        ({"channels": 4}, "1 or 3 channels"),
        ({"mean": (0.5,)}, "each of 3 channels"),
        ({"std": (1, 1, 0)}, "std positive"),
        ({"mean": (1, 1, float("nan"))}, "finite"),
        ({"interpolation": "cubic"}, "one of nearest"),
        ({"fit": "squash"}, "one of exact"),
        ({"fill": (1,)}, "fill"),
        ({"crop": False, "resize": (5, 5)}, "Without a crop"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        Preprocess(**{"input_size": (8, 8), "mean": (0, 0, 0), "std": (1, 1, 1), **changes})


def test_a_thread_of_a_picture_is_refused_and_not_blown_up():
    thread = read_image(np.zeros((1, 20000, 3), np.uint8))
    for mode in ("center", "border"):
        config = timm_config((224, 224), crop_mode=mode)
        with pytest.raises(MediaError, match="too long and thin to be resized"):
            Preprocess.from_timm(config)(thread)


# --- functions of the user's own


def composed(*steps):
    return T.Compose([*steps, T.ToTensor(), T.Normalize(MEAN, STD)])


def box_of(resized, window, start):
    """The box per axis of a resize to ``resized`` followed by a window, over a source of (H, W)."""
    return lambda size: [
        (s / r * n, (s + w) / r * n) for n, r, w, s in zip(size, resized(size), window(size), start(size), strict=True)
    ]


def shorter(side):
    return lambda size: [side * n // min(size) for n in size]


KNOWN = {
    "usual": (composed(T.Resize(64), T.CenterCrop(56)), lambda s: None),
    "stretch": (composed(T.Resize((56, 70))), lambda s: [(0, s[0]), (0, s[1])]),
    "lanczos": (composed(T.Resize((56, 70), T.InterpolationMode.LANCZOS)), lambda s: [(0, s[0]), (0, s[1])]),
    "nearest": (composed(T.Resize((56, 70), T.InterpolationMode.NEAREST)), lambda s: [(0, s[0]), (0, s[1])]),
    "padded": (
        composed(T.Pad((30, 10, 5, 60), fill=90), T.Resize((64, 64))),
        lambda s: [(-10, s[0] + 60), (-30, s[1] + 5)],
    ),
    "mirrored": (
        composed(T.Pad(12, padding_mode="reflect"), T.Resize((64, 64))),
        lambda s: [(-12, n + 12) for n in s],
    ),
    "repeated": (
        composed(T.Pad(12, padding_mode="edge"), T.Resize((64, 64))),
        lambda s: [(-12, n + 12) for n in s],
    ),
    "window": (
        composed(lambda image: image.crop((3, 8, 23, 38))),
        lambda s: [(8, 38), (3, 23)],
    ),
    "grey": (T.Compose([T.Grayscale(), T.Resize((40, 40)), T.ToTensor()]), lambda s: [(0, n) for n in s]),
    "negative": (
        composed(T.Resize((40, 40)), lambda i: Image.eval(i, lambda v: 255 - v)),
        lambda s: [(0, n) for n in s],
    ),
    "tensors": (
        v2.Compose([v2.ToImage(), v2.Resize((48, 48)), v2.ToDtype(torch.float32, scale=True)]),
        lambda s: [(0, n) for n in s],
    ),
}


@pytest.mark.parametrize("size", [(48, 64), (65, 40), (100, 400), (301, 199), (1200, 900)])
@pytest.mark.parametrize("name", KNOWN)
def test_the_geometry_of_any_transform_is_measured(name, size):
    transform, box = KNOWN[name]
    picture = noise(*size)
    x, geometry = TransformPreprocess(transform)(picture)
    assert torch.equal(x, transform(picture.pil()))
    assert geometry.known
    assert geometry.source_size == size
    if name == "usual":
        expected = Preprocess(input_size=(56, 56), resize=64, mean=MEAN, std=STD)(picture)[1].box
    else:
        expected = box(size)
    for (start, stop), (a, b), n in zip(geometry.box, expected, geometry.input_size, strict=True):
        cell = (b - a) / n
        assert (start, stop) == pytest.approx((a, b), abs=max(0.25 * cell, 0.25))


PRIVATE = random.Random(0)
UNKNOWN = {
    "flip": composed(T.Resize((56, 56)), lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "upside down": composed(T.Resize((56, 56)), lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
    "quarter turn": composed(T.Resize((56, 56)), lambda image: image.rotate(90)),
    "tilt": composed(T.Resize((56, 56)), lambda image: image.rotate(4)),
    "random flip": composed(T.Resize((56, 56)), T.RandomHorizontalFlip()),
    "random crop": composed(T.RandomResizedCrop(56)),
    "numpy's random": composed(T.Resize((56, 56)), lambda i: T.functional.crop(i, np.random.randint(9), 0, 40, 40)),
    "private random": composed(T.Resize((66, 66)), lambda i: T.functional.crop(i, PRIVATE.randint(0, 9), 0, 56, 56)),
    "keystone": composed(
        T.Resize((56, 56)),
        lambda i: T.functional.perspective(
            i, [[0, 0], [55, 0], [55, 55], [0, 55]], [[9, 0], [46, 0], [55, 55], [0, 55]]
        ),
    ),
    "standardised": T.Compose([T.Resize((56, 56)), T.ToTensor(), lambda x: (x - x.mean()) / (x.std() + 1e-6)]),
    "blind": lambda image: torch.zeros(3, 56, 56),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_affine_map_explains_is_said_to_be_unknown(name):
    x, geometry = TransformPreprocess(UNKNOWN[name])(noise(80, 120))
    assert not geometry.known
    assert geometry == Geometry.identity(tuple(x.shape[1:]), known=False)


def test_measuring_leaves_the_random_states_alone():
    transform = UNKNOWN["random crop"]
    picture = noise(80, 120)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    alone = transform(picture.pil()), torch.rand(3), np.random.rand(), random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    x, _ = TransformPreprocess(transform)(picture)
    assert torch.equal(x, alone[0])
    assert torch.equal(torch.rand(3), alone[1])
    assert (np.random.rand(), random.random()) == alone[2:]


def test_display_of_a_transform_is_measured():
    preprocess = TransformPreprocess(composed(T.Pad(8, fill=30), T.Resize((72, 72))))
    picture = noise(56, 56)
    x, _ = preprocess(picture)
    expected = torch.from_numpy(picture.pixels).permute(2, 0, 1) / 255
    torch.testing.assert_close(preprocess.display(x)[:, 8:64, 8:64], expected, atol=1e-5, rtol=0)
    assert preprocess.input_size == (72, 72)
    assert preprocess.channels == 3
    shown = TransformPreprocess(UNKNOWN["standardised"]).display(torch.randn(2, 3, 9, 9))
    assert (shown.amin((1, 2, 3)) == 0).all()
    assert shown.amax((1, 2, 3)) == pytest.approx([1, 1])
    assert "Resize" in preprocess.as_dict()["transform"]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image: image, "must return a float tensor (C, h, w), not Image"),
        (T.PILToTensor(), "not torch.uint8 (3, 512, 512)"),
        (lambda image: torch.zeros(1, 3, 4, 4), "(1, 3, 4, 4)"),
        (lambda image: 1 / 0, "division by zero"),
        (T.RandomCrop(600), "failed on an RGB picture of 512 x 512"),
    ],
)
def test_a_transform_that_does_not_fit_is_refused(transform, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        TransformPreprocess(transform)
