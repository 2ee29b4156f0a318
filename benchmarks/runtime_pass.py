"""What a bare pass takes in each runtime: the most that a job of nothing but passes can win on this processor.

`python -m benchmarks.runtime_pass MODEL WAY` measures one way in a process of its own, where no other has its memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.report import Row, Section
from benchmarks.timing import Spread
from pellucid.engine.folding import folded
from pellucid.engine.runtimes.asked import installed
from pellucid.engine.runtimes.converted import Reader, room

NETWORKS = {
    "embedded default": "efficientnet-lite0",
    "ResNet-50": "timm:resnet50",
    "ViT-B/16": "timm:vit_base_patch16_224",
}
_BATCH, _TIMES = 4, 10
_ABOUT = (
    f"{_TIMES} batches of {_BATCH} pictures of 224 x 224 in each round, one thread, each way in a process of its own; "
    "processor time of a picture. The earlier build runs in the twin, where there is one. A job of nothing but passes "
    "cannot win more than these differ."
)

Pass = Callable[[Tensor], object]


def _twin(module: nn.Module, x: Tensor) -> Pass | None:
    return folded(module, lambda net, inputs: net(inputs), x[:1])


def _program(runtime: str, precision: str) -> Callable[[nn.Module, Tensor], Pass | None]:
    def made(module: nn.Module, x: Tensor) -> Pass | None:
        if installed(runtime) is None or not room(runtime).takes(precision):
            return None
        blob = room(runtime).convert(Reader(module, ()), x[:2], precision)
        found: Pass = room(runtime).load(blob, precision)
        return found

    return made


def _fixed(module: nn.Module, x: Tensor) -> Pass | None:
    """As `openvino.convert`, but for two pictures at a time and no other number."""
    if installed("openvino") is None:
        return None
    import openvino as ov

    model = ov.convert_model(Reader(module, ()), example_input=x[:2], input=[2, *x.shape[1:]])
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    request = ov.Core().compile_model(model, "CPU", how).create_infer_request()
    return lambda pictures: [request.infer([pictures[k : k + 2].numpy()]) for k in range(0, len(pictures), 2)]


WAYS: dict[str, Callable[[nn.Module, Tensor], Pass | None]] = {
    "torch": lambda module, _x: module,
    "twin": _twin,
    "openvino": _program("openvino", "f32"),
    "openvino, a batch of 2 and no other": _fixed,
    "onnx": _program("onnx", "f32"),
    "openvino, bf16": _program("openvino", "bf16"),
}


def section(said: str, rounds: int) -> Section:
    """One network in all ways."""
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.runtime_pass", NETWORKS[said], way]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            took[way] += [float(found[-1])] if found else []
    base = "twin" if took["twin"] else "torch"
    rows = []
    for way, each in took.items():
        if each:
            times = Spread.of(took[base]).median / Spread.of(each).median
            note = "" if way == base else f"{times:.2f} times as fast as {base}"
            rows.append(Row(way, Spread.of(each), " ms", note=note))
    return Section(f"A bare pass, {said}", _ABOUT, rows)


def main() -> None:
    """Milliseconds of the processor for a picture, in the way that is named; nothing where there is no such way."""
    name, way = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = pl.load(name, random_weights=name != "efficientnet-lite0").module
    x = torch.rand(_BATCH, 3, 224, 224)
    with torch.no_grad():
        run = WAYS[way](module, x)
        if run is None:
            return
        run(x)
        start = time.process_time()
        for _ in range(_TIMES):
            run(x)
    print(1e3 * (time.process_time() - start) / _TIMES / _BATCH)


if __name__ == "__main__":
    main()
