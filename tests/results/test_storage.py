import dataclasses
import hashlib
import json
import math
import os
import pickle
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from helpers.cases import bright_model, pixels, save, tree
from pellucid import storage
from pellucid.explanation import Curve, Explanation, Prediction, Quality, Record
from pellucid.heatmaps import IntegratedGradients
from pellucid.keep.artefact import _seal
from pellucid.results import file_names, names_of_inputs, slug, unused

CURVES = [
    Curve(0.5, 0.25, 0.125, [0.0, 0.5, 1.0], [0.1, 0.2, 1 / 3], [0.0, 1e-300, 1e300]),
    Curve(1 / 3, 2 / 3, 0.0, [0.0, 1.0], [-1.0, 5e-324], [0.1, 0.7]),
]


def crafted(**changes):
    fields = {
        "attribution": torch.tensor([[[1.0, -0.0], [1e-45, 3.4e38]]]),
        "method": "grad-cam++",
        "target": "tabby “ü” > \n lynx",
        "prediction": [Prediction(281, "tabby", 1 / 3), Prediction(-1, "", 0.0)],
        "geometry": pl.Geometry((300, 451), (224, 224), ((1 / 3, 299.5), (-10.0, 460.25)), False),
        "record": Record(
            model={"source": {"name": "timm:x", "random_weights": 0}, "name": "x", "weights": "ab", "preprocess": {}},
            input={"source": "/a/ü.png", "name": "ü", "sha256": "cd"},
            method={"name": "m", "parameters": {"layer": None, "tolerance": 0.1, "deep": {"list": [1, 2.5, "x"]}}},
            target=None,
            run={"seed": 2**40, "device": "cpu"},
            software={"torch": "2"},
            created="2026-01-01",
        ),
        "layer": "layer4 (7 x 7)",
        "kind": "channels",
        "signed": False,
        "fold": "max",
        "notes": ["one", "zwei “ü”"],
        "remarks": ["drei"],
        "quality": Quality("faithful", "faithful: yes", CURVES[0], CURVES[1], -0.1, 1e-9),
        "extras": {"activations": torch.arange(6.0).reshape(1, 2, 3), "order": torch.tensor([3, 1], dtype=torch.int64)},
    }
    return Explanation(**{**fields, **changes})


def equal(a, b):
    for f in dataclasses.fields(Explanation):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if f.name == "picture":
            continue  # not stored
        if f.name == "attribution":
            assert x.dtype == y.dtype
            assert x.numpy().tobytes() == y.numpy().tobytes(), "bit for bit"
        elif f.name == "extras":
            assert list(x) == list(y)
            assert all(torch.equal(x[k], y[k]) and x[k].dtype == y[k].dtype for k in x)
        else:
            assert x == y, f.name


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quality": None, "layer": None, "extras": {}, "notes": [], "prediction": []},
        {"quality": Quality("unproven", "unproven: ")},
        {"quality": Quality("x", "y", insertion=CURVES[1])},
        {"attribution": torch.full((1, 2, 3, 4), torch.nan)},
        {"attribution": torch.tensor([[torch.inf, -torch.inf, torch.nan]])},
        {"attribution": torch.arange(4.0, dtype=torch.float64).reshape(1, 2, 2).mT},
        {"attribution": torch.ones(1, 3, dtype=torch.float16)},
    ],
)
def test_every_field_comes_back(tmp_path, changes):
    there = crafted(**changes)
    files = storage.save(there, tmp_path / "cat.grad-cam")
    assert [f.name for f in files] == ["cat.grad-cam.npz", "cat.grad-cam.json"]
    for name in ("cat.grad-cam", "cat.grad-cam.npz", "cat.grad-cam.json"):
        back, tampered = storage.load(tmp_path / name)
        assert tampered == []
        equal(there, back)


texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
curves = st.builds(Curve, numbers, numbers, numbers, *[st.lists(numbers, max_size=4)] * 3)


@settings(max_examples=40, deadline=None)
@given(
    changes=st.fixed_dictionaries(
        {
            "method": texts,
            "target": texts,
            "notes": st.lists(texts, max_size=3),
            "signed": st.booleans(),
            "prediction": st.lists(st.builds(Prediction, st.integers(), texts, numbers), max_size=3),
            "quality": st.none()
            | st.builds(Quality, texts, texts, st.none() | curves, st.none() | curves, st.none() | numbers),
        }
    ),
    parameters=st.dictionaries(texts, plain, max_size=3),
)
def test_whatever_it_holds_comes_back(changes, parameters):
    there = crafted(**changes)
    there.record.method["parameters"] = parameters
    with tempfile.TemporaryDirectory() as folder:
        storage.save(there, Path(folder, "x"))
        back, tampered = storage.load(Path(folder, "x"))
    assert tampered == []
    equal(there, back)


def test_a_result_comes_back_with_its_picture_while_that_is_the_same(tmp_path):
    path = save(tmp_path / "in" / "p.png", pixels())
    e = pl.explain(bright_model(), path, "hires-cam", "bright>dark")
    e.save(tmp_path / "out")
    back = pl.read(tmp_path / "out" / "p.hires-cam.json")
    assert isinstance(back, pl.Heatmap)
    equal(e, back)
    assert torch.equal(back.heatmap().nan_to_num(-9), e.heatmap().nan_to_num(-9))
    assert np.array_equal(back.picture.pixels, pixels())
    with pytest.raises(pl.StorageError, match="read from disk"):
        back.check()
    save(tmp_path / "in" / "p.png", pixels(seed=9))
    assert pl.read(tmp_path / "out" / "p.hires-cam.json").picture is None
    os.unlink(path)
    assert pl.read(tmp_path / "out" / "p.hires-cam.json").picture is None


# ---------------------------------------------------------------- what is in the files


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_the_files_are_strict_json_and_arrays_without_pickle(tmp_path):
    storage.save(crafted(), tmp_path / "x")
    meta = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert meta["format"] == "pellucid-explanation/1"
    assert meta["arrays"]["sha256"] == hashlib.sha256((tmp_path / "x.npz").read_bytes()).hexdigest()
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"attribution", "extra.activations", "extra.order"}
        assert all(arrays[n].dtype.kind in "fiu" for n in arrays.files)


def test_nan_and_infinity_become_null(tmp_path):
    nan, inf = float("nan"), float("inf")
    curve = Curve(nan, inf, 0.5, [0.0, 1.0], [nan, 0.25], [0.0, -inf])
    there = crafted(quality=Quality("not faithful", "x", curve, None, None, nan), prediction=[Prediction(0, "a", nan)])
    there.record.run["loss"] = [nan, 1.0, (inf,)]
    storage.save(there, tmp_path / "x")
    meta = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert meta["quality"]["completeness_gap"] is None
    assert meta["quality"]["insertion"]["scores"] == [None, 0.25]
    assert meta["record"]["run"]["loss"] == [None, 1.0, [None]]
    back, tampered = storage.load(tmp_path / "x")
    assert tampered == []
    assert math.isnan(back.quality.insertion.auc)
    assert math.isnan(back.quality.insertion.scores[0])
    assert back.quality.insertion.scores[1] == 0.25
    assert back.quality.completeness_gap is None


def test_a_checked_path_method_without_tolerance_is_saved(tmp_path):
    method = IntegratedGradients(tolerance=None, max_steps=8)  # no refinement, so no estimate of the error
    e = pl.explain(bright_model(), pixels(), method)
    assert math.isnan(e.facts["estimated_error"])
    e.save(tmp_path)
    assert pl.read(tmp_path / "image.integrated-gradients.json").record.method["parameters"]["tolerance"] is None


def test_the_same_explanation_gives_the_same_bytes_but_for_the_date(tmp_path):
    model = bright_model()
    for folder in ("a", "b"):
        e = pl.explain(model, pixels())
        e.record.created = ""
        e.save(tmp_path / folder)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


# ---------------------------------------------------------------- never half a file


def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


def interrupted(*_args, **_kwargs):
    raise KeyboardInterrupt


def failing_after(function, calls, error):
    made = []

    def wrapped(*args, **kwargs):
        made.append(args)
        if len(made) > calls:
            error()
        return function(*args, **kwargs)

    return wrapped


def half_written(self, data):
    with open(self, "wb") as file:
        file.write(data[: len(data) // 2])
    full()


@pytest.mark.parametrize("error", [full, interrupted])
@pytest.mark.parametrize("calls", [0, 1])
@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_failure_at_any_step_leaves_no_part_of_a_file(tmp_path, monkeypatch, step, calls, error):
    if step == "write":
        monkeypatch.setattr(Path, "write_bytes", failing_after(Path.write_bytes, calls, error))
    else:
        monkeypatch.setattr(os, "replace", failing_after(os.replace, calls, error))
    with pytest.raises(pl.StorageError if error is full else KeyboardInterrupt) as caught:
        storage.save(crafted(), tmp_path / "x")
    if error is full:
        assert "No space left on device" in str(caught.value)
        assert str(tmp_path) in str(caught.value)
    monkeypatch.undo()
    left = tree(tmp_path)
    # Only between the two renames can one whole file be there.
    assert list(left) == (["x.npz"] if (step, calls) == ("rename", 1) else [])
    if left:
        assert zipfile.ZipFile(BytesIO(left["x.npz"])).testzip() is None


def test_a_full_disk_in_the_middle_of_a_file_keeps_the_old_one(tmp_path, monkeypatch):
    storage.save(crafted(), tmp_path / "x")
    before = tree(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(pl.StorageError):
        storage.save(crafted(method="another"), tmp_path / "x")
    monkeypatch.undo()
    assert tree(tmp_path) == before
    assert storage.load(tmp_path / "x")[1] == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(pl.StorageError, match=r"Cannot write .*file.*--out") as caught:
            storage.save(crafted(), folder / "x")
        assert "\n" not in str(caught.value)
        with pytest.raises(pl.StorageError):
            storage.check_writable(folder)
    storage.check_writable(tmp_path / "new" / "folder")
    assert list(tree(tmp_path)) == ["file"]


# ---------------------------------------------------------------- tampering, and files that are none


def edit(path, change):
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(target="lynx"),
        lambda m: m["record"]["run"].update(seed=1),
        lambda m: m["quality"].update(verdict="not faithful"),
        lambda m: m["prediction"][0].update(probability=0.9),
        lambda m: m["notes"].pop(),
        lambda m: m.update(more=1),
        lambda m: m.update(sha256="0" * 64),
        lambda m: m.pop("sha256"),
    ],
)
def test_an_edited_record_is_noticed(tmp_path, change):
    storage.save(crafted(), tmp_path / "x")
    edit(tmp_path / "x.json", change)
    _, tampered = storage.load(tmp_path / "x")
    assert tampered == ["x.json was changed after it was written"]
    with pytest.raises(pl.StorageError, match=r"x\.json was changed"):
        pl.read(tmp_path / "x.json")


def test_reformatting_the_record_changes_nothing(tmp_path):
    storage.save(crafted(), tmp_path / "x")
    edit(tmp_path / "x.json", lambda m: None)
    assert storage.load(tmp_path / "x")[1] == []


def test_other_arrays_are_noticed(tmp_path):
    storage.save(crafted(), tmp_path / "x")
    storage.save(crafted(attribution=torch.zeros(1, 2, 2)), tmp_path / "y")
    os.replace(tmp_path / "y.npz", tmp_path / "x.npz")
    back, tampered = storage.load(tmp_path / "x")
    assert tampered == ["x.npz was changed after it was written"]
    assert not back.attribution.any()
    with pytest.raises(pl.StorageError, match=r"x\.npz was changed"):
        pl.read(tmp_path / "x")


def test_a_flipped_byte_anywhere_in_the_arrays_is_noticed(tmp_path):
    storage.save(crafted(), tmp_path / "x")
    whole = (tmp_path / "x.npz").read_bytes()
    read = 0
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / "x.npz").write_bytes(bytes(damaged))
        try:
            _, tampered = storage.load(tmp_path / "x")
        except pl.StorageError as error:
            tampered = [str(error)]
        else:
            read += 1
        assert any("x.npz was changed after it was written" in t for t in tampered), at
    assert read < len(whole) / 6  # most of the bytes matter to the reader, too


@pytest.mark.parametrize("size", [0, 1, 30, 200])
def test_cut_arrays_are_one_sentence(tmp_path, size):
    storage.save(crafted(), tmp_path / "x")
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:size])
    with pytest.raises(pl.StorageError, match=r"x\.npz was changed") as caught:
        storage.load(tmp_path / "x")
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return (os.system, (f"touch {tempfile.gettempdir()}/pellucid-pwned",))


def test_pickled_arrays_are_not_executed(tmp_path):
    flag = Path(tempfile.gettempdir(), "pellucid-pwned")
    flag.unlink(missing_ok=True)
    storage.save(crafted(), tmp_path / "x")
    np.savez(tmp_path / "x.npz", attribution=np.array([Evil()], dtype=object))
    data = (tmp_path / "x.npz").read_bytes()
    meta = json.loads((tmp_path / "x.json").read_text())
    meta["arrays"]["sha256"] = hashlib.sha256(data).hexdigest()
    meta["sha256"] = _seal(meta)  # all seals fit: only the reader itself can refuse
    (tmp_path / "x.json").write_text(json.dumps(meta))
    with pytest.raises(pl.StorageError, match="allow_pickle=False"):
        storage.load(tmp_path / "x")
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(pl.StorageError):
        storage.load(tmp_path / "x")
    assert not flag.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\x00\xff", "is not JSON"),
        ("[1]", "holds no explanation of this format"),
        ('{"format": "other"}', "holds no explanation of this format"),
        ('{"format": "pellucid-explanation/1"}', "The explanation in .* cannot be read"),
        ('{"format": "pellucid-explanation/1", "arrays": 3}', "The explanation in .* cannot be read"),
        ('{"format": "pellucid-explanation/1", "arrays": {"sha256": NaN}}', "is not JSON"),
    ],
)
def test_files_that_hold_no_explanation(tmp_path, text, message):
    storage.save(crafted(), tmp_path / "x")
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(pl.StorageError, match=message) as caught:
        storage.load(tmp_path / "x.json")
    assert "x" in str(caught.value)


@pytest.mark.parametrize("part", ["attribution", *(f.name for f in dataclasses.fields(Record) if f.name != "created")])
def test_a_record_that_lacks_something_is_one_sentence(tmp_path, part):
    storage.save(crafted(), tmp_path / "x")
    edit(tmp_path / "x.json", lambda m: m["record"].pop(part, None) or m.pop("geometry"))
    if part in {"model", "input", "method", "run"}:
        edit(tmp_path / "x.json", lambda m: m["record"].update({part: {}}))
    with pytest.raises(pl.StorageError, match=r"The explanation in .* cannot be read"):
        storage.load(tmp_path / "x")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(pl.StorageError, match=r"nowhere\.json"):
        storage.load(tmp_path / "nowhere")
    storage.save(crafted(), tmp_path / "x")
    (tmp_path / "x.npz").unlink()
    with pytest.raises(pl.StorageError, match=r"x\.npz"):
        pl.read(tmp_path / "x.json")


# ---------------------------------------------------------------- names


def test_names_of_files_do_not_collide(tmp_path):
    taken = set()
    assert [unused(n, taken) for n in ("cat", "cat-2", "cat", "Cat", "dog", "cat")] == [
        "cat", "cat-2", "cat-3", "Cat-4", "dog", "cat-5",
    ]  # fmt: skip
    assert slug(" a/b\\c..d \n<e> ") == "a-b-c-d-e"
    assert slug("../..") == "input"
    for text in ("x" * 300, "猫" * 300, "é" * 300):
        assert len(slug(text).encode()) <= 80
        (tmp_path / slug(text)).write_text("")
    same = [crafted(method="m", target=t) for t in ("a b", "a/b", "a>b")]
    assert file_names(same) == ["m.a-b", "m.a-b-2", "m.a-b-3"]
    assert file_names([crafted(method=m, target="t") for m in ("m", "n", "m")]) == ["m", "n", "m-2"]


def test_a_panel_is_never_written_over_the_picture_it_explains(tmp_path):
    pictures = [save(tmp_path / f"{name}.png", pixels(seed=i)) for i, name in enumerate(("a", "b"))]
    originals = tree(tmp_path)
    found = pl.explain(bright_model(), pictures)
    files = found.save(tmp_path)
    left = tree(tmp_path)
    assert {k: left[k] for k in originals} == originals
    assert {f.name for f in files} == set(left) - set(originals)
    assert {"a-2.png", "b-2.png"} <= set(left)
    assert names_of_inputs(
        tmp_path, [f"{tmp_path}/A.PNG", f"{tmp_path}/b.jpg", f"{tmp_path}/in/c.png", "sample:cat"]
    ) == {"a"}
