"""Shards at every point at which a kill may fall, and those that another version of the columns wrote."""

import os
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pellucid as pl
from pellucid.keep.journal import Journal
from pellucid.keep.shards import encoded
from pellucid.runs.batch import _Run, drop_rows, merge
from pellucid.runs.local import written
from runs.test_batch import all_rows, digests, job, names, pictures
from runs.test_of_batch import begun


class Killed(BaseException):
    """What no clause of the code under test expects."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A job of four pictures, and the rows of each half."""
    home = tmp_path_factory.mktemp("shards")
    plan = job(home / "rows", pictures(home / "in", 4))
    work, _ = begun(plan)
    items = [item.stamped() for item in plan.manifest]
    return home / "in", work.weights, [work.rows(items[:2]), work.rows(items[2:])]


def folder_of(made, out):
    """A batch whose first half is finished."""
    plan = job(out, made[0])
    out.mkdir()
    journal = Journal(out)
    journal.begin(plan.about(made[1]), fixed=())
    journal.append(written(journal.shards, made[2][0]))
    return journal


def killing(monkeypatch, point):
    """Dies at the so-manieth thing that is asked of the disk, and then tidies nothing up; how many were asked for."""
    asked = []

    def counted(real):
        def call(*given, **how):
            asked.append(real)
            if len(asked) > point:
                if len(asked) == point + 1:
                    raise Killed
                return None  # dead already
            return real(*given, **how)

        return call

    for owner, name in ((os, "fsync"), (os, "replace"), (os, "ftruncate"), (Path, "write_bytes"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return asked


def points(made, home, act):
    with pytest.MonkeyPatch.context() as patched:
        journal = folder_of(made, home / "whole")
        asked = killing(patched, 10**6)
        act(journal)
    return len(asked)


def second_half(made):
    return lambda journal: journal.append(written(journal.shards, made[2][1]))


@pytest.mark.parametrize("what", ["a shard", "a merge", "rows taken back"])
def test_after_a_kill_at_each_point_each_input_has_its_row_once(made, tmp_path, what):
    def act(journal):
        second_half(made)(journal)
        if what == "a merge":
            merge(journal.folder)
        if what == "rows taken back":
            drop_rows(journal, [made[2][0][0]["key"]])

    count = points(made, tmp_path, act)
    assert count >= (5 if what == "a shard" else 10)
    for point in range(count):
        journal = folder_of(made, tmp_path / str(point))
        finished = digests(journal.folder)
        with pytest.MonkeyPatch.context() as patched:
            killing(patched, point)
            with pytest.raises(Killed):
                act(journal)
        journal.clean()
        if what == "a shard":
            assert finished.items() <= digests(journal.folder).items()
        run = _Run(job(journal.folder, made[0]), journal, print)
        missing = {item.key for chunk in run.chunks() for item in chunk}
        assert missing <= {row["key"] for half in made[2] for row in half}
        if missing:
            journal.append(written(journal.shards, [r for half in made[2] for r in half if r["key"] in missing]))
        rows = all_rows(journal.folder)
        assert names(rows) == [f"{k:04d}.png" for k in range(4)]
        assert len({row["id"] for row in rows}) == 4
        assert {p.name for p in journal.shards.iterdir()} == {p.name for p in journal.paths()}


def test_shards_of_other_versions_are_read_queried_merged_and_gone_on_with(made, tmp_path):
    journal = folder_of(made, tmp_path / "out")
    table = pq.read_table(journal.paths()[0])
    earlier = table.drop_columns(["sanity", "completeness_gap", "map_sum"]).append_column(
        "later", pa.array([1.0] * table.num_rows)
    )
    journal.paths()[0].write_bytes(encoded(earlier))
    rows = pl.results(journal.folder)
    assert rows.table(["map_sum", "name"]).to_pylist() == [
        {"map_sum": None, "name": "0000.png"},
        {"map_sum": None, "name": "0001.png"},
    ]
    second_half(made)(journal)
    rows = pl.results(journal.folder)
    assert len(rows.where("map_sum is null and sanity is null")) == 2
    assert len(rows.where("map_sum is not null")) == 2
    whole = {row["id"]: rows.sample(row["id"]).attribution.numpy() for row in rows}
    assert list(_Run(job(journal.folder, made[0]), journal, print).chunks()) == []
    assert merge(journal.folder) == 1
    merged = pl.results(journal.folder)
    for row in merged:
        np.testing.assert_array_equal(merged.sample(row["id"]).attribution.numpy(), whole[row["id"]])
    (file,) = merged.paths
    assert duckdb.sql(f"select count(map_sum), max(later) from '{file}'").fetchall() == [(2, 1.0)]
    assert len(merged.worst(4)) == 4
