"""The suite for the runtime under the scorer: this build beside an earlier one, job by job, in processor time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import regions, runtime_pass
from benchmarks.report import Row, Section, at_least, at_most
from benchmarks.startup import seconds
from benchmarks.timing import Spread

BEFORE = "PELLUCID_BEFORE"
COMMIT = "adb6db6"


@dataclass(frozen=True)
class Size:
    """How much work to spend: masks for each network, pictures, rounds, pictures with a box."""

    embedded: int
    resnet: int
    vit: int
    pictures: int
    rounds: int
    boxed: int


FULL = Size(embedded=2000, resnet=2000, vit=2000, pictures=3, rounds=3, boxed=20)
QUICK = Size(embedded=500, resnet=150, vit=70, pictures=1, rounds=1, boxed=5)


def earlier_source() -> Path:
    """The source of the earlier build."""
    folder = Path(os.environ.get(BEFORE, "")) / "src"
    if not os.environ.get(BEFORE) or not folder.is_dir():
        raise SystemExit(
            f"{BEFORE} names a worktree of the earlier build: git worktree add FOLDER {COMMIT}, and {BEFORE}=FOLDER."
        )
    return folder


def _now() -> Path:
    return Path(__file__).resolve().parents[1] / "src"


def _job(source: Path, cache: Path, *asked: str) -> dict[str, Any]:
    """What a job took in a build, its map with it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "map.pt"
        script = Path(__file__).with_name("runtime_job.py")
        found = subprocess.run(
            [sys.executable, str(script), *asked, str(file)],
            env=os.environ | {"PYTHONPATH": str(source), "PELLUCID_CACHE": str(cache)},
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(found.stdout.splitlines()[-1]) | {"map": torch.load(file)}


def _difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    return float((a["map"] - b["map"]).abs().max() / a["map"].abs().max())


Took = dict[str, float]
"""Seconds, by `wall` and `cpu`."""


def _row(what: str, before: Sequence[Any], after: Sequence[Any], limit: float | None, note: str = "") -> Row:
    """How many times less time a job takes now, each round beside its own."""
    wall, cpu = ([b[clock] / a[clock] for b, a in zip(before, after, strict=True)] for clock in ("wall", "cpu"))
    return Row(what, Spread.of(wall), " x", at_least(limit) if limit else None, Spread.of(cpu), note)


def _took(what: str, each: Sequence[Any]) -> Row:
    return Row(what, Spread.of([t["wall"] for t in each]), " s", None, Spread.of([t["cpu"] for t in each]))


def _rise(name: str, said: str, masks: int, rounds: int, limits: tuple[float, float, float]) -> Section:
    took: dict[str, list[dict[str, Any]]] = {"before": [], "first": [], "second": [], "bf16": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:  # an empty cache: the first run converts
            cache, asked = Path(folder), ("rise", name, str(masks))
            took["before"].append(_job(earlier_source(), cache, *asked, "f32"))
            took["first"].append(_job(_now(), cache, *asked, "f32"))
            took["second"].append(_job(_now(), cache, *asked, "f32"))
            took["bf16"].append(_job(_now(), cache, *asked, "bf16"))
    before, second, rough = took["before"][0], took["second"][0], took["bf16"][0]
    grown = median(t["peak"] for t in took["second"]) - median(t["peak"] for t in took["before"])
    ran = " ".join(second["ran"].get(k, "") for k in ("name", "version", "precision"))
    rows = [
        _row(f"{said}: first run, with the conversion", took["before"], took["first"], limits[0]),
        _row(f"{said}: second run, conversion kept", took["before"], took["second"], limits[1], note=ran),
        _row(f"{said}: bf16, first run", took["before"], took["bf16"], limits[2], note=" ".join(rough["ran"]["notes"])),
        Row(f"{said}: largest difference of the map", Spread.of([_difference(before, second)]), "", at_most(1e-3)),
        Row(f"{said}: the same in bf16", Spread.of([_difference(before, rough)]), ""),
        _took(f"{said}: before", took["before"]),
        _took(f"{said}: now", took["second"]),
        Row(f"{said}: peak memory, now less before", Spread.of([grown]), " MB"),
    ]
    return Section(f"RISE, {masks} masks, {said}", _ABOUT, rows)


_ABOUT = (
    "The processor time of one call in a process of its own, this build and the one of commit "
    f"{COMMIT} (which runs in a folded, channels-last twin) in turns, one thread; read `N x` as N times less. Loading "
    "the model is not in it. The first run finds no program in the cache, the second finds that of the first."
)


def _embedded(size: Size, _device: str) -> Iterator[Section]:
    yield _rise("efficientnet-lite0", "embedded default", size.embedded, size.rounds, (2.5, 2.7, 4.5))


def _resnet(size: Size, _device: str) -> Iterator[Section]:
    yield _rise("timm:resnet50", "ResNet-50, random weights", size.resnet, size.rounds, (1.35, 1.35, 2.4))


def _vit(size: Size, _device: str) -> Iterator[Section]:
    yield _rise("timm:vit_base_patch16_224", "ViT-B/16, random weights", size.vit, size.rounds, (1.15, 1.15, 1.8))


def _explain(size: Size, _device: str) -> Iterator[Section]:
    """The whole command, its check with it."""
    command = [sys.executable, "-c", "from pellucid.cli import run; run()", "explain", "sample:cat"]
    before, first, second = list[Took](), list[Took](), list[Took]()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(size.rounds):
            with tempfile.TemporaryDirectory() as cache:
                for source, kept in ((earlier_source(), before), (_now(), first), (_now(), second)):
                    os.environ |= {"PYTHONPATH": str(source), "PELLUCID_CACHE": cache}
                    kept.append(dict(zip(("wall", "cpu"), seconds(command, folder), strict=True)))
    rows = [
        _row("first run", before, first, None),
        _row("second run", before, second, 2.0, note="importing torch and timm is in it"),
        _took("before", before),
        _took("now", second),
    ]
    yield Section("`pellucid explain sample:cat` with its check", "Processor time of the whole process.", rows)


def _importance(size: Size, _device: str) -> Iterator[Section]:
    before, after, differences = [], [], []
    for _ in range(size.rounds):
        with tempfile.TemporaryDirectory() as folder:
            asked = ("importance", "efficientnet-lite0", str(size.pictures), "f32")
            old, new = _job(earlier_source(), Path(folder), *asked), _job(_now(), Path(folder), *asked)
            before.append(old)
            after.append(new)
            differences.append(_difference(old, new))
    rows = [
        _row("first run", before, after, 2.5, note=new["ran"].get("name", "")),
        Row("largest difference", Spread.of(differences), "", at_most(1e-3)),
        _took("now", after),
    ]
    yield Section(f"Importance of superpixels by shapley, {size.pictures} sample pictures", _ABOUT, rows)


def _regions(size: Size, _device: str) -> Iterator[Section]:
    yield regions.section("mobilenet_v2", size.boxed, None)
    yield regions.section("resnet50", size.boxed, (1.0, 0.2))


def _passes(size: Size, _device: str) -> Iterator[Section]:
    for said in runtime_pass.NETWORKS:
        yield runtime_pass.section(said, size.rounds)


TITLE = "The runtime under the scorer"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "passes": _passes,
    "embedded": _embedded,
    "resnet": _resnet,
    "vit": _vit,
    "explain": _explain,
    "importance": _importance,
    "regions": _regions,
}
