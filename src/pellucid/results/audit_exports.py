"""An audit for other tools: ids of each finding (CSV, Parquet), COCO with tags, FiftyOne, JUnit.

FiftyOne's folder is written as its documentation says of `LegacyFiftyOneDataset`, without the package.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.audit.findings import Findings
from pellucid.errors import PellucidError
from pellucid.keep.files import Files, comma_separated, write_together
from pellucid.media.address import address

Found = tuple[str, str, tuple[int, ...]]
"""A kind of finding, its name, and numbers of its samples."""


def groups(found: Findings) -> Iterator[Found]:
    """Every finding that is about some of the pictures."""
    yield from (("slice", s.name, s.members) for s in found.sure_slices)
    yield from (("wrong reason", f"{r.label} rests on {r.name}", r.members) for r in found.wrong_reasons)
    r = found.review
    yield "wrong answer", "answer is not the true class", tuple(int(i) for i in np.flatnonzero(found.samples.wrong))
    yield "doubtful label", "label looks wrong", r.mislabelled
    on_it = found.samples.objects is not None
    where = "confident and wrong, evidence off the object" if on_it else "confident and wrong, evidence at the border"
    yield "astray", where, r.astray
    yield from ((o.kind, o.line.partition(":")[0], o.members) for o in found.odd)
    yield "duplicate", "another file shows this picture", tuple(sorted({i for pair in r.duplicates for i in pair}))


def memberships(found: Findings) -> list[dict[str, Any]]:
    """A row for each sample of each finding: kind, name, source, truth and answer."""
    truth = found.samples.truth
    return [
        {
            "kind": kind,
            "finding": name,
            "source": found.sources[i],
            "truth": found.labels[int(truth[i])] if truth[i] >= 0 else "",
            "answer": found.labels[int(found.samples.answers[i])],
        }
        for kind, name, members in groups(found)
        for i in members
    ]


def tags(found: Findings) -> list[list[str]]:
    """The findings of each sample, `kind: name`."""
    said: list[list[str]] = [[] for _ in found.sources]
    for kind, name, members in groups(found):
        for i in members:
            said[i].append(f"{kind}: {name}")
    return said


def as_csv(found: Findings, stem: Path) -> Files:
    """The memberships as comma-separated values."""
    rows = memberships(found) or [dict.fromkeys(("kind", "finding", "source", "truth", "answer"), "")]
    return {stem.with_name(f"{stem.name}.findings.csv"): comma_separated(rows).encode()}


def as_parquet(found: Findings, stem: Path) -> Files:
    """The memberships as Parquet.

    Raises:
        PellucidError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise PellucidError(
            'Parquet files are written by pyarrow: run `pip install "pellucid[tables]"`, or export csv.'
        ) from error
    text = pa.schema([(name, pa.string()) for name in ("kind", "finding", "source", "truth", "answer")])
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(memberships(found), text), data)
    return {stem.with_name(f"{stem.name}.findings.parquet"): data.getvalue()}


def as_coco(found: Findings, stem: Path) -> Files:
    """COCO's list of images, each with its tags, truth, answer and confidence; ids are the numbers of the samples."""
    s = found.samples
    images = [
        {
            "id": i,
            "file_name": source,
            "tags": said,
            "truth": found.labels[int(s.truth[i])] if s.truth[i] >= 0 else None,
            "answer": found.labels[int(s.answers[i])],
            "confidence": float(s.confidence[i]),
        }
        for i, (source, said) in enumerate(zip(found.sources, tags(found), strict=True))
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(found.labels)]
    about = {"description": f"Audit of {found.name}"}
    data = {"info": about, "images": images, "annotations": [], "categories": categories}
    return {stem.with_name(f"{stem.name}.coco.json"): json.dumps(data, ensure_ascii=False, indent=1).encode()}


def as_fiftyone(found: Findings, stem: Path) -> Files:
    """A folder for `fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.LegacyFiftyOneDataset)`.

    Each sample has `tags`, `ground_truth`, `prediction` (with its logits), `evidence` (a heat map, from blue, against
    the answer, over grey to red), `slices`, `wrong_reasons` and `label_looks_wrong`.
    """
    home, s = stem.with_name(f"{stem.name}.fiftyone"), found.samples
    files: dict[Path, bytes] = {}
    samples = []
    kinds: dict[str, list[list[str]]] = {"slice": [[] for _ in s.truth], "wrong reason": [[] for _ in s.truth]}
    for kind, name, members in groups(found):
        for i in members if kind in kinds else ():
            kinds[kind][i].append(name)
    doubtful = set(found.review.mislabelled)
    for i, (source, said) in enumerate(zip(found.sources, tags(found), strict=True)):
        map_file = Path("fields") / "evidence" / f"{i:06d}.png"
        files[home / map_file] = _map(s.maps[i])
        samples.append(
            {
                "filepath": address(source),
                "tags": said,
                "_media_type": "image",
                "ground_truth": _classification(found.labels[int(s.truth[i])]) if s.truth[i] >= 0 else None,
                "prediction": _classification(
                    found.labels[int(s.answers[i])], confidence=float(s.confidence[i]), logits=s.scores[i].tolist()
                ),
                "evidence": {"_cls": "Heatmap", "tags": [], "map_path": str((home / map_file).resolve())},
                "slices": kinds["slice"][i],
                "wrong_reasons": kinds["wrong reason"][i],
                "label_looks_wrong": i in doubtful,
            }
        )
    about = {"name": found.name, "media_type": "image", "info": {"audit": list(found.lines()), "notes": found.notes}}
    for name, data in (("metadata", about), ("samples", {"samples": samples})):
        files[home / f"{name}.json"] = json.dumps(data, ensure_ascii=False).encode()
    return files


def _classification(label: str, **further: Any) -> dict[str, Any]:
    return {"_cls": "Classification", "tags": [], "label": label, **further}


def _map(values: NDArray[np.float32]) -> bytes:
    """A signed map in grey levels: 128 is no evidence, 255 the strongest for the answer, 1 the strongest against."""
    most = float(np.abs(values).max()) or 1.0
    data = io.BytesIO()
    Image.fromarray((128 + 127 * values / most).round().astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def as_junit(found: Findings, stem: Path) -> Files:
    """JUnit's XML for build servers: each test of a part and each slice is a case, what was found a failure."""
    cases = [("reasons", f"{r.label}: {r.name}", r.line, r.relied) for r in found.reasons]
    sure = {s.name for s in found.sure_slices}
    cases += [("slices", s.name, s.line, s.name in sure) for s in found.slices]
    root = ElementTree.Element("testsuites", name=f"pellucid audit {found.name}")
    for suite in ("reasons", "slices"):
        mine = [c for c in cases if c[0] == suite]
        bad = sum(c[3] for c in mine)
        part = ElementTree.SubElement(
            root, "testsuite", name=suite, tests=str(len(mine)), failures=str(bad), errors="0"
        )
        for _, name, line, failed in mine:
            case = ElementTree.SubElement(part, "testcase", classname=f"pellucid.audit.{suite}", name=name)
            if failed:
                ElementTree.SubElement(case, "failure", message=line).text = line
    data = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return {stem.with_name(f"{stem.name}.junit.xml"): data}


FORMATS: dict[str, Callable[[Findings, Path], Files]] = {
    "csv": as_csv,
    "parquet": as_parquet,
    "coco": as_coco,
    "fiftyone": as_fiftyone,
    "junit": as_junit,
}


def require_formats(kinds: Sequence[str]) -> None:
    """Raises PellucidError for a name that is no format, before any work is done."""
    if unknown := [kind for kind in kinds if kind not in FORMATS]:
        raise PellucidError(f"There is no export {unknown[0]!r}: choose of {', '.join(FORMATS)}.")


def write(found: Findings, kind: str, stem: Path) -> list[Path]:
    """The files of one of `FORMATS` beside `stem`.

    Raises:
        PellucidError: no such format, a package is missing, or the folder cannot be written to.
    """
    require_formats([kind])
    return write_together(FORMATS[kind](found, stem))
