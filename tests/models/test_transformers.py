"""Families of transformers, tiny and with random weights: six methods, and each model as it was before."""

import copy

import pytest
import torch
from torch.utils._pytree import tree_leaves

from helpers.nets import noise, seeded
from helpers.odd_nets import snapshot
from pellucid.errors import PellucidError
from pellucid.heatmaps import get_method
from pellucid.models.sources.transformers import HF

transformers = pytest.importorskip("transformers")

SIX = ("saliency", "integrated-gradients", "grad-cam", "occlusion", "rise", "recipro-cam")
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8}
VIT |= {"image_size": 32}
CNN = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 2, "image_size": 32}
PYRAMID = {**CNN, "num_attention_heads": [1, 1, 2, 2]}
IMAGES = {
    "Beit": VIT,
    "Bit": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_groups": 4},
    "ConvNext": CNN,
    "ConvNextV2": CNN,
    "Cvt": {"embed_dim": [8, 16, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "Data2VecVision": VIT,
    "DeiT": VIT,
    "Dinov2": VIT,
    "Dinov2WithRegisters": VIT,
    "FocalNet": {"embed_dim": 8, "depths": [1, 1, 1, 1], "image_size": 32, "patch_size": 2},
    "IJepa": VIT,
    "MobileNetV1": {"depth_multiplier": 0.25},
    "MobileNetV2": {"depth_multiplier": 0.35},
    "MobileViT": {"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [8] * 6 + [16], "image_size": 64},
    "PoolFormer": {**CNN, "hidden_sizes": [8, 8, 16, 16]},
    "PvtV2": {**PYRAMID, "image_size": 32},
    "RegNet": {**CNN, "embedding_size": 8, "groups_width": 4},
    "ResNet": {**CNN, "embedding_size": 8},
    "Segformer": {**PYRAMID, "decoder_hidden_size": 8},
    "Swin": SWIN,
    "Swinv2": SWIN,
    "ViT": VIT,
    "ViTMSN": VIT,
}
OFTEN = ("ResNet", "Segformer", "Swin", "ViT")
CLIPS = {**VIT, "num_frames": 4, "tubelet_size": 2}


def unharmed(net, x, target):
    """Explain it six ways; its answers, hooks, state and whatever else it holds are those of before."""
    twin, before = copy.deepcopy(net), snapshot(net.train())
    maps = 0
    for name in SIX:
        try:
            maps += bool(get_method(name).quick().attribute(net, x, target).isfinite().all())
        except PellucidError:
            assert name in ("grad-cam", "recipro-cam"), name  # no layer of so small a net reads as a picture
        assert snapshot(net) == before, name
    assert maps >= 4
    with torch.no_grad():
        answers, expected = tree_leaves(net.eval()(x)), tree_leaves(twin.eval()(x))
    assert len(answers) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(answers, expected, strict=True) if isinstance(a, torch.Tensor))
    hooks = [[len(m._forward_hooks) for m in model.modules()] for model in (net, twin)]
    assert hooks[0] == hooks[1]


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in IMAGES])
def test_picture_models_are_as_they_were(name, hidden):
    """With hidden states too, for which transformers sets hooks of its own in the first pass."""
    config = getattr(transformers, f"{name}Config")(**IMAGES[name], num_labels=3, output_hidden_states=hidden)
    cls = getattr(transformers, f"{name}ForImageClassification")
    side = IMAGES[name].get("image_size", 64)
    unharmed(seeded(lambda: cls(config)), noise(1, 3, side, side), lambda output: output.logits[:, 1])


@pytest.mark.parametrize("hidden", [False, True])
def test_a_segmentation_model_is_as_it_was(hidden):
    config = transformers.SegformerConfig(
        **IMAGES["Segformer"], num_labels=3, output_hidden_states=hidden, output_attentions=hidden
    )
    net = seeded(lambda: transformers.SegformerForSemanticSegmentation(config)).eval()
    unharmed(net, noise(1, 3, 64, 64), lambda output: output.logits[:, 1].mean((1, 2)))


class BatchTimeChannels(torch.nn.Module):
    """`(N, C, T, H, W)` to what transformers' video models take."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", HF)
def test_video_models_that_load_by_name_are_as_they_were(kind):
    prefix = HF[kind][0]
    settings = {k: v for k, v in CLIPS.items() if kind != "timesformer" or k != "tubelet_size"}
    settings |= {"tubelet_size": [2, 8, 8], "video_size": [4, 32, 32]} if kind == "vivit" else {}
    config = getattr(transformers, f"{prefix}Config")(**settings, num_labels=3, output_hidden_states=True)
    net = BatchTimeChannels(seeded(lambda: getattr(transformers, f"{prefix}ForVideoClassification")(config)).eval())
    unharmed(net, noise(1, 3, 4, 32, 32), lambda output: output.logits[:, 1])
