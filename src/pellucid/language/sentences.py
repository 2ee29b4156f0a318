"""Which sentences the source shows: found by reading its syntax, so that none is forgotten in the catalogue.

`python -m pellucid.language.sentences zh` adds what is new to the catalogue, without a translation, and drops what is
gone. A sentence is a text or an f-string of two words or more that is no docstring. An f-string's values become gaps.
Of a template every text given to `_` counts, of whatever length.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterator
from itertools import count
from pathlib import Path

_ROOM = Path(__file__).parent
_SOURCE = _ROOM.parent
_TWO_WORDS = re.compile(r"[A-Za-z]{2,}[,;:]? (?:[A-Za-z]|\{\w)|\b[A-Za-z] [A-Za-z]{2,}")
_NAMES = re.compile(r"[a-z0-9_]+(\s+[a-z0-9_]+){15,}")  # a list of functions
_CODE = re.compile(
    r"</?[a-z!]|[{;]\s*[a-z-]+:[^ ;]+;"  # markup, styles
    r"|^(lambda|const|export|import|from [\w.]+ import|default-src|DejaVu)\b|^result = "  # scripts
    r"|arXiv:|doi:|^[A-Z]\w+(, \w+)* (&|et al|\d{4})"  # papers
)
_GIVEN = re.compile(r"""\b_\((?:"([^"]+)"|'([^']+)')\)""")  # in a template
_QUOTED = r'((?:".*"\n?)+)'
_ENTRY = re.compile(rf"^msgid {_QUOTED}msgstr {_QUOTED}", re.MULTILINE)
_HEAD = """msgid ""
msgstr ""
"Language: {}\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Plural-Forms: nplurals=1; plural=0;\\n"
"""
# Words that stand alone: on the head of a table, on a figure, in a line.
_WORDS = (
    "Arguments", "Options", "Commands", "Error", "Usage", "installed", "unknown", "method", "family", "needs",
    "cost", "paper", "layer", "class", "default", "models", "what", "faithful", "meaningless", "unproven",
    "for", "against", "same", "different", "picture", "pictures", "frame", "frames", "never", "channels",
    "superpixels", "patches", "regions", "tokens", "layers", "colours", "frequencies", "properties",
    "gradients", "outputs", "attention", "functions", "nothing", "insertion", "deletion", "random", "concepts",
    "none", "map", "beside", "show", "swipe", "blink", "difference", "opacity", "threshold", "sign", "both",
    "scale", "shared", "smooth", "zoom", "boundary", "slice", "plane", "play", "pause", "original", "axial", "coronal",
    "sagittal", "Summary", "Values", "[required]", "queued", "running", "cancelling", "cancelled", "done", "failed",
    "explanation", "importance", "activations", "atlas", "audit", "comparison", "feature", "surrogate",
    "layer {0}", "{0} channels", "channels-first {0} x {1}", "channels-last {0} x {1}", "tokens {0} x {1}",
    "1 forward", "1 forward + 1 backward",
    "insertion {0}", "deletion {0}", "{0} against", "superpixel {0}", "channel {0}", "frame {0}", "patch {0}",
    "token {0}", "centre", "top left", "top centre", "top right", "middle left", "middle right", "bottom left",
    "bottom centre", "bottom right", "light", "red-green", "blue-yellow", "brightness", "contrast", "hue", "colour",
    "sharpness", "Card", "values", "passes", "{0} forwards", "{0} backwards",
    "{0} forwards + {1} backwards", "{0} forwards + {1} backward", "yes", "leaves", "conditions", "curves",
    "prototypes", "decisions", "weights", "leaf", "if", "else", "else if", "if {0}", "else if {0}", "and {0}",
    "page: {0}", "sheet: {0}", "why: {0}", "{0} units", "{0} targets", "{0} files", "({0} inputs)", "{0} classes:",
    "{0} classes", "{0} pictures", "{0} picture", "{0}: activations", "'{0}' or '{1}'",
    "'{0}' or '{1}' or '{2}'", "agrees", "weak", "fragile", "unlike", "dead", "significant", "worse", "better",
    "repaired", "majority class {0}", "random concepts {0}", "{0} inputs", "before: {0}", "now: {0}", "before", "now",
    "missed", "misplaced", "false", "found", "right", "size", "elongation", "fault", "{0} object", "{0} objects",
    "{0} true region", "{0} true regions", "{0} answered region", "{0} answered regions", "far", "blurred",
    "{0} box", "{0} boxes", "missed: {0}", "misplaced: {0}", "false: {0}", "error", "tested", "elsewhere",
    "part", "wrong", "unmeasured", "edges", "faithfulness", "robustness", "complexity",
    "randomisation", "localisation", "forwards", "backwards", "seconds", "95 % interval", "alike {0} (random {1})",
    "{0}, {1} picture{2}", "all", "axioms", "input", "flow", "absorbed", "gap",
    "area deleted", "completeness gap", "conservation gap", "deletion area", "efficiency gap", "estimated error",
    "in biases", "insertion area", "jump at baseline", "players", "price", "r2 held out",
    "relative error", "relative standard error", "rescued steps", "samples", "score", "score alone", "score left",
    "tree learned from {0}", "linear learned from {0}", "additive learned from {0}", "rules learned from {0}",
    "prototypes learned from {0}", "nearest learned from {0}", "neighbours learned from {0}",
    "bottleneck learned from {0}", "hierarchy learned from {0}", "bcos learned from {0}", "{0} leaves",
    "{0} conditions", "{0} curves", "{0} prototypes", "{0} training rows", "{0} decisions", "{0} weights",
    "{0} hidden units", "{0} (p = {1}) and {2} (p = {3})",
    "red", "green", "blue", "colourfulness", "{0} > {1}?", "{0} > {1}", "{0} ≤ {1}",
    "if {0} and {1}", "else if {0} and {1}", "if {0} and {1} and {2}", "else if {0} and {1} and {2}", "verdict", "why",
    "suits", "refused", "gradient", "propagation", "path", "perturbation", "region", "recurrent", "platform",
    "packages",
    "devices", "processors", "threads", "memory", "runtime", "extras", "{0} installed", "{0} not installed",
    "clipped", "fine", "robust", "rank", "deviations", "value", "percentile", "ratio", "count", "synthetic",
    "exemplars", "pairs", "group", "player", "number", "features", "target", "row {0}, column {1}",
    "concept", "effect", "adjusted", "separation", "detectable", "looked", "Slices", "Groups",
    "{0} deviations", "standing: {0}", "forced choice: {0}",
    "most for {0}", "{0} x {1} cells", "{0} × {1} cells", "{0} × {1} cells, {2} channels",
    "peak at {0}", "No such file or directory", "Permission denied", "Is a directory", "Not a directory",
    "1 input", "1 row", "{0} rows", "1 concept", "{0} concepts", "1 pass", "1 map", "{0} maps",
    "1 method", "{0} methods", "1 metric", "{0} metrics", "1 backward", "1 file", "1 result", "{0} passes",
    "{0} rows done", "1 row done", "{0} failed", "{0} kB a row", "{0} results",
    "± 95 % interval", "start state", "steps", "through", "truth", "minimal", "proven", "tried", "module", "usual",
)  # fmt: skip
_OF_A_BATCH = ("resume", "retry_failed", "status", "merge", "export")
_UNSHOWN = ("language",)  # rooms whose texts are no sentences for a reader


def sentences(root: Path = _SOURCE) -> dict[str, str]:
    """Every sentence, with the place where it stands first."""
    found = dict.fromkeys(_WORDS, "words")
    for file in sorted(root.rglob("*.py")):
        place = file.relative_to(root)
        if place.parts[0] not in _UNSHOWN:
            for line, text in in_source(file.read_text(encoding="utf-8"), commands=_commands(place)):
                found.setdefault(text, f"{place.as_posix()}:{line}")
    for file in sorted(root.rglob("*.html")):
        for given in _GIVEN.findall(file.read_text(encoding="utf-8")):
            found.setdefault("".join(given), f"{file.relative_to(root).as_posix()}:0")
    return found


def in_source(source: str, commands: Collection[str] = ()) -> Iterator[tuple[int, str]]:
    """(line, sentence) of one file, docstrings and code left out, but for the functions that are `commands`."""
    tree = ast.parse(source)
    inner: set[int] = set()  # statements that are only a text, and the parts of f-strings
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            inner.update(id(part) for part in node.values)
        if isinstance(node, ast.Attribute) and node.attr == "split":  # a list of names, written as a text
            inner.add(id(node.value))
    docs = {id(text) for text in _help(tree, commands)}
    for node in ast.walk(tree):
        if id(node) in inner and id(node) not in docs:
            continue
        text = _template(node)
        if id(node) in docs:
            text = first_paragraph(text)
        text = text.strip()
        if _TWO_WORDS.search(text) and not _CODE.search(text) and not _NAMES.fullmatch(text):
            yield getattr(node, "lineno", 0), text


def first_paragraph(text: str) -> str:
    """What the help of a command shows of its docstring."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def _commands(place: Path) -> tuple[str, ...]:
    """The functions of a file that are commands: a command has its file's name, and the listings are one file."""
    several = {"listings": ("methods", "models", "layers"), "batch": ("batch", *_OF_A_BATCH)}
    return several.get(place.stem, (place.stem,)) if place.parts[0] == "cli" else ()


def _help(tree: ast.Module, commands: Collection[str]) -> Iterator[ast.Constant]:
    """The docstrings of commands, which `--help` shows, and of metrics, which pages show."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (node.name in commands or _is_metric(node)):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


def _is_metric(node: ast.FunctionDef) -> bool:
    """Whether the docstring of a function defines a metric in the tables of an evaluation."""
    return any(isinstance(d, ast.Call) and getattr(d.func, "id", "") == "metric" for d in node.decorator_list)


def _template(node: ast.AST) -> str:
    """A text with its gaps numbered, those of an f-string and those that `str.format` fills."""
    if isinstance(node, ast.Constant):
        numbers = count()
        return (
            re.sub(r"\{(?::[^{}]*)?\}", lambda _: f"{{{next(numbers)}}}", node.value)
            if isinstance(node.value, str)
            else ""
        )
    if not isinstance(node, ast.JoinedStr):
        return ""
    gaps = count()
    return "".join(str(part.value) if isinstance(part, ast.Constant) else f"{{{next(gaps)}}}" for part in node.values)


def update(language: str) -> tuple[int, int]:
    """Bring a catalogue in step with the source; how many sentences it holds, and how many lack a translation."""
    from babel.messages.pofile import denormalize, normalize

    file = _ROOM / f"{language}.po"
    old = dict(_entries(file.read_text(encoding="utf-8"), denormalize)) if file.exists() else {}
    found = sorted(sentences().items(), key=lambda pair: (pair[1].partition(":")[0], pair[0]))
    blocks = [_HEAD.format(language)]
    for text, place in found:
        target = normalize(old.get(text, ""), width=0)
        blocks.append(f"#. {place.partition(':')[0]}\nmsgid {normalize(text, width=0)}\nmsgstr {target}\n")
    file.write_text("\n".join(blocks), encoding="utf-8")
    return len(found), sum(not old.get(text) for text, _ in found)


def _entries(text: str, read: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    for found in _ENTRY.finditer(text):
        yield read(found[1]), read(found[2])


if __name__ == "__main__":
    print("{} sentences, {} without a translation".format(*update(sys.argv[1])))
