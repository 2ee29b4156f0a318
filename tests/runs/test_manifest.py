"""What a batch is of, as people have it: tables of every habit, images elsewhere, linked folders, lost files."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pellucid.errors import MediaError
from pellucid.keep.journal import Journal
from pellucid.runs.batch import BatchJob, _Run
from pellucid.runs.manifest import Manifest
from runs.test_batch import all_rows, job, names, pictures
from runs.test_of_batch import done


def seen(path, **how):
    return [(os.path.relpath(i.source, Path(path).parent), i.given_id, i.target) for i in Manifest.of([path], **how)]


@pytest.mark.parametrize(
    "text",
    [
        "Path,ID,Target\na.png,1,cat\n",
        "path, id, target\na.png, 1, cat\n",
        "image_path;id;target\na.png;1;cat\n",
        "\ufefffilepath\tid\ttarget\na.png\t1\tcat\n",
        'label,target,id,img\n"x, y",cat,1,a.png\n',
    ],
)
def test_a_table_of_every_habit_is_read(tmp_path, text):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    assert seen(tmp_path / "list.csv") == [("a.png", "1", "cat")]


def test_columns_of_parquet_that_hold_paths_and_one_that_holds_pictures(tmp_path):
    path = tmp_path / "list.parquet"
    for column in (
        ["a.png"],
        [b"a.png"],
        pa.array(["a.png"]).dictionary_encode(),
        pa.array(["a.png"], pa.large_string()),
    ):
        pq.write_table(pa.table({"image": column}), path)
        assert seen(path) == [("a.png", None, None)]
    pq.write_table(pa.table({"image": [{"bytes": b"...", "path": "a.png"}]}), path)
    with pytest.raises(MediaError, match=r"The column 'image' of the manifest .* holds struct<.*>, not paths"):
        Manifest.of([path])


def test_images_that_lie_elsewhere_are_found_from_a_root(tmp_path):
    pictures(tmp_path / "val", 2)
    path = tmp_path / "annotations" / "val.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": [{"id": k, "file_name": f"{k:04d}.png"} for k in range(2)]}))
    with pytest.raises(MediaError, match=r"None of the first 2 inputs .* is there, such as .*0000\.png: .* --root"):
        BatchJob.of(tmp_path / "out", [], Manifest.of([path]), name="none").run()
    found = Manifest.of([path], root=tmp_path / "val")
    found.first_found()
    assert [i.source for i in found] == [str(tmp_path / "val" / f"{k:04d}.png") for k in range(2)]
    assert [i.source for i in Manifest.of([path], root="s3://bucket/val/")] == [
        "s3://bucket/val/0000.png", "s3://bucket/val/0001.png",
    ]  # fmt: skip
    again = BatchJob.of(tmp_path / "out", [], found, name="none")
    Journal(tmp_path / "out").begin(again.about("w"), fixed=())
    assert BatchJob.opened(tmp_path / "out").manifest == found


@pytest.mark.parametrize("text", ['{"images": [{"id": 1}]}', "[1]", '{"annotations": []}'])
def test_a_json_that_is_no_coco_file_is_said(tmp_path, text):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(MediaError, match=r"list\.json is no COCO file: it has no `images`"):
        Manifest.of([tmp_path / "list.json"])


def test_a_table_without_rows_is_said(tmp_path):
    (tmp_path / "list.csv").write_text("path,id\n")
    with pytest.raises(MediaError, match="names no input"):
        Manifest.of([tmp_path / "list.csv"]).first_found()


def test_a_name_that_no_file_can_have_is_a_row_of_its_own(tmp_path):
    (tmp_path / "list.csv").write_text("path\na\0.png\nb.png\n")
    first, second = (item.stamped() for item in Manifest.of([tmp_path / "list.csv"]))
    assert (first.source, first.stamp, Path(second.source).name) == ("a\0.png", 0, "b.png")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_linked_folders_are_gone_into_once(tmp_path):
    pictures(tmp_path / "far" / "cats", 2)
    whole = tmp_path / "in"
    whole.mkdir()
    (whole / "cats").symlink_to(tmp_path / "far" / "cats")
    (whole / "again").symlink_to(whole)
    assert [Path(i.source).name for i in Manifest.of([whole])] == ["0000.png", "0001.png"]


def test_files_out_of_reach_keep_their_rows(tmp_path):
    """As while a disk is not mounted; what was changed meanwhile is another thing."""
    folder = pictures(tmp_path / "in", 3)
    table = tmp_path / "list.csv"
    table.write_text("path\n" + "".join(f"in/000{k}.png\n" for k in range(3)))
    out = done(job(tmp_path / "out", table))
    shutil.move(folder, tmp_path / "away")
    run = _Run(job(out, table), Journal(out), print)
    assert list(run.chunks()) == []
    assert run.progress.notes == []
    assert names(all_rows(out)) == ["0000.png", "0001.png", "0002.png"]
    shutil.move(tmp_path / "away", folder)
    (folder / "0001.png").write_bytes((folder / "0002.png").read_bytes() + b" ")
    run = _Run(job(out, table), Journal(out), print)
    assert [[Path(item.source).name for item in chunk] for chunk in run.chunks()] == [["0001.png"]]
