"""Clips explained frame by frame: a planted detector, a square that moves, and where each frame's answers go."""

import csv
import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import pellucid as pl
from helpers.detectors import DIM, RED, Squares
from pellucid.cli import app, options
from pellucid.errors import DataError, MediaError, ModelError, TargetError
from pellucid.media import Plan
from pellucid.media.writing import encode
from pellucid.render.film import film_scale
from pellucid.render.paper.colour import limits
from pellucid.verbs.film import Reel, boxes_in_all, reel
from pellucid.verbs.records import source_of

PLACES = (0, 8, 16)  # the left edge of the red square, frame by frame
PLAIN = pl.Preprocess(input_size=(32, 32), resize=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), interpolation="box")


def frames():
    """Four frames `(64, 64, 3)`: a red square moves to the right, by 16 pixels a frame; the last is dark."""
    found = np.zeros((4, 64, 64, 3), np.uint8)
    for k, left in enumerate(PLACES):
        found[k, 32:48, 2 * left : 2 * left + 16] = (round(RED * 255), 26, 0)
    found[:, 0:16, 48:64, 1] = round(DIM * 255)  # a blue one stays
    found[3, 32:48] = 0
    return found


def planted():
    return pl.wrap(Squares(), labels=["red", "blue"], task="boxes", transform=PLAIN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("clip")
    for k, pixels in enumerate(frames()):
        Image.fromarray(pixels).save(home / f"{k:03d}.png")
    return home


@pytest.fixture(scope="module")
def film(folder):
    return pl.explain_film(planted(), folder, "occlusion", ["box:red", "box:blue"], frames="uniform:4")


def test_what_is_asked_for_is_looked_for_in_every_frame_anew(film):
    with_red = film.frames[:3]
    for left, frame in zip(PLACES, with_red, strict=True):
        red, blue = frame.maps
        assert red.extras["box"][0].tolist() == pytest.approx([2 * left, 32, 2 * left + 16, 48], abs=0.1)
        assert blue.extras["box"][0].tolist() == pytest.approx([48, 0, 64, 16], abs=0.1)
        whole = red.heatmap()[0]
        peak = divmod(int(whole.nan_to_num(-1).argmax()), whole.shape[1])
        assert 32 <= peak[0] < 48
        assert 2 * left <= peak[1] < 2 * left + 16
        assert [p.label for p in frame.answers] == ["red", "blue"]


def test_each_frame_is_what_explaining_that_picture_gives(folder, film):
    alone = pl.explain(planted(), folder / "001.png", "occlusion", "box:red")
    assert torch.equal(alone.attribution, film.frames[1].maps[0].attribution)
    assert alone.prediction == film.frames[1].answers


def test_a_frame_without_it_keeps_its_answers_and_says_why(film):
    last = film.frames[3]
    assert not last.maps
    assert [p.label for p in last.answers] == ["blue"]
    assert last.note.startswith("The detector answers 1 box to this picture, none of class 'red'")
    assert film.line == "3 of 4 frames have what is asked for"


def test_no_frame_is_paid_for_twice(folder):
    passes = []

    class Counted(Squares):
        def forward(self, x):
            passes.append(len(x))
            return super().forward(x)

    model = pl.wrap(Counted(), labels=["red", "blue"], task="boxes", transform=PLAIN)
    pl.explain(model, folder / "000.png", "occlusion", "box:blue")
    alone = sum(passes)
    passes.clear()
    pl.explain_film(model, folder, "occlusion", "box:blue", frames="uniform:4")
    assert sum(passes) == 4 * alone


def test_files_hold_a_table_the_values_of_each_frame_and_a_video_for_each_question(film, tmp_path):
    av = pytest.importorskip("av")
    files = film.save(tmp_path, set())
    videos = [path for path in files if path.suffix == ".webm"]
    assert len(videos) == 2
    assert all(path.is_file() for path in files)
    with av.open(str(videos[0])) as stored:
        drawn = [frame.to_ndarray(format="rgb24") for frame in stored.decode(video=0)]
    assert len(drawn) == 4
    assert drawn[0].shape[1] == 2 * drawn[0].shape[0], "each frame stands beside its map"
    table = next(path for path in files if path.suffix == ".csv")
    rows = list(csv.DictReader(table.open()))
    assert [row["label"] for row in rows] == ["red", "blue"] * 3 + ["blue"]
    assert float(rows[2]["x0"]) == pytest.approx(16, abs=0.1)
    stored = [pl.read(path) for path in files if path.name == "0001.occlusion.box-red.json"]
    assert torch.equal(stored[0].attribution, film.frames[1].maps[0].attribution)
    assert stored[0].record.input["time"] == film.frames[1].time


def test_what_is_typed_is_hidden_in_every_frame(folder):
    film = pl.explain_film(planted(), folder, "occlusion", "box:blue", frames="uniform:4")
    before = list(film.drawn(*film.asked[0]))
    film.redact(boxes_in_all("2,30,58,52", "clip"))
    for frame in film.frames:
        parts = frame.picture.pixels[30:52, 2:58].reshape(-1, 3)
        assert len(np.unique(parts, axis=0)) <= 16, "the means of 4 x 4 parts"
    after = list(film.drawn(*film.asked[0]))
    assert [bool((a != b).any()) for a, b in zip(before, after, strict=True)] == [True, True, True, False]
    with pytest.raises(DataError, match="hide boxes"):
        boxes_in_all("faces.json", "clip")


def held(at_once, reader, folder):
    """The most frames and maps in memory at a time, while a clip is explained and written."""
    alive, most = [], 0

    def noted(thing):
        nonlocal most
        alive.append(weakref.ref(thing))
        most = max(most, sum(ref() is not None for ref in alive))
        return thing

    class Watched(Reel):
        def pictures(self):
            return map(noted, super().pictures())

        def explained(self):
            for frame in super().explained():
                for e in frame.maps:
                    noted(e)
                yield frame

    found = Watched(**vars(replace(reader, numbers=[k % 3 for k in range(at_once)])))
    writer, files = found.save(folder, set(), "2,30,58,52")
    assert len(writer.frames) == at_once
    return most, files


def test_a_long_clip_takes_the_memory_of_a_short_one(folder, tmp_path):
    reader = reel(planted(), folder, "occlusion", "box:red", frames="uniform:3")
    few, _ = held(3, reader, tmp_path / "few")
    many, files = held(30, reader, tmp_path / "many")
    assert many == few <= 4
    assert sum(path.suffix == ".json" for path in files) == 30


def test_a_film_in_python_holds_a_frame_at_a_time(folder, monkeypatch):
    """Counted while it is explained, and while all of its frames are looked at; each then answers as before."""
    alive, most = [], [0]
    explained = Reel.explained

    def watched(self):
        for frame in explained(self):
            for thing in (frame, frame.picture, *frame.maps):
                alive.append(weakref.ref(thing))
            most[0] = max(most[0], sum(ref() is not None for ref in alive))
            yield frame

    monkeypatch.setattr(Reel, "explained", watched)
    monkeypatch.setattr(Plan, "choose", lambda *_: [k % 3 for k in range(20)])
    film = pl.explain_film(planted(), folder, "occlusion", "box:red")
    gc.collect()
    assert most[0] <= 2 * 3, "two frames with their pictures and maps"
    assert sum(ref() is not None for ref in alive) == 0
    lefts = [float(frame.maps[0].extras["box"][0][0]) for frame in film.frames]
    assert lefts == pytest.approx([2 * PLACES[k % 3] for k in range(20)], abs=0.1)
    assert film.frames[1] is film.frames[1]
    assert film.frames[1].maps[0].check().verdict == film.frames[4].maps[0].check().verdict
    assert film.frames[1].maps[0].quality is not None, "what was measured is kept"
    home = film.frames._folder
    assert home.is_dir()
    del film
    gc.collect()
    assert not home.exists()


def test_what_is_written_as_it_comes_is_what_a_film_in_memory_writes(folder, tmp_path):
    ask = (planted(), folder, ["occlusion", "saliency"], ["box:red", "box:blue"])
    whole = pl.explain_film(*ask, frames="uniform:4").save(tmp_path / "whole", set())
    _, files = reel(*ask, frames="uniform:4").save(tmp_path / "streamed", set())
    assert [path.name for path in files] == [path.name for path in whole]
    for a, b in zip(files, whole, strict=True):
        if a.suffix in (".csv", ".webm"):
            assert a.read_bytes() == b.read_bytes()


def test_the_scale_is_that_of_all_maps(film):
    values = np.concatenate([frame.maps[0].map().numpy().ravel() for frame in film.frames[:3]])
    scale = film_scale(film.frames, *film.asked[0])
    assert scale.high == pytest.approx(limits(values, signed=True, robust=True).high, rel=0.02)


def test_regions_are_explained_frame_by_frame_too(folder):
    class Red(torch.nn.Module):
        def forward(self, x):
            return {"out": torch.stack([x[:, 0], 0.2 + 0 * x[:, 0]], 1)}

    model = pl.wrap(Red(), labels=["red", "rest"], task="regions", transform=PLAIN)
    film = pl.explain_film(model, folder, "occlusion", "region:red", frames="uniform:4")
    for left, frame in zip(PLACES, film.frames[:3], strict=True):
        rows, columns = np.nonzero(frame.maps[0].extras["region"][0].numpy())
        assert (columns.min(), columns.max() + 1) == (2 * left, 2 * left + 16)
        assert (rows.min(), rows.max() + 1) == (32, 48)
    assert not film.frames[3].maps


def test_an_undeclared_task_is_recognised_from_the_first_frame(folder):
    model = pl.wrap(Squares(), labels=["red", "blue"], transform=PLAIN)
    assert len(pl.explain_film(model, folder, "occlusion", "box:blue", frames="uniform:2").frames) == 2


def test_classes_are_no_places(folder):
    model = pl.wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3)), transform=PLAIN)
    with pytest.raises(ModelError, match=r"answers neither boxes nor regions: explain a clip with pl.per_frame"):
        pl.explain_film(model, folder, "occlusion")
    with pytest.raises(TargetError, match="no part"):
        pl.explain_film(planted(), folder, "occlusion", "box:0/colour")


@pytest.fixture
def video(tmp_path, monkeypatch):
    pytest.importorskip("av")
    path = tmp_path / "square.webm"
    path.write_bytes(encode(list(frames()), [0.0, 0.5, 1.0, 1.5]))
    monkeypatch.setattr(options, "load_model", lambda *_, **__: planted())
    return path


def asked(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments), "--method", "occlusion", "--frames", "uniform:4"])


def test_the_command_line_writes_the_video_of_a_clip(video, tmp_path):
    found = asked(video, "--target", "box:blue", "--out", tmp_path / "out", "--json")
    assert found.exit_code == 0, found.output
    (result,) = json.loads(found.stdout)["results"]
    assert [frame["maps"] for frame in result["frames"]] == [1] * 4
    assert result["asked"] == [{"method": "occlusion", "target": "box:blue"}]
    assert [Path(f).suffix for f in result["files"]][-2:] == [".csv", ".webm"]


def test_the_command_line_says_what_is_missing_in_the_clip(video, tmp_path):
    nothing = asked(video, "--target", "box:7", "--out", tmp_path / "out")
    assert nothing.exit_code == 1
    assert "so there is no box 7" in nothing.output
    wrong = asked(video, "--target", "box:blue", "--out", tmp_path / "out", "--check")
    assert "does not go with --check" in str(wrong.exception)


def test_the_frames_of_an_animation_are_explained_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "load_model", lambda *_, **__: planted())
    first, *others = (Image.fromarray(pixels) for pixels in frames())
    first.save(tmp_path / "moves.png", save_all=True, append_images=others, duration=500)
    first.save(tmp_path / "still.png")
    ask = ("--target", "box:blue", "--out", tmp_path / "out", "--json")
    (result,) = json.loads(asked(tmp_path / "moves.png", *ask).stdout)["results"]
    assert [frame["time"] for frame in result["frames"]] == [0.0, 0.5, 1.0, 1.5]
    (alone,) = json.loads(CliRunner().invoke(app, ["explain", str(tmp_path / "moves.png"), *map(str, ask)]).stdout)[
        "results"
    ]
    assert "frames" not in alone, "without --frames it is the picture that it begins with"
    nothing = asked(tmp_path / "still.png", *ask)
    assert "leave out --frames" in str(nothing.exception)


def test_a_frame_is_shown_and_computed_again_from_its_record_alone(film, tmp_path, monkeypatch):
    (file,) = (f for f in film.save(tmp_path / "out", set()) if f.name == "0001.occlusion.box-red.json")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(pl.read(file).picture.pixels, frames()[1])
    assert pl.verify(file, model=planted()).status == "same"
    about = json.loads(file.read_text())
    about["record"]["input"]["clip"] = str(tmp_path / "moved")
    assert about["record"]["input"]["time"] == film.frames[1].time
    with pytest.raises(MediaError, match="moved"):
        source_of(replace(pl.read(file).record, input=about["record"]["input"]))
