"""What maps of boxes cost beyond the passes of the detector, beside the D-RISE of xaitk-saliency, and of all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

import pellucid as pl
from benchmarks.detectors import PICTURES, annotated, hits, loaded, missing
from benchmarks.pointing import data_folder, zoo_of
from benchmarks.report import Row, Section, at_least, at_most, single
from pellucid.heatmaps import get_method
from pellucid.models.targets import BoxTarget

PARTS = ("class", "objectness", "left", "top", "right", "bottom")
_FEW = 16  # masks: what a call costs whatever it does


def cost(masks: int) -> Section:
    """Overhead of d-rise beyond its passes, beside a rival's, and all parts of all boxes beside one pass."""
    section = Section("What maps of boxes cost", "")
    folder = data_folder()
    if why := missing(folder, PICTURES, Path("weights") / "yolox_nano" / "yolox_nano.onnx", Path("code") / "zoo.py"):
        section.skipped = why
        return section
    for name in ("FastestDet", "YOLOX-nano"):
        with loaded(name, folder) as model:
            path, found = _first(model, folder)
            whole, passes = _drise(model, path, found, masks)
            what = f"d-rise on {name}: processor time beyond its passes"
            note = f"{1e3 * passes / masks:.1f} ms a pass, {1e3 * (whole - passes) / masks:.1f} ms a mask beside it"
            section.rows.append(single(what, 100 * (whole - passes) / passes, " %", at_most(10), note=note))
            if name == "YOLOX-nano":
                section.rows += _beside_xaitk(model, path, found, masks, whole)
    section.rows.append(_parts(folder))
    section.about = (
        f"One box of one photograph, one thread, {masks:,} masks; the fixed cost of a call is left out (the time of "
        f"{_FEW} masks is taken off). A pass is the ONNX session alone. The rival sees the picture at its own size and "
        "runs the same session behind the same preprocessing. All parts: `odam` of class, objectness and four sides of "
        "every box that FastestDet (as a torch module) answers, in one call, beside one forward and backward pass."
    )
    return section


def _first(model: pl.VisionModel, folder: Path) -> tuple[Path, int]:
    """The first photograph with a box that is right, and the box."""
    for path, there in annotated(folder, 20):
        if found := hits(model, path, there):
            return path, found[0][0]
    raise AssertionError("no box is right")


def _timed(run: Callable[[], Any]) -> float:
    start = process_time()
    run()
    return process_time() - start


def _drise(model: pl.VisionModel, path: Path, number: int, masks: int) -> tuple[float, float]:
    """Processor time of so many masks, and of the black box's own function among it."""
    box: Any = model.module
    box = box.module
    function, spent = box.function, [0.0]

    def counted(batch: Any) -> Any:
        start = process_time()
        answer = function(batch)
        spent[0] += process_time() - start
        return answer

    box.function = counted
    totals = []
    for count in (_FEW, _FEW + masks):
        spent[0] = 0.0
        method = get_method("d-rise", samples=count, seed=count)
        whole = _timed(lambda method=method: pl.explain(model, path, [method], [BoxTarget(number)]))  # type: ignore[misc]
        totals.append((whole, spent[0]))
    box.function = function
    return totals[1][0] - totals[0][0], totals[1][1] - totals[0][1]


def _beside_xaitk(model: pl.VisionModel, path: Path, number: int, masks: int, ours: float) -> list[Row]:
    """xaitk-saliency's DRISEStack on the same detector."""
    try:
        from smqtk_detection import DetectImageObjects
        from smqtk_image_io import AxisAlignedBoundingBox
        from xaitk_saliency.impls.gen_object_detector_blackbox_sal.drise import DRISEStack
    except ImportError:
        return []

    class Detector(DetectImageObjects):  # type: ignore[misc]
        """All candidates of the network, as the paper asks."""

        def detect_objects(self, img_iter: Iterable[Any]) -> Any:
            for picture in img_iter:
                x, _ = model.pictures(pl.media.read_image(np.asarray(picture)))
                found: Any = model.outputs(x[None])
                score = found.objectness[0, :, None] * found.classes[0]
                some = score.amax(1).topk(100).indices
                boxes = found.boxes[0, some].numpy()
                yield [
                    (AxisAlignedBoundingBox(box[:2], box[2:]), dict(enumerate(row)))
                    for box, row in zip(boxes, score[some].numpy(), strict=True)
                ]

        def get_config(self) -> dict[str, Any]:
            """Nothing to set."""
            return {}

    picture = np.asarray(pl.media.read_image(path).pil())
    (answers,) = Detector().detect_objects([picture])
    corners, scores = answers[number]
    place = np.array([[*corners.min_vertex, *corners.max_vertex]])
    rival = DRISEStack(n=masks, s=16, p1=0.5, seed=0, threads=0)
    theirs = _timed(lambda: rival.generate(picture, place, np.array([list(scores.values())]), Detector()))
    what = "D-RISE of xaitk-saliency : d-rise, as many masks on YOLOX-nano"
    return [single(what, theirs / ours, " x", at_least(5), note=f"{1e3 * theirs / masks:.0f} ms a mask")]


def _parts(folder: Path) -> Row:
    """All maps of all boxes in one call, beside a pass forwards and backwards."""
    with zoo_of(folder) as zoo:
        module, info = zoo.fastestdet()
        model = pl.wrap(module, task="boxes:fastestdet", labels=info["labels"])
        path, _ = annotated(folder, 1)[0]
        x = model.pictures(pl.media.read_image(path))[0][None]
        boxes = len(model.predict(x)[0])
        targets: list[Any] = [BoxTarget(k, part=part) for k in range(boxes) for part in PARTS]

        def there_and_back() -> None:
            shown = x.clone().requires_grad_(True)
            torch.autograd.grad(model.module(shown).classes.amax(), shown)

        calls: list[Callable[[], Any]] = [there_and_back, lambda: pl.explain(model, x, get_method("odam"), targets)]
        times = [min(_timed(call) for _ in range(4)) for call in calls]
    note = f"{len(targets)} maps of {boxes} boxes: {times[1] / times[0] / max(1, len(targets)):.2f} x a map"
    return single(
        "all parts of all boxes : one pass there and back", times[1] / times[0], " x", at_most(1.3), note=note
    )
