import json
import math
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import pellucid as pl
from helpers.cases import bright_model, bright_net, pixels, save
from pellucid import storage
from pellucid.features import Settings
from pellucid.heatmaps import IntegratedGradients
from pellucid.verbs.verify import Verification
from pellucid.verbs.verify import compared as outcome

NAME = "timm:test_resnet"  # 0.5 million weights


@pytest.fixture(scope="module")
def loaded():
    return pl.load(NAME, random_weights=3)


@pytest.fixture
def picture(tmp_path):
    return save(tmp_path / "in" / "p.png", pixels(120, 150))


def explained(model, inputs, folder, *arguments, **options):
    e = pl.explain(model, inputs, *arguments, **options)
    return next(f for f in e.save(folder) if f.suffix == ".json")


def reseal(file, arrays=None, **changes):
    """Change a saved explanation as its own writer would have: every seal fits again."""
    back, _ = storage.load(file)
    for name, value in changes.items():
        setattr(back, name, value)
    storage.save(back, file)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("grad-cam", None),
        ("saliency", "tabby"),
        ("hires-cam", "tabby>lynx"),
        ("channel-relevance", pl.TopClass(1)),
        ("eigen-cam", pl.Unit("layer3", 2, (1, 4))),
        ("input-x-gradient", -1),
        (IntegratedGradients(baseline="uniform", draws=2, max_steps=8, tolerance=None), 5),
        (IntegratedGradients(baseline="blur", max_steps=24, tolerance=0.5), None),
    ],
)
def test_the_same_model_and_picture_give_the_same(loaded, picture, tmp_path, method, target):
    file = explained(loaded, picture, tmp_path / "out", method, target, seed=11)
    for name in (file, file.with_suffix(".npz")):
        found = pl.verify(name)
        assert (found.status, found.difference, found.reasons) == ("same", 0.0, ())
    assert str(found) == "same"


def test_the_seed_of_the_record_is_used(loaded, picture, tmp_path):
    method = IntegratedGradients(baseline="uniform", max_steps=8, tolerance=None)
    a = explained(loaded, picture, tmp_path / "a", method, seed=1)
    b = explained(loaded, picture, tmp_path / "b", method, seed=2)
    assert pl.verify(a).status == pl.verify(b).status == "same"
    assert not np.array_equal(*(np.load(f.with_suffix(".npz"))["attribution"] for f in (a, b)))


def test_the_embedded_model_and_a_sample(embedded_model, tmp_path):
    assert pl.verify(explained(embedded_model, "sample:coffee", tmp_path, "grad-cam++")).status == "same"


def test_a_wrapped_model_must_be_given(picture, tmp_path):
    file = explained(bright_model(name="mine"), picture, tmp_path)
    with pytest.raises(pl.StorageError, match=r"'mine' was wrapped: give it with pl\.verify\(file, model=\.\.\.\)"):
        pl.verify(file)
    assert pl.verify(file, model=bright_model()).status == "same"


def test_a_picture_from_memory_must_be_given(tmp_path):
    array = pixels()
    file = explained(bright_model(), array, tmp_path)
    with pytest.raises(pl.StorageError, match=r"only in memory: give it with pl\.verify\(file, inputs=\.\.\.\)"):
        pl.verify(file, model=bright_model())
    assert pl.verify(file, model=bright_model(), inputs=array).status == "same"
    found = pl.verify(file, model=bright_model(), inputs=pixels(seed=5))
    assert found.status == "different"
    assert "the picture is not the one of the record" in found.reasons
    with pytest.raises(pl.StorageError, match="one picture"):
        pl.verify(file, model=bright_model(), inputs=[array])


def test_changed_weights_are_the_reason(tmp_path, picture):
    weights = tmp_path / "w.safetensors"
    state = pl.load(NAME, random_weights=0).module.state_dict()
    save_file(state, weights)
    file = explained(pl.load(NAME, weights=weights), picture, tmp_path / "out", "hires-cam")
    assert pl.verify(file).status == "same"
    state["conv1.0.weight"] = state["conv1.0.weight"] * 1.5
    save_file(state, weights)
    found = pl.verify(file)
    assert found.status == "different"
    assert found.reasons == ("the model's weights are not those of the record",)
    assert found.difference > 1e-3


def test_weights_that_do_not_matter_still_differ(picture, tmp_path):
    model = bright_model()
    file = explained(model, picture, tmp_path, "input-x-gradient", "bright")
    net = bright_net()
    with torch.no_grad():
        net[4].bias[1] += 1  # the bias of the other class: not in this gradient
    found = pl.verify(file, model=pl.wrap(net, transform=model.preprocess, labels=model.labels))
    assert (found.status, found.difference) == ("different", 0.0)
    assert found.reasons == ("the model's weights are not those of the record",)


def test_a_changed_picture_is_the_reason(loaded, picture, tmp_path):
    file = explained(loaded, picture, tmp_path / "out", "hires-cam")
    save(tmp_path / "in" / "p.png", pixels(120, 150, seed=8))
    found = pl.verify(file)
    assert found.status == "different"
    assert found.reasons == ("the picture is not the one of the record",)
    assert "the picture is not the one of the record" in str(found)
    os.unlink(picture)
    with pytest.raises(pl.MediaError, match=r"no file or folder .*p\.png"):
        pl.verify(file)


@pytest.mark.parametrize(("factor", "status"), [(1 + 1e-5, "within tolerance"), (1.01, "different"), (-1, "different")])
def test_a_changed_value_is_noticed_though_every_seal_fits(loaded, picture, tmp_path, factor, status):
    file = explained(loaded, picture, tmp_path / "out", "hires-cam")
    back, _ = storage.load(file)
    values = back.attribution.clone()
    peak = values.abs().argmax()
    values.view(-1)[peak] *= factor
    reseal(file, attribution=values)
    found = pl.verify(file)
    assert found.status == status
    assert found.difference == pytest.approx(abs(factor - 1) / max(1, abs(factor)), rel=0.05)
    assert found.reasons == ()
    assert pl.verify(file, tolerance=3).status == "within tolerance"


def test_broken_seals_are_reasons(loaded, picture, tmp_path):
    file = explained(loaded, picture, tmp_path / "out", "hires-cam")
    meta = json.loads(file.read_text())
    meta["target"] = "something else"
    file.write_text(json.dumps(meta))
    found = pl.verify(file)
    assert (found.status, found.difference) == ("different", 0.0)
    assert found.reasons == ("p.hires-cam.json was changed after it was written",)
    with np.load(file.with_suffix(".npz")) as arrays:
        np.savez(file.with_suffix(".npz"), attribution=arrays["attribution"] * 2)
    found = pl.verify(file)
    assert found.difference == pytest.approx(0.5)
    assert len(found.reasons) == 2


def test_another_shape_is_different_without_a_number(loaded, picture, tmp_path):
    file = explained(loaded, picture, tmp_path / "out", "hires-cam")
    reseal(file, attribution=torch.zeros(1, 2, 2))
    found = pl.verify(file)
    assert found.status == "different"
    assert math.isnan(found.difference)
    assert "(1, 5, 5), not (1, 2, 2)" in str(found)
    assert "nan" not in str(found)


def compared(a, b, reasons=()):
    return outcome({"map": a}, {"map": b}, 1e-3, list(reasons))


def test_comparing():
    a = torch.tensor([[1.0, torch.nan, torch.inf, -4.0]])
    assert compared(a, a.clone()) == Verification("same", 0.0)
    assert compared(torch.zeros(2), torch.zeros(2)) == Verification("same", 0.0)
    b = torch.tensor([2.0, -4.0])
    assert compared(b, torch.tensor([2.0, -3.0])) == Verification("different", 0.25)
    assert compared(b, torch.tensor([2.0, torch.nan])).status == "different"
    assert compared(torch.zeros(2), torch.tensor([0.0, 1e-4])).status == "within tolerance"
    assert compared(b, b.clone(), ["because"]) == Verification("different", 0.0, ("because",))


def test_of_several_arrays_the_one_that_differs_most_counts():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([100.0, 0.0])
    found = outcome({"x": a, "y": b}, {"x": a.clone(), "y": torch.tensor([100.0, 10.0])}, 1e-3, [])
    assert found == Verification("different", 0.1)
    found = outcome({"x": b, "y": a}, {"x": b.clone(), "y": torch.tensor([1.0, torch.nan])}, 1e-3, [])
    assert found.status == "different"


def test_what_no_record_can_hold_is_said(picture, tmp_path):
    model = bright_model()
    file = explained(model, picture, tmp_path / "f", target=lambda y: y[:, 0])
    with pytest.raises(pl.StorageError, match=r"target was a function.*give it with pl\.verify\(file, target=\.\.\.\)"):
        pl.verify(file, model=model)
    method = IntegratedGradients(baseline=torch.ones(3, 64, 64), max_steps=4, tolerance=None)
    file = explained(model, picture, tmp_path / "t", method)
    with pytest.raises(pl.StorageError, match="baseline was a tensor"):
        pl.verify(file, model=model)


def test_a_relative_path_is_found_from_elsewhere(loaded, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "in")
    file = explained(loaded, "p.png", "out", "hires-cam").resolve()
    monkeypatch.chdir(tmp_path)
    assert pl.verify(file).status == "same"
    assert pl.read(file).picture is not None


def test_weights_and_labels_named_by_relative_paths_are_found_from_elsewhere(picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(pl.load(NAME, random_weights=0).module.state_dict(), "w.safetensors")
    (tmp_path / "labels.txt").write_text("\n".join(f"thing {i}" for i in range(1000)))
    model = pl.load(NAME, weights="w.safetensors", labels="labels.txt")
    file = explained(model, picture, "out", "saliency", "thing 7").resolve()
    monkeypatch.chdir("/")
    assert pl.verify(file).status == "same"
    (tmp_path / "labels.txt").unlink()  # the record holds the labels themselves
    assert pl.verify(file).status == "same"


@pytest.mark.parametrize("label", ["a, b", "a>b", "top", "7", "unit:x", " "])
def test_targets_named_by_odd_labels_are_found_again(picture, tmp_path, label):
    model = bright_model(labels=("bright", label))
    file = explained(model, picture, tmp_path, "input-x-gradient", [pl.Class(label)])
    assert pl.verify(file, model=model).status == "same"
    assert pl.read(file).target == label


def test_a_class_for_each_picture_is_recorded_one_by_one(tmp_path):
    paths = [save(tmp_path / "in" / f"{i}.png", pixels(seed=i)) for i in range(3)]
    model = bright_model()
    found = pl.explain(model, paths, "input-x-gradient", pl.PerSample((1, 0, 1)))
    files = [f for f in found.save(tmp_path / "out") if f.suffix == ".json"]
    assert [pl.read(f).record.target for f in files] == ["1", "0", "1"]
    assert [pl.verify(f, model=model).status for f in files] == ["same"] * 3


def test_a_record_of_a_random_transform_is_not_called_the_same(tmp_path):
    from torchvision import transforms as T  # noqa: N812

    flip = T.Compose([T.Resize((64, 64)), T.RandomAdjustSharpness(9.0, p=0.0), T.RandomCrop(64, 60), T.ToTensor()])
    model = pl.wrap(bright_net(), transform=flip)
    torch.manual_seed(0)
    file = explained(model, pixels(), tmp_path, "input-x-gradient", 0)
    found = pl.verify(file, model=model, inputs=pixels())
    assert found.status == "different"
    assert found.difference > 1e-3


def lead(y):
    return y[:, 0] - y[:, 1]


def test_a_function_is_given_and_compared(picture, tmp_path):
    model = bright_model()
    file = explained(model, picture, tmp_path / "f", "saliency", target=lead)
    assert pl.verify(file, model=model, target=lambda y: y[:, 0] - y[:, 1]).status == "same"
    assert pl.verify(file, model=model, target=lambda y: y[:, 1]).status == "different"
    named = explained(model, picture, tmp_path / "n", "saliency", target="bright>dark")
    assert np.array_equal(*(np.load(f.with_suffix(".npz"))["attribution"] for f in (file, named)))
    with pytest.raises(pl.StorageError, match="holds its target, '0>1': leave out target="):
        pl.verify(named, model=model, target=lead)


def test_a_function_that_relevance_is_to_is_given(picture, tmp_path):
    model = bright_model()
    file = pl.activations(model, picture, layer=["1"], by="relevance", target=lead).save(tmp_path)[0]
    with pytest.raises(pl.StorageError, match="target was a function"):
        pl.verify(file, model=model)
    assert pl.verify(file, model=model, target=lead).status == "same"
    plain = pl.activations(model, picture, layer=["1"]).save(tmp_path / "plain")[0]
    assert pl.verify(plain, model=model).status == "same"


def test_results_without_a_target_take_none(picture, tmp_path):
    quick = Settings(steps=2, views=1)
    found = pl.visualize(bright_model(), layer="0", channel=0, settings=quick, exemplars=None)
    file = found.save(tmp_path)[0]
    with pytest.raises(pl.StorageError, match="no target that could be given"):
        pl.verify(file, model=bright_model(), target=lead)


@pytest.mark.parametrize("target", [None, lead, 1], ids=["top", "function", "class"])
def test_tests_of_concepts_are_of_the_target_of_their_record(target, tmp_path):
    model = bright_model()
    for name in ("concepts/a", "concepts/b", "asked", "random"):
        for i in range(8):
            save(tmp_path / name / f"{i}.png", pixels(64, 64, seed=i + 10 * len(name)) // (1 + (name[-1] == "b")))
    folders = [str(tmp_path / name) for name in ("concepts", "asked", "random")]
    file = pl.tcav(model, *folders, target, layer="1", cache=None).save(tmp_path / "out")[0]
    if target is lead:
        with pytest.raises(pl.StorageError, match="target was a function"):
            pl.verify(file, model=model)
        assert pl.verify(file, model=model, target=lambda y: y[:, 1]).status == "different"
    assert pl.verify(file, model=model, target=lead if target is lead else None).status == "same"
