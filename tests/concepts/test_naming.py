import json

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid as pl
from concepts.test_bank import COLOURS, GREY, NAMES, folder, model  # noqa: F401
from helpers.cases import save
from pellucid.concepts.naming import Overlap, by_examples, by_regions, by_words, clip_names
from pellucid.errors import DataError, MediaError, PellucidError
from pellucid.media import read_folder
from pellucid.media.regions import read_regions
from pellucid.models.features import extract


@pytest.fixture(scope="module")
def words(folder):  # noqa: F811
    features = extract(model(), read_folder(folder), "3", pool=None, cache=None)
    return features, pl.concepts.NMF(count=4).fit(features.tokens())


def owner(words):
    """Which colour each concept is, by its strongest place."""
    features, dictionary = words
    codes = dictionary.encode(features.tokens())
    return [NAMES[int(features.labels[features.place(int(codes[:, k].argmax()))[0]])] for k in range(4)]


def test_regions_name_the_colours(words, folder, tmp_path):  # noqa: F811
    features, dictionary = words
    given = read_folder(folder)
    for i in range(len(given)):
        inside = (given.read(i).pixels == COLOURS[given.labels[i]]).all(-1)
        name = f"{given.classes[given.labels[i]]}-{i}.png"
        Image.fromarray((inside * (given.labels[i] + 1)).astype(np.uint8)).save(tmp_path / name)
    truth = {i: tmp_path / f"{given.classes[given.labels[i]]}-{i}.png" for i in range(len(given))}

    def regions(i):
        values = np.array(Image.open(truth[i]))
        return {NAMES[v - 1]: values == v for v in np.unique(values) if v}

    found = by_regions(features, dictionary, regions)
    named = [n.name for n in found]
    assert [n for n in named if n] == [o for n, o in zip(named, owner(words), strict=True) if n]
    assert sum(map(bool, named)) >= 3
    assert all(n.score >= 0.04 for n in found if n.name)
    assert by_regions(features, dictionary, regions, least=1.1)[0].name == ""
    with pytest.raises(DataError, match="labelled region"):
        by_regions(features, dictionary, lambda _i: {})


def test_overlap_is_the_intersection_over_the_union():
    generator = np.random.default_rng(0)
    maps, masks = generator.random((3, 2, 8, 9)), generator.random((3, 8, 9)) < 0.3
    maps[:, :, :, 0] = np.nan  # never seen
    overlap = Overlap(np.array([0.5, 0.8]))
    for m, mask in zip(maps, masks, strict=True):
        overlap.add(m, {"thing": mask})
    names, iou = overlap.iou()
    assert names == ["thing"]
    seen = np.isfinite(maps[:, 0])
    for k, threshold in enumerate((0.5, 0.8)):
        there, region = (maps[:, k] > threshold) & seen, masks & seen
        assert iou[k, 0] == pytest.approx((there & region).sum() / (there | region).sum())


def test_label_images_are_found_by_name(tmp_path):
    for stem in ("a", "b", "c"):
        save(tmp_path / "pictures" / f"{stem}.jpg")
    labels = np.zeros((6, 6), np.uint8)
    labels[:3], labels[3:, 3:] = 1, 7
    save(tmp_path / "regions" / "a.png", labels)
    save(tmp_path / "regions" / "b_mask.png", (labels == 1).astype(np.uint8) * 255)
    (tmp_path / "regions" / "names.json").write_text(json.dumps({"1": "sky"}))
    pictures = read_folder(tmp_path / "pictures")
    found = read_regions(tmp_path / "regions", pictures)
    assert set(found(0)) == {"sky", "region 7"}
    assert found(0)["sky"].sum() == 18
    assert set(found(1)) == {"region"}
    assert found(2) == {}
    (tmp_path / "regions" / "names.json").write_text("[")
    with pytest.raises(MediaError, match="no table such as"):
        read_regions(tmp_path / "regions", pictures)
    with pytest.raises(MediaError, match="holds no PNG named like"):
        read_regions(tmp_path / "pictures", pictures)
    with pytest.raises(MediaError, match="no folder"):
        read_regions(tmp_path / "nowhere", pictures)


def test_example_folders_name_the_colours(words, tmp_path):
    generator = np.random.default_rng(5)
    for k, name in enumerate(NAMES):
        for i in range(8):
            picture = np.full((64, 64, 3), GREY, np.uint8)
            y, x = generator.integers(0, 6, 2) * 8
            picture[y : y + 16, x : x + 16] = np.clip(COLOURS[k] + generator.integers(-9, 9, 3), 0, 255)
            save(tmp_path / f"{name} things" / f"{i}.png", picture)
    examples = extract(model(), read_folder(tmp_path), "3", pool=None, cache=None)
    _, dictionary = words
    found = by_examples(dictionary, examples)
    assert [n.name for n in found] == [f"{o} things" for o in owner(words)]
    shuffled = read_folder(tmp_path)
    order = np.random.default_rng(0).permutation(len(shuffled))
    object.__setattr__(examples.pictures, "labels", shuffled.labels[order])
    assert [n.name for n in by_examples(dictionary, examples)] == [""] * 4
    plain = extract(model(), read_folder(tmp_path / "red things"), "3", pool=None, cache=None)
    with pytest.raises(DataError, match="at least two sub-folders"):
        by_examples(dictionary, plain)


def test_words_that_fit_the_pictures_of_a_concept_name_it():
    generator = np.random.default_rng(0)
    texts = np.linalg.qr(generator.standard_normal((8, 8)))[0][:5]
    truth = generator.integers(0, 5, 60)
    pictures = texts[truth] + 0.1 * generator.standard_normal((60, 8))
    responses = np.stack([(truth == 3) * 2.0 + 0.01, (truth == 1) * 1.0, np.zeros(60)], 1)
    found = by_words(responses, pictures, texts, list("abcde"), top=20)
    assert [n.name for n in found] == ["d", "b", ""]


def test_without_open_clip_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(PellucidError, match=r"pellucid\[clip\]"):
        clip_names(np.ones((1, 1)), read_folder("sample:cat"), ["cat"], weights="openai")


def test_words_without_weights_are_refused():
    with pytest.raises(PellucidError, match="trained CLIP: give its weights"):
        clip_names(np.ones((1, 1)), read_folder("sample:cat"), ["cat"])


@pytest.mark.slow
def test_clip_names_are_those_of_its_embeddings(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(3)
    net, _, prepare = open_clip.create_model_and_transforms("ViT-S-32-alt", pretrained=None)
    torch.save(net.state_dict(), tmp_path / "clip.pt")
    names, given = ["cat", "cup", "rocket"], read_folder(["sample:cat", "sample:coffee", "sample:rocket"])
    responses = np.random.default_rng(0).random((3, 4))
    before = torch.get_rng_state()
    found = clip_names(responses, given, names, model="ViT-S-32-alt", weights=str(tmp_path / "clip.pt"))
    assert torch.equal(torch.get_rng_state(), before)
    net.eval()
    tokens = open_clip.get_tokenizer("ViT-S-32-alt")([f"a photo of {n}" for n in names])
    with torch.no_grad():
        texts = torch.nn.functional.normalize(net.encode_text(tokens))
        seen = torch.cat([net.encode_image(prepare(given.read(i).pil())[None]) for i in range(3)])
        chances = (100 * torch.nn.functional.normalize(seen) @ texts.T).softmax(1).double().numpy()
    for k, name in enumerate(found):
        weight = responses[:, k] / responses[:, k].max()
        scores = [
            sum(weight[i] * np.log(chances[i, w]) for i in range(3)) / weight.sum() - np.log(chances[:, w].mean())
            for w in range(3)
        ]
        assert name.name == names[int(np.argmax(scores))]
        assert name.score == pytest.approx(max(scores), rel=1e-3, abs=1e-3)
