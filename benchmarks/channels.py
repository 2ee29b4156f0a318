"""Channels of a layer changed one by one: ablation-cam, recipro-cam and importance, beside a rival and a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.paths import inputs_of
from benchmarks.pointing import data_folder, zoo_of
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.timing import Spread, paired
from pellucid.engine import find_layer
from pellucid.heatmaps import get_method
from pellucid.importance import Channels, get_estimator, measure
from pellucid.scoring.job import prepare

SIZE = 224
LAYER = "layer4"


def resnet(device: str) -> tuple[nn.Module, Tensor, int, str]:
    """ResNet-50, a picture `(1, 3, 224, 224)`, its top class, and where the weights are from."""
    folder = data_folder()
    vision = pl.load("torchvision:resnet50", random_weights=True, device=device)
    module, x, origin = vision.module, inputs_of("cat", vision), "random weights"
    if (folder / "code" / "zoo.py").is_file():
        with zoo_of(folder) as zoo:
            module, origin = zoo.resnet50()[0].to(device), "ImageNet weights"
    with torch.no_grad():
        return module, x, int(module(x).argmax()), origin


@contextmanager
def quiet() -> Iterator[None]:
    """The rivals' progress bars off."""
    import tqdm

    kept = tqdm.tqdm
    tqdm.tqdm = lambda items, *_a, **_k: items
    try:
        yield
    finally:
        tqdm.tqdm = kept


def package_ablation(module: nn.Module, x: Tensor, target: int, channels: int) -> Callable[[], object]:
    """The grad-cam package's AblationCAM at `layer4`, over the first `channels` channels only."""
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.ablation_layer import AblationLayer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Few(AblationLayer):  # type: ignore[misc]
        def activations_to_be_ablated(self, activations: Any, ratio_channels_to_ablate: float = 1.0) -> Any:
            self.indices = np.int32(range(channels))
            return self.indices

    def call() -> object:
        with quiet(), AblationCAM(module, [find_layer(module, LAYER)], ablation_layer=Few()) as cam:
            return cam(x, [ClassifierOutputTarget(target)])

    return call


def tails(channels: int, repeats: int, device: str) -> Section:
    """Ablation-CAM beside the grad-cam package, and recipro-cam beside the forward pass."""
    module, x, target, origin = resnet(device)
    ablation, recipro = get_method("ablation-cam", layer=LAYER), get_method("recipro-cam", layer=LAYER)

    def forward() -> object:
        with torch.no_grad():
            return module(x)

    found = paired(
        {
            "forward": forward,
            "ablation": lambda: ablation.explain(module, x, [target]),
            "recipro": lambda: recipro.explain(module, x, [target]),
            "package": package_ablation(module, x, target, channels),
        },
        repeats,
    )
    width = 2048

    def whole(clock: Any) -> Spread:
        table = getattr(found, clock)
        once = [2 * f for f in table["forward"]]  # passes that it makes whatever the number of channels
        rounds = zip(table["package"], once, table["ablation"], strict=True)
        return Spread.of([(max(p - o, 0) * width / channels + o) / ours for p, o, ours in rounds])

    cost = recipro.explain(module, x, [target])[0].cost.forwards
    rows = [
        Row(
            "grad-cam package : ablation-cam, all channels",
            whole("wall"),
            limit=at_least(40),
            cpu=whole("cpu"),
            note=f"the package ran {channels} of {width} channels; its time for all is in proportion",
        ),
        Row("ablation-cam", found.seconds("ablation"), " s", cpu=found.seconds("ablation", "cpu")),
        single("recipro-cam, forward passes counted", cost, "", at_most(1.5)),
        Row(
            "recipro-cam : bare forward",
            found.ratio("recipro", "forward"),
            limit=at_most(1.5),
            cpu=found.ratio("recipro", "forward", "cpu"),
            note="with its 50 tails",
        ),
    ]
    about = f"ResNet-50 with {origin}, one picture, `{LAYER}`: 2048 channels of 7 x 7 cells."
    return Section("Ablation-CAM and Recipro-CAM", about, rows)


def importance(channels: int, repeats: int, device: str) -> Section:
    """Channels of `layer3` left out one by one, beside a loop of whole forward passes."""
    module, x, target, origin = resnet(device)
    job = prepare(module, x, [target])
    layer = find_layer(module, "layer3")

    def naive() -> None:
        for c in range(channels):
            handle = layer.register_forward_hook(lambda _m, _i, out, c=c: out.index_fill(1, torch.tensor([c]), 0))
            with torch.no_grad():
                module(x)
            handle.remove()

    def ours() -> object:
        return measure(Channels(layer="layer3"), get_estimator("ablation"), job, pairs=False)

    found = paired({"naive": naive, "ours": ours}, repeats, warmup=0)
    scale = 1024 / channels
    with torch.no_grad():
        tail = nn.Sequential(module.layer4, module.avgpool, nn.Flatten(), module.fc)
        A = torch.randn(32, 1024, 14, 14).relu()
        bound = paired({"forward": lambda: _run(module, x), "tail": lambda: _run(tail, A)}, repeats)
    rows = [
        Row(
            "naive loop : importance over channels",
            found.ratio("naive", "ours").times(scale),
            limit=at_least(10),
            cpu=found.ratio("naive", "ours", "cpu").times(scale),
            note=f"the loop ran {channels} of 1024 channels; its time for all is in proportion",
        ),
        Row(
            "bare forward : bare tail, for one channel",
            bound.ratio("forward", "tail").times(32),
            cpu=bound.ratio("forward", "tail", "cpu").times(32),
            note="the most that tails alone can gain here: layer4 is a fifth of the network's work",
        ),
        Row("importance over channels", found.seconds("ours"), " s", cpu=found.seconds("ours", "cpu")),
    ]
    about = f"ResNet-50 with {origin}, one picture, 1024 channels of `layer3`, leave-one-out."
    return Section("Importance of channels", about, rows)


def _run(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = module(x)
        return answer
