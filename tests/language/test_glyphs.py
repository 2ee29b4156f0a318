"""Chinese in figures: real glyphs, lines that break between characters, English where no font can draw them."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pellucid.language import choose
from pellucid.render.paper import sheet as paper
from pellucid.render.paper.sheet import Sheet, plain, text_width, wrapped

needs_font = pytest.mark.skipif(not paper._chinese_font(), reason="no installed font has Chinese glyphs")


@pytest.fixture(autouse=True)
def chinese():
    choose("zh")
    yield
    choose(None)


def drawn(text, **style):
    sheet = Sheet(3.0)
    sheet.line(text, 0.1, 0.1, 14, **style)
    figure = sheet.finish(0.5)
    FigureCanvasAgg(figure).draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


@needs_font
@pytest.mark.parametrize("bold", [False, True])
def test_characters_are_drawn_and_not_boxes(bold):
    missing = drawn("\ue0ff\ue0ff" if ord("\ue0ff") in paper._known() else "\N{REPLACEMENT CHARACTER}" * 2, bold=bold)
    cat, dog = drawn("猫猫", bold=bold), drawn("狗狗", bold=bold)
    assert cat.min() < 128
    assert (cat != dog).any()
    assert (cat != missing).any()
    assert (dog != missing).any()


@needs_font
def test_text_is_translated_and_keeps_its_characters():
    assert plain("not faithful") == "不忠实"
    assert plain("虎斑猫 tiger cat") == "虎斑猫 tiger cat"


@needs_font
def test_a_chinese_character_is_as_wide_as_its_size():
    assert text_width("猫", 72) == pytest.approx(1.08, rel=0.02)  # inches: an em, and what hinting adds


@needs_font
def test_lines_break_between_characters_and_not_before_a_comma():
    text = "显示模型看向哪里，并衡量这个回答是否可信。grad-cam 与 hires-cam"
    lines = wrapped(text, 1.0, 7.2, rows=20)
    assert len(lines) > 2
    assert all(text_width(line, 7.2) <= 1.0 + 1e-6 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert not [line for line in lines if line[0] in "，。"]


def test_lines_of_english_break_at_spaces_as_before():
    assert wrapped("one two three", text_width("one two", 7) + 1e-9, 7, rows=5) == ["one two", "three"]


def test_without_a_font_the_figure_stays_english_and_says_so_once(monkeypatch, capsys):
    monkeypatch.setattr(paper, "_chinese_font", lambda: None)
    paper._say_once.cache_clear()
    assert [paper._spoken("not faithful") for _ in range(2)] == ["not faithful"] * 2
    assert capsys.readouterr().err.count("fonts-noto-cjk") == 1
