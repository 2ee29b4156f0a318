"""Where the truth lies: annotations of any kind, arrays, boxes; and objects of libraries that explain."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from pellucid.errors import MediaError
from pellucid.evaluation.adapters import ADAPTERS
from pellucid.verbs.truths import TruthSource

SIZE = (4, 6)
DOG = torch.zeros(SIZE, dtype=torch.bool)
DOG[1:3, 2:5] = True
CAT = torch.zeros(SIZE, dtype=torch.bool)
CAT[0, :2] = True


def _coco(folder):
    boxes = [(1, [2, 1, 3, 2]), (2, [0, 0, 2, 1])]
    objects = [
        {"id": k, "image_id": 7, "category_id": c, "bbox": box, "area": 1, "iscrowd": 0}
        for k, (c, box) in enumerate(boxes)
    ]
    text = {
        "images": [{"id": 7, "file_name": "a.png", "width": 6, "height": 4}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": objects,
    }
    (folder / "truth.json").write_text(json.dumps(text))
    return folder / "truth.json"


def _table(folder):
    (folder / "boxes.csv").write_text("name,x0,y0,x1,y1,label\na,2,1,5,3,dog\na,0,0,2,1,cat\n")
    return folder


def _masks(folder):
    Image.fromarray((DOG.int() + 2 * CAT.int()).byte().numpy()).save(folder / "a.png")
    (folder / "classes.txt").write_text("ground\ndog\ncat")
    return folder


@pytest.mark.parametrize("written", [_coco, _table, _masks])
def test_the_class_alone_counts_where_it_is_annotated_and_else_all_objects(tmp_path, written):
    known = TruthSource(written(tmp_path))
    assert known.of("sample:a.png", 0, SIZE, "dog, domestic dog").equal(DOG)
    assert known.of("a.png", 0, SIZE, "Cat").equal(CAT)
    assert known.of("a.png", 0, SIZE, "zebra").equal(DOG | CAT)
    assert known.of("a.png", 0, SIZE).equal(DOG | CAT)
    with pytest.raises(MediaError, match=r"says nothing of b\.png"):
        known.of("b.png", 1, SIZE)


def test_annotations_of_a_picture_of_another_size(tmp_path):
    with pytest.raises(MediaError, match="resized since"):
        TruthSource(_coco(tmp_path)).of("a.png", 0, (8, 12))


def test_an_empty_mask_is_a_mask_and_arrays_are_read_by_name(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(SIZE))
    known = TruthSource(tmp_path)
    assert not known.of("x/a.jpg", 0, SIZE).any()
    assert known.of("b.jpg", 1, SIZE) is None
    (tmp_path / "b.npy").write_bytes(b"no array")
    with pytest.raises(MediaError, match="cannot be read"):
        known.of("b.jpg", 1, SIZE)


def test_a_folder_without_annotations(tmp_path):
    with pytest.raises(MediaError, match=r"none of annotations of one kind.* \.npy masks"):
        TruthSource(tmp_path)


class Corner(nn.Module):
    """Class 0 is light in the upper right."""

    def forward(self, x):
        light = x[:, :, 2:10, 20:30].mean((1, 2, 3))
        return torch.stack([light * 20 - 6, 0 * light], 1)


def test_an_object_of_rex_answers_for_the_class():
    lib = pytest.importorskip("rex_xai.lib")
    asked = lib.ReX(Corner(), [1, 3, 32, 32], "cpu", "RGB")
    asked.args.iters = 3
    draw, bound = ADAPTERS["rex_xai"](asked)
    maps = draw(None, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 0)
    assert bound
    assert asked.data is None
    for found in maps:
        assert found[2:10, 20:30].mean() > 3 * found.mean()


def test_a_configuration_of_autolrp_adds_up_to_the_score():
    autolrp = pytest.importorskip("autolrp")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3, bias=False)).eval()
    x = torch.rand(2, 3, 8, 8)
    draw, bound = ADAPTERS["autolrp"](autolrp.LRPConfig())
    assert not bound
    assert draw(net, x, 1).sum((1, 2)) == pytest.approx(net(x)[:, 1].detach(), rel=1e-3)
    found = pl.evaluate(pl.wrap(net, scores="softmax"), x, {"lrp": autolrp.LRPConfig()}, "srg")
    assert np.isfinite(found["lrp", "srg"]).all()
