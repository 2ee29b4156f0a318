"""Whole batches: processes, kills, resumes, Ctrl-C, poison, two drivers, reading back; on a small network."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

import pellucid as pl
from helpers.batch_entry import small
from pellucid.cli import main
from pellucid.errors import StorageError
from pellucid.keep.journal import Journal
from pellucid.runs.batch import BatchJob, Progress, merge, retry_failed, status
from pellucid.runs.export import export
from pellucid.runs.manifest import Manifest
from pellucid.verbs.explain import ExplainRequest

HELPERS = str(Path(__file__).parents[1] / "helpers")


def pictures(folder, count, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for k in range(count):
        Image.fromarray(draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(folder / f"{k:04d}.png")
    return folder


def job(out, folder, entry="small", method="grad-cam", **how):
    from pellucid.heatmaps import get_method
    from pellucid.models.targets import as_target

    asked = ExplainRequest(method=get_method(method), target=as_target("top"))
    return BatchJob.of(out, [asked], Manifest.of([folder]), entry=f"batch_entry:{entry}", path=HELPERS, **how)


def all_rows(out):
    return pl.results(out).table(["id", "status", "input", "error", "name"]).to_pylist()


def names(rows):
    return sorted(row["name"] for row in rows)


def digests(out):
    journal = Journal(out)
    return {line["shard"]: (journal.shards / line["shard"]).read_bytes() for line in journal.finished()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A batch that has run to its end, one picture of which is none."""
    home = tmp_path_factory.mktemp("batch")
    folder = pictures(home / "in", 20)
    (folder / "broken.png").write_bytes(b"no picture")
    found = job(home / "out", folder).run()
    assert found.complete
    assert (found.inputs, found.done, found.failed, found.fresh) == (21, 20, 1, 21)
    return home


def test_rows_are_read_back_by_everybody(finished):
    rows = pl.results(finished / "out")
    assert len(rows) == 21
    assert len(rows.where("status = 'done'")) == 20
    assert names(rows.where("label = 'one' or label = 'two' or label = 'three'")) == names(rows.where("status='done'"))
    files = str(finished / "out" / "shards" / "*.parquet")
    by_duckdb = duckdb.sql(f"select count(*), max(map_max), count(map_max) from '{files}'").fetchall()
    by_arrow = ds.dataset(str(finished / "out" / "shards")).to_table(columns=["map_max"]).column("map_max")
    known = [v for v in by_arrow.to_pylist() if v is not None]
    assert by_duckdb == [(21, max(known), len(known))]
    assert len(known) == 20


def test_a_sample_is_an_explanation_as_if_just_made(finished):
    rows = pl.results(finished / "out")
    row = next(iter(rows.where("status = 'done'")))
    e, alone = rows.sample(row["id"]), pl.explain(small(), row["input"])
    assert e.picture is not None
    np.testing.assert_allclose(
        e.heatmap(), alone.heatmap(), rtol=2e-3, atol=1e-3 * float(alone.attribution.abs().max())
    )
    assert "<iframe" in e._repr_html_()
    with pytest.raises(StorageError, match=r"has no result: .*broken.png can't be used as a picture"):
        rows.sample(next(iter(rows.where("status = 'failed'")))["id"])
    with pytest.raises(StorageError, match="There is no row 'x'"):
        rows.sample("x")


def test_conditions_and_columns_that_make_no_sense(finished):
    rows = pl.results(finished / "out")
    with pytest.raises(StorageError, match=r"is no condition on the rows: .*nothing"):
        rows.where("nothing = 1")
    with pytest.raises(StorageError, match="There is no column 'nothing'"):
        rows.table(["nothing"])
    with pytest.raises(StorageError, match="holds no batch"):
        pl.results(finished / "in")


@pytest.mark.slow
def test_running_again_does_what_is_missing_and_no_more(finished, tmp_path):
    out = shutil.copytree(finished / "out", tmp_path / "out")
    before = digests(out)
    folder = finished / "in"
    found = job(out, folder).run()
    assert (found.fresh, found.complete) == (0, True)
    Image.new("RGB", (32, 32), "red").save(folder / "new.png")
    try:
        found = job(out, folder).run()
        assert (found.fresh, found.inputs) == (1, 22)
        Image.new("RGB", (32, 32), "blue").save(folder / "new.png")  # changed: its row is not used again
        found = job(out, folder).run()
        assert (found.fresh, found.inputs) == (1, 22)
        assert "1 inputs have changed since their rows were made." in found.notes
    finally:
        (folder / "new.png").unlink()
    rows = all_rows(out)
    assert len({row["id"] for row in rows}) == len(rows) == 22
    assert before.items() <= digests(out).items()


def test_another_request_is_refused(finished):
    with pytest.raises(StorageError, match=r"another request: its requests is .*grad-cam.*, not .*occlusion"):
        job(finished / "out", finished / "in", method="occlusion").run()


def test_two_drivers_are_refused(finished):
    with Journal(finished / "out").driving(), pytest.raises(StorageError, match="being written to by another run"):
        job(finished / "out", finished / "in").run()


@pytest.mark.slow
def test_failed_inputs_are_tried_again_on_demand(finished, tmp_path):
    out, folder = shutil.copytree(finished / "out", tmp_path / "out"), finished / "in"
    assert job(out, folder).run().fresh == 0
    assert retry_failed(out) == 1
    kept = (folder / "broken.png").read_bytes()
    Image.new("RGB", (32, 32), "red").save(folder / "broken.png")
    try:
        found = job(out, folder).run()
    finally:
        (folder / "broken.png").write_bytes(kept)
    assert (found.done, found.failed, found.complete) == (21, 0, True)
    assert len({row["id"] for row in all_rows(out)}) == 21


def test_merge_keeps_every_row_and_survives_being_cut(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished / "out", tmp_path / "out")
    before = sorted(map(str, all_rows(out)))
    from pellucid.runs import batch

    def cut(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", cut)
        with pytest.raises(KeyboardInterrupt):
            batch.merge(out)
    assert sorted(map(str, all_rows(out))) == before
    assert merge(out) == 1
    assert sorted(map(str, all_rows(out))) == before
    found = status(out)
    assert (found.inputs, found.done, found.failed, found.shards) == (21, 20, 1, 1)
    assert len(list((out / "shards").iterdir())) == 1


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_export(finished, tmp_path, ending):
    file = tmp_path / f"rows.{ending}"
    assert export(finished / "out", file, where="status = 'done'") == 20
    reader = {"parquet": "parquet", "csv": "csv_auto", "jsonl": "json_auto"}[ending]
    assert duckdb.sql(f"select count(distinct id) from read_{reader}('{file}')").fetchall() == [(20,)]


def test_export_says_what_it_cannot(finished, tmp_path):
    with pytest.raises(StorageError, match="ends in none of"):
        export(finished / "out", tmp_path / "rows.xlsx")
    with pytest.raises(StorageError, match="Maps are no text"):
        export(finished / "out", tmp_path / "rows.csv", maps=True)


def test_the_command_looks_after_a_batch(finished, capsys):
    assert main(["batch", "status", str(finished / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["inputs"], told["failed"], told["complete"], told["running"]) == (21, 1, True, False)
    assert main(["batch", "status", str(finished / "out")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("21 of 21 inputs, 20 rows done, 1 failed")
    assert f"  failed: {told['error']}" in shown
    assert told["error"] == next(row["error"] for row in all_rows(finished / "out") if row["error"])
    assert main(["batch", "status", str(finished / "in")]) == 1
    assert "holds no batch" in capsys.readouterr().err
    assert main(["batch", str(finished / "in"), "--out", "x", "--verb", "dance"]) == 1
    assert "There is no verb 'dance' of a batch" in capsys.readouterr().err


def test_a_model_that_cannot_be_built_ends_the_batch_in_one_sentence(tmp_path):
    with pytest.raises(pl.ModelError, match="'batch_entry:nothing' can't be imported"):
        job(tmp_path / "out", pictures(tmp_path / "in", 2), entry="nothing").run()


@pytest.mark.slow
def test_a_deadly_input_is_set_aside_after_two_tries(tmp_path):
    folder = pictures(tmp_path / "in", 24)
    Image.new("RGB", (32, 32), "white").save(folder / "0007.png")
    found = job(tmp_path / "out", folder, entry="deadly").run()
    assert (found.done, found.failed, found.set_aside, found.complete) == (23, 1, 1, True)
    rows = all_rows(tmp_path / "out")
    (bad,) = [row for row in rows if row["status"] == "quarantined"]
    assert bad["name"] == "0007.png"
    assert "died 2 times at this input" in bad["error"]
    assert len({row["id"] for row in rows}) == 24


@pytest.mark.slow
def test_where_everything_fails_the_rest_is_not_tried(tmp_path):
    folder = pictures(tmp_path / "in", 80)
    with pytest.raises(pl.PellucidError, match=r"The first \d+ rows all failed, so .*runs no attention"):
        job(tmp_path / "out", folder, method="attention-rollout").run()
    assert status(tmp_path / "out").inputs < 80


def started(out, folder, workers=1):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from runs.test_batch import job\n"
        "if __name__ == '__main__':\n"
        "    found = job(sys.argv[2], sys.argv[3], entry='slow').run(workers=int(sys.argv[4]))\n"
        "    sys.exit(0 if found.complete else 130)\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[1]), str(out), str(folder), str(workers)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def children(process):
    try:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []
    return [int(pid) for pid in listed]


def wait_for(condition, seconds=900):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def killed(out, folder, draw):
    """One run that is killed at a random moment: a worker, the driver, or both."""
    process = started(out, folder, workers=draw.choice([1, 2]))
    before = len(Journal(out).lines()) if Journal(out).exists else 0
    victims = draw.choice(["worker", "driver", "both"])
    if draw.random() < 0.7:  # else while the model is being loaded
        wait_for(lambda: process.poll() is not None or len(Journal(out).lines()) > before)
    time.sleep(draw.random())
    workers = children(process)
    for pid in workers if victims != "driver" else []:
        with suppress(ProcessLookupError):  # it was done before
            os.kill(pid, signal.SIGKILL)
    if victims != "worker":
        process.kill()  # which knows whether it has ended
    process.wait()
    return digests(out) if Journal(out).exists else {}


@pytest.mark.slow
@pytest.mark.timeout(2400)  # on a busy machine each start takes a minute
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
@pytest.mark.parametrize("seed", range(int(os.environ.get("PELLUCID_KILLS", "2"))))
def test_after_kills_and_a_resume_every_input_has_its_row_once(seed, tmp_path):
    draw = random.Random(seed)
    folder, out = pictures(tmp_path / "in", 120), tmp_path / "out"
    whole = {}
    for _ in range(2):
        now = killed(out, folder, draw)
        assert whole.items() <= now.items(), "a finished shard is never touched again"
        whole = now
    found = job(out, folder, entry="slow").run()
    assert found.complete
    rows = all_rows(out)
    assert names(rows) == [f"{k:04d}.png" for k in range(120)]
    assert len({row["id"] for row in rows}) == 120
    assert {row["status"] for row in rows} == {"done"}
    assert whole.items() <= digests(out).items()
    assert set(digests(out)) == {path.name for path in (out / "shards").iterdir()}


@pytest.mark.slow
def test_ctrl_c_writes_what_is_begun_and_a_resume_goes_on(tmp_path):
    folder, out = pictures(tmp_path / "in", 150), tmp_path / "out"
    process = started(out, folder)
    wait_for(lambda: Journal(out).lines() != [])
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 130
    some = status(out)
    assert 0 < some.inputs < 150
    assert not some.running
    found = job(out, folder, entry="slow").run()
    assert found.complete
    assert found.fresh == 150 - some.inputs
    assert len({row["id"] for row in all_rows(out)}) == 150


def test_an_id_that_stands_twice_in_a_long_manifest_is_said_when_it_is_met(tmp_path, monkeypatch):
    from pellucid.runs import manifest
    from pellucid.runs.batch import _Run

    folder = pictures(tmp_path / "in", 3)
    path = folder / "list.csv"
    path.write_text("path,id\n0000.png,a\n0001.png,b\n0002.png,a\n")
    with pytest.raises(pl.MediaError, match="has an id twice"):
        job(tmp_path / "out", path)
    monkeypatch.setattr(manifest, "AT_ONCE", 2)
    (tmp_path / "out").mkdir()
    run = _Run(job(tmp_path / "out", path), Journal(tmp_path / "out"), print)
    with pytest.raises(pl.MediaError, match="has an id twice"):
        list(run.chunks())


def test_an_input_that_is_named_again_has_its_row_once(tmp_path):
    from pellucid.runs.batch import _Run

    folder = pictures(tmp_path / "in", 3)
    path = folder / "list.csv"
    path.write_text("path\n0000.png\n0001.png\n0000.png\n")
    (tmp_path / "out").mkdir()
    run = _Run(job(tmp_path / "out", path), Journal(tmp_path / "out"), print)
    assert [[Path(item.source).name for item in chunk] for chunk in run.chunks()] == [["0000.png", "0001.png"]]
    assert run.progress.repeated == 1


def test_a_slow_batch_says_its_rate_by_the_minute():
    assert ", 2.0 inputs/s, " in Progress(fresh=20, seconds=10).line
    assert ", 3.0 inputs/min, " in Progress(fresh=3, seconds=60).line


def test_of_a_long_manifest_each_input_is_handed_out_once(tmp_path):
    from pellucid.runs.batch import _Run

    path = tmp_path / "list.csv"
    path.write_text("path,id\n" + "".join(f"p.png,{k}\n" for k in range(2_100)))
    (tmp_path / "out").mkdir()
    run = _Run(job(tmp_path / "out", path), Journal(tmp_path / "out"), print)
    given = [item.given_id for chunk in run.chunks() for item in chunk]
    assert given == [str(k) for k in range(2_100)]
