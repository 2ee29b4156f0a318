"""What a reader meets in Chinese: every sentence has a translation, gaps keep their values, JSON stays English."""

import io
import json
import re
import sys

import pytest

import pellucid as pl
from pellucid.cli import main
from pellucid.language import choose, chosen, printable, translated
from pellucid.language.catalogue import catalogue
from pellucid.language.sentences import in_source, sentences
from pellucid.language.template import Template
from pellucid.render.pages import texts

LOCALE = ("PELLUCID_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
HAN = re.compile("[一-鿿]")


@pytest.fixture(autouse=True)
def english_again(monkeypatch):
    for name in LOCALE:
        monkeypatch.delenv(name, raising=False)
    yield
    choose(None)


@pytest.fixture
def chinese(english_again):
    choose("zh")


def known():
    found = catalogue("zh")
    return {**found.plain, **{t.source: t.target for t in (*found.sentences, *found.phrases)}}


def test_every_sentence_of_the_source_is_in_the_catalogue():
    missing = [f"{place}: {text}" for text, place in sentences().items() if text not in known()]
    assert not missing, "\n".join(missing)  # python -m pellucid.language.sentences zh, then translate


def test_the_catalogue_holds_no_sentence_that_is_gone():
    assert not set(known()) - set(sentences())


def test_a_translation_keeps_every_gap_but_for_endings_of_plurals():
    gaps, kept = re.compile(r"\{\w+\}"), re.compile(r"(?<![A-Za-z])\{\w+\}")
    for source, target in known().items():
        assert set(kept.findall(source)) <= set(gaps.findall(target)) <= set(gaps.findall(source)), source
        assert len(gaps.findall(target)) <= len(gaps.findall(source)), source


@pytest.mark.parametrize(("count", "ending"), [(1, ""), (3, "s")])
def test_the_ending_of_an_english_plural_is_left_out(chinese, count, ending):
    line = f"The class 'cat' has {count} picture{ending}, and 8 are needed to learn, choose and check: "
    shown = translated(f"{line}add some, or leave the class out.")
    assert f" {count} 张图片，" in shown
    assert not re.search(r"片s|[a-z]{4}", shown)


@pytest.mark.parametrize("number", ["0.177 +- 0.008", "1,234,567", "97%", "1e-05", "-0.06", "NaN", "12.5 s"])
def test_numbers_are_written_alike_in_both_languages(chinese, number):
    assert number in translated(f"score {number} = 0.5 without any + 0.2 from all superpixels (gap 0.1)")


def test_sentences_are_found_in_all_their_spellings():
    source = '''
"""No docstring."""
def verb(x):
    """The help.

    Not this."""
    raise ValueError(f"There is no {x!r}: take {x + 1:.2f}." if x else "nothing at all")
names = "one two three".split()
told = "{} of {}, or so".format(1, 2)
'''
    assert {text for _, text in in_source(source, ("verb",))} == {
        "The help.", "There is no {0}: take {1}.", "nothing at all", "{0} of {1}, or so",
    }  # fmt: skip


def test_a_template_is_recognised_and_filled_in_another_order():
    template = Template("{0} of {1} pictures.", "{1} 张图片中的 {0} 张。")
    assert template.values("3 of 10 pictures.") == ("3", "10")
    assert template.filled(("3", "10")) == "10 张图片中的 3 张。"
    assert template.values("3 of 10 clips.") is None


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "PELLUCID_LANG": "en"}, "en"),
        ({"PELLUCID_LANG": "zh-Hans"}, "zh"),
    ],
)
def test_the_environment_chooses(monkeypatch, variables, language):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert chosen() == language


def test_an_unknown_language_is_one_sentence(monkeypatch, capsys):
    assert main(["--lang", "tlh", "doctor"]) == 1
    assert capsys.readouterr().err == "pellucid: --lang names no language that is known (tlh): take en or zh.\n"
    monkeypatch.setenv("PELLUCID_LANG", "tlh")
    assert main(["methods"]) == 1
    assert "PELLUCID_LANG names no language" in capsys.readouterr().err


def test_a_sentence_made_of_sentences(chinese):
    line = (
        "not faithful: insertion 0.18 vs random 0.15 +- 0.01; "
        "changes with the weights (correlation -0.06 when they are shuffled)"
    )
    shown = translated(line)
    assert shown.startswith("不忠实：")
    assert "；" in shown
    assert re.findall(r"-?\d\.\d+", shown) == ["0.18", "0.15", "0.01", "-0.06"]
    assert not re.search(r"[a-z]{4}", shown)


def test_a_clause_does_not_end_in_the_gap_of_the_one_before(chinese):
    shown = translated("bars: what each adds to the score of espresso; nothing was sampled")
    assert shown == "条：各自给 espresso 的得分增加多少；没有抽样"


def test_a_sentence_of_few_words_is_known_by_what_fills_it(chinese):
    assert translated("1 and 4: they overlap") == "1 与 4：它们有重叠"


def test_sentences_of_a_trust_card_are_whole(chinese):
    shown = translated(
        "Shown piece by piece in the map’s order, the answer reaches an area of 0.18 under its curve; in random order "
        "0.15 ± 0.01. More is better: better than chance."
    )
    assert not re.search("[a-z]{3}", shown)


def test_what_is_not_known_stays_as_it_is(chinese):
    for text in (
        "tiger cat 39%",
        "",
        "  ",
        "/data/a; b.png",
        "RuntimeError: mat1 and mat2 do not fit",
    ):
        assert translated(text) == text


def test_a_label_in_chinese_stands_beside_latin(chinese):
    assert translated("grad-cam for 虎斑猫, layer bn2") == "grad-cam，目标 虎斑猫，层 bn2"


def test_errors_are_chinese_on_the_terminal_and_english_in_json(capsys):
    assert main(["explain", "sample:nothing", "--lang", "zh"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("pellucid：没有样例 'nothing'")
    assert not told.out
    assert main(["--lang=zh", "explain", "sample:nothing", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["error"].startswith("There is no sample 'nothing'")
    assert HAN.search(told.err)


def test_behind_two_dashes_nothing_is_an_option(capsys):
    assert main(["explain", "--", "--lang"]) == 1
    assert "There is no file or folder --lang" in capsys.readouterr().err


def test_help_is_chinese_and_english_again(capsys):
    main(["explain", "--help", "--lang", "zh"])
    assert "显示模型看向哪里" in capsys.readouterr().out
    main(["explain", "--help"])
    told = capsys.readouterr().out
    assert "Show where a model looked" in told
    assert not HAN.search(told)


def test_a_terminal_that_cannot_show_chinese_gets_english_and_one_remark(chinese, capsys):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    assert [printable("not faithful", terminal) for _ in range(2)] == ["not faithful"] * 2
    assert capsys.readouterr().err.count("cannot show Chinese") == 1
    assert printable("not faithful", sys.stdout) == "不忠实"


def test_records_stay_english(chinese, tmp_path, embedded_model):
    found = pl.explain(embedded_model, "sample:cat")
    found.save(tmp_path)
    assert not HAN.search((tmp_path / "cat.grad-cam.json").read_text(encoding="utf-8"))
    assert pl.verify(tmp_path / "cat.grad-cam.json", model=embedded_model).status == "same"


def test_a_page_says_its_language(chinese, embedded_model):
    page = pl.explain(embedded_model, "sample:cat").html()
    assert '<html lang="zh">' in page
    assert "模型" in page


def test_a_command_leaves_the_language_as_it_was(capsys):
    main(["explain", "sample:nothing", "--lang", "zh"])
    assert chosen() == "en"
    choose("zh")
    main(["explain", "sample:nothing", "--lang", "en"])
    assert chosen() == "zh"


def test_lists_are_in_the_language_and_keep_names(capsys):
    assert main(["methods", "--lang", "zh"]) == 0
    rows = capsys.readouterr().out.splitlines()
    (cam,) = (row for row in rows if row.startswith("grad-cam "))
    assert rows[0].startswith("方法")
    assert "梯度" in cam
    assert "1 次前向" in cam


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("pellucid: There is no file a.png; check the path.", "pellucid：没有文件 a.png；请检查路径。"),
        (
            "pellucid: The model has no class 'dogz'; did you mean 'dough', 'hotdog'?",
            "pellucid：模型没有类别 'dogz'；您是指 'dough', 'hotdog' 吗？",
        ),
        ("note: 3 of 5 channels never vary, and say nothing.", "注意：3 个通道（共 5 个）从不变化，说明不了什么。"),
    ],
)
def test_the_word_in_front_of_a_sentence_is_no_part_of_it(chinese, said, shown):
    assert translated(said) == shown


def test_an_interval_stays_one_value_and_brackets_close_as_they_open(chinese):
    line = "agrees with the teacher on 80% [77%, 83%] of 539 held-out pictures"
    line += " (majority class 10%, random concepts 83%)"
    shown = "539 张留出图片：与教师模型一致 80% [77%, 83%]（多数类 10%，随机概念 83%）"
    assert translated(line) == shown


def test_a_sentence_in_front_of_a_known_pair_of_sentences_leaves_them_one(chinese):
    pair = texts.INSERTION.format(own="0.987", random="0.963", spread="0.004", standing=texts.BETTER)
    assert translated(f"{texts.OF_FRAMES}{pair}") == f"整帧。{translated(pair)}"
    assert not re.search("[a-z]{4}", translated(pair))
