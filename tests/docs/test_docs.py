"""The documentation is true: its Python and its commands run, its links lead somewhere, its lists are whole."""

import ast
import dataclasses
import inspect
import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image

import pellucid as pl
from helpers.nets import seeded
from pellucid.cli import app, main
from pellucid.heatmaps import METHODS
from pellucid.importance import FEATURES
from pellucid.models import sources
from pellucid.models.sources import SOURCES
from pellucid.models.targets import TARGETS
from pellucid.verbs.kinds import REQUESTS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
TWINS = {ROOT / "README.zh-CN.md"}  # their examples are those of the English page, which test_chinese.py asserts
TWINS |= {page for page in PAGES if page.parent.name == "zh" and (ROOT / "docs" / page.name).exists()}
REGISTERED = dict(METHODS)  # a page may register a method of its own

FENCE = re.compile(r"(?P<slow><!-- slow -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def relative(page):
    return str(page.relative_to(ROOT))


def method_page(name):
    return ROOT / "docs" / "methods" / f"{name.replace('++', '-plus-plus')}.md"


@dataclass
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    line: int
    slow: bool


def blocks(page):
    text = page.read_text()
    return [
        Block(m["kind"], m["text"], text[: m.start("text")].count("\n"), m["slow"] is not None)
        for m in FENCE.finditer(text)
    ]


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


@dataclass
class Command:
    """A `pellucid` line, with its expected exit code and the output that the page shows."""

    arguments: list[str]
    code: int
    shown: list[str]


def commands(block):
    found = []
    for line in block.text.splitlines():
        text = line.removeprefix("$ ")
        if text.startswith("pellucid "):
            code = re.search(r"# exit code (\d+)", text)
            arguments = shlex.split(text, comments=True)[1:]
            found.append(Command(arguments, int(code[1]) if code else 0, []))
        elif found and "$ " in block.text and not line.startswith("$ "):
            found[-1].shown.append(line)
    return found


def skeleton(text):
    """The text without its numbers, which another machine rounds differently."""
    return re.sub(r"-?\d+(\.\d+)?", "N", text)


def helper_files():
    """What pages take for granted: a photo, a folder of photos, a checkpoint with its labels."""
    photo = pl.read_image("sample:coffee").pil()
    photo.save("photo.jpg")
    Path("holiday").mkdir()
    for number in (1, 2):
        photo.rotate(180 * number).resize((300, 200), Image.Resampling.BILINEAR).save(f"holiday/{number}.jpg")


def checkpoint():
    import timm
    from safetensors.torch import save_file

    net = seeded(lambda: timm.create_model("mobilenetv3_small_050", num_classes=3))
    save_file(net.state_dict(), "flowers.safetensors")
    Path("flowers.txt").write_text("daisy\nrose\ntulip\n")


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, embedded_model):
    """A folder of its own, the embedded model loaded once for all pages, and no method or players left behind."""
    load = sources.load

    def load_once(*args, **options):
        name = args[0] if args else options.get("name", sources.DEFAULT)
        plain = name == sources.DEFAULT and options.get("weights") is None and not options.get("random_weights")
        return embedded_model if plain and options.get("labels") is None else load(*args, **options)

    for module in (pl, sources):
        monkeypatch.setattr(module, "load", load_once, raising=False)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        restored(METHODS),
        restored(FEATURES),
        restored(TARGETS),
        restored(SOURCES),
        restored(REQUESTS),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@contextmanager
def restored(table):
    before = dict(table)
    try:
        yield
    finally:
        table.clear()
        table.update(before)


def run_page(page, slow, capsys):
    helper_files()
    if "flowers" in page.read_text():
        checkpoint()
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.slow != slow:
            continue
        if block.kind == "python":
            source = "\n" * block.line + block.text  # so that a traceback names the line of the page
            exec(compile(source, str(page), "exec"), names)
        elif block.kind == "console":
            for command in commands(block):
                capsys.readouterr()
                code = main(command.arguments)
                out, err = capsys.readouterr()
                assert code == command.code, f"{relative(page)}: pellucid {shlex.join(command.arguments)}\n{out}{err}"
                for line in command.shown:
                    assert skeleton(line) in skeleton(out), f"{relative(page)} shows {line!r}, but it says\n{out}"


LONG = {
    "docs/zh/from-the-question.md", "docs/what-matters-most.md", "docs/what-is-enough.md", "docs/methods/xrai.md",
    "docs/methods/guided-ig.md", "docs/methods/integrated-decision-gradients.md", "docs/guide.md", "docs/video.md",
    "docs/what-units-have-learned.md",
}  # fmt: skip


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow) if relative(p) in LONG else p for p in PAGES if p not in TWINS],
    ids=relative,
)
def test_examples_run(page, capsys):
    run_page(page, False, capsys)


@pytest.mark.slow
@pytest.mark.timeout(2400)  # a page of long examples may take many minutes on a busy machine
@pytest.mark.parametrize("page", [p for p in PAGES if p not in TWINS and any(b.slow for b in blocks(p))], ids=relative)
def test_slow_examples_run(page, capsys):
    run_page(page, True, capsys)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_only_known_kinds_of_blocks(page):
    assert {b.kind for b in blocks(page)} <= {"python", "console", "text", "json"}
    assert page.read_text().count("```") == 2 * len(blocks(page))


def anchors(page):
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_and_pictures_exist(page):
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{relative(page)} links to {link}, which is not there"
        assert not anchor or anchor in anchors(to), f"{relative(page)} links to {link}, which has no such heading"


def test_pictures_are_small_made_by_the_script_and_used():
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert all(p.stat().st_size < 250_000 for p in pictures)
    assert sum(p.stat().st_size for p in pictures) < 125_000 * len(pictures)
    used = {Path(link).name for page in PAGES for link in LINK.findall(page.read_text())}
    script = "".join((ROOT / "docs" / f"{name}.py").read_text() for name in ("make_images", "method_pictures"))
    for p in pictures:
        assert p.name in used
        assert f"def {p.stem}(" in script


def first_paragraph(cls):
    return " ".join(inspect.getdoc(cls).split("\n\n")[0].split())


@pytest.mark.parametrize("name", REGISTERED)
def test_a_method_has_its_page_and_the_page_agrees_with_the_class(name):
    cls = REGISTERED[name]
    page = method_page(name)
    assert page.exists(), f"write docs/methods/{page.name}"
    text = page.read_text()
    assert text.startswith(f"# {name}\n\n> {first_paragraph(cls)}\n")
    for key in ("paper", "cost", "needs"):
        assert f"\n| {key} | {getattr(cls, key)} |\n" in text
    assert f"\n| class | `pellucid.heatmaps.{cls.__name__}` |\n" in text
    parameters = text.partition("## Parameters")[2].partition("## Example")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", parameters, re.M))
    assert told == {f.name: repr(f.default).replace("'", '"') for f in dataclasses.fields(cls)}
    assert any(b.kind == "python" for b in blocks(page))


@pytest.mark.parametrize("name", REGISTERED)
def test_a_method_is_in_the_tables(name):
    file = method_page(name).name
    assert (ROOT / "README.md").read_text().count(f"[`{name}`](docs/methods/{file})") == 1
    (line,) = [x for x in (ROOT / "docs/methods/index.md").read_text().splitlines() if x.startswith(f"| [`{name}`]")]
    assert line.endswith(f"| {REGISTERED[name].cost} | {REGISTERED[name].paper} |")


def test_every_page_of_a_method_is_of_one_there_is():
    known = {method_page(name) for name in REGISTERED} | {ROOT / "docs/methods/index.md"}
    assert set((ROOT / "docs" / "methods").glob("*.md")) == known


def option_rows(command):
    rows = []
    for p in command.params:
        if p.param_type_name == "option" and p.name != "help":
            names = ", ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts))
            rows.append(f"| {names} | {p.help} |")
    return rows


def test_the_list_of_options_is_that_of_the_command_line():
    told = (ROOT / "docs" / "command-line.md").read_text()
    sections = dict(re.findall(r"^## `pellucid (\w+)[^`]*`\n(.*?)(?=^## |\Z)", told, re.M | re.S))
    there = typer.main.get_command(app).commands
    assert list(sections) == list(there)
    for name, command in there.items():
        command = getattr(command, "commands", {}).get("run", command)  # what a group does of itself
        rows = [x for x in sections[name].splitlines() if x.startswith("| `")]
        assert rows == option_rows(command), name
        assert " ".join(command.help.split()) in " ".join(sections[name].split())


def messages():
    """Every text in the source, as one string each, with `...` for what is filled in."""
    found = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "..." for v in node.values))
    return "\n".join(" ".join(text.split()) for text in found)


def test_quoted_messages_are_those_of_the_source():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    source = messages()
    missing = []
    for quoted in re.findall(r'\*\*[^*]*?"([^*"]+)"[^*]*?\*\*', page):
        for part in re.split(r"\.\.\.|[:;,(]", " ".join(quoted.split())):
            part = part.strip(" )%.")
            if len(part) > 9 and part not in source:
                missing.append((quoted, part))
    assert not missing


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 220
