import base64
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.render_cases import explanation
from helpers.sheets import illegible, texts
from pellucid.errors import PellucidError
from pellucid.explanation import Quality
from pellucid.media import Geometry, read_image
from pellucid.render import Limits, figure_png, html, limits, overlay, panel, thumbnail
from pellucid.render.paper.colour import colours, number, strength
from pellucid.render.paper.display import display, display_error
from pellucid.render.paper.overlay import dimmed
from pellucid.render.paper.sheet import ellipsised, plain, text_width, wrapped


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


# Colour


def test_zero_is_the_neutral_colour_of_the_published_diverging_map():
    bar = Limits(-3.0, 3.0)
    assert np.rint(colours(np.zeros(1), bar, signed=True) * 255).tolist() == [[247, 247, 247]]  # ColorBrewer's centre
    against, for_ = colours(np.array([-3.0, 3.0]), bar, signed=True)
    assert against[2] > against[0] + 0.3
    assert for_[0] > for_[2] + 0.3


def test_ends_of_the_sequential_map_are_the_published_ones_and_light_grows_with_the_value():
    rgb = colours(np.linspace(0, 2, 50), Limits(0.0, 2.0), signed=False)
    np.testing.assert_allclose(rgb[0], [0.001462, 0.000466, 0.013866], atol=1e-4)
    np.testing.assert_allclose(rgb[-1], [0.988362, 0.998364, 0.644924], atol=1e-4)
    assert (np.diff(rgb @ [0.299, 0.587, 0.114]) > 0).all()


def test_limits_are_raw_extremes_symmetrical_if_signed_and_robust_on_request():
    values = np.array([-0.5, 0.0, 2.0, np.nan, np.inf])
    assert limits(values, signed=True) == (-2.0, 2.0, False)
    assert limits(values, signed=False) == (-0.5, 2.0, False)
    assert limits(np.array([1.0, 4.0]), signed=False) == (0.0, 4.0, False)
    assert limits(np.zeros(3), signed=True) == limits(np.array([np.nan]), signed=False) == (0.0, 0.0, False)
    noisy = np.append(np.linspace(0, 1, 1001), 1000.0)
    low, high, clipped = limits(noisy, signed=False, robust=True)
    assert (low, clipped) == (0.0, True)
    assert high == pytest.approx(np.percentile(noisy, 99.5))
    assert limits(np.array([0.0] * 999 + [7.0]), signed=False, robust=True) == (0.0, 7.0, False)


def test_strength_is_the_share_of_the_limit():
    values = np.array([-2.0, -1.0, 0.0, 1.0, 9.0, np.nan])
    assert strength(values, Limits(-2.0, 2.0), signed=True).tolist() == [1, 0.5, 0, 0.5, 1, 0]
    assert strength(values, Limits(0.0, 2.0), signed=False).tolist() == [0, 0, 0, 0.5, 1, 0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.02134, "−0.0213"), (12.345, "12.3"), (1234.5, "1234"), (-1.23e-5, "−1.2e-05"), (1.5, "1.5")],
)
def test_numbers_read_well(value, text):
    assert number(value) == text


# Overlay


def test_picture_is_only_dimmed_where_the_value_is_zero():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    for signed in (True, False):
        values = np.zeros((8, 9), np.float32)
        values[3, 4] = 1.0
        drawn = overlay(pixels, values, signed=signed, limits=limits(values, signed=signed))
        grey = (pixels @ [0.299, 0.587, 0.114])[..., None]
        untouched = values == 0
        expected = np.rint(0.8 * (0.35 * pixels + 0.65 * grey))  # as documented
        assert np.abs(drawn.astype(float) - expected)[untouched].max() <= 1
        assert np.abs(drawn.astype(float) - expected)[3, 4].max() > 20


@pytest.mark.parametrize("ground", ["picture", "plain"])
def test_the_unseen_and_only_it_is_marked(ground):
    pixels = np.full((40, 50, 3), (200, 40, 30), np.uint8)
    values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    hidden = values.copy()
    hidden[:, 30:] = np.nan
    bar = limits(values, signed=True)
    whole = overlay(pixels, values, signed=True, limits=bar, ground=ground)
    part = overlay(pixels, hidden, signed=True, limits=bar, ground=ground)
    assert (part == whole)[:, :30].all()
    unseen = part[:, 30:]
    assert (unseen == unseen[..., :1]).all()  # grey
    assert len(np.unique(unseen[:, 2:])) == 2  # and hatched
    assert (unseen[1:, 3:-1] == unseen[:-1, 4:]).all()  # along the diagonal


def test_limits_rule_not_the_map_so_a_weak_map_looks_weak():
    pixels = np.full((4, 4, 3), 128, np.uint8)
    weak = overlay(pixels, np.full((4, 4), 0.01, np.float32), signed=True, limits=Limits(-1.0, 1.0))
    assert np.abs(weak.astype(float) - dimmed(pixels) * 255).max() < 3


def test_overlay_refuses_another_size():
    with pytest.raises(ValueError, match="over a picture"):
        overlay(np.zeros((3, 3, 3), np.uint8), np.zeros((3, 4)), signed=True, limits=Limits(-1, 1))


# Display


def test_planted_cell_is_hottest_where_the_geometry_says():
    values = torch.zeros(7, 7)
    values[1, 5] = 3.0
    shown = display(explanation(values, signed=False))
    change = np.abs(shown.image().astype(float) - dimmed(shown.pixels) * 255).sum(-1)
    change[np.isnan(shown.values)] = 0
    row, column = np.unravel_index(change.argmax(), change.shape)
    scale = max(shown.values.shape) / 90
    assert (row + 0.5) / scale == pytest.approx(2 + 56 * 1.5 / 7, abs=1)
    assert (column + 0.5) / scale == pytest.approx(17 + 56 * 5.5 / 7, abs=1)
    seen = np.isfinite(shown.values)
    assert seen.mean() == pytest.approx(56 * 56 / (60 * 90), rel=0.02)


def test_coarse_maps_keep_their_extremes_and_pixel_maps_are_smoothed_and_say_so():
    coarse = display(explanation([[-0.25, 0.5], [0.0, 1.75]]))
    assert (coarse.limits, coarse.captions, coarse.ground) == (Limits(-1.75, 1.75), (), "picture")
    noise = torch.randn(56, 56, generator=torch.Generator().manual_seed(0))
    fine = display(explanation(noise))
    assert fine.ground == "plain"
    assert any("smoothed for display" in caption for caption in fine.captions)
    assert fine.limits.high < noise.max()
    flat = display(explanation(torch.full((56, 56), 2.0).index_fill(0, torch.tensor([0]), 2.001)))
    assert np.nanmin(flat.values) == pytest.approx(2.0, abs=2e-3)  # smoothing keeps values, at borders as well


@pytest.mark.parametrize("size", [(3000, 4000), (20, 30), (1000, 40)])
def test_display_size_is_bounded(size):
    geometry = Geometry.identity(size)
    shown = display(explanation(torch.eye(7), geometry=geometry, picture=None))
    assert max(shown.values.shape) == 480
    assert shown.pixels.shape == (*shown.values.shape, 3)


def test_middle_slice_of_three_axes():
    values = torch.zeros(3, 2, 2)
    values[1, 0, 1], values[2, 1, 0] = 1.0, 5.0
    e = explanation(values, geometry=Geometry.identity((9, 20, 20)), picture=None)
    shown = display(e)
    expected = e.heatmap()[0, 4]
    assert shown.part == "slice 5 of 9"
    assert shown.values[0, -1] == pytest.approx(float(expected[0, -1]), abs=1e-5)
    assert shown.values[-1, 0] == pytest.approx(0.0, abs=1e-5)
    assert any("slice 5 of 9" in t for t in texts(panel([e])))


def test_one_axis_is_refused():
    with pytest.raises(PellucidError, match="1 space axes"):
        panel([explanation([1.0, 2.0], geometry=Geometry.identity((9,)), picture=None)])


# Figure


def test_everything_that_must_be_said_is_said():
    e = explanation(
        [[-0.25, 0.5], [0.0, 1.75]],
        notes=["Beware of the softmax."],
        remarks=["The score jumps."],
        quality=Quality("faithful", "Faithful: 0.6 against 0.4."),
    )
    said = texts(panel([e]))
    wanted = ["cat", "tiger cat", "grad-cam", "layer4", "40.0%", "90 × 60 px", "never seen by the model"]
    wanted += ["−1.75 against", "for 1.75", "Faithful: 0.6 against 0.4.", "Beware of the softmax.", "The score jumps."]
    assert not set(wanted) - set(said)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (torch.zeros(7, 7), "zero everywhere"),
        (torch.full((7, 7), 0.3), "0.3 everywhere"),
        (torch.full((7, 7), float("nan")), "NaN"),
        (torch.eye(7).index_fill(0, torch.tensor([0]), float("nan")), "NaN"),
        (-torch.eye(7), "no positive value"),
    ],
)
def test_a_map_without_meaning_says_so(values, sentence):
    e = explanation(values, signed=False)
    assert sentence in " ".join(texts(panel([e])))
    if sentence != "NaN" or values.isnan().all():
        assert (display(e).image() == display(explanation(torch.zeros(7, 7))).image()).all()


def test_meaningless_verdict_and_zero_channels_say_so():
    e = explanation(torch.eye(7), quality=Quality("meaningless", "No better than random."))
    assert "Measured as meaningless" in " ".join(texts(panel([e])))
    zero = explanation(torch.zeros(32), kind="channels")
    assert "relevance is zero" in " ".join(texts(panel([zero])))


def test_channels_are_ranked_with_their_values():
    values = torch.zeros(32)
    values[[3, 9, 20]] = torch.tensor([0.5, -2.0, 1.0])
    top = values.abs().topk(4).indices[None]
    e = explanation(values, kind="channels", extras={"channels": top, "activations": torch.rand(1, 4, 7, 7) - 0.5})
    said = texts(panel([e]))
    ids = [t for t in said if t.startswith("#")]
    assert ids[:3] == ["#9", "#20", "#3"]
    assert {"−2", "1", "0.5", "against", "for"} <= set(said)
    assert decoded(thumbnail(e)).shape == (171, 256, 3)
    assert [t for t in texts(panel([replace(e, extras={})])) if t.startswith("#")][:3] == ids[:3]


def test_picture_stands_upright_in_the_figure():
    pixels = np.full((60, 90, 3), 128, np.uint8)
    pixels[:15, :20] = (0, 255, 0)
    pixels[45:, 70:] = (255, 0, 255)
    image = decoded(figure_png(panel([explanation(torch.eye(7), picture=read_image(pixels))]), 60)).astype(int)
    green = np.argwhere((image[..., 1] > 200) & (image[..., 0] < 60)).mean(0)
    magenta = np.argwhere((image[..., 1] < 60) & (image[..., 0] > 200) & (image[..., 2] > 200)).mean(0)
    assert (green < magenta).all()


def grid(count, targets):
    return [explanation(torch.eye(7), method=f"method-{i}", target=t) for t in targets for i in range(count)]


@pytest.mark.parametrize(
    ("count", "targets", "size"),
    [
        (1, "a", (300, 451)),
        (5, "a", (300, 451)),
        (3, "abcd", (300, 451)),
        (12, "a", (400, 90)),
        (1, "abcd", (400, 90)),
        (2, "ab", (90, 700)),
    ],
)
def test_no_text_leaves_its_figure_or_runs_into_the_next_column(count, targets, size):
    es = [replace(e, geometry=Geometry.identity(size), picture=None) for e in grid(count, targets)]
    for e in es:
        e.layer = "features.blocks.11.residual.attention.projection (tokens: 1 + 14 x 14)"
        e.notes = ["a long note " * 30, "Donaudampfschifffahrtsgesellschaft" * 5]
    figure = panel(es)
    assert illegible(figure) == []
    assert figure.get_size_inches()[0] < 13.6


def test_nothing_and_two_pictures_are_refused():
    with pytest.raises(PellucidError, match="at least one"):
        panel([])
    e = explanation(torch.eye(7))
    other = replace(e, record=replace(e.record, input={"name": "dog"}))
    with pytest.raises(PellucidError, match="cat, dog"):
        panel([e, other])


# Error maps


def test_a_sampled_map_comes_with_its_error_and_a_colour_bar_of_its_own():
    error = torch.tensor([[[0.1, 0.2], [0.3, 0.05]]])
    e = explanation([[-0.25, 0.5], [0.0, 1.75]], facts={"relative_standard_error": 0.12})
    without = texts(panel([e]))
    told = texts(panel([replace(e, extras={"standard_error": error})]))
    assert sorted(told) == sorted([*without, "standard error", "0", "0.3", "12% of the map’s spread"])
    drawn = display_error(replace(e, extras={"standard_error": error}))
    assert (drawn.limits, drawn.signed) == (Limits(0.0, float(error.max())), False)
    assert np.array_equal(drawn.values, display(replace(e, attribution=error)).values, equal_nan=True)


def test_the_error_of_segments_is_drawn_where_they_lie():
    labels = torch.tensor([[[0, 0, 1], [2, 2, 1]]])
    e = explanation(torch.rand(2, 3), extras={"standard_error": torch.tensor([[0.1, 0.2, 0.4]]), "labels": labels})
    assert torch.equal(e.error_map(), torch.tensor([[[0.1, 0.1, 0.2], [0.4, 0.4, 0.2]]]))
    assert {"standard error", "0.4"} <= set(texts(panel([e])))


def test_no_error_is_drawn_where_none_was_measured():
    e = explanation([[-0.25, 0.5], [0.0, 1.75]])
    for extras in ({}, {"standard_error": torch.zeros(1, 2, 2)}, {"standard_error": torch.full((1, 2, 2), torch.nan)}):
        assert "standard error" not in texts(panel([replace(e, extras=extras)]))
    channels = explanation(torch.rand(5), kind="channels", extras={"standard_error": torch.rand(1, 5)})
    assert channels.error_map() is None


# Text


def test_text_is_cut_and_wrapped_to_its_width():
    words = "the quick brown fox jumps over the lazy dog " * 4
    lines = wrapped(words, 1.5, 8, rows=3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert max(text_width(line, 8) for line in lines) <= 1.5
    assert ellipsised("short", 1.0, 8) == "short"
    assert plain("a\nb\t\x07\U0010fffd") == "a b \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


# Bytes


def test_png_bytes_depend_on_nothing_but_the_explanation():
    e = explanation(torch.eye(7), target="$x_1$ \\frac & <b>", notes=["100 % of $"])
    first = figure_png(panel([e]), 80)
    with mpl.rc_context({"text.usetex": True, "figure.facecolor": "black", "font.size": 30, "image.origin": "lower"}):
        assert figure_png(panel([e]), 80) == first
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: figure_png(panel([e]), 80), range(4))) == {first}
    assert set(Image.open(io.BytesIO(first)).info) == {"dpi"}


def test_dpi_scales_the_figure_and_leaves_it_as_it_was():
    figure = panel([explanation(torch.eye(7))])
    before = figure.dpi, figure.canvas
    sizes = [decoded(figure_png(figure, dpi)).shape[1] for dpi in (50, 100)]
    assert sizes[1] == pytest.approx(2 * sizes[0], abs=2)
    assert (figure.dpi, figure.canvas) == before


def test_html_escapes_and_holds_the_picture():
    e = explanation(torch.eye(7), method="<script>alert(1)</script>", target='"><img onerror=x>')
    text = html([e])
    assert "<script" not in text
    assert "<img onerror" not in text
    assert "&lt;script&gt;" in text
    data = text.split("base64,")[1].split('"')[0]
    assert decoded(base64.b64decode(data)).ndim == 3


def test_thumbnail_is_the_overlay_alone():
    values = torch.zeros(7, 7)
    values[3, 3] = 1.0
    small = decoded(thumbnail(explanation(values), 90))
    assert small.shape == (60, 90, 3)
    assert (small[30, 45, 0] - small[30, 45, 2].astype(int)) > 60  # red in the middle


def test_matplotlib_is_imported_late_and_pyplot_never():
    script = (
        "import sys, torch, numpy as np\n"
        "import pellucid.render as r\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from pellucid.explanation import Explanation, Record\n"
        "from pellucid.media import Geometry\n"
        "record = Record({}, {}, {}, None, {}, {})\n"
        "e = Explanation(torch.eye(4)[None], 'm', 't', [], Geometry.identity((8, 8)), record)\n"
        "assert r.figure_png(r.panel([e]))[:4] == b'\\x89PNG'\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_many_methods_of_one_picture_stand_by_family_on_a_wide_sheet():
    names = ["saliency", "grad-cam", "lrp", "integrated-gradients", "smooth-grad", "layer-cam", "attn-lrp", "idgi"]
    names += ["hires-cam", "cp-lrp", "full-grad", "blur-ig", "grad-cam++"]
    drawn = panel([explanation(np.ones((7, 7)) * np.arange(7), method=name, target="cat") for name in names])
    heads = [t for t in texts(drawn) if t.startswith("cat: ")]
    assert heads == [
        "cat: gradients at the input", "cat: class activation maps", "cat: relevance led back by rules",
        "cat: gradients along a path",
    ]  # fmt: skip
    few = panel([explanation(np.ones((7, 7)) * np.arange(7), method=name, target="cat") for name in names[:12]])
    assert not [t for t in texts(few) if t.startswith("cat: ")]
    assert drawn.get_size_inches()[0] > few.get_size_inches()[0]
