"""Options that stand together in the source are options one by one on the command line."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from pellucid.cli import app, console, options


@pytest.fixture
def taken():
    """What a command of an options object is given, by the options typed."""
    seen = []

    @options.spelled_out
    def command(
        name: str, of: options.ModelOptions = options.PLAIN, last: Annotated[int, typer.Option("--last")] = 3
    ) -> None:
        seen.append((name, of, last))

    single = typer.Typer()
    single.command()(command)

    def typed(*arguments):
        run = CliRunner().invoke(single, list(arguments))
        assert run.exit_code == 0, run.output
        return seen[-1]

    return typed


def test_what_is_not_said_is_open(taken):
    assert taken("net") == ("net", options.PLAIN, 3)


def test_each_option_lands_in_its_field(taken):
    name, of, last = taken(
        "net", "--device", "cpu", "--weights", "w.pt", "--random-weights", "--labels", "l.txt",
        "--scores", "sigmoid", "--output", "2", "--task", "boxes", "--last", "4",
    )  # fmt: skip
    assert (name, last) == ("net", 4)
    assert of == options.ModelOptions("cpu", Path("w.pt"), True, Path("l.txt"), "sigmoid", "2", "boxes")


def test_options_stand_where_the_object_stood():
    whole = typer.main.get_command(app)
    names = [p.name for p in whole.commands["tcav"].params]
    first = names.index("seed") + 1
    assert names[first : first + len(fields(options.ModelOptions))] == [f.name for f in fields(options.ModelOptions)]
    assert "of" not in names


def test_files_are_told_by_paths_that_hold_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = options.ModelOptions(weights=Path("w.pt")).as_dict()
    assert told["weights"] == str(tmp_path / "w.pt")
    assert told["random_weights"] is None, "left open, a source decides"


def test_a_report_tells_of_what_ended_it(capsys, tmp_path):
    import json

    from pellucid.errors import MediaError

    with pytest.raises(MediaError), console.report(True, None, str(tmp_path / "nowhere")):
        pass
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "pellucid-report/1"
    assert "nowhere" in told["error"]
    assert told["results"] == told["failed"] == []
