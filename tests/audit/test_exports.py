"""Findings for other tools: ids of each, COCO tags, FiftyOne's folder, JUnit."""

import csv
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from helpers.audits import table
from pellucid.audit.reasons import Reliance
from pellucid.audit.review import review
from pellucid.audit.slices import WeakSlice
from pellucid.errors import PellucidError
from pellucid.explanation import Record
from pellucid.results.audit import Audit
from pellucid.results.audit_exports import FORMATS


@pytest.fixture
def found():
    s = table()
    s.truth[[5, 20]] = 1 - s.truth[[5, 20]]
    reasons = [
        Reliance("a", "mark", "a fixed mark", 0.6, 0.5, 0.7, 0.5, 0.1, 0.001, 20, True, None, (0, 2)),
        Reliance("b", "border", "the border", 0.0, -0.1, 0.1, 0.0, 0.5, 1.0, 20, False),
    ]
    slices = [
        WeakSlice("site <north>", (0,), (5, 6, 20), 2, 0.5, 0.1, 0.4, 0.1, 0.6, 0.01),
        WeakSlice("site south", (1,), (7, 8), 2, 0.5, 0.1, 0.4, 0.1, 0.6, 0.5),
    ]
    record = Record({"name": "toy"}, {"name": "pictures"}, {"name": "audit"}, None, {}, {})
    sources = [f"/there/{i}.png" for i in range(40)]
    return Audit(s, sources, ["a", "b"], reasons, slices, review(s, bounded=True), record, [])


def only(found, kind, folder):
    (file,) = found.export(kind, folder)
    return file


def test_ids_of_each_finding_as_csv_and_parquet(found, tmp_path):
    rows = list(csv.DictReader(io.StringIO(only(found, "csv", tmp_path).read_text())))
    slices = [r["source"] for r in rows if r["kind"] == "slice"]
    assert slices == ["/there/5.png", "/there/6.png", "/there/20.png"]
    assert {r["finding"] for r in rows if r["kind"] == "wrong reason"} == {"a rests on a fixed mark"}
    assert [r["source"] for r in rows if r["kind"] == "wrong answer"] == ["/there/5.png", "/there/20.png"]
    pq = pytest.importorskip("pyarrow.parquet")
    assert pq.read_table(only(found, "parquet", tmp_path)).to_pylist() == rows


def test_coco_with_tags(found, tmp_path):
    data = json.loads(only(found, "coco", tmp_path).read_text())
    assert len(data["images"]) == 40
    assert data["images"][5]["tags"][0] == "slice: site <north>"
    assert data["images"][5]["truth"] != data["images"][5]["answer"]
    assert data["images"][1]["tags"] == []
    assert [c["name"] for c in data["categories"]] == ["a", "b"]


def test_a_folder_for_fiftyone(found, tmp_path):
    files = found.export("fiftyone", tmp_path)
    home = files[0].parents[2]
    samples = json.loads((home / "samples.json").read_text())["samples"]
    assert samples[5]["slices"] == ["site <north>"]
    assert samples[0]["wrong_reasons"] == ["a rests on a fixed mark"]
    assert samples[0]["prediction"]["label"] == "a"
    assert samples[0]["prediction"]["confidence"] == pytest.approx(0.9)
    assert samples[5]["label_looks_wrong"] is True
    pixels = np.asarray(Image.open(samples[3]["evidence"]["map_path"]), float)
    values = found.samples.maps[3]
    np.testing.assert_allclose((pixels - 128) / 127, values / np.abs(values).max(), atol=0.005)


def test_junit_counts_what_was_found_as_failures(found, tmp_path):
    root = ElementTree.parse(only(found, "junit", tmp_path)).getroot()
    assert [(s.get("name"), s.get("tests"), s.get("failures")) for s in root] == [
        ("reasons", "2", "1"),
        ("slices", "2", "1"),
    ]
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["a: a fixed mark", "site <north>"]


def test_an_unknown_format_is_one_sentence(found, tmp_path):
    with pytest.raises(PellucidError, match=f"choose of {', '.join(FORMATS)}"):
        found.export("xls", tmp_path)
