"""Detectors, segmenters, zero-shot classifiers of transformers, tiny and untrained: answers equal the model's own."""

import json

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.errors import ModelError
from pellucid.heatmaps import get_method
from pellucid.models.zero_shot import Unprompted, ZeroShot

transformers = pytest.importorskip("transformers")

SIZE = 64
PLAIN = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
RESNET |= {"layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]}
SMALL = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2}
SMALL |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 6, "num_labels": 4}


def own(backbone):
    return {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": backbone}


def backbone(*stages):
    kept = {k: v for k, v in RESNET.items() if k != "model_type"}
    return transformers.ResNetConfig(**(kept | {"out_features": list(stages)}))


def yolos():
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=[SIZE, SIZE],
        patch_size=16, num_detection_tokens=6, num_labels=4,
    )  # fmt: skip
    return transformers.YolosForObjectDetection(config), transformers.YolosImageProcessor()


def detr():
    config = transformers.DetrConfig(**SMALL, **own(backbone("stage4")))
    return transformers.DetrForObjectDetection(config), transformers.DetrImageProcessor()


def conditional_detr():
    config = transformers.ConditionalDetrConfig(**SMALL, **own(backbone("stage4")))
    return transformers.ConditionalDetrForObjectDetection(config), transformers.ConditionalDetrImageProcessor()


def deformable_detr():
    config = transformers.DeformableDetrConfig(
        **SMALL, **own(backbone("stage2", "stage3", "stage4")), num_feature_levels=3
    )
    return transformers.DeformableDetrForObjectDetection(config), transformers.DeformableDetrImageProcessor()


DETECTORS = [yolos, detr, pytest.param(conditional_detr, marks=pytest.mark.slow)]
DETECTORS.append(pytest.param(deformable_detr, marks=pytest.mark.slow))


def made(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, processor = build()
        for parameter in net.parameters():  # untrained heads are near zero, and sure of nothing
            parameter.data += torch.randn_like(parameter) * 0.3
    return net.eval(), processor


def photo():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def saved(net, folder, **processor):
    net.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PLAIN, **processor}))
    return f"hf:{folder}"


@pytest.mark.parametrize("build", DETECTORS, ids=lambda b: getattr(b, "__name__", None))
def test_a_detectors_boxes_are_those_of_its_processor(build):
    net, processor = made(build)
    model, x = pl.wrap(net), photo()
    rows = model.predict(x)
    own = processor.post_process_object_detection(net(x), threshold=0.5, target_sizes=[(SIZE, SIZE)] * 2)
    assert sum(len(each["scores"]) for each in own) > 0
    for mine, theirs in zip(rows, own, strict=True):
        order = theirs["scores"].argsort(descending=True, stable=True)[:20]
        assert [p.probability for p in mine] == pytest.approx(theirs["scores"][order].tolist(), abs=1e-5)
        assert [p.index for p in mine] == theirs["labels"][order].tolist()
        places = torch.tensor([p.place for p in mine]).reshape(-1, 4)
        assert torch.allclose(places, theirs["boxes"][order], atol=1e-3)


@pytest.mark.parametrize("build", DETECTORS, ids=lambda b: getattr(b, "__name__", None))
def test_boxes_of_a_detector_have_maps_of_their_own(build):
    net, _ = made(build)
    model, x = pl.wrap(net), photo()[:1]
    places = model.outputs(x).boxes[0, :2].tolist()  # of two queries, answered or not
    a, b = pl.explain(model, x[0], "saliency", [f"box:1@{','.join(map(str, place))}" for place in places])
    assert a.attribution.isfinite().all()
    assert a.attribution.abs().sum() > 0
    assert not torch.allclose(a.attribution, b.attribution)


def test_a_saved_detector_is_loaded_for_what_it_is(tmp_path):
    net, _ = made(yolos)
    model = pl.load(saved(net, tmp_path))
    e = pl.explain(model, "sample:coffee", get_method("occlusion", window=32, stride=32), "box:1@60,60,300,300")
    assert model.answering.name == "boxes"
    assert e.record.target == "box:1@60,60,300,300"
    x, _ = model.pictures(pl.media.read_image("sample:coffee"))
    assert torch.allclose(model.outputs(x[None]).classes, net(x[None]).logits.softmax(-1)[..., :-1], atol=1e-6)


def mask2former():
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(
            image_size=SIZE, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16, encoder_layers=1,
        decoder_layers=1, num_attention_heads=2, dim_feedforward=16, num_queries=5, num_labels=4,
    )  # fmt: skip
    return transformers.Mask2FormerForUniversalSegmentation(config), transformers.Mask2FormerImageProcessor()


def test_a_segmenter_by_queries_gives_the_classes_of_its_processor(tmp_path):
    net, processor = made(mask2former)
    model, x = pl.wrap(net), photo()
    own = processor.post_process_semantic_segmentation(net(x))
    scores = model.outputs(x)
    assert (scores.argmax(1) == torch.stack(own)).float().mean() == 1
    assert len(torch.stack(own).unique()) > 1
    e = pl.explain(model, x[0], "saliency", "region:@20,30")
    assert e.attribution.abs().sum() > 0
    assert pl.load(saved(net, tmp_path)).predict(x)[0] == model.predict(x)[0]


def clip():
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "image_size": SIZE, "patch_size": 16}
    text |= {"vocab_size": 99, "max_position_embeddings": 8, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    return transformers.CLIPModel(config), None


def siglip():
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "image_size": SIZE, "patch_size": 16}
    text |= {"vocab_size": 99, "max_position_embeddings": 8}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)), None


def tokens(texts):
    """As good as any tokenizer: letters."""
    ids = torch.tensor([[ord(c) % 90 + 3 for c in text[-6:].rjust(6)] + [2] for text in texts])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize(("build", "task"), [(clip, "classes"), (siglip, "labels")])
def test_zero_shot_answers_are_the_models_own(build, task):
    net, _ = made(build)
    labels, x = ["dog", "a photo of my cat", "rocket"], photo()
    texts = tokens(["a photo of dog", "a photo of my cat", "a photo of rocket"])
    model = pl.wrap(Unprompted(net, tokens, "hf:x").prompted(labels), labels=labels)
    own = net(pixel_values=x, **texts).logits_per_image
    assert torch.allclose(model.outputs(x), own, atol=1e-4)
    probabilities = own.softmax(1) if task == "classes" else own.sigmoid()
    assert model.predict(x)[0][0].probability == pytest.approx(float(probabilities[0].max()), abs=1e-5)
    assert model.settled(x, model.outputs(x)).answering.name == task
    a, b = pl.explain(model, x[0], "saliency", ["dog", "rocket"])
    assert a.attribution.abs().sum() > 0
    assert not torch.allclose(a.attribution, b.attribution)


def test_labels_of_the_command_line_make_the_classifier(tmp_path, monkeypatch):
    net, _ = made(clip)
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: lambda texts, **___: tokens(texts)
    )
    name = saved(net, tmp_path)
    model = pl.load(name, labels="dog, cat")
    assert model.labels == ("dog", "cat")
    assert model.source["labels"] == ["dog", "cat"]
    x = photo()
    own = net(pixel_values=x, **tokens(["a photo of dog", "a photo of cat"])).logits_per_image
    assert np.allclose(model.outputs(x), own.detach(), atol=1e-4)
    with pytest.raises(ModelError, match="compares pictures with texts: say which"):
        pl.load(name)


def test_what_compares_otherwise_is_refused():
    net, _ = made(clip)

    class Odd(type(net)):
        def forward(self, **given):
            answer = super().forward(**given)
            answer.logits_per_image = answer.logits_per_image * 2 + 1
            return answer

    net.__class__ = Odd
    with pytest.raises(ModelError, match="in a way of its own"):
        ZeroShot(net, tokens(["a"]))
