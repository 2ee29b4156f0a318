"""One contestant of a memory measurement, in this process: `python -m benchmarks.contestants NAME SIZE DEVICE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from benchmarks import folder, paths, rivals, score_cam
from benchmarks.memory import PATHS, growth

Make = Callable[[str, int, str], Callable[[], object]]
"""(name, size, device) -> the call that is measured."""


def _grad_cam(name: str, size: int, device: str) -> Callable[[], object]:
    """Grad-CAM of a batch. The rivals need the layer; Pellucid finds it in its first call, measured by itself."""
    setting = rivals.Setting.make("ResNet-50", size, device, probe=name != "pellucid")
    return rivals.GRAD_CAMS[name](setting)


CONTESTANTS: dict[str, Make] = {
    **dict.fromkeys(rivals.GRAD_CAMS, _grad_cam),  # pictures in a batch
    **dict.fromkeys(PATHS, paths.path_call),  # nodes of integrated gradients
    **dict.fromkeys(score_cam.MEMORY, score_cam.memory_call),  # channels
    folder.MEMORY: folder.memory_call,  # pictures in a folder
}


def main(name: str, size: int, device: str) -> None:
    """Measure the first call, and of Grad-CAM the second one too, in this process."""
    call = CONTESTANTS[name](name, size, device)
    found = {"first": growth(call, device)}
    if name in rivals.GRAD_CAMS:
        found["later"] = growth(call, device)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
