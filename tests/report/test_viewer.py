"""The viewer in a browser: what it shows are the raw numbers, in the original's pixels."""

import numpy as np
import pytest
import torch

from pellucid.render.paper.colour import colours, limits, strength
from pellucid.render.viewer import assets
from pellucid.results import Heatmaps
from report.cases import coarse, fine, heatmap

SIGNED, POSITIVE = coarse(0, method="grad-cam"), fine(1, method="saliency", target="lynx")


@pytest.fixture
def page_of(tmp_path):
    def write(*explanations):
        file = tmp_path / "page.html"
        file.write_text(Heatmaps(explanations).html())
        return file

    return write


def alone(e):
    return Heatmaps([e])


def point_at(page, pixel, size, pane=0):
    """Move the mouse to the middle of a pixel of the original."""
    box = page.locator(".pv-picture").nth(pane).bounding_box()
    y, x = pixel
    page.mouse.move(box["x"] + (x + 0.5) * box["width"] / size[1], box["y"] + (y + 0.5) * box["height"] / size[0])


def told(page):
    """Which pixel of the original the viewer speaks of, and the values that it gives."""
    at = tuple(int(v) for v in page.locator(".pv-said").get_attribute("data-point").split(","))
    values = [float(v.get_attribute("data-value")) for v in page.locator(".pv-said [data-value]").all()]
    return at, values


def same(a, b):
    return (np.isnan(a) and np.isnan(b)) or a == pytest.approx(b, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("e", [SIGNED, POSITIVE], ids=["coarse", "fine"])
def test_the_value_under_the_pointer_is_the_raw_one(e, page_of, opened):
    truth = e.heatmap()[0].numpy()
    random = np.random.default_rng(3)
    with opened(page_of(e)) as watched:
        for pixel in zip(random.integers(0, 60, 50), random.integers(0, 90, 50), strict=True):
            point_at(watched.page, pixel, truth.shape)
            at, values = told(watched.page)
            assert at == pixel
            assert same(values[0], truth[at])
    assert np.isnan(truth[0, 0])  # so that some points lie where the model never looked


def test_what_was_never_measured_has_no_value(page_of, opened):
    seen = torch.ones(1, 60, 90, dtype=torch.bool)
    seen[0, :30, 40:] = False
    e = coarse(0, extras={"seen": seen})
    truth = e.heatmap()[0].numpy()
    with opened(page_of(e)) as watched:
        for pixel in [(10, 30), (10, 60), (29, 40), (30, 40), (29, 39), (50, 60)]:
            point_at(watched.page, pixel, truth.shape)
            at, values = told(watched.page)
            assert same(values[0], truth[at])
        shades = canvas_pixels(
            watched.page, [((y + 0.5) / 60, (x + 0.5) / 90) for y, x in [(20, 60), (20, 65), (20, 50)]]
        )
        assert all(r == g == b and alpha > 200 for r, g, b, alpha in shades)  # hatched
    assert np.isnan(truth[10, 60])
    assert np.isfinite(truth[29, 39])


def test_the_difference_is_the_difference(page_of, opened):
    other = coarse(5, method="hires-cam")
    a, b = (e.heatmap()[0].numpy() for e in (SIGNED, other))
    with opened(page_of(SIGNED, other)) as watched:
        page = watched.page
        page.select_option("[data-control=mode]", "difference")
        for scale, (left, right) in {
            "shared": (1.0, 1.0),
            "own": (float(SIGNED.map().abs().max()), float(other.map().abs().max())),
        }.items():
            page.select_option("[data-control=scale]", scale)
            for pixel in [(10, 20), (30, 40), (50, 70)]:
                point_at(page, pixel, a.shape)
                at, values = told(page)
                assert same(values[0], a[at] / left - b[at] / right)


def canvas_pixels(page, at):
    """RGBA of the map's canvas at shares (y, x) of its size."""
    return page.evaluate(
        """(at) => { const c = document.querySelector('canvas.pv-map'), g = c.getContext('2d');
        const pixel = ([y, x]) => g.getImageData(Math.floor(x * c.width), Math.floor(y * c.height), 1, 1).data;
        return at.map((p) => [...pixel(p)]) }""",
        at,
    )


def test_colours_are_those_of_the_figures(page_of, opened):
    values = SIGNED.heatmap()[0].numpy()
    ends = limits(SIGNED.map().numpy(), signed=True)
    at = [(y, x) for y in (12, 31, 47) for x in (22, 44, 66)]
    with opened(page_of(SIGNED)) as watched:
        seen = np.array(canvas_pixels(watched.page, [((y + 0.5) / 60, (x + 0.5) / 90) for y, x in at]))
    raw = np.array([values[p] for p in at])
    power = strength(raw, ends, signed=True)
    assert seen[:, 3] == pytest.approx(255 * 0.85 * power, abs=6)  # canvases have their own, finer pixels
    strong = power > 0.3
    assert strong.any()
    assert np.abs(seen[strong, :3] - 255 * colours(raw, ends, signed=True)[strong]).max() < 12


def test_threshold_and_sign_hide_what_they_say(page_of, opened):
    with opened(page_of(SIGNED)) as watched:
        page = watched.page
        alpha = "() => { const c = document.querySelector('canvas.pv-map'); const d = c.getContext('2d')" \
                ".getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 0; i < d.length; i += 4)" \
                " if (d[i + 3] && !(d[i] === d[i + 1] && d[i] === d[i + 2])) n++; return n }"  # fmt: skip
        whole = page.evaluate(alpha)
        page.select_option("[data-control=sign]", "for")
        positive = page.evaluate(alpha)
        page.select_option("[data-control=sign]", "against")
        assert positive + page.evaluate(alpha) == pytest.approx(whole, rel=0.02)
        page.select_option("[data-control=sign]", "both")
        page.locator("[data-control=threshold]").fill("0.5")
        assert 0 < page.evaluate(alpha) < 0.5 * whole
        page.locator("[data-control=threshold]").fill("1")
        assert page.evaluate(alpha) < 0.01 * whole
        page.locator("[data-control=opacity]").fill("0.25")
        assert page.locator("canvas.pv-map").first.evaluate("c => getComputedStyle(c).opacity") == "0.25"


def test_it_is_used_by_keys_alone(page_of, opened):
    truth = SIGNED.heatmap()[0].numpy()
    with opened(page_of(SIGNED, POSITIVE)) as watched:
        page = watched.page
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.className") == "pv-stage":
                break
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
        at, values = told(page)
        assert at == (40, 46)
        assert same(values[0], truth[at])
        page.keyboard.press("+")
        assert page.locator(".pv-picture").first.evaluate("e => e.style.getPropertyValue('--zoom')") == "1.25"
        page.keyboard.press("Escape")
        assert page.locator(".pv-said [data-value]").count() == 0


def test_every_control_has_a_name(page_of, opened):
    with opened(page_of(SIGNED, POSITIVE)) as watched:
        for control in watched.page.locator("pellucid-view select, pellucid-view input").all():
            assert watched.page.locator(f'label[for="{control.get_attribute("id")}"]').inner_text()
        assert watched.page.locator("pellucid-view[role=group]").get_attribute("aria-label") == "Heat map of cat"
        for image in watched.page.locator("img").all():
            assert image.get_attribute("alt")


@pytest.mark.parametrize("mode", ["grid", "single", "side", "swipe", "blink", "difference"])
def test_every_mode_shows_its_panes(mode, page_of, opened):
    with opened(page_of(SIGNED, POSITIVE, coarse(4, target="dog"))) as watched:
        watched.page.select_option("[data-control=mode]", mode)
        assert watched.page.locator(".pv-pane").count() == {"grid": 3, "side": 2}.get(mode, 1)
        first = watched.page.locator(".pv-pane strong").first.inner_text()
        if mode == "blink":
            watched.page.wait_for_function(
                "t => document.querySelector('.pv-pane strong').textContent !== t", arg=first
            )
        if mode == "swipe":
            watched.page.locator("[data-control=boundary]").fill("25")
            assert "25%" in watched.page.locator("canvas.pv-map").nth(1).evaluate("c => c.style.clipPath")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_page_does_not_scroll_sideways_and_can_be_read(dark, page_of, opened):
    with opened(page_of(SIGNED, POSITIVE), width=360, dark=dark) as watched:
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
        ratio = watched.page.evaluate("""() => {
            const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255).map((v) =>
                v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            const card = light(getComputedStyle(document.querySelector('article')).backgroundColor);
            return ['article h3', 'article .quiet', 'article td', 'article summary'].map((s) => {
                const ink = light(getComputedStyle(document.querySelector(s)).color);
                return (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05); }) }""")
        assert min(ratio) >= 4.5
        background = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) == dark


def test_printed_pages_have_maps_and_no_controls(page_of, opened):
    with opened(page_of(SIGNED)) as watched:
        watched.page.emulate_media(media="print")
        assert not watched.page.locator(".pv-controls").is_visible()
        assert watched.page.locator("canvas.pv-map").first.is_visible()
        assert watched.page.pdf()[:5] == b"%PDF-"


EVIL = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"


def test_names_and_labels_are_never_markup(page_of, opened):
    e = heatmap(np.eye(7), target=EVIL, notes=[EVIL], layer=EVIL, facts={EVIL: 1.0})
    e.record.input["name"] = EVIL
    with opened(page_of(e, coarse(2, method=EVIL, record=e.record))) as watched:
        assert watched.page.evaluate("window.hurt") is None
        assert EVIL in watched.page.locator(".pv-pane strong").first.inner_text()
        assert watched.page.locator("article img[src=x]").count() == 0


def test_where_no_script_runs_there_is_a_picture(page_of, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{page_of(SIGNED)}")
    assert page.locator("img").count() == 2
    assert page.locator("noscript img, img[alt*='grad-cam']").last.is_visible()
    context.close()


def test_the_viewer_is_small_and_one_scope():
    assert len(assets.script()) + len(assets.style()) < 120_000
    assert "import " not in assets.script().replace("important", "")
    assert "export " not in assets.script()
    assert "http" not in assets.script()
