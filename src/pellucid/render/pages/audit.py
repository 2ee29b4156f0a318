"""An audit as a card: the summary, each finding with its pictures and maps, then the review of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.audit.cases import Beside, Case
from pellucid.audit.findings import Findings
from pellucid.audit.paired import Paired
from pellucid.audit.proof import Proof
from pellucid.audit.reasons import Reliance
from pellucid.audit.review import Calibration
from pellucid.audit.samples import SampleTable
from pellucid.audit.slices import WeakSlice
from pellucid.errors import MediaError
from pellucid.explanation import Record
from pellucid.media import CLIP, Plan, is_video, read_image
from pellucid.render.pages.card import Card
from pellucid.render.pages.figures import rows_table
from pellucid.render.pages.page import figure_svg, folded, paragraph, picture, spoken
from pellucid.render.pages.provenance import drawer
from pellucid.render.paper.colour import limits, number
from pellucid.render.paper.overlay import overlay

Pixels = NDArray[np.uint8]
_UNPROVEN = "The groups are the repair's own figures; `pellucid verify` computes the comparison of both models again."
_ASTRAY = (
    "Confident and wrong, with the evidence at the border",
    "Confident and wrong, with the evidence off the object",
)
_ODD = {"far": "Unlike all others", "blurred": "Blurred beside the others"}
_LEGEND = "Under each picture the map of its answer: red speaks for it, blue against it; a part that is meant is green."
_SIDE, _SHOWN = 112, 6  # pixels of a picture's longer side, pictures of a finding


def audit_card(found: Findings, title: str, *, file: str = "") -> Card:
    """An audit as a part of a page.

    Args:
        found: by the audit.
        title: heading.
        file: where it is saved, if it is.
    """
    lines = list(found.lines())
    parts = [paragraph(line) for line in lines] + [paragraph(note, warn=True) for note in found.notes]
    parts.append(paragraph(_LEGEND))
    for reason in found.wrong_reasons:
        title_, row = f"{reason.label}: {reason.name}", _row(found, reason.members, reason)
        parts.append(section(title_, paragraph(reason.line), row))
    for s in found.sure_slices:
        wrong = [i for i in s.members if found.samples.wrong[i]]
        parts.append(section(s.name, paragraph(s.line), _row(found, wrong)))
    if found.review.calibration is not None:
        parts.append(section("How sure, and how often right", _reliability(found.review.calibration)))
    for c in found.review.confusions[:3]:
        parts.append(section(f"{found.labels[c.truth]} taken for {found.labels[c.answer]}", _row(found, c.members)))
    for name, members in (
        ("Labels that look wrong", found.review.mislabelled),
        (_ASTRAY[found.samples.objects is not None], found.review.astray),
        ("Two files, one picture", [i for pair in found.review.duplicates[: _SHOWN // 2] for i in pair]),
        ("Most likely wrong by the score", _doubted(found)),
        ("Least sure", np.argsort(found.samples.confidence, kind="stable")[:_SHOWN].tolist()),
    ):
        if members:
            parts.append(section(name, _row(found, members)))
    for odd in found.odd:
        name, said = _ODD[odd.kind], [f"{text}." for text in (odd.line, odd.errors) if text]
        parts.append(section(name, *map(paragraph, said), _row(found, odd.members)))
    for case in found.cases:
        parts.append(_case(found, case))
    parts.append(section("What was tested", _tests(found.reasons), folded("Slices", slices_table(found.slices))))
    parts.append(drawer(found.record, file))
    return Card(title, lines[0], "".join(parts))


def _doubted(found: Findings) -> list[int]:
    """Those that the score holds for wrong, the surest first."""
    return [] if found.failure is None else np.argsort(-found.failure.values, kind="stable")[:_SHOWN].tolist()


def section(title: str, *parts: str) -> str:
    """A part of a card under a heading."""
    return f'<section class="concept"><h3>{spoken(title)}</h3>{"".join(parts)}</section>'


class TwoTables(Protocol):
    """What a comparison's page is made of; see `results.comparison`."""

    first: SampleTable
    second: SampleTable
    sources: list[str]
    labels: list[str]
    paired: Paired
    record: Record
    notes: list[str]
    proof: Proof | None


def comparison_card(found: TwoTables, title: str, *, file: str = "") -> Card:
    """A comparison as a part of a page: the summary, then pictures, each as it was before and as it is now.

    Of a repair what it proves comes first, and its verdict is the card's.
    """
    lines = list(found.paired.lines())
    proof = found.proof
    parts = []
    if proof is not None:
        parts = [*map(paragraph, proof.lines()), section("Groups", rows_table(proof.table()), paragraph(_UNPROVEN))]
        parts.append("<h3>" + spoken("Both models on pictures as they are") + "</h3>")
        lines = lines[1:]  # the verdict is the proof's
    parts += [paragraph(line) for line in lines] + [paragraph(note, warn=True) for note in found.notes]
    parts.append(paragraph(_LEGEND))
    lost = set(found.paired.lost)
    moved = np.argsort(np.nan_to_num(found.paired.agreement, nan=1.0), kind="stable")[:_SHOWN]
    for name, members in (
        ("Right before, wrong now", found.paired.lost),
        ("Wrong before, right now", found.paired.won),
        *((s.name, [i for i in s.members if i in lost]) for s in found.paired.worse_slices),
        ("Whose evidence moved most", moved.tolist()),
    ):
        if members:
            tables = ((found.first, "before"), (found.second, "now"))
            rows = [_row(ShownTable(t, found.sources, found.labels, when), members[:_SHOWN]) for t, when in tables]
            parts.append(section(name, *rows, _further(len(members) - _SHOWN)))
    parts.append(drawer(found.record, file))
    if proof is not None:
        return Card(title, next(iter(proof.lines())), "".join(parts), proof.verdict, proof.verdict == "repaired")
    return Card(title, lines[0], "".join(parts), found.paired.verdict, found.paired.verdict != "worse")


@dataclass(frozen=True)
class ShownTable:
    """A table whose pictures are shown; `when` stands before each answer."""

    samples: SampleTable
    sources: Sequence[str]
    labels: Sequence[str]
    when: str = ""


def _row(found: ShownTable | Findings, members: Sequence[int], reason: Reliance | None = None) -> str:
    """The first few pictures of a finding, under their maps, with answer and truth below."""
    shown = [_card(found, i, reason) for i in members[:_SHOWN]]
    return f'<div class="row">{"".join(shown)}</div>' + _further(len(members) - _SHOWN)


def _further(count: int) -> str:
    return paragraph(f"and {count} more, in the table") if count > 0 else ""


def _case(found: Findings, case: Case) -> str:
    """A wrong answer, the pictures most like it, and those whose lesson pulls towards the answer."""
    s = found.samples
    answer, truth = found.labels[int(s.answers[case.row])], found.labels[int(s.truth[case.row])]
    rows = []
    for name, besides in (("Most alike", case.alike), ("Whose lesson speaks most against its label", case.pulls)):
        if besides:
            rows.append(paragraph(name) + f'<div class="row">{"".join(map(_beside, besides))}</div>')
    own = f'<div class="row">{_card(found, case.row, None)}</div>'
    shown = folded(f"Surely {answer}, in truth {truth}: similar pictures", own + "".join(rows))
    return f'<section class="concept">{shown}</section>'


def _beside(one: Beside) -> str:
    try:
        image = _opened(one.source)
        pixels = picture(np.asarray(image.resize(_fitted(*image.size))), one.label)
    except (MediaError, IndexError):
        pixels = ""
    return (
        f"<figure>{pixels}<figcaption>{spoken(one.label)} {number(one.value)}{named(one.source)}</figcaption></figure>"
    )


def named(source: str) -> str:
    """The file of a picture, below what its caption says."""
    return f'<br><small title="{escape(source)}">{escape(PurePath(source).name)}</small>'


def _fitted(width: float, height: float) -> tuple[int, int]:
    """Width and height of what is shown of something so large: as it is, not distorted."""
    scale = _SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _opened(source: str) -> Image.Image:
    """A picture; of a clip the frame in the middle."""
    if is_video(source):
        middle: Image.Image = CLIP.open(source).clip(Plan("uniform", 3)).picture(1).pil()
        return middle
    return read_image(source).pil()


def _card(found: ShownTable | Findings, i: int, reason: Reliance | None) -> str:
    s = found.samples
    truth = found.labels[int(s.truth[i])] if s.truth[i] >= 0 else ""
    answer = found.labels[int(s.answers[i])]
    said = f"{answer}, in truth {truth}" if truth and s.wrong[i] else answer
    if isinstance(found, ShownTable) and found.when:
        said = f"{found.when}: {said}"
    pixels = _seen(found, i)
    size = (pixels.shape[1], pixels.shape[0])
    values = np.asarray(Image.fromarray(s.maps[i]).resize(size, Image.Resampling.BICUBIC))
    drawn = overlay(pixels, values, signed=True, limits=limits(values, signed=True)).copy()
    if reason is not None and reason.region is not None:
        _outline(drawn, reason.region)
    both = picture(pixels, said) + picture(drawn, f"evidence for {said}")
    return f"<figure>{both}<figcaption>{spoken(said)}{named(found.sources[i])}</figcaption></figure>"


def _seen(found: ShownTable | Findings, i: int) -> Pixels:
    """What the model saw of a picture; of one that cannot be opened, its thumbnail."""
    source = found.sources[i]
    try:
        image = _opened(source)
    except (MediaError, IndexError):
        height, width = found.samples.sizes[i]
        image = Image.fromarray(found.samples.thumbs[i]).resize((width, height), Image.Resampling.NEAREST)
    top, left, bottom, right = (float(v) for v in found.samples.boxes[i])
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    size = _fitted(box[2] - box[0], box[3] - box[1])
    coarse = max(image.size) < _SIDE
    how = Image.Resampling.NEAREST if coarse else Image.Resampling.BICUBIC
    return np.asarray(image.resize(size, how, box=box))


def _outline(pixels: Pixels, region: NDArray[np.bool_]) -> None:
    """The region's edge, written into a picture."""
    inside = np.asarray(Image.fromarray(region).resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.NEAREST))
    core = inside.copy()
    for axis in (0, 1):
        for step in (-2, 2):
            core &= np.roll(inside, step, axis)
    pixels[inside & ~core] = (20, 200, 60)


def _reliability(c: Calibration) -> str:
    from pellucid.render.audit import reliability
    from pellucid.render.paper.sheet import Sheet

    sheet = Sheet(3.2)
    return figure_svg(sheet.finish(reliability(sheet, c, 0.0, 0.0) + 0.1))


def _tests(reasons: Sequence[Reliance]) -> str:
    head = ("class", "part", "lowers by", "95 % interval", "raises by", "p", "rests on it")
    rows = [
        (r.label, r.name, number(r.drop), f"{number(r.low)} to {number(r.high)}", number(r.rise), f"{r.p:.2g}",
         "yes" if r.relied else "")
        for r in reasons
    ]  # fmt: skip
    return _table(head, rows)


def slices_table(slices: Sequence[WeakSlice]) -> str:
    """Every slice that was tested."""
    head = ("slice", "tested", "of these", "elsewhere", "error", "p")
    return _table(head, [(s.name, s.count, f"{s.error:.0%}", f"{s.others:.0%}", s.fault, f"{s.p:.2g}") for s in slices])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return paragraph("Nothing was tested.")

    def cells(kind: str, row: Sequence[Any]) -> str:
        return "<tr>" + "".join(f"<{kind}>{spoken(str(v))}</{kind}>" for v in row) + "</tr>"

    body = "".join(cells("td", row) for row in rows)
    return f'<div class="scroll"><table>{cells("th", head)}{body}</table></div>'
