"""Score-CAM beside the grad-cam package and torchcam: time, sameness and memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import pellucid as pl
from benchmarks.channels import LAYER, SIZE, quiet, resnet
from benchmarks.memory import measured, share
from benchmarks.report import Row, Section, at_least, at_most
from benchmarks.timing import calls_of, paired
from pellucid.engine import Capture
from pellucid.heatmaps import get_method
from pellucid.heatmaps.masked_cam import channel_masks, rounded

_SMALL = 160  # pixels, where only memory is measured
MEMORY = ("score-cam-pellucid", "score-cam-grad-cam", "score-cam-torchcam")
_BATCHES = {"grad-cam": 16, "torchcam": 32}  # their defaults


class Subset(nn.Module):
    """A ResNet with a layer `chosen` of every n-th channel of `layer4`, on which nothing depends."""

    def __init__(self, net: Any, step: int) -> None:
        super().__init__()
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        self.trunk = nn.Sequential(*[getattr(net, n) for n in names])
        self.head = nn.Sequential(net.avgpool, nn.Flatten(), net.fc)
        self.chosen, self.step = nn.Identity(), step

    def forward(self, x: Tensor) -> Tensor:
        """The net's own answer."""
        found = self.trunk(x)
        self.chosen(found[:, :: self.step].contiguous())
        answer: Tensor = self.head(found)
        return answer


def package_score_cam(module: nn.Module, layer: nn.Module, x: Tensor, target: int, batch: int) -> Callable[[], Tensor]:
    """The grad-cam package's ScoreCAM; its map, scaled and drawn at the input's size."""
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def call() -> Tensor:
        with quiet(), torch.no_grad(), ScoreCAM(module, [layer]) as cam:
            cam.batch_size = batch
            return torch.from_numpy(cam(x, [ClassifierOutputTarget(target)])[0])

    return call


def torchcam_score_cam(module: nn.Module, layer: nn.Module, x: Tensor, target: int, batch: int) -> Callable[[], Tensor]:
    """torchcam's ScoreCAM, its map before it is scaled."""
    from torchcam.methods import ScoreCAM

    def call() -> Tensor:
        with ScoreCAM(module, layer, batch_size=batch) as cam, torch.no_grad():
            found: Tensor = cam(target, module(x), normalized=False)[0][0]
            return found

    return call


def score_cam(channels: int, repeats: int, device: str) -> Section:
    """Score-CAM of every library over some of the channels; the time for all follows from counts."""
    net, x, target, origin = resnet(device)
    with Capture(net, [LAYER], stop_early=True) as capture:
        capture.forward(x)
        A = capture.activations[LAYER][0].detach().clone()
    step = math.ceil(len(A) / channels)
    module = Subset(net, step).eval()
    method = get_method("score-cam", layer="chosen")
    method.explain(module, x, [target])  # reads the layer, which is kept for the model
    ours = method.explain(module, x, [target])[0]
    runs = {n: len(rounded(channel_masks(a, (SIZE, SIZE))).distinct()[0]) for n, a in (("all", A), ("few", A[::step]))}
    theirs = {
        "grad-cam": package_score_cam(module, module.chosen, x, target, _BATCHES["grad-cam"]),
        "torchcam": torchcam_score_cam(module, module.chosen, x, target, _BATCHES["torchcam"]),
    }
    alike = {name: _correlation(ours.values[0], call()) for name, call in theirs.items()}
    found = paired({"ours": lambda: method.explain(module, x, [target]), **theirs}, repeats, warmup=0)
    few = len(A[::step])
    fixed = ours.cost.forwards - runs["few"]  # passes that read the layer and fix the target
    rows, scales = [], {}
    for name, call in theirs.items():
        ratio, cpu = found.ratio(name, "ours"), found.ratio(name, "ours", "cpu")
        with calls_of(module) as seen:
            call()
        more = sum(n for n, _ in seen) - few  # passes of theirs that no channel needs
        scale = scales[name] = (len(A) + more) / (few + more) / ((runs["all"] + fixed) / ours.cost.forwards)
        note = (
            f"both on {few} channels, of which {runs['few']} masks differ: {cpu.median:.3g} x; of all {len(A)}, "
            f"{runs['all']} differ; correlation of the maps {alike[name]:.4f}; its own default "
            f"batch of {_BATCHES[name]}"
        )
        what = f"{name} : score-cam, all channels"
        rows.append(Row(what, ratio.times(scale), limit=at_least(2), cpu=cpu.times(scale), note=note))
    same = paired(
        {
            "ours": lambda: method.explain(module, x, [target]),
            "torchcam": torchcam_score_cam(module, module.chosen, x, target, 4),
        },
        1,
        warmup=0,
    )
    rows.append(
        Row(
            "torchcam at a batch of 4 : score-cam, all channels",
            same.ratio("torchcam", "ours").times(scales["torchcam"]),
            cpu=same.ratio("torchcam", "ours", "cpu").times(scales["torchcam"]),
            note="what is left when the rival's batch is as small as ours",
        )
    )
    about = (
        f"ResNet-50 with {origin}, one picture, `{LAYER}`. All libraries ran over every {step}th channel; times for "
        "all channels are in proportion to the masked inputs that each must run. Channels that are zero everywhere, "
        "and masks equal up to rounding, are run once."
    )
    return Section("Score-CAM", about, rows)


def _correlation(a: Tensor, b: Tensor) -> float:
    """Of two maps `(*grid)`, drawn at the input's size."""
    drawn = [interpolate(m[None, None].float().cpu(), (SIZE, SIZE), mode="bilinear").flatten() for m in (a, b)]
    return float(torch.corrcoef(torch.stack(drawn))[0, 1])


def memory_call(name: str, channels: int, device: str) -> Callable[[], object]:
    """A contestant of the memory measurement: score-cam over `channels` channels of noise."""
    net = pl.load("torchvision:resnet50", random_weights=True, device=device).module
    module = Subset(net, 2048 // channels).eval()
    x = torch.randn(1, 3, _SMALL, _SMALL, generator=torch.Generator().manual_seed(0)).to(device)
    if name == "score-cam-pellucid":
        method = get_method("score-cam", layer="chosen")
        return lambda: method.explain(module, x, [0])
    if name == "score-cam-grad-cam":
        return package_score_cam(module, module.chosen, x, 0, _BATCHES["grad-cam"])
    return torchcam_score_cam(module, module.chosen, x, 0, _BATCHES["torchcam"])


def memory(repeats: int, device: str) -> Section:
    """Peak memory over few and many channels."""
    counts = (128, 512)
    found = {(n, c): measured(n, c, device, repeats)["first"] for n in MEMORY for c in counts}
    ours = share(found[MEMORY[0], counts[1]], found[MEMORY[0], counts[0]])
    rows = [Row(f"{counts[1]} channels : {counts[0]} channels, Pellucid", ours, limit=at_most(1.1))]
    rows += [Row(f"{n.removeprefix('score-cam-')}, {c} channels", s, " MB") for (n, c), s in found.items()]
    about = (
        f"ResNet-50, one picture of {_SMALL} x {_SMALL}, over every n-th channel of `{LAYER}`, each contestant in "
        "fresh processes: the peak above what the process held before."
    )
    return Section("Peak memory of Score-CAM", about, rows)
