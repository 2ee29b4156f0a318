"""Methods of backward rules beside one forward and backward pass, and beside zennit's and captum's rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.report import Limit, Row, Section, at_most, single
from benchmarks.timing import Paired, calls_of, paired
from pellucid.engine.batching import default_batch
from pellucid.heatmaps import get_method

Call = Callable[[], object]
ONE_PASS: dict[str, tuple[str, dict[str, Any]]] = {
    "guided-backprop": ("guided-backprop", {}),
    "lrp, epsilon": ("lrp", {"composite": "epsilon"}),
    "attn-lrp": ("attn-lrp", {}),
    "libra-gradients": ("libra-gradients", {}),
    "full-grad": ("full-grad", {}),
}
COMPOSITES: dict[str, tuple[str, dict[str, Any]]] = {
    f"lrp, {name}": ("lrp", {"composite": name})
    for name in ("epsilon-plus-flat", "epsilon-gamma-box", "alpha-beta", "w2", "flat")
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "excitation-backprop": ("excitation-backprop", {}),
    "deep-lift": ("deep-lift", {}),
}
NETWORKS: dict[str, tuple[str, int]] = {
    "ResNet-18": ("resnet18", 2), "VGG-11": ("vgg11", 1), "EfficientNet-B0": ("efficientnet_b0", 2),
    "DeiT-tiny": ("deit_tiny_patch16_224", 2),
}  # fmt: skip
_ZENNIT = {"epsilon-plus-flat": "EpsilonPlusFlat", "epsilon-gamma-box": "EpsilonGammaBox",
           "alpha-beta": "EpsilonAlpha2Beta1"}  # fmt: skip


def _network(name: str) -> nn.Module:
    """Of torchvision or timm, random weights that hand on what they read at its size."""
    import timm
    import torchvision

    torch.manual_seed(0)
    net: nn.Module = timm.create_model(name) if "deit" in name else torchvision.models.get_model(name, weights=None)
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for m in norms:
        m.momentum = 1.0
    if norms:
        with torch.no_grad():
            net.train()(torch.randn(8, 3, 96, 96))
    return net.eval().requires_grad_(False)


def both_ways(net: nn.Module, x: Tensor) -> Call:
    """One forward pass, and the gradient of class 1 at the input."""

    def call() -> object:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)

    return call


def ours(net: nn.Module, x: Tensor, name: str, settings: dict[str, Any]) -> Call:
    """One of our methods."""
    return lambda: get_method(name, **settings).explain(net, x, [1])


def zennit(net: nn.Module, x: Tensor, composite: str) -> Call:
    """The composite of that name of zennit, with batch norms merged as its documentation says."""
    from zennit import composites
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    canonizer = ResNetCanonizer() if any("BasicBlock" in type(m).__name__ for m in net.modules()) else VGGCanonizer()
    options: dict[str, Any] = {"low": float(x.min()), "high": float(x.max())} if "Box" in composite else {}
    rules = getattr(composites, composite)(canonizers=[canonizer], **options)
    ends = torch.eye(1000)[[1] * len(x)]

    def call() -> object:
        with Gradient(model=net, composite=rules) as attributor:
            return attributor(x, ends)

    return call


def captum(net: nn.Module, x: Tensor) -> Call:
    """captum's DeepLift, on modules that its hooks see."""
    from captum.attr import DeepLift

    return lambda: DeepLift(net).attribute(x, torch.zeros_like(x), target=1)


def _row(found: Paired, name: str, limit: Limit | None, note: str = "") -> Row:
    return Row(
        f"{name} : forward + backward", found.ratio(name, "both ways"), limit=limit,
        cpu=found.ratio(name, "both ways", "cpu"), note=note,
    )  # fmt: skip


def cost(label: str, repeats: int) -> Section:
    """All methods of rules on one network, in turns with its plain pass and with rivals that have rules for it."""
    arch, batch = NETWORKS[label]
    net, x = _network(arch), torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    every = ONE_PASS | COMPOSITES | OTHERS
    if label in ("EfficientNet-B0", "DeiT-tiny"):
        every.pop("guided-backprop")  # there is no rectifier
    calls = {name: ours(net, x, *how) for name, how in every.items()} | {"both ways": both_ways(net, x)}
    if label in ("ResNet-18", "VGG-11"):
        calls |= {f"zennit {name}": zennit(net, x, of) for name, of in _ZENNIT.items()}
    if label == "VGG-11":
        parts = [*net.features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *net.classifier]
        apart = nn.Sequential(*[nn.ReLU() if isinstance(m, nn.ReLU) else m for m in parts]).eval()
        calls["captum deep-lift"] = captum(apart, x)
    found = paired(calls, repeats)
    rows = [_row(found, name, at_most(1.2)) for name in every if name in ONE_PASS]
    rows += [_row(found, name, at_most(2)) for name in COMPOSITES]
    rows += [_row(found, name, None) for name in OTHERS]
    for rival in (name for name in calls if re.match("zennit|captum", name)):
        own = rival.replace("zennit", "lrp,").removeprefix("captum ")
        rows.append(Row(f"{rival} : {own}", found.ratio(rival, own), cpu=found.ratio(rival, own, "cpu")))
    seconds = found.seconds("both ways")
    rows.append(Row("forward + backward", seconds, " s", cpu=found.seconds("both ways", "cpu")))
    about = (
        f"{label} with random weights, a batch of {batch}, class 1. The bare pass is one forward and the gradient at "
        "the input; rules that ask a layer again have a target of twice as much, all others of 1.2."
    )
    return Section(f"Backward rules on {label}", about, rows)


def targets(repeats: int) -> Section:
    """Five targets beside one: passes counted, and time."""
    net, x = _network("resnet18"), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    names = ("saliency", "lrp", "deep-lift", "guided-backprop", "full-grad", "grad-cam")
    rows = []
    for name in names:
        get_method(name).explain(net, x, [0])  # what is found out about a model once is found out
        with calls_of(net) as seen:
            get_method(name).explain(net, x, [0])
            one = len(seen)
            get_method(name).explain(net, x, [0, 1, 2, 3, 4])
        calls = {str(k): (lambda n=name, k=k: get_method(n).explain(net, x, list(range(k)))) for k in (1, 5)}
        found = paired(calls, repeats)
        note = f"{one} and {len(seen) - one} forwards"
        rows.append(
            Row(f"{name}, 5 targets : 1 target", found.ratio("5", "1"), cpu=found.ratio("5", "1", "cpu"), note=note)
        )
        rows.append(single(f"{name}, forwards for 5 targets : for 1", (len(seen) - one) / one, limit=at_most(1)))
    return Section(
        "Several targets", "ResNet-18, one picture: forwards are shared, each target has its backward.", rows
    )


def samples(repeats: int) -> Section:
    """Methods of many passes beside their own passes, and beside captum at the same number of pictures at once."""
    from captum.attr import NoiseTunnel, Saliency

    net, x = _network("resnet18"), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    count, at_once = 32, default_batch(x)
    many = x.expand(at_once, -1, -1, -1).contiguous()

    def bare() -> None:
        for _ in range(count // at_once):
            both_ways(net, many + 0.1 * torch.randn_like(many))()

    def captums() -> object:
        return NoiseTunnel(Saliency(net)).attribute(
            x, nt_samples=count, nt_samples_batch_size=at_once, stdevs=0.1, target=1, abs=False
        )

    def smooth() -> object:
        return get_method("smooth-grad", samples=count, tolerance=None).explain(net, x, [1])

    found = paired({"ours": smooth, "passes": bare, "captum": captums}, repeats)
    rows = [
        Row("smooth-grad : its passes", found.ratio("ours", "passes"), limit=at_most(1.1),
            cpu=found.ratio("ours", "passes", "cpu")),
        Row("smooth-grad : captum", found.ratio("ours", "captum"), limit=at_most(1),
            cpu=found.ratio("ours", "captum", "cpu"), note=f"{at_once} pictures at once in both"),
    ]  # fmt: skip
    return Section("Many noisy copies", f"ResNet-18, one picture, {count} samples.", rows)
