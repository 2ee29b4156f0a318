"""Gradient ascent beside lucent and horama: seconds a step, and how much of a step is not the network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import pellucid as pl
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.timing import Paired, Spread, no_collection, synchronize
from pellucid.engine import unwrap
from pellucid.features import Channel, Fourier, Robustness, Settings, synthesise

MODELS = {"ResNet-18": ("torchvision:resnet18", "layer3"), "ViT-B/16": ("timm:vit_base_patch16_224", "blocks.8")}
CLASS = 7
INSTALL = "pip install horama einops ipython decorator future, then pip install --no-deps torch-lucent 'kornia<=0.4.1'"


@dataclass
class StepClock:
    """When the steps of an ascent begin: every pass of the network with a gradient is one, whoever runs it."""

    module: nn.Module
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, ascent: Callable[[], object]) -> tuple[float, float]:
        """Seconds a step, on the wall and of the processor: from the first step's begin to the last's."""
        self.wall.clear()
        self.cpu.clear()
        handle = self.module.register_forward_pre_hook(self._tick)
        try:
            ascent()
        finally:
            handle.remove()
        steps = len(self.wall) - 1
        return (self.wall[-1] - self.wall[0]) / steps, (self.cpu[-1] - self.cpu[0]) / steps

    def _tick(self, _module: nn.Module, _args: object) -> None:
        if torch.is_grad_enabled():
            synchronize()
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())


def paired_steps(module: nn.Module, ascents: dict[str, Callable[[], object]], repeats: int) -> Paired:
    """Seconds a step of every ascent, in turns, each round starting with another."""
    names, clock = list(ascents), StepClock(module)
    found = Paired({n: [] for n in names}, {n: [] for n in names})
    with no_collection():
        for k in range(-1, repeats):  # the first round warms up
            shift = k % len(names)
            for name in names[shift:] + names[:shift]:
                wall, cpu = clock.run(ascents[name])
                module.zero_grad(set_to_none=True)  # rivals leave a gradient in every parameter
                if k >= 0:
                    found.wall[name].append(wall)
                    found.cpu[name].append(cpu)
    return found


def rivals() -> tuple[Any, Any] | str:
    """lucent's renderer and horama, or why they are missing."""
    os.environ["TQDM_DISABLE"] = "1"
    try:
        import horama
        from lucent.optvis import render
    except ImportError as error:
        return f"{error}; {INSTALL}"
    return render, horama


def ours(model: pl.VisionModel, objective: Any, steps: int, views: int, zoom: float) -> Callable[[], object]:
    """Fourier, random crops or mild views, no early stop."""
    robustness = Robustness.crops(0.2, 0.25) if zoom > 1 else Robustness()
    settings = Settings(
        parametrisation=Fourier(), robustness=robustness, steps=steps, views=views, zoom=zoom, plateau=0
    )
    return lambda: synthesise(model, [objective], settings)


def lucent(render: Any, module: nn.Module, objective: str, steps: int) -> Callable[[], object]:
    """Its defaults at 224 pixels: Fourier, its own transforms, one view."""
    from lucent.optvis import param

    return lambda: render.render_vis(
        module,
        objective,
        lambda: param.image(224),
        thresholds=(steps,),
        show_image=False,
        progress=False,
        fixed_image_size=224,
    )


def horama_fourier(
    horama: Any, module: nn.Module, size: int, steps: int, views: int, device: str
) -> Callable[[], object]:
    """Its Fourier ascent to a logit, as its documentation writes it."""

    def call() -> object:
        return horama.fourier(
            lambda images: module(images)[:, CLASS].mean(),
            total_steps=steps,
            image_size=size,
            model_input_size=224,
            crops_per_iteration=views,
            device=device,
        )

    return call


def steps(name: str, count: int, views: int, repeats: int, device: str) -> Section:
    """One network: seconds a step beside both rivals, and the share of a step that is not the network."""
    source, layer = MODELS[name]
    model = pl.load(source, random_weights=True, device=device)
    module = unwrap(model.module)
    section = Section(
        f"Gradient ascent: {name}",
        "Seconds a step, from the begin of one pass of the network to the next. The same network, the same canvas and "
        "the same number of views; a class's logit, so that everyone runs the whole network, and a channel in the "
        "middle, behind which ours ends. lucent: its default transforms, one view of 224 pixels. horama: its Fourier "
        f"ascent on 448 pixels, {views} crops.",
    )
    found = rivals()
    if isinstance(found, str):
        section.skipped = found
    else:
        render, horama = found
        logit = {"ours": ours(model, CLASS, count, 1, 1.0), "lucent": lucent(render, module, _last(module), count)}
        middle = {
            "ours": ours(model, Channel(layer, 3), count, 1, 1.0),
            "lucent": lucent(render, module, f"{layer.replace('.', '_')}:3", count),
        }
        crops = {
            "ours": ours(model, CLASS, count, views, 2.0),
            "horama": horama_fourier(horama, module, 448, count, views, device),
        }
        section.rows += [
            _faster("logit, 1 view, lucent : ours", paired_steps(module, logit, repeats), "lucent", device),
            _faster(f"logit, {views} views, horama : ours", paired_steps(module, crops, repeats), "horama", device),
        ]
        if "resnet" in source:  # lucent reads tokens as channels
            section.rows.append(
                _faster(
                    f"channel of {layer}, 1 view, lucent : ours",
                    paired_steps(module, middle, repeats),
                    "lucent",
                    device,
                )
            )
    section.rows.append(_share(model, count, repeats, device))
    return section


def _last(module: nn.Module) -> str:
    """lucent's name for a logit."""
    name = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)][-1]
    return f"{name.replace('.', '_')}:{CLASS}"


def _faster(what: str, found: Paired, rival: str, device: str) -> Row:
    cpu = found.ratio(rival, "ours", "cpu") if device == "cpu" else None
    note = f"{1 / found.seconds('ours').median:.2f} steps a second, theirs {1 / found.seconds(rival).median:.2f}"
    return Row(what, found.ratio(rival, "ours"), limit=at_least(1.3), cpu=cpu, note=note)


class _Nothing(nn.Module):
    """Next to no network: a step with it is the step without one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))[:, None].expand(-1, CLASS + 1)


def _share(model: pl.VisionModel, count: int, repeats: int, device: str) -> Row:
    """Parametrisation, views and update, as a share of the whole step."""
    empty = pl.VisionModel(_Nothing().to(device), model.preprocess)
    walls, cpus = [], []
    for _ in range(repeats):
        bare = StepClock(empty.module).run(ours(empty, CLASS, 8 * count, 1, 1.0))
        whole = StepClock(unwrap(model.module)).run(ours(model, CLASS, count, 1, 1.0))
        walls.append(bare[0] / whole[0])
        cpus.append(bare[1] / whole[1])
    cpu = Spread.of(cpus) if device == "cpu" else None
    note = "a step of a network that only takes a mean : a step"
    return Row("picture and views, share of a step", Spread.of(walls), "", at_most(0.1), cpu, note)


def sheet(device: str) -> Section:
    """Sixteen channels of the embedded model, as the command line makes them."""
    model = pl.load(device=device)
    start, busy = time.perf_counter(), time.process_time()
    made = synthesise(model, [Channel("blocks.3", c) for c in range(16)], "fast")
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    steps_made = sum(int(s.facts["steps"]) for s in made)
    note = f"{cpu:.0f} s of the processor, {steps_made} steps"
    row = single("16 channels of blocks.3, preset fast", seconds, " s", at_most(240), note)
    return Section("A sheet", "The embedded EfficientNet-Lite0, pictures of 224 pixels, all sixteen together.", [row])
