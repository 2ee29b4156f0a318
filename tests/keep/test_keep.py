"""Keys, packed maps and the journal, each against what it must hold."""

import json
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pellucid.errors import StorageError
from pellucid.keep.files import write_durably
from pellucid.keep.journal import Journal
from pellucid.keep.key import Keys, KeySet
from pellucid.keep.packing import ERROR, pack, pack_all, unpack_all

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, (2, 3), elements=FLOATS))
def test_a_packed_map_is_within_its_stated_error(values):
    packed = pack(values)
    again = packed.values()
    if packed.type == "float32":
        np.testing.assert_array_equal(again, values)
        return
    of_value, of_scale = ERROR
    bound = np.maximum(of_value * np.abs(values.astype(np.float64)), of_scale * packed.scale)
    rounding = 2.0**-23 * np.abs(values.astype(np.float64))  # of the float32 that comes back
    assert (np.abs(again.astype(np.float64) - values) <= bound + rounding).all()


@pytest.mark.parametrize("values", [[np.nan, 1], [np.inf, 0], [1e-40, 0]], ids=str)
def test_what_has_no_scale_stays_as_it_is(values):
    packed = pack(np.array(values, np.float32))
    assert packed.type == "float32"
    np.testing.assert_array_equal(packed.values(), np.array(values, np.float32))


def test_float32_is_exact_and_zero_is_zero():
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(pack(values, "float32").values(), values)
    assert not pack(np.zeros((2, 2))).values().any()


def test_other_arrays_come_back():
    given_ = {"labels": np.arange(6).reshape(2, 3), "error": np.float32([np.nan, 2])}
    again = unpack_all(pack_all(given_))
    assert again.keys() == given_.keys()
    for name, a in given_.items():
        np.testing.assert_array_equal(again[name], a)
    assert pack_all({}) is None
    assert unpack_all(None) == {}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(-9, 9), st.integers(-5, 5)), max_size=9), max_size=9),
    st.sampled_from([4, 1000]),
)
def test_keys_are_a_dictionary_and_a_set(parts, largest):
    keys, names, truth = Keys(), KeySet(), {}
    with mock.patch("pellucid.keep.key.LARGEST", largest):
        for part in parts:
            keys.add([k for k, _ in part], [v for _, v in part])
            names.add([k for k, _ in part])
            truth |= dict(part)
    known, values = keys.find(range(-10, 11))
    assert known.tolist() == names.holds(range(-10, 11)).tolist() == [k in truth for k in range(-10, 11)]
    assert len(keys) >= len(truth)
    assert values.tolist() == [truth.get(k, 0) for k in range(-10, 11)]


def test_a_file_is_whole_or_not_there(tmp_path):
    def fails(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"Cannot write .*No space left on device; what is finished is kept"):
        write_durably(tmp_path / "a" / "file", fails)
    assert list((tmp_path / "a").iterdir()) == []


def begun(folder, **about):
    journal = Journal(folder)
    journal.begin({"format": "x", **about}, fixed=("format",))
    return journal


def test_a_line_that_a_crash_cut_off_is_none(tmp_path):
    journal = begun(tmp_path)
    journal.append({"shard": "a", "rows": 1})
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"shard": "b", "ro')
    assert [line["shard"] for line in journal.finished()] == ["a"]
    journal.clean()
    journal.append({"shard": "c", "rows": 1})
    assert [line["shard"] for line in journal.finished()] == ["a", "c"]


def test_shards_without_a_line_are_thrown_away_and_lost_ones_are_missed(tmp_path):
    journal = begun(tmp_path)
    journal.shards.mkdir()
    whole, other = "part-00112233445566aa.parquet", "merged-00112233445566bb.parquet"
    for name in (whole, other, f".{other}.01234567.tmp", "somebody's.tar"):
        (journal.shards / name).write_bytes(b"rows")
    (tmp_path / ".progress.json.01234567.tmp").write_bytes(b"{")
    (tmp_path / "ray-inputs").mkdir()
    journal.append({"shard": whole, "rows": 1})
    journal.clean()
    assert {p.name for p in journal.shards.iterdir()} == {whole, "somebody's.tar"}
    assert {p.name for p in tmp_path.iterdir()} == {"batch.json", "journal.jsonl", "shards"}
    (journal.shards / whole).unlink()
    with pytest.raises(StorageError, match="is gone, though the batch has finished it"):
        journal.paths()


def test_one_line_puts_a_shard_in_the_place_of_others(tmp_path):
    journal = begun(tmp_path)
    for name in ("a", "b", "c"):
        journal.append({"shard": name, "rows": 1})
    journal.append({"shard": "ab", "rows": 2, "drops": ["a", "b"]})
    assert [line["shard"] for line in journal.finished()] == ["c", "ab"]


def test_another_request_is_refused_with_what_differs(tmp_path):
    begun(tmp_path, model="m")
    with pytest.raises(StorageError, match=r'another request: its format is "x", not "y"'):
        Journal(tmp_path).begin({"format": "y"}, fixed=("format",))
    assert Journal(tmp_path).begin({"format": "x", "model": "n"}, fixed=("format",)) == ["the model is not as it was"]
    assert json.loads((tmp_path / "batch.json").read_bytes())["model"] == "n"


def test_two_drivers_are_refused(tmp_path):
    first, second = Journal(tmp_path), Journal(tmp_path)
    with first.driving():
        assert second.driven
        with pytest.raises(StorageError, match=r"being written to by another run \(process \d+ on"), second.driving():
            pass
    with second.driving():
        pass
    assert not first.driven


@pytest.mark.parametrize("name", ["shards", "journal.jsonl", "ray-inputs", "lock"])
def test_a_folder_with_files_of_these_names_that_are_no_batch_s_is_left_as_it_is(tmp_path, name):
    if name in ("shards", "ray-inputs"):
        (tmp_path / name).mkdir()
        mine = tmp_path / name / "0000.tar"
    else:
        mine = tmp_path / name
    mine.write_text("mine")
    with pytest.raises(StorageError, match=f"holds {name}, but no batch"), Journal(tmp_path).driving():
        pass
    assert mine.read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) == (1 if mine.parent == tmp_path else 2)


def test_a_journal_that_something_else_has_written_to_is_said(tmp_path):
    journal = begun(tmp_path)
    journal.append({"shard": "a", "rows": 1})
    (tmp_path / "journal.jsonl").write_text("what?\n" + (tmp_path / "journal.jsonl").read_text())
    with pytest.raises(StorageError, match=r"journal\.jsonl is damaged"):
        journal.finished()


def test_no_batch_is_said(tmp_path):
    with pytest.raises(StorageError, match="holds no batch"):
        Journal(tmp_path).about()
    (tmp_path / "batch.json").write_text("{")
    with pytest.raises(StorageError, match="is damaged"):
        Journal(tmp_path).about()
