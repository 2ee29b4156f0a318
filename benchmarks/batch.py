"""A whole data set: what rows cost beyond the passes, how memory and start-up grow, how large a row is."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import pellucid as pl
from benchmarks import cluster, kills, workers
from benchmarks.folder import photographs
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.timing import paired
from benchmarks.tiny import asked
from pellucid.engine.heap import keep_freed_memory
from pellucid.models.feed import feed_of
from pellucid.runs.batch import BatchJob
from pellucid.runs.local import written
from pellucid.runs.manifest import Item, Manifest
from pellucid.runs.work import Work, WorkOrder

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        pictures: of the throughput; `repeats` of it.
        long: rows of the longer of two runs whose memory is compared; the shorter has a twentieth.
        manifest: rows of the manifest that is opened.
        kills: of workers, drivers, or both.
    """

    pictures: int
    repeats: int
    long: int
    manifest: int
    kills: int


FULL = Size(pictures=256, repeats=5, long=20_000, manifest=10_000_000, kills=50)
QUICK = Size(pictures=48, repeats=3, long=1_200, manifest=1_000_000, kills=5)


def throughput(size: Size, device: str) -> list[Section]:
    """Rows of Grad-CAM, written, beside a loop that decodes, prepares and runs forward and the tail's backward."""
    with tempfile.TemporaryDirectory() as kept:
        files = [str(f) for f in sorted(Path(photographs(size.pictures, kept)).glob("*.jpg"))]
        shards = Path(kept, "shards")
        work = Work(WorkOrder({"name": "efficientnet-lite0", "device": device}, (asked().as_dict(),)))
        made: list[dict[str, Any]] = []
        keep_freed_memory()  # as a worker does

        def ours() -> None:
            for start in range(0, len(files), 64):
                made.append(written(shards, work.rows([Item(f) for f in files[start : start + 64]])))

        found = paired({"ours": ours, "bare": lambda: _bare(work.model, files, work.size)}, size.repeats, warmup=1)
        bytes_a_row = sum(line["bytes"] for line in made) / sum(line["rows"] for line in made)
    rows = [
        Row(
            "bare loop : rows, pictures a second",
            found.ratio("bare", "ours"),
            limit=at_least(0.92),
            cpu=found.ratio("bare", "ours", "cpu"),
            note="decoding, preparing and writing included",
        ),
        single("a row on disk", bytes_a_row / 1000, unit=" kB", limit=at_most(8), note="map, figures and full record"),
    ]
    about = f"Grad-CAM of {size.pictures} pictures by the embedded EfficientNet-Lite0, in batches of {work.size}."
    return [Section("Batch: rows beside a bare loop", about, rows)]


def _bare(model: pl.VisionModel, files: list[str], size: int) -> None:
    """What is left where everything but decoding, preparing and the passes is left out."""
    feed, cut = feed_of(model), dict(model.module.named_modules())["bn2"]
    held: list[torch.Tensor] = []

    def hook(_module: Any, _given: Any, output: torch.Tensor) -> torch.Tensor:
        held[:] = [output.detach().requires_grad_()]
        return held[0].clone()

    handle = cut.register_forward_hook(hook)
    try:
        for start in range(0, len(files), size):
            x = torch.stack([feed.prepared(model, f).x for f in files[start : start + size]]).to(model.device)
            with torch.enable_grad():
                score = model.module(x).amax(1).sum()
                torch.autograd.grad(score, held[0])
    finally:
        handle.remove()


def scaling(size: Size, device: str) -> list[Section]:
    """Two workers beside one."""
    return workers.scaling(size.pictures, size.repeats)


def memory(size: Size, device: str) -> list[Section]:
    """The driver's and the worker's peak, of a short run and of one twenty times as long."""
    peaks = {n: _child("run", n) for n in (size.long // 20, size.long)}
    few, many = peaks.values()
    rows = [
        single(f"{who}: memory, {size.long} rows : {size.long // 20} rows", many[who] / few[who], limit=at_most(1.1))
        for who in ("driver", "worker")
    ]
    rows += [single(f"{who}, {size.long} rows", many[who], unit=" MB") for who in ("driver", "worker")]
    about = "A small network on one picture named over and over, peaks of whole processes."
    return [Section("Batch: memory", about, rows)]


def startup(size: Size, device: str) -> list[Section]:
    """A long manifest in Parquet, opened up to its first inputs; and opened again where all of it is done."""
    found = _child("open", size.manifest)
    rows = [
        single("until the first inputs", found["seconds"], unit=" s", limit=at_most(20), note="processor time"),
        single("memory", found["driver"], unit=" MB", limit=at_most(1000)),
        single("all rows known, looked up again", found["again"], unit=" s", note="processor time"),
        single("memory then", found["peak"], unit=" MB", limit=at_most(1000)),
    ]
    return [Section("Batch: start-up", f"A manifest of {size.manifest:,} rows.", rows)]


def killing(size: Size, device: str) -> list[Section]:
    """What is left of a batch after kills and a resume."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "in")
        folder.mkdir()
        photographs(max(kills.PICTURES), str(folder))
        return [kills.section(kills.killed(Path(home), folder, size.kills), "Batch: kills")]


def clusters(size: Size, device: str) -> list[Section]:
    """Rows of simulated clusters, one of which loses a node at work."""
    return cluster.nodes() if cluster.installed() else cluster.absent()


def beside_ray(size: Size, device: str) -> list[Section]:
    """One machine: Ray beside the local engine."""
    return cluster.beside_local(size.pictures) if cluster.installed() else cluster.absent()


def killing_ray(size: Size, device: str) -> list[Section]:
    """As `killing`, on Ray: a fifth as often."""
    return cluster.killing(max(1, size.kills // 5)) if cluster.installed() else cluster.absent()


def _child(what: str, count: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.batch", what, str(count)]
    ran = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True, env=dict(os.environ))
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1000


def _listed(folder: str, count: int) -> Path:
    """A manifest of as many rows, each with its own id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = Path(photographs(1, folder), "0000.jpg")
    path = Path(folder, "list.parquet")
    with pq.ParquetWriter(path, pa.schema([("path", pa.string()), ("id", pa.string())])) as file:
        for start in range(0, count, 100_000):
            rows = range(start, min(start + 100_000, count))
            file.write_table(pa.table({"path": [str(picture)] * len(rows), "id": [f"row-{k:09d}" for k in rows]}))
    return path


def _run(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        manifest = Manifest.of([_listed(folder, count)])
        found = BatchJob.of(
            Path(folder, "out"), [asked()], manifest, entry="benchmarks.tiny:dot", path=str(_ROOT)
        ).run()
        assert found.complete
        assert found.done == count
    return {"driver": _peak(resource.RUSAGE_SELF), "worker": _peak(resource.RUSAGE_CHILDREN)}


def _open(count: int) -> dict[str, float]:
    import numpy as np

    from pellucid.keep.key import Keys

    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:  # whose memory is its own
            path = other.submit(_listed, folder, count).result()
        begun = time.process_time()
        manifest = Manifest.of([path])
        assert manifest.count() == count
        first = list(islice(manifest, 64))
        found = {"seconds": time.process_time() - begun, "driver": _peak(resource.RUSAGE_SELF)}
        begun = time.process_time()
        known, draw = Keys(), np.random.default_rng(0)
        for _ in range(0, count, 65_536):
            known.add(draw.integers(-(2**62), 2**62, 65_536), np.zeros(65_536, np.int64))
        known.find([item.key for item in first])
        return found | {"again": time.process_time() - begun, "peak": _peak(resource.RUSAGE_SELF)}


TITLE = "A whole data set"
SECTIONS = {
    "throughput": throughput,
    "workers": scaling,
    "memory": memory,
    "startup": startup,
    "kills": killing,
    "clusters": clusters,
    "ray": beside_ray,
    "ray-kills": killing_ray,
}

if __name__ == "__main__":
    print(json.dumps({"run": _run, "open": _open}[sys.argv[1]](int(sys.argv[2]))))
