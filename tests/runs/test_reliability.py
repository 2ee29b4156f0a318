"""What may happen around a batch: a full disk, an edited manifest, files with other times, changing models."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pellucid.errors import StorageError
from pellucid.keep.journal import Journal
from pellucid.runs.batch import _Run
from pellucid.runs.local import written
from runs.test_batch import all_rows, digests, job, names, pictures
from runs.test_of_batch import begun, done


def run_of(job):
    return _Run(job, Journal(job.folder), print)


def test_a_full_disk_leaves_no_half_line_and_loses_nothing(tmp_path, monkeypatch):
    out = done(job(tmp_path / "out", pictures(tmp_path / "in", 4)))
    before, lines = digests(out), (out / "journal.jsonl").read_bytes()

    def full(_number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"Cannot write .*No space left on device; what is finished is kept"):
            Journal(out).append({"shard": "x", "rows": 1, "bytes": 1})
    assert (out / "journal.jsonl").read_bytes() == lines
    assert digests(out) == before
    assert list(run_of(job(out, tmp_path / "in")).chunks()) == []


LIMITED = (
    "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
    "from runs.test_batch import job\n"
    "from pellucid.errors import PellucidError\n"
    "if __name__ == '__main__':\n"
    "    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n"
    "    try:\n"
    "        job(sys.argv[2], sys.argv[3]).run()\n"
    "    except PellucidError as error:\n"
    "        print(error)\n"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_a_shard_that_does_not_fit_ends_the_run_in_a_sentence_and_a_resume_makes_it(tmp_path):
    """The system itself refuses the write, as that of a full disk does."""
    folder, out = pictures(tmp_path / "in", 40), tmp_path / "out"
    command = [sys.executable, "-B", "-c", LIMITED, str(Path(__file__).parents[1]), str(out), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.stdout.count("\n") == 1, ran.stderr
    assert "Cannot write" in ran.stdout
    assert "what is finished is kept" in ran.stdout
    assert Journal(out).lines() == []
    assert job(out, folder).run().complete
    assert names(all_rows(out)) == [f"{k:04d}.png" for k in range(40)]
    assert set(digests(out)) == {path.name for path in (out / "shards").iterdir()}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB, and what makes it larger; only the system's administrator has one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_loses_nothing_and_a_larger_one_goes_on(small_disk, tmp_path):
    disk, enlarge = small_disk
    folder = pictures(tmp_path / "in", 12)
    plan = job(disk / "out", folder)
    work, journal = begun(plan)
    items = [item.stamped() for item in plan.manifest]

    def make(items):
        for item in items:
            journal.append(written(journal.shards, work.rows([item])))

    with pytest.raises(StorageError, match=r"Cannot write .*No space left on device; what is finished is kept"):
        make(items)
    finished = digests(disk / "out")
    assert 0 < len(finished) < 12
    assert {path.name for path in journal.shards.iterdir()} == set(finished)
    enlarge()
    for chunk in run_of(plan).chunks():
        make(chunk)
    assert names(all_rows(disk / "out")) == [f"{k:04d}.png" for k in range(12)]
    assert finished.items() <= digests(disk / "out").items()


def test_a_clock_that_is_put_back_leaves_rate_and_rest_as_they_are(tmp_path, monkeypatch):
    run = run_of(job(tmp_path / "out", pictures(tmp_path / "in", 4)))
    run._begun, run.progress.fresh, run.progress.inputs = 100.0, 2, 2
    with monkeypatch.context() as clock:
        clock.setattr(time, "monotonic", lambda: 110.0)
        clock.setattr(time, "time", lambda: -1e9)
        run.tell(now=True)
    assert (run.progress.seconds, run.progress.remaining) == (10.0, 10.0)


def test_an_edited_manifest_is_said_and_read_anew(tmp_path):
    folder = pictures(tmp_path / "in", 4)
    table = folder / "list.csv"
    table.write_text("path\n0000.png\n0001.png\n")
    out = done(job(tmp_path / "out", table))
    weights = Journal(out).about()["weights"]
    same = run_of(job(out, table))
    same.begun(weights)
    assert same.progress.notes == []
    table.write_text("path\n0001.png\n0002.png\n0003.png\n")
    edited = run_of(job(out, table))
    edited.begun(weights)
    assert edited.progress.notes == ["Since the last run the manifest is not as it was."]
    assert [[Path(item.source).name for item in chunk] for chunk in edited.chunks()] == [["0002.png", "0003.png"]]


def test_a_file_whose_time_has_gone_back_is_another_one(tmp_path):
    folder = pictures(tmp_path / "in", 3)
    out = done(job(tmp_path / "out", folder))
    os.utime(folder / "0001.png", (1, 1))
    run = run_of(job(out, folder))
    assert [[Path(item.source).name for item in chunk] for chunk in run.chunks()] == [["0001.png"]]
    assert run.progress.notes == ["1 inputs have changed since their rows were made."]
    assert names(all_rows(out)) == ["0000.png", "0002.png"]


def test_rows_of_a_model_that_changes_in_passes_do_not_hang_on_their_place(tmp_path):
    """The guard stays open from batch to batch; what a pass has changed is put back in between."""
    folder = pictures(tmp_path / "in", 5)
    plan = job(tmp_path / "out", folder, entry="counting")
    work, _ = begun(plan)
    work.size = 1
    items = [item.stamped() for item in plan.manifest]
    work.rows(items[:1])  # which finds the layer
    before = vars(work.model.module).copy(), work.model.module.calls.clone()
    together = work.rows(items)
    assert vars(work.model.module) == before[0]
    assert work.model.module.calls == before[1]
    assert [row["status"] for row in together] == ["done"] * 5
    alone = [row for item in items for row in work.rows([item])]
    assert [row["probability"] for row in together] == [row["probability"] for row in alone]
