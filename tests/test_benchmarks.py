"""The command that measures: every suite it lists can be asked for."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import __main__ as command


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
