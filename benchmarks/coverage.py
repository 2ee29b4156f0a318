"""Coverage of model families: is a layer found, is its map the uncut network's, at what peak, and is no trace left.

Each model runs in a process of its own, a fork of one that holds the libraries but no model, within a time limit. Rows
are printed as they come.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import method_coverage
from benchmarks.apart import Size, each
from benchmarks.memory import growth
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.rows import older
from pellucid.engine.leaves import first_tensor
from pellucid.heatmaps import GradCAM, HiResCAM
from pellucid.models.layers import Layer
from pellucid.models.sources import load

_PEAK = 1.5  # of forward + backward
_SAME = 1e-3  # of the map's largest value
_BATCH = 2


FULL, QUICK = Size(None, 600), Size(4, 60)

# Of each timm module the member that its name calls the smallest (timm 1.0).
# fmt: off
TIMM = (
    "beit_base_patch16_224", "halonet_h1", "test_byobnet", "cait_xxs24_224", "coat_tiny", "convit_tiny",
    "convmixer_768_32", "test_convnext", "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_focus_s",
    "cspnext_tiny", "davit_tiny", "deepseek_vit_412m", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b",
    "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "test_efficientnet", "efficientvim_m1",
    "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8",
    "focalnet_tiny_srf", "gcvit_xxtiny", "gemma4_vit_167m", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0",
    "hiera_tiny_224", "sam2_hiera_tiny", "hrnet_w18", "iformer_s", "inception_next_atto", "inception_resnet_v2",
    "inception_v3", "inception_v4", "lcnetv2_small", "levit_128", "lowformer_b0", "test_mambaout", "test_maxvit",
    "caformer_s18", "gmixer_12_224", "lcnet_035", "mobilenetv5_base", "mobilevit_xxs", "mvitv2_tiny",
    "naflexvit_base_patch16_siglip", "nasnetalarge", "nest_tiny", "nextvit_small", "test_nfnet", "pit_xs_224",
    "pnasnet5large", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m0_9",
    "res2net50_14w_8s", "resnest14d", "test_resnet", "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18",
    "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs", "swin_s3_tiny_224",
    "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "tiny_vit_5m_224", "tnt_s_patch16_224", "tresnet_m",
    "twins_svt_small", "vgg11_bn", "visformer_tiny", "test_vit", "vit_tiny_r_s16_p8_224", "test_vit_relpos",
    "samvit_base_patch16", "vitamin_small_224", "volo_d1_224", "ese_vovnet19b_slim", "legacy_xception",
    "xception41", "xcit_nano_12_p8_224",
)
TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32", "wide_resnet50_2",
    "segmentation.fcn_resnet50", "segmentation.lraspp_mobilenet_v3_large", "segmentation.deeplabv3_mobilenet_v3_large",
    "video.r3d_18", "video.mc3_18", "video.r2plus1d_18", "video.s3d", "video.mvit_v2_s", "video.swin3d_t",
)
# fmt: on
_STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
_TOKENS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 64,
    "patch_size": 8,
}  # fmt: skip
_WINDOWS = {
    "image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1, 2], "num_heads": [1, 2, 4], "window_size": 4,
}  # fmt: skip
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "ViT": _TOKENS,
    "DeiT": _TOKENS,
    "Beit": _TOKENS,
    "Data2VecVision": _TOKENS,
    "Dinov2": _TOKENS,
    "ViTMSN": _TOKENS,
    "IJepa": _TOKENS,
    "Swin": _WINDOWS,
    "Swinv2": _WINDOWS,
    "FocalNet": {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1]},
    "ConvNext": _STAGES,
    "ConvNextV2": _STAGES,
    "ResNet": {"embedding_size": 8, **_STAGES},
    "RegNet": {"embedding_size": 8, "groups_width": 4, **_STAGES},
    "Bit": {"embedding_size": 8, "num_groups": 4, **_STAGES},
    "Segformer": {},
    "PvtV2": {},
    "PoolFormer": {},
    "SwiftFormer": {},
    "MobileNetV1": {},
    "MobileNetV2": {},
    "MobileViT": {},
    "Levit": {},
    "EfficientNet": {"image_size": 64, "width_coefficient": 0.25, "hidden_dim": 320},
}


@dataclass
class Case:
    """A network, a batch for it, and what is explained."""

    net: nn.Module
    inputs: Tensor
    target: Callable[[Any], Tensor]


def _first_class(output: Any) -> Tensor:
    logits = first_tensor(getattr(output, "logits", output))
    if logits is None:
        raise TypeError("The model returns no scores.")
    return logits[:, 1].flatten(1).mean(1) if logits.ndim > 2 else logits[:, 1]


# Sides of those whose own size (1024, 768, 546) takes minutes or 14 GB for one plain pass.
_SIDES = {"samvit_base_patch16": 512, "gemma4_vit_167m": 224, "deepseek_vit_412m": 224}


def _timm(name: str) -> Case:
    if side := _SIDES.get(name):
        import timm

        torch.manual_seed(0)
        return Case(timm.create_model(name, img_size=side).eval(), torch.randn(_BATCH, 3, side, side), _first_class)
    model = load(f"timm:{name}", random_weights=True)
    return Case(model.module, torch.randn(_BATCH, 3, *model.preprocess.input_size), _first_class)


def _torchvision(name: str) -> Case:
    import torchvision

    torch.manual_seed(0)
    kind, _, short = name.rpartition(".")
    options = {"weights_backbone": None} if kind == "segmentation" else {}
    if short in ("googlenet", "inception_v3"):
        options["init_weights"] = True
    net = torchvision.models.get_model(short, weights=None, **options).eval()
    if kind == "video":
        frames, side = (16, 224) if short in ("mvit_v2_s", "swin3d_t", "s3d") else (16, 112)
        return Case(net, torch.randn(_BATCH, 3, frames, side, side), _first_class)
    for m in net.modules():
        if isinstance(m, nn.Linear) and not m.weight.any():
            nn.init.normal_(m.weight, std=0.02)  # a head of zeros has no gradient
    side = 299 if short == "inception_v3" else 256 if short == "swin_v2_t" else 224
    return Case(net, torch.randn(_BATCH, 3, side, side), _first_class)


def _lively(net: nn.Module, inputs: Tensor) -> nn.Module:
    """Weights that hand on what they read at its size: through a deep network of the library's own nothing gets."""
    for m in net.modules():
        if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="linear")
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = 1.0
    with torch.no_grad():
        net.train()(inputs)  # statistics of the batch norms
    return net.eval()


def _transformers(name: str) -> Case:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(num_labels=5, **TRANSFORMERS[name])
    side = getattr(config, "image_size", 64)
    side = side if isinstance(side, int) else side[0]
    net = getattr(transformers, f"{name}ForImageClassification")(config)
    net = _lively(net, torch.randn(8, 3, side, side))
    return Case(net, torch.randn(_BATCH, 3, side, side), _first_class)


def _state(net: nn.Module, inputs: Tensor, target: Callable[[Any], Tensor]) -> tuple[Any, ...]:
    with torch.no_grad():
        score = target(net(inputs))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()]
    values = [(name, value.clone()) for name, value in net.state_dict().items()]
    return score, hooks, [m.training for m in net.modules()], values


def _untouched(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    same = [a == b and torch.equal(v, w) for (a, v), (b, w) in zip(before[3], after[3], strict=True)]
    return torch.equal(before[0], after[0]) and before[1:3] == after[1:3] and all(same)


def _uncut(case: Case, layer: Layer) -> Tensor:
    """HiResCAM by hooks in the whole, uncut graph."""
    seen: list[Tensor] = []

    def note(_m: nn.Module, _args: Any, output: Any) -> None:
        if (found := first_tensor(output)) is not None:
            seen.append(found)

    handle = case.net.get_submodule(layer.name).register_forward_hook(note)
    score = case.target(case.net(case.inputs.clone())).sum()
    handle.remove()
    kept = [seen[k] for k in layer.runs.kept] if layer.runs else seen[-1:]
    gradients = torch.autograd.grad(score, kept)
    maps = [
        layer.layout.to_map(layer.runs.joined(each) if layer.runs else each[0])
        for each in ([k.detach() for k in kept], list(gradients))
    ]
    return (maps[0] * maps[1]).float().sum(1)


def measure(case: Case) -> dict[str, Any]:
    """Everything about one model."""
    before = _state(case.net, case.inputs, case.target)  # which also warms the libraries up

    def both_ways() -> None:
        leaf = case.inputs.clone().requires_grad_()
        torch.autograd.grad(case.target(case.net(leaf)).sum(), leaf)

    found: list[Layer] = []

    def explained() -> None:
        layer = GradCAM().explain(case.net, case.inputs, [case.target])[0].layer
        found.append(layer) if layer else None

    plain = growth(both_ways, "cpu")
    peak = growth(explained, "cpu")
    layer = found[0]
    ours, truth = HiResCAM().explain(case.net, case.inputs, [case.target])[0].values, _uncut(case, layer)
    error = float((ours - truth).abs().max() / truth.abs().max())
    after = _state(case.net, case.inputs, case.target)
    return {
        "layer": f"{layer.name} ({layer.layout})",
        "error": error,
        "ratio": peak / plain,
        "plain": plain / 2**20,
        "untouched": _untouched(before, after),
    }


def _row(name: str, found: dict[str, Any]) -> Row:
    if "failed" in found:
        return single(name, float("inf"), limit=at_most(_PEAK), note=found["failed"])
    said = [] if found["error"] <= _SAME else [f"MAP DIFFERS by {found['error']:.1g}"]
    said += [] if found["untouched"] else ["TRACE LEFT"]
    note = "; ".join([found["layer"], *said])
    return single(name, round(found["ratio"], 3), limit=at_most(_PEAK), note=note)


def _ready(library: str) -> None:
    """Loads what every model of a library needs, so that its processes need not."""
    importlib.import_module("transformers.modeling_utils" if library == "transformers" else library)


def _section(library: str, build: Callable[[str], Case], names: Sequence[str], size: Size) -> Section:
    _ready(library)
    results = list(each(library, lambda name: measure(build(name)), names, size))
    rows = [_row(f["model"], f) for f in results]
    done = [f for f in results if "failed" not in f]
    whole = at_least(len(results))
    above = [
        single("models with a layer found", len(done), "", whole),
        single("maps equal to the uncut gradient's", sum(f["error"] <= _SAME for f in done), "", at_least(len(done))),
        single("models untouched afterwards", sum(f["untouched"] for f in done), "", at_least(len(done))),
    ]
    about = (
        f"Random weights, a batch of {_BATCH} at its own size, class 1, each model in a process of its own. The "
        "figure is the peak of resident memory of the first `grad-cam` call, search for the layer included, over that "
        "of one forward and backward pass to the input."
    )
    return Section(f"Coverage: {library}", about + older(results), [*above, *rows])


def _of_timm(size: Size, _device: str) -> Iterator[Section]:
    yield _section("timm", _timm, TIMM, size)


def _of_torchvision(size: Size, _device: str) -> Iterator[Section]:
    yield _section("torchvision", _torchvision, TORCHVISION, size)


def _of_transformers(size: Size, _device: str) -> Iterator[Section]:
    yield _section("transformers", _transformers, tuple(TRANSFORMERS), size)


def _of_methods(size: Size, _device: str) -> Iterator[Section]:
    yield method_coverage.section(tuple(method_coverage.NETWORKS)[: size.models])


_NOTHING = 1e-9  # a score that small is of no use to tell whether an account closes
# Frames and sides of clips, where a pass at the model's own size takes minutes.
_CLIPS = {"video.swin3d_t": (8, 64, 64), "video.mvit_v2_s": (8, 64, 64)}
_SIDE = 128  # of inputs to which every method is shown, where a model takes them


def _small_mvit() -> Case:
    """torchvision's MViT v2 with its own blocks, made for smaller clips than the one size that its builder takes."""
    from torchvision.models.video import mvit

    frames, *side = _CLIPS["video.mvit_v2_s"]
    made = mvit._mvit
    smaller = {"spatial_size": tuple(side), "temporal_size": frames}
    torch.manual_seed(0)
    with mock.patch.object(mvit, "_mvit", lambda **how: made(**how | smaller)):
        net = mvit.mvit_v2_s()
    return Case(net.eval(), torch.randn(_BATCH, 3, frames, *side), _first_class)


def _small(library: str, build: Callable[[str], Case], name: str) -> Case:
    """A model on small pictures; on its own size where it takes no others."""
    if library == "timm":
        import timm

        torch.manual_seed(0)
        try:
            net = timm.create_model(name, img_size=_SIDE)
        except (TypeError, AssertionError, ValueError, RuntimeError):
            net = timm.create_model(name)
        case = Case(net.eval(), torch.randn(_BATCH, 3, _SIDE, _SIDE), _first_class)
    elif name == "video.mvit_v2_s":
        case = _small_mvit()
    else:
        case = build(name)
        small = (_SIDE, _SIDE) if case.inputs.ndim == 4 else _CLIPS.get(name, case.inputs.shape[2:])
        case.inputs = torch.randn(_BATCH, 3, *small)
    try:
        with torch.no_grad():
            case.target(case.net(case.inputs))
            case.net.train()(case.inputs)  # a second head may need more
        case.net.eval()
    except Exception:  # whatever a network makes of a size that it was not made for
        return build(name)
    return case


def judge(case: Case) -> dict[str, Any]:
    """What is said of each method of `RULED` on one model."""
    net, x = _lively(case.net, case.inputs), case.inputs[:1]
    with torch.no_grad():
        score = float(case.target(net(x)).abs())
    if score < _NOTHING:
        raise ValueError(f"a score of {score:.0e}: these random weights let nothing through")
    verdicts = [method_coverage.judged(m, net, x, case.target) for m in method_coverage.RULED]
    return {"verdicts": [[v.method, v.state, v.why] for v in verdicts]}


def _judged(found: dict[str, Any]) -> Row:
    if "failed" in found:
        return single(found["model"], 0, "", at_least(1), found["failed"])
    return method_coverage.row(found["model"], [method_coverage.Verdict(*v) for v in found["verdicts"]])


def _modules(library: str, build: Callable[[str], Case], names: Sequence[str], size: Size) -> Section:
    _ready(library)
    work = partial(_small, library, build)
    found = list(each(f"methods on {library}", lambda name: judge(work(name)), names, size))
    about = method_coverage.about(method_coverage.RULED) + older(found)
    return Section(f"Coverage: methods on {library}", about, [_judged(f) for f in found])


def _of_modules(size: Size, _device: str) -> Iterator[Section]:
    yield _modules("timm", _timm, TIMM, size)
    yield _modules("torchvision", _torchvision, TORCHVISION, size)
    yield _modules("transformers", _transformers, tuple(TRANSFORMERS), size)


TITLE = "Coverage of model families"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "timm": _of_timm,
    "torchvision": _of_torchvision,
    "transformers": _of_transformers,
    "methods": _of_methods,
    "modules": _of_modules,
}
