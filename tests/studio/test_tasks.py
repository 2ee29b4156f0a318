"""What jobs do is what the command line does with the same options, and no text of a visitor opens a file."""

import json
import re
import shlex

import numpy as np
import pytest

import pellucid as pl
from helpers.loops import run
from pellucid import storage
from pellucid.cli import main
from pellucid.errors import PellucidError
from pellucid.studio.app import _OPTIONS
from pellucid.studio.jobs import JobRequest
from pellucid.studio.tasks import TASKS, running, verified
from report.cases import tiny
from studio.conftest import KEPT, ORIGIN

ELSEWHERE = {
    "explain": {
        "guarantee", "calibration",  # learned from a folder of pictures
        "keep-identifiers",  # of DICOM files that only the command line writes
        "truth",  # of a folder
        "redact",  # a file of boxes, for what is sent away; the studio shows what its visitor has uploaded
    },
    "importance": {"group", "compare", "top"},  # of a folder; of what is printed
    "visualize": {"atlas", "projection", "activations"},  # of a folder; a form of its own
    "more": set(),
}  # fmt: skip
OF_THE_STUDIO = {"model", "device", "weights", "random-weights", "labels", "scores", "output", "task", "out", "json",
                 "help"}  # fmt: skip


@pytest.mark.parametrize("verb", ELSEWHERE)
def test_every_option_for_one_input_can_be_asked(verb, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        main([verb, "--help"])
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    options = {m for m in re.findall(r"(?<![\w-])--([a-z][a-z-]+)", said.partition("Options")[2]) if m[:3] != "no-"}
    named = set(re.findall(r"^\W*--([a-z][a-z-]+)", said, re.M))
    assert named <= set(_OPTIONS[verb]) | ELSEWHERE[verb] | OF_THE_STUDIO, options
    assert set(_OPTIONS[verb]) - {"method"} <= options


def did(verb, options, tmp_path, given="sample:cat", model=None):
    with running(options):
        TASKS[verb](model or tiny(), given, options, tmp_path)
    return [pl.read(f) for f in sorted(tmp_path.glob("*.json"))]


def test_options_reach_the_verbs(tmp_path):
    [e] = did("explain", {"method": "smooth-grad", "set": "samples=3", "runtime": "torch", "target": "two"}, tmp_path)
    assert e.record.method["parameters"]["samples"] == 3
    assert (e.target, e.record.run.get("runtime", {}).get("name", "torch")) == ("two", "torch")
    asked = {"features": "regions", "regions": "head: 204, 128, 225, 170\nrest: 226, 128, 248, 170", "by": "ablation",
             "baseline": "mean"}  # fmt: skip
    [importance] = did("importance", asked, tmp_path / "importance")
    assert set(importance.names) >= {"head", "rest"}


@pytest.mark.parametrize(
    "target", ["pair:/etc/passwd", "rank:sample:cat>/etc/passwd", "region:cat/error=/etc/passwd", "pair:sample:../x"]
)
def test_t6_a_target_opens_no_file(target, tmp_path):
    for verb in ("explain", "importance", "visualize", "activations"):
        with pytest.raises(PellucidError, match="a target names no file"):
            did(verb, {"target": target, "layer": "0"} if verb == "activations" else {"target": target}, tmp_path)


@pytest.mark.parametrize("window", ["bone:/etc/passwd", "../x", "a" * 50])
def test_t6_a_window_opens_no_file(window, tmp_path):
    with pytest.raises(PellucidError, match="is no window"):
        did("explain", {"window": window}, tmp_path)


def test_bad_numbers_and_regions_are_told():
    for options, said in [({"seed": "x"}, "is no number for seed"), ({"many": "1.5"}, "is no number for many")]:
        with pytest.raises(PellucidError, match=said):
            did("explain", {"method": "sufficient", **options}, None)
    with pytest.raises(PellucidError, match="is no region"):
        did("importance", {"regions": "head: 1, 2"}, None)
    with pytest.raises(PellucidError, match="is no tolerance"):
        did("more", {"tolerance": "x"}, None, given=str(KEPT / "coffee.rise.json"))


def test_a_result_is_continued_and_computed_again(tmp_path):
    model = tiny()
    few = pl.explain(model, "sample:cat", pl.heatmaps.RISE(samples=40))
    storage.save(few, tmp_path / "cat.rise")
    file = str(tmp_path / "cat.rise.json")
    [longer] = did("more", {"samples": "80"}, tmp_path / "job", given=file, model=model)
    assert np.array_equal(longer.attribution, pl.explain(model, "sample:cat", pl.heatmaps.RISE(samples=80)).attribution)
    assert verified(model, file).startswith("same")
    other = json.loads((tmp_path / "cat.rise.json").read_text())
    other["target"] = "two"
    (tmp_path / "cat.rise.json").write_text(json.dumps(other))
    assert verified(model, file).startswith("different")


def test_a_saved_result_is_named_by_its_id_alone(app, visitor, settings):
    for ending in (".json", ".npz"):
        (settings.home / f"coffee.rise{ending}").write_bytes((KEPT / f"coffee.rise{ending}").read_bytes())
    [shelved] = app.studio.library.all()

    def asked(**form):
        async def work():
            async with visitor() as made:
                return await made.post("/jobs", data=form, files={"file": ("", b"")}, headers=ORIGIN)

        return run(work())

    refused = asked(verb="more", result=shelved.id, samples="9")
    assert refused.status_code == 400  # of a model that this studio was not started with
    assert "net-a, net-b" in refused.text
    object.__setattr__(app.studio.settings, "models", (shelved.source, "net-b"))
    assert asked(verb="more", result=shelved.id, samples="9").status_code == 303
    assert asked(verb="verify", result=str(shelved.file)).status_code == 400
    [job] = app.studio.queue.files
    assert job.asked.input == str(shelved.file)
    assert shlex.split(job.asked.command()) == ["pellucid", "more", "coffee.rise.json", "--samples", "9"]


def test_commands_of_all_options():
    asked = JobRequest("importance", "net", "sample:cat", "", {"order": "1", "regions": "a: 1,2,3,4", "seed": "3"})
    assert asked.command() == (
        "pellucid importance sample:cat --model net --order --regions regions.json --seed 3"
    )  # fmt: skip
