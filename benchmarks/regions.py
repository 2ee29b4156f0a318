"""Sufficient regions beside ReX's (Chockler, Kroening et al.): how small, and for how many passes of the network."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import pellucid as pl
from benchmarks.pointing import boxed_pictures, data_folder, look_of, zoo_of
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.timing import Spread
from pellucid.heatmaps import SufficientRegion

REX = "PELLUCID_REX"
SETTING = {"finer": 2, "budget": 250}  # chosen on other pictures with a box, which are not among those shown
_ABOUT = (
    "ReX 0.4.1 in its own environment ({rex} names its Python), the same weights through ONNX and the same inputs, "
    "seed 0, its other settings as they come; `sufficient` with {how}. Area is the share of the input; calls are "
    "inputs that the network saw, forwards and backwards. ReX takes minutes for a picture: its rows are kept in "
    "{folder}, where a run that was cut goes on, and only pictures with a row count."
)


def section(network: str, count: int, targets: tuple[float, float] | None) -> Section:
    """One network on pictures with a box; `targets`: of the medians of area and of calls, ours to ReX's."""
    work = Path(tempfile.gettempdir()) / "pellucid-rex" / network
    how = ", ".join(f"{k}={v}" for k, v in SETTING.items())
    found = Section(f"Sufficient regions beside ReX, {network}", _ABOUT.format(rex=REX, how=how, folder=work))
    data = data_folder()
    if not (data / "code" / "zoo.py").is_file():
        found.skipped = "no folder of labelled pictures and weights: set PELLUCID_DATA to one."
        return found
    with zoo_of(data) as zoo:
        module, info = getattr(zoo, network)()
    model = pl.wrap(module, transform=look_of(info), name=network)
    pictures = {f"{k:02d}_{p.path.stem}": p.path for k, p in enumerate(boxed_pictures(data, count))}
    theirs = _rex(model, pictures, work)
    if not theirs:
        found.skipped = f"no environment with ReX: set {REX} to its Python."
        return found
    ours = {name: _sufficient(model, pictures[name]) for name in theirs}
    areas = [(ours[name]["area"], row["area"]) for name, row in theirs.items()]
    calls = [ours[name]["calls"] / row["calls"] for name, row in theirs.items()]
    small, few = targets or (None, None)
    beside = median(a for a, _ in areas) / median(b for _, b in areas)
    note = f"{100 * median(a for a, _ in areas):.2f} % beside {100 * median(b for _, b in areas):.2f} %"
    won = sum(a <= b for a, b in areas)
    found.rows = [
        single("median area : ReX's", beside, " x", at_most(small) if small else None, note=note),
        Row("calls : ReX's", Spread.of(calls), " x", at_most(few) if few else None),
        single("pictures", len(theirs), "", at_least(count) if targets else None, f"no larger than ReX's in {won}"),
    ]
    return found


def _rex(model: pl.VisionModel, pictures: dict[str, Path], work: Path) -> dict[str, dict[str, Any]]:
    """ReX's rows by the name of the input, in its own process where there is an environment for it."""
    rows, inputs = work / "rows.jsonl", work / "in"
    if python := os.environ.get(REX):
        inputs.mkdir(parents=True, exist_ok=True)
        for name, path in pictures.items():
            np.save(inputs / f"{name}.npy", model.preprocess(pl.read_image(path))[0][None].numpy())
        net = work / "net.onnx"
        if not net.is_file():
            pl.to_onnx(model, net)
        script = Path(__file__).with_name("regions_job.py")
        subprocess.run([python, str(script), str(net), str(inputs), str(rows)], check=True)
    told = [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else []
    return {row["input"]: row for row in told if row["input"] in pictures}


def _sufficient(model: pl.VisionModel, picture: Path) -> dict[str, float]:
    found = pl.explain(model, picture, SufficientRegion(**SETTING))
    run = found.record.run
    return {"area": float(found.facts["area"]), "calls": run["forwards"] + run["backwards"]}
