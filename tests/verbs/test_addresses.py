"""Whatever opened a picture opens it again from any folder: every verb, every kind of source."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from pellucid.errors import MediaError
from pellucid.features import Settings
from pellucid.features.folder import Folder
from pellucid.media import SCHEMES, address, digest, open_clip, read_image, scheme

QUICK = Settings.preset("fast", steps=2)


def model():
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    look = pl.Preprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(nn.Sequential(*parts).eval(), transform=look)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A home with pictures, a folder to work in, and another one to go to afterwards."""
    home, away = tmp_path / "home", tmp_path / "away"
    for kind in ("dark", "light"):
        folder = home / "pictures" / kind
        folder.mkdir(parents=True)
        rng = np.random.default_rng(len(kind))
        for i in range(6):
            pixels = rng.integers(0, 128, (16, 16, 3)) + (100 if kind == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    away.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PELLUCID_CACHE", "off")
    monkeypatch.chdir(home)
    return away


ONE = ["sample:moon", "digits:3", "pictures/dark/1.png", "~/pictures/dark/1.png"]
MANY = ["digits:", "pictures/dark", "~/pictures/dark", "pictures/dark/*.png", "sample:c*"]
LISTS = [["digits:0", "digits:1", "digits:2"], ["sample:moon", "pictures/dark/2.png", "~/pictures/light/0.png"]]
CLASSES = ["pictures", "~/pictures"]


def few(source):
    return [f"digits:{i}" for i in range(4)] if source == "digits:" else source


VERBS = {
    "explain": (ONE, lambda m, s: pl.explain(m, s, "saliency")),
    "activations": (ONE, lambda m, s: pl.activations(m, s)),
    "importance": (ONE, lambda m, s: pl.importance(m, s, "patches", "ablation", count=4)),
    "importance of many": (MANY + LISTS, lambda m, s: pl.importance(m, few(s), "patches", "ablation", count=4)),
    "visualize": (ONE, lambda m, s: pl.visualize(m, s, layer="1", channel=0, exemplars=None, settings=QUICK, seeds=1)),
    "exemplars": (
        MANY + LISTS,
        lambda m, s: pl.visualize(m, layer="1", channel=0, exemplars=few(s), settings=QUICK, seeds=1),
    ),
    "atlas": (MANY + LISTS, lambda m, s: pl.atlas(m, few(s), layer="1", size=2, projection="pca", samples=60, steps=2)),
    "concepts": (MANY + CLASSES, lambda m, s: pl.concepts(m, s, "1", "kmeans", count=2, stable=False, limit=8)),
    "tcav": (
        CLASSES,
        lambda m, s: pl.tcav(m, s, f"{s}/dark", f"{s}/*/*.png", 0, layer="1", draws=39),
    ),
    "distill": (CLASSES, lambda m, s: pl.distill(s, "tree", model=m, concepts="none", limit=2)),
}


@pytest.mark.parametrize(
    ("verb", "source"), [(verb, s) for verb, (sources, _) in VERBS.items() for s in sources], ids=str
)
def test_a_record_opens_its_pictures_again_from_another_folder(verb, source, places, monkeypatch):
    found = VERBS[verb][1](model(), source)
    saved = next(str(p) for p in found.save(places / "out") if str(p).endswith(".json"))
    monkeypatch.chdir(places)
    again = pl.verify(saved, model=model())
    assert again.status in ("same", "within tolerance"), again
    pl.read(saved)


def test_what_an_address_is(places, tmp_path):
    home = tmp_path / "home"
    assert address("pictures/dark/1.png") == address("~/pictures/dark/1.png") == str(home / "pictures/dark/1.png")
    assert address(home / "pictures") == str(home / "pictures")
    assert address("pictures/*/1.png") == str(home / "pictures/*/1.png")
    for known in ("sample:cat", "sample:*", "samples:", "digits:", "digits:17", "suite:motion", "suite:motion:7"):
        assert address(known) == known
        assert scheme(known) == known.partition(":")[0]
    assert address("") == ""
    assert scheme("C:/pictures") == scheme("pictures/a:b.png") == ""
    assert set(SCHEMES) == {"suite"}
    assert open_clip(address("suite:motion:1")).source == "suite:motion:1"


@pytest.mark.parametrize("source", ["sample:moon", "digits:3", "pictures/dark/1.png", "~/pictures/dark/1.png"])
def test_a_digest_is_that_of_the_picture(source, places):
    assert digest(source) == read_image(source).sha256
    assert Folder([source]).hashes == [read_image(source).sha256]


def test_what_cannot_be_read_has_no_digest(places):
    for gone in ("pictures/none.png", "digits:99999", "sample:nobody", "pictures"):
        with pytest.raises(MediaError):
            digest(gone)


def test_only_one_place_makes_paths_absolute():
    """Those that write where a picture lies into a record ask `media.address`."""
    from pathlib import Path

    verbs = Path(pl.__file__).parent / "verbs"
    assert [
        f.name
        for f in verbs.glob("*.py")
        if ".absolute()" in f.read_text() or ".expanduser().resolve()" in f.read_text()
    ] == []
