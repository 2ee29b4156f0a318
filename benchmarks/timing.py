"""Honest timing: what is compared runs in turns in one process, and ratios are taken turn by turn."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

Clock = Literal["wall", "cpu"]
_PACKAGES = ("pellucid", "torch", "torchvision", "timm", "captum", "grad-cam", "torchcam", "shap", "lime", "numpy")


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements and the quartiles around it."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of any number of values; quartiles of fewer than four are their range."""
        ordered = sorted(values)
        if len(ordered) < 4:
            return cls(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))
        low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
        return cls(statistics.median(ordered), low, high, len(ordered))

    def times(self, factor: float) -> Spread:
        """The same in other units."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.repeats)


@dataclass
class Paired:
    """Seconds of each function in each round, on the wall and of the processor (all threads together)."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, a: str, b: str, clock: Clock = "wall") -> Spread:
        """How many times longer `a` takes than `b`, round by round."""
        table = getattr(self, clock)
        return Spread.of([x / y for x, y in zip(table[a], table[b], strict=True)])

    def seconds(self, name: str, clock: Clock = "wall") -> Spread:
        """Seconds of one call."""
        return Spread.of(getattr(self, clock)[name])


def paired(functions: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1) -> Paired:
    """Run all functions `repeats` times in turns; each round starts with another, so that none always follows one."""
    names = list(functions)
    for name in names * warmup:
        functions[name]()
    found = Paired({n: [] for n in names}, {n: [] for n in names})
    with no_collection():
        for k in range(repeats):
            shift = k % len(names)
            for name in names[shift:] + names[:shift]:
                wall, cpu = timed(functions[name])
                found.wall[name].append(wall)
                found.cpu[name].append(cpu)
            gc.collect()
    return found


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall and of the processor for one call, its result thrown away inside."""
    synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection while the clock runs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def calls_of(module: Any) -> Iterator[list[tuple[int, bool]]]:
    """Inputs of each call of the model, and whether autograd was on."""
    import torch

    seen: list[tuple[int, bool]] = []
    handle = module.register_forward_pre_hook(lambda _m, args: seen.append((len(args[0]), torch.is_grad_enabled())))
    try:
        yield seen
    finally:
        handle.remove()


def synchronize() -> None:
    """Wait for the accelerator, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: str = "cpu") -> dict[str, str]:
    """What the figures were taken on."""
    import torch

    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()}, Python {platform.python_version()}",
    }
    if device.startswith("cuda"):
        facts["accelerator"] = torch.cuda.get_device_name(device)
    if hasattr(os, "getloadavg"):
        facts["load before"] = f"{os.getloadavg()[0]:.1f}"
    return facts | {"versions": ", ".join(f"{p} {_version(p)}" for p in _PACKAGES)}


def source_digest() -> str:
    """A hash over Pellucid's source files: equal before and after, or the figures are of no one version."""
    import pellucid

    root = Path(pellucid.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
