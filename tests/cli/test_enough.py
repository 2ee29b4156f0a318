"""`explain --method sufficient` on the command line: more than one region, a guarantee, and what is missing for it."""

import pytest

from cli.conftest import SMALL
from helpers.cases import pixels, save

FEW = ("--set", "cells=3", "--set", "budget=40", "--no-check")


def pictures(tmp_path, count):
    for n in range(count):
        save(tmp_path / "photos" / f"{n}.png", pixels(64, 64, seed=n))
    return tmp_path / "photos"


def test_regions_and_what_vouches_for_them(run, tmp_path):
    save(tmp_path / "one.png", pixels(64, 64, seed=9))
    found = run("explain", "one.png", *SMALL, "--method", "sufficient,necessary", *FEW, "--many", "2")
    assert found.code == 0, found.err
    for words in ("sufficient for", "necessary for"):
        assert words in found.out
    assert "of the input" in found.out or "note:" in found.out


@pytest.mark.slow
def test_a_guarantee_is_learned_from_a_folder(run, tmp_path):
    folder = pictures(tmp_path, 4)
    save(tmp_path / "new.png", pixels(64, 64, seed=9))
    asked = ("explain", "new.png", *SMALL, "--method", "sufficient", *FEW)
    found = run(*asked, "--guarantee", "0.2", "--calibration", folder, "--json")
    assert found.code == 0, found.err
    (result,) = found.json["results"]
    assert result["facts"]["tried"] == 1
    checked = run("verify", next(f for f in result["files"] if f.endswith(".json")))
    assert checked.code == 0, checked.err + checked.out


def test_a_guarantee_that_cannot_be_given_is_refused(run, tmp_path):
    folder = pictures(tmp_path, 4)
    save(tmp_path / "new.png", pixels(64, 64, seed=9))
    asked = ("explain", "new.png", *SMALL, "--method", "sufficient", *FEW)
    few = run(*asked, "--guarantee", "0.1", "--calibration", folder)
    assert few.code != 0
    assert "9 are needed at least" in few.err
    assert "--calibration" in run(*asked, "--guarantee", "0.1").err
    wrong = ("explain", "new.png", *SMALL, "--method", "occlusion", "--no-check")
    assert "--method sufficient" in run(*wrong, "--guarantee", "0.1", "--calibration", folder).err
