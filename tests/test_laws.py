"""What holds for the house as a whole: names, lists and references that no single room can keep by itself."""

import ast
import importlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "pellucid"
FILES = sorted(SRC.rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def relative(path):
    return str(path.relative_to(ROOT))


def test_no_two_public_classes_have_one_name():
    homes = defaultdict(list)
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(relative(file))
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert twice == {}, "rename one of them after what it is"


LONG = {  # the verbs that people call, with every choice they have
    "verbs": {"concepts", "distill", "evaluate", "importance", "tcav", "visualize"},
    "cli": {"batch", "concepts", "distill", "evaluate", "explain", "importance", "tcav", "visualize"},
    "models": {"load", "wrap"},
}


def test_parameter_lists_are_short():
    """More than eight parameters are an object that has no name yet."""
    for file in FILES:
        room = file.relative_to(SRC).parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name in LONG.get(room, ()):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [a.arg for a in given if a.arg not in ("self", "cls")]
            assert len(names) <= 8, f"{relative(file)}: {node.name} takes {len(names)}: {', '.join(names)}"


def prose():
    """Every docstring of the house, and every page, with where it stands."""
    for page in PAGES:
        yield relative(page), page.read_text()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{relative(file)}:{getattr(node, 'lineno', 1)}", ast.get_docstring(node) or ""


def resolves(dotted):
    """Whether a dotted name such as `pellucid.heatmaps.cam` or `pl.explain` leads to something."""
    steps = ["pellucid", *dotted.split(".")[1:]] if dotted.startswith("pl.") else dotted.split(".")
    for cut in range(len(steps), 0, -1):
        try:
            found = importlib.import_module(".".join(steps[:cut]))
        except ModuleNotFoundError:
            continue
        for step in steps[cut:]:
            if not hasattr(found, step) and step not in getattr(found, "__dataclass_fields__", {}):
                return False
            found = getattr(found, step, None)
        return True
    return False


def test_names_in_prose_lead_somewhere():
    dotted = re.compile(r"`((?:pl|pellucid)\.[A-Za-z_][\w.]*\w)(?:\(|`|, )")
    wrong = {(name, where) for where, text in prose() for name in dotted.findall(text) if not resolves(name)}
    groups = ("methods", "players", "estimators", "targets", "metrics", "sources", "results")
    entry_points = {f"pellucid.{group}" for group in groups}
    assert {(n, w) for n, w in wrong if n not in entry_points} == set()


def test_files_in_prose_are_there():
    path = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`|`([a-z_]+/(?:[a-z_]+/)*)`")
    for where, text in prose():
        for name in (a or b for a, b in path.findall(text)):
            if name.split("/")[0] in {p.name for p in SRC.iterdir() if p.is_dir()}:
                assert (SRC / name).exists(), f"{where} speaks of {name}"


def test_function_overrides_have_one_home():
    """A mode of its own would be another place that can forget to count, or to be off inside of a replacement."""
    named = [relative(f) for f in FILES if re.search(r"\b(TorchFunctionMode|TorchDispatchMode)\b", f.read_text())]
    assert named == ["src/pellucid/engine/functions.py"]


def test_hooks_of_modules_have_one_home():
    """Whoever hangs a hook on a model elsewhere forgets another thread, an interrupt, or to take it away."""
    named = [relative(f) for f in FILES if re.search(r"\.register_(forward|full_backward)_(pre_)?hook", f.read_text())]
    assert named == ["src/pellucid/engine/hooks.py", "src/pellucid/testing/networks.py"]  # there, a user's own


REGISTRIES = {  # what lists the names of a registry in prose -> the registry, and what it may leave out
    ("pellucid.verbs.importance", "importance", "features"): ("pellucid.importance", "FEATURES", set()),
    ("pellucid.verbs.importance", "importance", "by"): ("pellucid.importance", "ESTIMATORS", set()),
    ("pellucid.verbs.concepts", "concepts", "by"): ("pellucid.concepts", "DICTIONARIES", {"random"}),
    ("pellucid.verbs.visualize", "visualize", "parametrization"): ("pellucid.features", "PARAMETRISATIONS", set()),
}


def argument(doc, name):
    """What an `Args:` section says of one argument."""
    found = re.search(rf"^\s+{name}: (.*?)(?=^\s+\w+(?:, \w+)*: |^\s*$)", doc, re.M | re.S)
    return found[1] if found else ""


@pytest.mark.parametrize(("function", "registry"), REGISTRIES.items(), ids=lambda v: ".".join(map(str, v[1:3])))
def test_lists_in_docstrings_are_whole(function, registry):
    module, verb, name = function
    home, table, left_out = registry
    said = set(re.findall(r"`([a-z][a-z-]*)`", argument(getattr(importlib.import_module(module), verb).__doc__, name)))
    known = set(getattr(importlib.import_module(home), table))
    assert known - left_out <= said, f"{verb}({name}=...) says nothing of {sorted(known - left_out - said)}"


@pytest.mark.parametrize(
    ("option", "registry"), [("features", "FEATURES"), ("by", "ESTIMATORS")], ids=["features", "by"]
)
def test_lists_in_the_help_are_whole(option, registry):
    import inspect

    import pellucid.importance as room
    from pellucid.cli.importance import importance

    hints = inspect.get_annotations(importance, eval_str=False)[option]
    said = set(re.findall(r"[a-z-]+", hints))
    assert set(getattr(room, registry)) <= said
