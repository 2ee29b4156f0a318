"""Pages: one file each, every text escaped, nothing fetched; and what each must say."""

import re

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from helpers.render_cases import explanation
from pellucid.render.pages.page import Page, article, figure_svg, folded, paragraph, picture, table
from pellucid.results import Heatmap, Heatmaps

NAMESPACES = ("www.w3.org", "purl.org", "creativecommons.org/ns")  # names, which nothing fetches


def addresses(page):
    return [a for a in re.findall(r"https?://[^\"'<> )]+", page) if not any(n in a for n in NAMESPACES)]


def test_every_text_is_escaped_and_nothing_is_fetched():
    evil = "<script>alert('x')</script>"
    page = Page(evil)
    page.say(evil, warn=True)
    page.add(article(evil, paragraph(evil, kind="line"), table({evil: evil}), folded(evil, "<b>bold</b>")))
    page.add(picture(np.zeros((4, 4, 3), np.uint8), evil))
    text = str(page)
    assert evil not in text
    assert text.count("&lt;script&gt;") == 9  # twice the title, and each part
    assert "<b>bold</b>" in text
    assert addresses(text) == []
    assert text.startswith("<!doctype html>")


def test_a_warning_is_told_by_its_sign_as_well_as_by_colour():
    assert paragraph("mind this", warn=True) == '<p class="warn">⚠ mind this</p>'
    assert paragraph("plain") == "<p>plain</p>"
    assert paragraph("run `a <b>` or `c`, not `d") == "<p>run <code>a &lt;b&gt;</code> or <code>c</code>, not `d</p>"


def test_a_figure_is_the_same_text_each_time():
    with mpl.rc_context({"svg.hashsalt": None}):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        assert figure_svg(figure) == figure_svg(figure)
        assert "<?xml" not in figure_svg(figure)


def test_the_page_of_heat_maps_says_how_far_to_believe_them():
    values = np.linspace(-1, 2, 49).reshape(7, 7)
    e = Heatmap(
        **vars(explanation(values, notes=["a <note> & more"], remarks=["one <more>"], facts={"completeness_gap": 0.25}))
    )
    page = Heatmaps([e]).html()
    assert e.html() == page
    assert "not checked" in page
    assert "⚠ a &lt;note&gt; &amp; more" in page
    assert ">one &lt;more&gt;</p>" in page
    assert "<svg" in page
    assert "−1 to 2, as they are" in page or "-1 to 2, as they are" in page
    assert "completeness gap" in page
    assert addresses(page) == []
