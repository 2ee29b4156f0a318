"""The command that measures: every suite it lists can be asked for."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import __main__ as command
from benchmarks.rows import kept, older


@pytest.mark.parametrize("name", sorted(command._SUITES))
def test_a_suite_names_its_sections_and_sizes(name: str) -> None:
    suite = command._SUITES[name]
    assert suite.TITLE
    assert suite.SECTIONS
    assert all(callable(section) for section in suite.SECTIONS.values())
    assert type(suite.QUICK) is type(suite.FULL)


def test_an_unknown_section_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "interpretable", "nothing"])
    with pytest.raises(SystemExit):
        command.main()
    assert "it has features, factorisation, autoencoder, readable" in capsys.readouterr().err


def test_only_suites_that_keep_rows_take_a_file_for_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "interpretable", "readable", "--rows", "rows.jsonl"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--rows is for coverage and trust" in capsys.readouterr().err


def test_rows_that_are_kept_are_not_measured_again(tmp_path: Path) -> None:
    file, asked = tmp_path / "rows.jsonl", []

    def find(k: int) -> dict[str, int]:
        asked.append(k)
        return {"found": 10 * k}

    def run(path: str, count: int) -> list[dict[str, object]]:
        return [kept(path, {"of": "squares", "picture": k}, lambda k=k: find(k)) for k in range(count)]

    first = run(str(file), 2)
    assert run(str(file), 3)[:2] == first
    assert asked == [0, 1, 2]
    assert [row["found"] for row in first] == [0, 10]
    assert kept(str(file), {"of": "others", "picture": 0}, lambda: find(7))["found"] == 70
    assert older(first) == ""
    assert older([*first, first[0] | {"source": "before"}]) == " Rows of an earlier state of the source: 1."
    asked.clear()
    run("", 1)
    run("", 1)
    assert asked == [0, 0]


def test_measurements_import_one_another_in_one_direction() -> None:
    imported = {}
    for file in Path(command.__file__).parent.glob("*.py"):
        names = imported.setdefault(file.stem, set())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "benchmarks":
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
                names.add(node.module.split(".")[1])
    assert len(imported["heatmaps"]) > 3
    order = list(TopologicalSorter(imported).static_order())  # CycleError names the circle
    assert order.index("memory") < order.index("contestants")
