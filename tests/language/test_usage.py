"""Wrong usage and help in Chinese: nothing English left, nothing cut off, English again afterwards."""

import re
from itertools import pairwise

import pytest
import typer
from rich.cells import cell_len

from pellucid.cli import app, main
from pellucid.language import choose, printable
from pellucid.language.breaks import line_starts, pieces

MIXED = "标签或类别编号，用逗号分隔；`a>b`：为什么是 a 而不是 b（见 `targets`）。grad-cam…与 hires-cam"


@pytest.fixture(autouse=True)
def english_again(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("PELLUCID_LANG", raising=False)
    yield
    choose(None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "--nope"], "没有选项 --nope"),
        (["explain"], "缺少参数 'INPUT...'。"),
        (["frobnicate"], "没有命令 'frobnicate'"),
        (["batch", "run", "x"], "缺少选项 '--out' / '-o'。"),
        (["doctor", "extra"], "多出了参数（extra）"),
        (["studio", "--port", "x"], "'--port' 的值无效："),
        (["explain", "x", "--seed"], "选项 '--seed' 需要一个值。"),
    ],
)
def test_wrong_usage_is_told_in_chinese(capsys, arguments, said):
    assert main([*arguments, "--lang", "zh"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "错误" in told
    assert not re.search(r"Usage|Error|No such|Missing|Try ", told)
    assert main(arguments) == 2
    assert not re.search("[一-鿿]", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["explain", "importance", "batch"])
def test_the_help_of_a_command_is_whole(capsys, name):
    main([name, *(["run"] if name == "batch" else []), "--help", "--lang", "zh"])
    told = capsys.readouterr().out
    assert all(cell_len(line) <= 80 for line in told.splitlines())
    words = re.sub(r"[\s│]", "", told)
    command = typer.main.get_command(app).commands[name]
    command = getattr(command, "commands", {}).get("run", command)
    choose("zh")
    for option in command.params:
        if option.param_type_name == "option" and option.name != "help":
            said = re.sub(r"\s", "", printable(option.help))
            assert set(said) <= set(words), option.name
            assert said[:6] in words, option.name
            assert said[-3:] in words, option.name


@pytest.mark.parametrize("width", [4, 9, 20, 33, 200])
def test_lines_break_where_chinese_may(width):
    assert "".join(pieces(MIXED)) == MIXED
    cuts = [0, *line_starts(MIXED, width, cell_len), len(MIXED)]
    lines = [MIXED[a:b].strip() for a, b in pairwise(cuts)]
    assert "".join(lines).replace(" ", "") == MIXED.replace(" ", "")
    assert all(cell_len(line) <= width or len(pieces(line)) == 1 for line in lines)
    assert not [line for line in lines if line[0] in "，。；：）…"]
    longer = [MIXED[a:b] + pieces(MIXED[b:])[0] for a, b in pairwise(cuts[:-1])]
    assert all(cell_len(line.strip()) > width for line in longer)  # no line is shorter than it must be
