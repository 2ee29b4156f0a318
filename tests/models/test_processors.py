"""Models of transformers, with the labels, the processor and the kind of problem that are saved beside them."""

import numpy as np
import pytest
import torch
from PIL import Image

import pellucid as pl
from pellucid.errors import TargetError
from pellucid.media import read_image
from pellucid.models.processors import from_processor

transformers = pytest.importorskip("transformers")


def tiny(**options):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        **options,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config).eval()


NAMES = {"id2label": {0: "cat", 1: "dog", 2: "cow"}, "label2id": {"cat": 0, "dog": 1, "cow": 2}}


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (48, 70, 3), np.uint8)
    smooth = Image.fromarray(pixels).resize((9, 6)).resize((70, 48), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


@pytest.mark.parametrize(
    "processor",
    [
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
        transformers.ViTImageProcessor(size={"height": 32, "width": 24}, resample=3, do_normalize=False),
        transformers.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_rescale=False, image_mean=[9.0] * 3),
    ],
    ids=["vit", "plain", "clip", "convnext", "not rescaled"],
)
def test_processors_are_done_alike(processor, picture):
    expected = processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"][0].float()
    found, _ = from_processor(processor)(read_image(picture))
    assert found.shape == expected.shape
    # the processors resize by torch, which rounds to another of 255 levels than PIL now and then
    levels = from_processor(processor).std
    off = ((found - expected).abs() * torch.tensor(levels)[:, None, None] * 255).max()
    assert off <= 1.01


def test_labels_and_processor_of_a_folder_are_used(tmp_path, picture):
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3])
    tiny(**NAMES).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    named = pl.load(f"hf:{tmp_path}")
    wrapped = pl.wrap(transformers.ViTForImageClassification.from_pretrained(tmp_path).eval())
    for model in (named, wrapped):
        assert model.labels == ("cat", "dog", "cow")
        assert model.preprocess.mean == (0.1, 0.2, 0.3)
        assert model.preprocess.input_size == (32, 32)
    e = pl.explain(named, picture, method="saliency")
    logits = named.module(model.preprocess(read_image(picture))[0][None]).logits[0]
    assert {p.label: p.probability for p in e.prediction} == pytest.approx(
        dict(zip(("cat", "dog", "cow"), logits.softmax(0).tolist(), strict=True)), abs=1e-5
    )


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        ("single_label_classification", "softmax"),
        ("multi_label_classification", "sigmoid"),
        ("regression", "none"),
        (None, "softmax"),
    ],
)
def test_the_kind_of_problem_is_obeyed(problem, kind, picture):
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    model = pl.wrap(tiny(problem_type=problem, **NAMES), transform=processor)
    assert pl.explain(model, picture, method="saliency").record.model["reading"]["scores"] == kind


def test_generic_labels_are_none_and_one_number_is_a_value(picture):
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    model = pl.wrap(tiny(num_labels=1), transform=processor)
    assert model.labels is None
    assert np.isnan(pl.explain(model, picture, method="saliency").prediction[0].probability)


def test_embeddings_are_no_class_scores(picture):
    embedding = tiny().vit
    model = pl.wrap(embedding, transform=transformers.ViTImageProcessor(size={"height": 32, "width": 32}))
    with pytest.raises(TargetError, match=r"y.last_hidden_state \(1, 17, 16\).*not \(N, classes\)"):
        pl.explain(model, picture, method="saliency")
    e = pl.explain(model, picture, method="saliency", target=lambda y: y.last_hidden_state[:, :, 3].mean(1))
    assert e.prediction == []
