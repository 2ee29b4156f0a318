"""`PELLUCID_CACHE` has one reader, and everything that keeps something asks it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid as pl
from helpers.cases import tree
from pellucid.features import Settings
from pellucid.keep.home import cache_folder
from pellucid.models import suites


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def model():
    torch.manual_seed(0)
    parts = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    look = pl.Preprocess(input_size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(torch.nn.Sequential(*parts, torch.nn.Linear(4, 3)).eval(), transform=look)


def exemplars(pictures):
    settings = Settings.preset("fast", steps=2)
    pl.visualize(model(), layer="1", channel=0, exemplars=pictures, settings=settings, seeds=1)


def features(pictures):
    pl.concepts(model(), pictures, "1", "kmeans", count=2, stable=False)


def suite(pictures, monkeypatch):
    monkeypatch.setitem(suites.RECIPES, "flash", (suites.Recipe("flash", "per-frame", steps=1, sure=0, enough=0),))
    pl.load("suite:flash")


USERS = {"exemplars": exemplars, "features": features, "suites": suite}


@pytest.mark.parametrize("kind", USERS)
@pytest.mark.parametrize("value", ["off", "", "FOLDER", None])
def test_every_user_obeys_it(kind, value, pictures, tmp_path, monkeypatch):
    """Switched off, nothing is written anywhere; named, all of it goes there; not named, into the system's place."""
    home, here, system = tmp_path / "mine", tmp_path / "here", tmp_path / "xdg"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(system))
    if value is None:
        monkeypatch.delenv("PELLUCID_CACHE", raising=False)
    else:
        monkeypatch.setenv("PELLUCID_CACHE", str(home) if value == "FOLDER" else value)
    USERS[kind](pictures, *([monkeypatch] if kind == "suites" else []))
    kept = {None: system / "pellucid", "FOLDER": home}.get(value)
    assert tree(here) == {}
    assert not (tmp_path / "home").exists()
    assert home.exists() == (value == "FOLDER")
    assert system.exists() == (value is None)
    if kept is not None:
        assert [p.name for p in kept.iterdir()] == [kind]
        assert tree(kept / kind)


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", ".cache/pellucid"), ("darwin", "Library/Caches/pellucid"), ("win32", "AppData/Local/pellucid/Cache")],
)
def test_the_systems_own_place(platform, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PELLUCID_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pellucid.keep.home.sys.platform", platform)
    assert cache_folder("features") == tmp_path / expected / "features"
    monkeypatch.setenv("PELLUCID_CACHE", "~/mine")
    assert cache_folder("features") == tmp_path / "mine" / "features"


def test_nobody_else_reads_the_variable():
    texts = {file.name: file.read_text() for file in Path(pl.__file__).parent.rglob("*.py")}
    assert [name for name, text in texts.items() if "XDG_CACHE_HOME" in text] == ["home.py"]
    assert [name for name, text in texts.items() if re.search(r"environ.*PELLUCID_CACHE", text)] == []
