"""Pictures of the methods' own pages: several methods on one photo, or on a network whose evidence is known.

`make_images.py` draws them. Methods that average many passes take fewer here than by default.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import toy_networks
from PIL import Image

import pellucid as pl
from pellucid.heatmaps import LRP, DeepLIFT, IntegratedGradients, get_method

CAMS = "cam,grad-cam,grad-cam++,xgrad-cam,hires-cam,layer-cam"


def cams(model: pl.VisionModel) -> pl.Heatmaps:
    """Six class activation maps, out of one pass."""
    return pl.explain(model, "sample:motorcycle", method=CAMS)


def newer_cams(model: pl.VisionModel) -> pl.Heatmaps:
    """Class activation maps since 2019."""
    methods = "fem,kpca-cam,shapley-cam,smooth-grad-cam++,integrated-grad-cam,relevance-cam"
    return pl.explain(model, "sample:motorcycle", method=methods)


def more_cams(model: pl.VisionModel) -> pl.Heatmaps:
    """Class activation maps by eigenvectors, cell by cell, against neighbours, and at several layers."""
    methods = "eigen-cam,eigen-grad-cam,grad-cam-elementwise,finer-cam,refine-cam,multi-scale-cam"
    return pl.explain(model, "sample:motorcycle", method=methods)


def masked_cams(model: pl.VisionModel) -> pl.Heatmaps:
    """Class activation maps without gradients: the score of inputs that channels mask, and of layers without one."""
    few = {"ss-cam": {"samples": 2}, "is-cam": {"samples": 2}}
    names = ("score-cam", "ss-cam", "is-cam", "group-cam", "ablation-cam", "recipro-cam")
    methods = [get_method(name, layer="blocks.4", **few.get(name, {})) for name in names]
    return pl.explain(model, "sample:motorcycle", method=methods)


def gradients(model: pl.VisionModel) -> pl.Heatmaps:
    """The methods that explain the input's pixels."""
    methods = ["saliency", "input-x-gradient", IntegratedGradients(max_steps=100)]
    return pl.explain(model, "sample:rocket", method=methods)


def rectified(model: pl.VisionModel) -> pl.Heatmaps:
    """Gradients that rectifiers let through by another rule."""
    return pl.explain(model, "sample:rocket", method="deconvnet,guided-backprop,guided-grad-cam")


def smoothed(model: pl.VisionModel) -> pl.Heatmaps:
    """Gradients averaged over random copies."""
    return pl.explain(model, "sample:rocket", method="smooth-grad,smooth-grad-squared,var-grad,expected-gradients")


def relevance(model: pl.VisionModel) -> pl.Heatmaps:
    """The score itself, led back by rules."""
    methods = [LRP(), LRP(composite="epsilon-gamma-box"), DeepLIFT(baseline="blur"), "deep-lift-shap"]
    return pl.explain(model, "sample:rocket", method=methods)


def paths(model: pl.VisionModel) -> pl.Heatmaps:
    """Integrals on paths that leave the straight line, or weigh it otherwise."""
    return pl.explain(model, "sample:rocket", method="blur-ig,guided-ig,idgi,integrated-decision-gradients,agi,xrai")


def shares(model: pl.VisionModel) -> pl.Heatmaps:
    """More ways to share the score out by rules."""
    return pl.explain(model, "sample:rocket", "attn-lrp,cp-lrp,libra-gradients,full-grad,excitation-backprop,crp")


def layer_paths(model: pl.VisionModel) -> pl.Heatmaps:
    """Integrals at a layer in the middle, as the input goes from the baseline to the picture."""
    names = ("conductance", "internal-influence", "layer-integrated-gradients")
    return pl.explain(model, "sample:rocket", method=[get_method(name, layer="blocks.4") for name in names])


def hidden(model: pl.VisionModel) -> pl.Heatmaps:
    """Parts of the picture hidden: one window after the other, placed by what was found, or many cells at random."""
    methods = [
        "occlusion",
        "aise",
        get_method("hsic", cells=5, max_samples=768),
        get_method("sobol", cells=5, samples=864),
    ]
    return pl.explain(model, "sample:coffee", method=[*methods, get_method("trace-order", cells=4)])


def segments(model: pl.VisionModel) -> pl.Heatmaps:
    """Segments left out: one at a time, and in coalitions that share the score out fairly."""
    cut = {"segments": "slic", "count": 24}
    methods = [
        get_method("feature-ablation"),
        get_method("lime", count=24, samples=200),
        get_method("kernel-shap", **cut, samples=300),
        get_method("shapley", **cut, max_evaluations=350),
        get_method("owen", max_evaluations=256),
    ]
    return pl.explain(model, "sample:coffee", method=methods)


def masks(model: pl.VisionModel) -> pl.Heatmaps:
    """Masks fitted by gradients: the smallest that takes the score away, the best of a tenth of the picture, both."""
    names = ("meaningful-perturbation", "extremal-perturbation", "igos++")
    return pl.explain(model, "sample:coffee", method=[get_method(name) for name in names])


def tokens(_model: pl.VisionModel) -> pl.Heatmaps:
    """A transformer asked for the green disc, where a blue one and a ring are too: three layers of methods."""
    names = (
        "raw-attention,attention-rollout,attention-relevance,legrad,transformer-attribution,beyond-intuition,"
        "transition-attention,vit-cx,tis"
    )
    return pl.explain(toy_networks.transformer(), toy_networks.photo(), names, "green")


def one_box(_model: pl.VisionModel) -> pl.Heatmaps:
    """A detector asked for its green box."""
    methods = ["d-rise", *(get_method(name, layer="colours") for name in ("odam", "ssgrad-cam"))]
    return pl.explain(toy_networks.detector(), toy_networks.photo(), methods, "box:green")


def region(model: pl.VisionModel) -> pl.Heatmaps:
    """What makes places espresso, by the embedded classifier asked place by place."""
    dense = toy_networks.Dense(model.module).eval()
    asked = pl.wrap(dense, task="regions", transform=model.preprocess, labels=model.labels, name="espresso or not")
    methods = [get_method(name, layer="network.blocks.6") for name in ("seg-grad-cam", "seg-xres-cam")]
    return pl.explain(asked, "sample:coffee", methods, "region:espresso")


def _cat_and_its_view(model: pl.VisionModel, methods: str) -> pl.Heatmaps:
    network = toy_networks.Embedding(model.module).eval()
    embedding = pl.wrap(network, task="embedding", transform=model.preprocess, name="embedding")
    with tempfile.TemporaryDirectory() as folder:
        turned = pl.read_image("sample:cat").pil().rotate(15, Image.Resampling.BICUBIC).crop((70, 40, 410, 280))
        turned.save(view := Path(folder) / "the-cat-turned.png")
        return pl.explain(embedding, view, methods, "pair:sample:cat")


def pair(model: pl.VisionModel) -> pl.Heatmaps:
    """Two views of one cat."""
    return _cat_and_its_view(model, "integrated-jacobians,grad-cam")


def likeness(model: pl.VisionModel) -> pl.Heatmaps:
    """The same without gradients: windows hidden in one of the two."""
    return _cat_and_its_view(model, "sbsm,occlusion")


def memory(_model: pl.VisionModel) -> pl.Heatmaps:
    """A clip whose answer is an order: yellow first, then cyan, told apart by an LSTM."""
    return pl.explain("suite:order", "suite:order", method="lstm-lrp,ceb-r,state-gradient,state-ablation")


def tubes(_model: pl.VisionModel) -> pl.Heatmaps:
    """A clip in which the green square's steps decide."""
    return pl.explain("suite:motion", "suite:motion", method="saliency-tubes,step")


OF_METHODS: tuple[Callable[[pl.VisionModel], pl.Heatmaps], ...] = (
    cams, newer_cams, more_cams, masked_cams, gradients, rectified, smoothed, relevance, paths, shares, layer_paths,
    hidden, segments, masks, tokens, one_box, region, pair, likeness, memory, tubes,
)  # fmt: skip
