"""Peak memory: every contestant in a fresh process of its own, because a peak cannot be taken back.

`benchmarks.contestants` is such a process.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import rivals
from benchmarks.apart import alone
from benchmarks.report import Row, Section, at_most, single
from benchmarks.timing import Spread
from pellucid.heatmaps import get_method

_MB = 1 << 20
_PROCESS = "benchmarks.contestants"
PATHS = {
    "ig-pellucid": "Pellucid",
    "ig-captum": "captum with its defaults",
    "ig-captum-16": "captum, internal_batch_size=16",
}


def _status(field: str) -> int | None:
    """Bytes of a field of this process's status, where the system tells."""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.is_file() else []
    found = next((line for line in lines if line.startswith(f"{field}:")), None)
    return None if found is None else int(found.split()[1]) * 1024


def _reset_peak() -> bool:
    """Start the peak anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def growth(call: Callable[[], object], device: str) -> int:
    """Bytes that one call needs at its peak, above what was in use before it."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _reset_peak()
    before = _status("VmRSS") or _peak()
    call()
    return _peak() - before


def measured(name: str, size: int, device: str, repeats: int) -> dict[str, Spread]:
    """Megabytes of the first and of a later call, each time in a fresh process."""
    # Freed memory goes back to the system at once, so that the second call's peak is its own.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    command = [sys.executable, "-m", _PROCESS, name, str(size), device]
    root = Path(__file__).resolve().parent.parent
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: Spread.of([run[key] / _MB for run in runs]) for key in runs[0]}


def share(a: Spread, b: Spread) -> Spread:
    """A ratio of two measurements that were not taken in turns: its quartiles at their widest."""
    return Spread(a.median / b.median, a.low / b.high, a.high / b.low, a.repeats)


def grad_cam(batch: int, repeats: int, device: str) -> Section:
    """Peak memory of Grad-CAM on ResNet-50."""
    found = {name: measured(name, batch, device, repeats) for name in rivals.GRAD_CAMS}
    ours, captum = found["pellucid"], found["captum"]
    rows = [
        Row("grad-cam : captum", share(ours["later"], captum["later"]), limit=at_most(1)),
        Row("grad-cam : captum, first call", share(ours["first"], captum["first"]), limit=at_most(1)),
    ]
    rows += [
        Row(f"{name}, {which} call", spread, " MB") for name, calls in found.items() for which, spread in calls.items()
    ]
    about = (
        f"ResNet-50, a batch of {batch}, each contestant in fresh processes: the peak of resident memory above what "
        "the process held before the call, which includes model and batch. Pellucid's first call also finds the "
        "layer."
    )
    return Section("Peak memory of Grad-CAM", about, rows)


_ATTENTION = ("generic-attention", "legrad", "transformer-attribution")


def attention() -> Section:
    """Peak memory of methods on attention where the maps of all layers would be most of it."""
    import timm

    torch.manual_seed(0)
    side, depth, heads = 512, 12, 3
    net = timm.create_model("deit_tiny_patch16_224", img_size=side).eval().requires_grad_(False)
    x = torch.randn(1, 3, side, side)

    def plain() -> object:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)

    calls: dict[str, Callable[[], object]] = {
        name: partial(get_method(name).explain, net, x, [1]) for name in _ATTENTION
    }
    calls["forward + backward"] = plain

    def work(name: str) -> dict[str, float]:
        calls[name]()  # the grid of tokens is found once
        return {"peak": growth(calls[name], "cpu") / _MB}

    found = {name: alone(work, name, 600)["peak"] for name in calls}
    whole = depth * heads * ((side // 16) ** 2 + 1) ** 2 * 4 / _MB
    base = found["forward + backward"]
    rows = [
        single(
            f"{name}, above forward + backward : all attentions",
            (found[name] - base) / whole,
            limit=at_most(1) if name in _ATTENTION[:2] else None,
        )
        for name in _ATTENTION
    ]
    rows += [single(name, peak, " MB") for name, peak in found.items()]
    rows.append(single("the attentions of all layers, once", whole, " MB"))
    about = (
        f"DeiT-tiny at {side} pixels, one picture, each call in a process of its own, the second call. The first two "
        "write out one attention at a time; transformer-attribution keeps all of them, with gradients."
    )
    return Section("Peak memory of attention methods", about, rows)


def path(few: int, many: int, repeats: int, device: str) -> Section:
    """Peak memory of integrated gradients with few and many nodes."""
    found = {(name, few): measured(name, few, device, repeats)["first"] for name in PATHS}
    about = "One picture, the embedded EfficientNet-Lite0, each contestant in fresh processes, first call."
    for name, label in PATHS.items():
        expected = found[name, few].median * many / few
        if name == "ig-captum" and expected > _available() / 2:
            about += f" {label} would need some {expected / 1024:.0f} GB for {many} nodes, and is left out."
        else:
            found[name, many] = measured(name, many, device, repeats)["first"]
    ours = share(found["ig-pellucid", many], found["ig-pellucid", few])
    rows = [Row(f"{many} nodes : {few} nodes, Pellucid", ours, limit=at_most(1.1), note="1: independent of them")]
    rows += [Row(f"{PATHS[name]}, {k} nodes", spread, " MB") for (name, k), spread in sorted(found.items())]
    return Section("Peak memory of integrated gradients", about, rows)


def _available() -> float:
    """Megabytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / _MB
