"""A batch in the place of inputs: a report of its worst verdicts, an evaluation and an audit of what it was of."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pellucid as pl
from helpers.batch_entry import small
from pellucid.cli import app, main
from pellucid.errors import MethodError, ModelError, StorageError
from pellucid.keep.journal import Journal
from pellucid.runs.batch import FIXED, BatchJob
from pellucid.runs.local import written
from pellucid.runs.manifest import Manifest
from pellucid.runs.work import Work
from pellucid.verbs.report import report, result_files
from pellucid.verbs.results import VERDICTS
from pellucid.verbs.verify_report import verify_report
from runs.test_batch import job, pictures


def begun(job):
    """A batch's work, done in this process; not yet any row."""
    work, journal = Work(job.plan), Journal(job.folder)
    job.folder.mkdir(parents=True)
    journal.begin(job.about(work.weights), fixed=FIXED)
    return work, journal


def done(job):
    work, journal = begun(job)
    journal.append(written(journal.shards, work.rows([item.stamped() for item in job.manifest])))
    return job.folder


def measured(out, folder, method="grad-cam"):
    """The job, its maps checked."""
    found = job(out, folder, method=method)
    requests = tuple({**r, "check": True} for r in found.plan.requests)
    return BatchJob(found.folder, found.manifest, type(found.plan)(found.plan.model, requests))


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Pictures of two classes, explained and measured, one of which is none."""
    home = tmp_path_factory.mktemp("of-batch")
    for k, name in enumerate(("one", "two")):
        pictures(home / "in" / name, 3, seed=k)
    (home / "in" / "two" / "broken.png").write_bytes(b"no picture")
    return done(measured(home / "out", home / "in"))


def test_the_worst_rows_come_first(batch):
    rows = pl.results(batch)
    assert repr(rows) == f"Rows({str(batch)!r}, 7)"
    assert repr(rows.where("p_value > 2")) == f"Rows({str(batch)!r}, 0, 'p_value > 2')"
    found = rows.worst(100)
    assert len(found) == 6
    places = [(VERDICTS.index(row["verdict"]), -row["p_value"], row["probability"]) for row in found]
    assert places == sorted(places)
    assert [row["id"] for row in rows.worst(2)] == [row["id"] for row in found[:2]]


def test_without_verdicts_the_least_sure_answers_come_first(tmp_path):
    out = done(job(tmp_path / "out", pictures(tmp_path / "in", 4)))
    found = [row["probability"] for row in pl.results(out).worst(4)]
    assert found == sorted(found)


def test_a_report_shows_the_worst_rows_and_is_verified_from_itself(batch, tmp_path):
    worst = pl.results(batch).worst(2)
    made = report([batch], worst=2, home=tmp_path)
    assert (made.count, made.refused, made.shrunk) == (2, [], [])
    file = made.save(tmp_path / "page.html")
    counts = pl.results(batch).verdicts()
    assert sum(counts.values()) == len(pl.results(batch)) == 7
    assert counts["failed"] == 1
    for name in counts:
        assert (name == "failed") or counts[name] == len(pl.results(batch).where(f"verdict = '{name}'"))
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    assert f"2 of 7 rows, the worst first. Verdicts of all: {told}." in made.text
    for row in worst:
        assert f"{row['name']}.grad-cam.{row['id'][:8]}" in made.text
        assert pl.results(batch).sample(row["id"]).quality.line in made.text
    found = list(verify_report(file, model=small()))
    assert [c.found.status for c in found] == ["within tolerance"] * 2  # its maps were kept as float16
    ran = CliRunner().invoke(app, ["report", str(batch), "--worst", "3", "-o", str(tmp_path / "cli.html"), "--json"])
    assert json.loads(ran.stdout)["results"] == 3


def test_folders_of_folders_of_results_are_found(tmp_path):
    for k, picture in enumerate(("sample:cat", "sample:coffee")):
        pl.explain(small(), picture).save(tmp_path / "results" / str(k) / "more")
    assert len(result_files([tmp_path / "results"])) == report([tmp_path / "results"]).count == 2
    (tmp_path / "none" / "inner").mkdir(parents=True)
    with pytest.raises(StorageError, match="holds no saved results, nor do its sub-folders: name a folder that --out"):
        report([tmp_path / "none"])


def test_a_batch_without_a_row_is_said(tmp_path):
    begun(job(tmp_path / "out", pictures(tmp_path / "in", 2)))
    with pytest.raises(StorageError, match=r"no finished row yet: see `pellucid batch status"):
        report([tmp_path / "out"])


def test_evaluate_takes_inputs_model_methods_and_target(batch, tmp_path, capsys):
    out = tmp_path / "board"
    assert main(["evaluate", str(batch), "--metrics", "sparseness", "-o", str(out), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["results"]
    assert told["inputs"] == [f"{k:04d}{again}" for again in ("", " 2") for k in range(3)]  # two folders, same names
    files = [str(batch.parent / "in" / folder / f"{k:04d}.png") for folder in ("one", "two") for k in range(3)]
    alone = pl.evaluate(small(), files, "grad-cam", "sparseness", target="top")
    again = pl.read(next(out.glob("*.json")))
    assert again.methods == alone.methods
    np.testing.assert_array_equal(again.scores, alone.scores)


def test_audit_takes_the_pictures_and_their_classes(batch, tmp_path, capsys):
    out = tmp_path / "audit"
    assert main(["audit", str(batch), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["results"][0]["pictures"] == 6
    assert "broken.png" in told["failed"][0]["error"]


def test_what_is_said_beside_a_batch_must_fit(batch, tmp_path):
    from pellucid.cli.of_batch import given_batch

    given = [str(batch)]
    with pytest.raises(ModelError, match="names its own model: leave out --model"):
        given_batch(given, "resnet18")
    with pytest.raises(StorageError, match="give it alone"):
        given_batch([*given, "sample:cat"], "efficientnet-lite0")
    assert given_batch(["sample:cat"], "efficientnet-lite0") is None
    found = given_batch(given, "efficientnet-lite0")
    assert [m.name for m in found.asked("two")[0]] == ["grad-cam"]
    assert found.asked("two")[1] == "two"


def test_a_batch_of_other_weights_or_of_several_targets_is_no_input(batch, tmp_path):
    from pellucid.cli.of_batch import given_batch
    from pellucid.models.targets import as_target

    several = job(tmp_path / "several", batch.parent / "in")
    asked = several.plan.asked()
    requests = (*several.plan.requests, type(asked[0])(method=asked[0].method, target=as_target("two")).as_dict())
    begun(BatchJob(several.folder, several.manifest, type(several.plan)(several.plan.model, requests)))
    found = given_batch([str(several.folder)], "efficientnet-lite0")
    with pytest.raises(MethodError, match="choose a --target"):
        found.asked("top")
    file = several.folder / "batch.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": "others"}))
    with pytest.raises(ModelError, match="no longer those of the batch"):
        given_batch([str(several.folder)], "efficientnet-lite0").load()


def test_a_batch_of_a_list_stands_for_its_files(tmp_path):
    from pellucid.cli.of_batch import given_batch

    folder = pictures(tmp_path / "in", 3)
    Image.new("RGB", (32, 32), "red").save(folder / "0010.png")
    out = tmp_path / "out"
    found = job(out, folder)
    limited = BatchJob(out, Manifest.of([folder], limit=3), found.plan)
    done(limited)
    names = [str(folder / f"{k:04d}.png") for k in range(3)]
    assert given_batch([str(out)], "efficientnet-lite0").pictures() == names == pl.results(out).inputs()
