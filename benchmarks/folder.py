"""Importance over a folder: what it costs beyond its passes, and whether its memory grows with the folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pellucid as pl
from benchmarks.memory import measured, share
from benchmarks.overhead import Pass, bare
from benchmarks.paths import PICTURES, inputs_of
from benchmarks.report import Row, Section, at_most, single
from benchmarks.timing import calls_of, paired

MEMORY = "importance-folder"
_EDGE, _PLAYERS = 256, 49


def photographs(count: int, folder: str) -> str:
    """A folder of `count` different pictures of 256 x 256, cut out of the samples."""
    from PIL import Image

    for k in range(count):
        whole = Image.fromarray(pl.read_image(f"sample:{PICTURES[k % len(PICTURES)]}").pixels)
        left, top = (step * k % max(1, side - _EDGE) for step, side in zip((37, 23), whole.size, strict=True))
        whole.crop((left, top, left + _EDGE, top + _EDGE)).save(Path(folder, f"{k:04d}.jpg"))
    return folder


def _explained(model: pl.VisionModel, folder: str) -> pl.Importance:
    return pl.importance(model, folder, "patches", "ablation", count=_PLAYERS, group="predicted")


def memory_call(name: str, count: int, device: str) -> Callable[[], object]:
    """A contestant of the memory measurement: a folder of `count` pictures."""
    kept = tempfile.TemporaryDirectory()
    model, folder = pl.load(device=device), photographs(count, kept.name)

    def call() -> object:
        with kept:
            return _explained(model, folder)

    return call


def folder(pictures: int, repeats: int, device: str) -> Section:
    """`pl.importance` of a folder beside its passes, bare."""
    model = pl.load(device=device)
    with tempfile.TemporaryDirectory() as kept:
        photographs(pictures, kept)
        with calls_of(model.module) as seen:
            stated = _explained(model, kept).record.run["forwards"]
        passes = [Pass(batch, backward=False) for batch, _ in seen]
        ran = sum(p.batch for p in passes)
        calls = {"ours": lambda: _explained(model, kept), "bare": bare(model.module, inputs_of("cat", model), passes)}
        found = paired(calls, repeats, warmup=0)
    few, many = pictures, 4 * pictures
    peak = {n: measured(MEMORY, n, device, 1)["first"] for n in (few, many)}
    rows = [
        Row(
            "importance over a folder : its passes",
            found.ratio("ours", "bare"),
            limit=at_most(1.1),
            cpu=found.ratio("ours", "bare", "cpu"),
            note="reading, preparing, the table and its pictures included",
        ),
        single("passes that ran : passes it states", ran / stated, limit=at_most(1.1), note=f"{ran} beside {stated}"),
        Row(f"memory, {many} pictures : {few} pictures", share(peak[many], peak[few]), limit=at_most(1.1)),
        *[Row(f"memory, {n} pictures", spread, " MB") for n, spread in peak.items()],
    ]
    about = (
        f"The embedded EfficientNet-Lite0, {pictures} pictures of {_EDGE} x {_EDGE} cut out of the samples, about "
        f"{_PLAYERS} patches, leave-one-out. The passes are repeated bare, batch by batch, on ready inputs. Memory is "
        "the peak in fresh processes, above what the process held before."
    )
    return Section("Importance over a folder", about, rows)
