"""What jobs do is what the command line does with the same options, and no text of a visitor opens a file."""

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

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
        "dicom", "keep-identifiers",  # of DICOM files that only the command line writes
        "truth",  # of a folder
        "redact",  # a file of boxes, for what is sent away; the studio shows what its visitor has uploaded
    },
    "importance": {"group", "compare", "top", "redact"},  # of a folder; of what is printed; as of explain
    "visualize": {"atlas", "projection", "activations"},  # of a folder; a form of its own
    "more": set(),
    "distill": {"teacher", "explain", "name"},  # the page's model; one of the sets; of files
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


def test_stages_are_asked_by_method_and_target(tmp_path):
    asked = {"method": "hires-cam,input-x-gradient", "target": "two", "stages": "1"}
    found = did("explain", asked, tmp_path)
    assert sorted(f.method for f in found) == ["hires-cam", "input-x-gradient"]
    assert all(f.target == "two" and len(f.maps) > 1 for f in found)
    [one] = did("explain", {"method": "hires-cam", "stages": "1", "layer": "0"}, tmp_path / "one")
    assert [row["layer"] for row in one.table()] == ["0"]


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
    asked = JobRequest("explain", "net", "sample:cat", "", {"method": "lrp", "stages": "1"})
    assert asked.command() == "pellucid explain sample:cat --model net --method lrp --stages"


def test_a_readable_model_is_learned_from_pictures_that_were_sent(app, visitor, settings, tmp_path):
    def file(k):
        pixels = np.full((40, 40, 3), (200 * (k % 2), 60, 40 + k), np.uint8)
        made = io.BytesIO()
        Image.fromarray(pixels).save(made, "png")
        return ("file", (f"a/b {k}.png", made.getvalue(), "image/png"))

    form = {"verb": "distill", "model": "net-a", "into": "tree", "concepts": "properties"}

    async def work():
        async with visitor() as browser:
            answer = await browser.post("/jobs", data=form, files=[file(k) for k in range(40)], headers=ORIGIN)
            none = await browser.post("/jobs", data=form, headers=ORIGIN)
            explain = {"verb": "explain", "model": "net-a"}
            two = await browser.post("/jobs", data=explain, files=[file(0), file(1)], headers=ORIGIN)
            clip = ("file", ("c.mp4", b"x", "video/mp4"))
            mixed = await browser.post("/jobs", data=form, files=[file(0), clip], headers=ORIGIN)
            return answer, none, two, mixed

    answer, none, two, mixed = run(work())
    assert answer.status_code == 303
    assert "nothing to learn from" in none.text
    assert "Send one file" in two.text
    assert "no picture" in mixed.text
    [job] = list(app.studio.queue.files)
    assert job.asked.command() == ("pellucid distill 40-pictures --teacher net-a --into tree --concepts properties")
    kept = Path(job.asked.input)
    assert kept.is_relative_to(settings.inner / "uploads")
    assert len(list(kept.iterdir())) == 40
    assert [f for f in (settings.inner / "uploads").rglob("*") if f.is_file() and f.parent != kept] == []
    [found] = did("distill", job.asked.options, tmp_path / "made", given=str(kept), model=Halves.wrapped())
    assert (found.into, found.taught) == ("tree", True)
    assert found.card.agreement.value == 1
    with pytest.raises(PellucidError, match="tree has no --features"):
        did("distill", {"features": "3"}, tmp_path, given=str(kept))


class Halves(nn.Module):
    """Says whether a picture is red."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.zero_()
            self.conv.weight[:, 0] = torch.tensor([[8.0], [-8.0]])[..., None]
            self.conv.bias[:] = torch.tensor([-3.0, 3.0])

    def forward(self, x):
        return self.conv(x).mean((2, 3))

    @classmethod
    def wrapped(cls):
        return pl.wrap(
            cls().eval(),
            transform=pl.Preprocess(input_size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3),
            labels=["red", "dark"],
        )
