"""Does `auto` show a map that may be believed where Grad-CAM does not, and what does the choice cost?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import pellucid as pl
from benchmarks.pointing import boxed_pictures, data_folder
from benchmarks.report import Section, at_least, at_most, single
from benchmarks.timing import timed
from pellucid.evaluation.choice import ORDER, TOP


def section(count: int) -> Section:
    """One photograph after the other, both ways in turns."""
    made = Section(
        "The map that auto shows",
        f"{count} labelled photographs, the embedded network, the top class: `explain` with `auto`, which measures as "
        "it chooses, beside `explain` with `grad-cam` and its check. The ratio is of processor time.",
    )
    folder = data_folder()
    if not (folder / "images" / "imagenet_sample" / "labels.csv").is_file():
        made.skipped = "no folder of labelled pictures: set PELLUCID_DATA to one."
        return made
    model = pl.load()
    paths = [p.path for p in boxed_pictures(folder, count)]
    for way in ("grad-cam", "auto"):
        _checked(model, paths[0], way)
    ratios, words = [], []
    for k, path in enumerate(paths):
        found = {}
        for way in ("grad-cam", "auto")[:: 1 if k % 2 else -1]:
            kept: list[Any] = []
            _, seconds = timed(lambda path=path, way=way, kept=kept: kept.append(_checked(model, path, way)))
            found[way] = seconds, ORDER.index(kept[0].quality.verdict)
        ratios.append(found["auto"][0] / found["grad-cam"][0])
        words.append((found["grad-cam"][1], found["auto"][1]))
    made.rows += [
        single("faithful: grad-cam", float(sum(a == TOP for a, _ in words)), "", None, f"of {count}"),
        single(
            "faithful: auto",
            float(sum(b == TOP for _, b in words)),
            "",
            at_least(round(count * 14 / 16)),
            f"of {count}",
        ),
        single("auto worse than grad-cam", float(sum(b < a for a, b in words)), "", at_most(0), f"of {count}"),
        single(
            "explain and check: auto over grad-cam",
            float(np.median(ratios)),
            " x",
            at_most(1.3),
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        ),
    ]
    return made


def _checked(model: Any, path: Path, way: str) -> Any:
    explained = pl.explain(model, path, way)
    explained.check()
    return explained
