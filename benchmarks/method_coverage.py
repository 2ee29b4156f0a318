"""Coverage of methods: on one small network of each family, which white-box methods are right, and how that is known.

*Proven* is a map whose own account closes: relevance and what biases took, or a map and what it says is left over, are
the score. *Equal* is one that autograd gives as well. *Runs* has no such account. *Plain* follows the plain gradient at
the functions named. *Refused* says why.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.report import Row, Section, at_least, single
from pellucid.engine.leaves import first_tensor
from pellucid.errors import PellucidError
from pellucid.heatmaps import get_method

_TOLERANCE = 0.01  # of the change of the score: a sum of nodes has a tolerance of its own
_STEPS = 6400  # gradients, where those that are usual do not reach it
_LEAKY = ("lstm-lrp",)  # what biases take is not accounted for
_FROM_BLACK = ("deep-lift", "integrated-gradients")
_ROUNDING = 1e-5  # of the sizes of all shares together: where they cancel to little, single precision shows
_CANCELLED = 0.05  # of the score: beyond that shares have cancelled to nothing that could be trusted
_EXACT = 1e-3  # of the score, or of the map's largest value
_NO_RULE = re.compile(r"There is no rule for (.*?): what leads")

METHODS = (
    "saliency", "input-x-gradient", "lrp", "attn-lrp", "cp-lrp", "excitation-backprop", "deep-lift", "full-grad",
    "libra-gradients", "integrated-gradients", "guided-backprop", "crp", "grad-cam", "hires-cam", "relevance-cam",
    "attention-rollout", "attention-relevance", "legrad", "transformer-attribution", "lstm-lrp",
)  # fmt: skip
RULED = ("lrp", "attn-lrp", "deep-lift", "full-grad", "libra-gradients", "guided-backprop", "attention-relevance")
"""Those of rules, and of attention, for many networks."""
State = Literal["proven", "equal", "runs", "plain", "open", "refused", "failed"]


@dataclass(frozen=True)
class Verdict:
    """What is said of one method on one network.

    Attributes:
        method: its name.
        state: see the module; `open`: its account does not close, `failed`: it ended in another error.
        why: a figure, functions without a rule, or the sentence of a refusal.
    """

    method: str
    state: State
    why: str


class Convolutions(nn.Module):
    """Functional and in place: what hooks on modules do not see."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` to scores."""
        x = torch.relu_(self.b(torch.relu_(self.a(x))))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class Recurrent(nn.Module):
    """Convolutions on each frame, an LSTM over time."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.rnn, self.fc = nn.LSTM(8, 10, batch_first=True), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, T, H, W)` to scores."""
        n, c, t, h, w = x.shape
        cells = self.features(x.movedim(2, 1).reshape(n * t, c, h, w)).mean((2, 3)).reshape(n, t, -1)
        scores: Tensor = self.fc(self.rnn(cells)[0][:, -1])
        return scores


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=5, **options)

    return build


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        net: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=5, **options)
        return net

    return build


class _Scores(nn.Module):
    """The scores of a network that answers an object of its library's.

    It may take clips as `(N, T, C, H, W)`, or rows of patches with their grid's sides.
    """

    def __init__(self, net: nn.Module, takes: str = "pictures") -> None:
        super().__init__()
        self.net, self.takes = net, takes

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, *space)` to scores, or to the pooled state."""
        given = {"pixel_values": x.movedim(1, 2) if self.takes == "clips" else x}
        if self.takes == "patches":
            n, c, (h, w), p = *x.shape[:2], (s // _SIZES["patch_size"] for s in x.shape[2:]), _SIZES["patch_size"]
            rows = x.reshape(n, c, h, p, w, p).permute(0, 2, 4, 3, 5, 1).reshape(n, h * w, -1)
            grid = torch.tensor([[h, w]]).expand(n, -1)
            given = {"pixel_values": rows, "spatial_shapes": grid, "pixel_attention_mask": torch.ones(rows.shape[:2])}
        answer = self.net(**given)
        found = getattr(answer, "logits", None)
        return answer.pooler_output if found is None else found


_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_SIZES = {"image_size": 64, "patch_size": 16}


def from_config(config: str, model: str, *, takes: str = "pictures", **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        settings = getattr(transformers, config)(**options)
        return _Scores(getattr(transformers, model)(settings), takes)

    return build


def _fused() -> nn.Module:
    from torchvision.models import VisionTransformer

    net: nn.Module = VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=5)
    return net


def _backbone() -> nn.Module:
    from torchvision.models.detection.backbone_utils import mobilenet_backbone

    net: nn.Module = mobilenet_backbone(backbone_name="mobilenet_v3_small", weights=None, fpn=True, trainable_layers=6)
    return net


_SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain CNN, functional and in place": (Convolutions, (3, 32, 32)),
    "ResNet (torchvision resnet18)": (_torchvision("resnet18"), (3, 64, 64)),
    "DenseNet (torchvision densenet121)": (_torchvision("densenet121"), (3, 64, 64)),
    "MobileNetV3 (torchvision small)": (_torchvision("mobilenet_v3_small"), (3, 64, 64)),
    "EfficientNet (timm test_efficientnet)": (_timm("test_efficientnet"), (3, 64, 64)),
    "ConvNeXt (timm test_convnext)": (_timm("test_convnext"), (3, 64, 64)),
    "ViT (timm test_vit)": (_timm("test_vit", img_size=64), (3, 64, 64)),
    "ViT (torchvision, fused attention)": (
        _fused, (3, 64, 64)
    ),
    "DeiT (transformers)": (
        from_config("DeiTConfig", "DeiTForImageClassification", num_labels=5, **_WIDTHS, **_SIZES), (3, 64, 64)
    ),
    "Swin (transformers)": (
        from_config("SwinConfig", "SwinForImageClassification", num_labels=5, **_SWIN), (3, 64, 64)
    ),
    "DINOv2 (transformers)": (
        from_config("Dinov2Config", "Dinov2ForImageClassification", num_labels=5, **_WIDTHS, **_SIZES), (3, 64, 64)
    ),
    "DINOv3 (transformers)": (
        from_config("DINOv3ViTConfig", "DINOv3ViTModel", num_register_tokens=2, **_WIDTHS, **_SIZES), (3, 64, 64)
    ),
    "CLIP vision (transformers)": (
        from_config("CLIPVisionConfig", "CLIPVisionModel", **_WIDTHS, **_SIZES), (3, 64, 64)
    ),
    "SigLIP2 vision (transformers)": (
        from_config(
            "Siglip2VisionConfig", "Siglip2VisionModel", takes="patches", num_patches=16, patch_size=16, **_WIDTHS
        ),
        (3, 64, 64),
    ),
    "SigLIP vision (transformers)": (
        from_config("SiglipVisionConfig", "SiglipVisionModel", **_WIDTHS, **_SIZES), (3, 64, 64)
    ),
    "VideoMAE (transformers)": (
        from_config(
            "VideoMAEConfig", "VideoMAEForVideoClassification", takes="clips", num_labels=5, num_frames=4, **_WIDTHS,
            **_SIZES,
        ),
        (3, 4, 64, 64),
    ),
    "TimeSformer (transformers)": (
        from_config(
            "TimesformerConfig", "TimesformerForVideoClassification", takes="clips", num_labels=5, num_frames=4,
            **_WIDTHS, **_SIZES,
        ),
        (3, 4, 64, 64),
    ),
    "CNN-LSTM": (Recurrent, (3, 4, 32, 32)),
    "3D ResNet (torchvision r3d_18)": (_torchvision("r3d_18"), (3, 4, 32, 32)),
    "detection backbone (torchvision, FPN)": (_backbone, (3, 64, 64)),
}  # fmt: skip


def score(output: Any) -> Tensor:
    """Of scores class 1; of maps the first cell of their second channel."""
    found = first_tensor(output)
    assert found is not None
    return found[:, 1].flatten(1)[:, 0] if found.ndim > 2 else found[:, 1]


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode whose signals keep their size, and an input for it."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = build()
    for part in net.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="linear")
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.05)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(8, *shape))
    return net.eval(), torch.randn(1, *shape)


def judged(name: str, net: nn.Module, x: Tensor, score: Callable[[Any], Tensor] = score) -> Verdict:
    """One method on one network."""
    try:
        (found,) = get_method(name).explain(net, x, [score])
    except PellucidError as refusal:
        return Verdict(name, "refused", str(refusal))
    except Exception as error:  # a row of the table says what went wrong
        return Verdict(name, "failed", f"{type(error).__name__}: {error}")
    if not found.values.isfinite().all():
        return Verdict(name, "failed", "the map is not finite")
    missing = [m[1] for note in found.notes if (m := _NO_RULE.search(note))]
    if missing:
        return Verdict(name, "plain", ", ".join(missing))
    gaps = [max(values) for fact, values in found.facts.items() if fact in ("conservation_gap", "completeness_gap")]
    if gaps and name in _LEAKY:
        return Verdict(name, "runs", f"{max(gaps):.0e} leaks")
    if name == "integrated-gradients":
        return _integrated(max(gaps), net, x, score)
    if gaps:
        rounding = _ROUNDING * float(found.values.double().abs().sum()) / _explained(name, net, x, score)
        closed = max(gaps) <= max(_EXACT, min(rounding, _CANCELLED))
        return Verdict(name, "proven" if closed else "open", f"{max(gaps):.0e}")
    if name in ("saliency", "input-x-gradient"):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(score(net(leaf)).sum(), leaf)
        truth = g.abs() if name == "saliency" else x * g
        error = float((found.values - truth).abs().max() / truth.abs().max())
        return Verdict(name, "equal" if error <= _EXACT else "open", f"{error:.0e}")
    return Verdict(name, "runs", "")


def _integrated(gap: float, net: nn.Module, x: Tensor, score: Callable[[Any], Tensor]) -> Verdict:
    """Within the tolerance, by the usual number of gradients, or by more where the score is rough on the way."""
    name, why = "integrated-gradients", ""
    if gap > _TOLERANCE:
        (found,) = get_method(name, max_steps=_STEPS).explain(net, x, [score])
        gap = max(found.facts["completeness_gap"])
        why = f"by {max(found.facts['steps']):.0f} gradients"
    return Verdict(name, "proven", why) if gap <= _TOLERANCE else Verdict(name, "open", f"{gap:.0e} {why}")


def _explained(name: str, net: nn.Module, x: Tensor, score: Callable[[Any], Tensor]) -> float:
    """The size of what a map sums to: the score, or how far it is from that of black."""
    with torch.no_grad():
        whole = score(net(x)) - (score(net(torch.zeros_like(x))) if name in _FROM_BLACK else 0)
    return max(abs(float(whole.double().sum())), 1e-12)


def said(verdicts: Sequence[Verdict]) -> str:
    """All verdicts on one network, in a line."""
    parts = []
    grouped: dict[tuple[State, str], list[str]] = defaultdict(list)
    for v in verdicts:
        reason = v.why if v.state in ("plain", "failed") else _short(v.why) if v.state == "refused" else ""
        longer = v.state == "proven" and v.why.startswith("by")
        told = v.why if v.state == "runs" or longer else f"gap {v.why}" if v.state == "open" else ""
        shown = f"{v.method} ({told})" if told else v.method
        grouped[v.state, reason].append(shown)
    for state in ("proven", "equal", "runs", "plain", "open", "refused", "failed"):
        those = [(why, names) for (s, why), names in grouped.items() if s == state]
        each = [", ".join(names) + (f" ({why})" if why else "") for why, names in those]
        parts += [f"{state}: {'; '.join(each)}"] if each else []
    return ". ".join(parts)


def _short(sentence: str) -> str:
    """A refusal up to its first comma, colon or bracket."""
    return re.split(r"[,:;(]", sentence)[0].strip().removesuffix(".")


def row(name: str, verdicts: Sequence[Verdict]) -> Row:
    """A network: how many methods are proven, or equal to autograd, of those that it does not refuse."""
    sure = sum(v.state in ("proven", "equal") for v in verdicts)
    accountable = sum(v.state in ("proven", "equal", "open", "failed") for v in verdicts)
    return single(name, sure, "", at_least(accountable), said(verdicts))


def about(methods: Sequence[str]) -> str:
    """How the table is read."""
    return (
        f"{len(methods)} white-box methods on a small network of each family, random weights. The figure is how many "
        f"are *proven* (their own account closes to {_EXACT:g} of the score, or where large shares cancel to "
        f"{_ROUNDING:g} of their sizes together: relevance and what biases took, or the map and what it leaves over; "
        f"{_TOLERANCE:.0%} of the change for integrated gradients, by up to {_STEPS} where the usual 400 do not reach "
        "it) or *equal* to autograd; the target is "
        "all that have such an account. *Runs* has none; *plain* follows the plain gradient at the functions named; "
        "*refused* says why."
    )


def section(names: Sequence[str], methods: Sequence[str] = METHODS) -> Section:
    """A row for each network."""
    rows, table = [], {}
    for name in names:
        net, x = network(name)
        table[name] = [judged(m, net, x) for m in methods]
        print(f"{name}: {said(table[name])}", flush=True)
        rows.append(row(name, table[name]))
    return Section("Coverage: methods", f"{about(methods)}\n\n{matrix(table)}", rows)


def matrix(table: dict[str, Sequence[Verdict]]) -> str:
    """Networks by methods as Markdown: what is said of each in a word."""
    methods = [v.method for v in next(iter(table.values()))]
    lines = ["| network | " + " | ".join(f"`{m}`" for m in methods) + " |", "| --- |" + " --- |" * len(methods)]
    lines += [f"| {name} | " + " | ".join(v.state for v in row) + " |" for name, row in table.items()]
    return "\n".join(lines)
