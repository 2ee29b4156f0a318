"""Maps of pairs on real weights: one network that recognises people again, a black box, and seven people who walk by.

Does hiding what a map points at break a match that was right, and does hiding as much at random leave it alone?
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pellucid as pl
from benchmarks.pointing import data_folder
from benchmarks.report import Limit, Row, Section, at_least, at_most, single
from pellucid.evaluation.faithfulness import cell_ranking
from pellucid.heatmaps import get_method
from pellucid.numerics.proportions import interval

_NETWORK = Path("weights") / "reid0288" / "person-reidentification-retail-0288.xml"
_WALKERS = Path("videos") / "people" / "people-detection.264"
_SIZE = (256, 128)
_GRID = (16, 8)  # cells of 16 x 16 pixels, of which a tenth is hidden
_HIDDEN = 0.1
_DRAWS = 20  # of cells at random, for each match
_MAPS = (("trace-order", True), ("occlusion", False))  # and which of them the target is for

Box = tuple[int, int, int, int]
PEOPLE: dict[str, dict[int, Box]] = {
    "skirt": {
        30: (289, 142, 396, 401), 36: (338, 101, 417, 315), 42: (397, 85, 474, 289), 48: (457, 76, 537, 264),
        54: (518, 78, 601, 249), 60: (574, 90, 652, 247), 66: (619, 93, 712, 246),
    },
    "black shirt": {
        192: (330, 188, 441, 414), 198: (319, 141, 413, 380), 204: (285, 110, 364, 336), 210: (256, 92, 329, 311),
        216: (212, 81, 293, 275), 222: (161, 80, 213, 218),
    },
    "denim": {
        192: (174, 176, 306, 431), 198: (193, 128, 301, 388), 204: (172, 109, 285, 352), 210: (147, 98, 244, 333),
        216: (124, 83, 207, 297), 222: (72, 86, 167, 287), 228: (37, 89, 139, 282),
    },
    "stripes": {
        348: (161, 187, 345, 432), 354: (182, 141, 339, 428), 360: (196, 92, 315, 388), 366: (199, 66, 314, 313),
        372: (161, 53, 275, 271), 378: (123, 59, 219, 253),
    },
    "white shirt": {
        360: (439, 165, 586, 431), 366: (463, 123, 591, 378), 372: (490, 111, 621, 337), 378: (498, 94, 651, 316),
        384: (557, 100, 693, 302), 390: (618, 116, 734, 300), 396: (649, 119, 763, 283),
    },
    "dark dress": {
        354: (361, 196, 459, 417), 360: (375, 145, 464, 399), 366: (410, 116, 490, 353), 384: (530, 82, 592, 232),
        390: (576, 87, 638, 239),
    },
    "hat": {
        528: (299, 142, 453, 432), 534: (266, 82, 371, 382), 540: (211, 65, 329, 290), 546: (114, 63, 247, 266),
        552: (30, 72, 110, 249),
    },
}  # fmt: skip
"""Where a detector finds each of them, by frame; who is who was told by eye."""


@dataclass(frozen=True)
class Match:
    """A crop, the one other crop of the same person that is known, the nearest of somebody else, and all of those."""

    query: Path
    same: Path
    other: Path
    others: list[Path]


def recogniser(network: Path) -> pl.VisionModel:
    """The network as a black box: pictures `(N, 3, 256, 128)` in [0, 1] to vectors `(N, 256)`."""
    import openvino as ov

    core = ov.Core()
    told = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(network), "CPU", told)

    def embed(batch: Tensor) -> Tensor:
        pictures = (batch.flip(1) * 255).numpy()  # blue, green, red, 0 to 255
        return torch.from_numpy(np.concatenate([compiled(each[None])[0].reshape(1, -1) for each in pictures]))

    plain = pl.Preprocess(input_size=_SIZE, resize=_SIZE, crop=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    return pl.wrap(embed, task="embedding", transform=plain, name="reid0288")


def crops(folder: Path, into: Path) -> dict[str, list[Path]]:
    """Each person's crops, as files."""
    import av

    wanted = {frame for places in PEOPLE.values() for frame in places}
    with av.open(str(folder / _WALKERS)) as film:
        seen = {k: f.to_image() for k, f in enumerate(film.decode(video=0)) if k in wanted}
    written: dict[str, list[Path]] = {}
    for who, places in PEOPLE.items():
        for frame, box in places.items():
            file = into / f"{who.replace(' ', '-')}-{frame}.png"
            seen[frame].crop(box).save(file)
            written.setdefault(who, []).append(file)
    return written


def right_matches(model: pl.VisionModel, people: dict[str, list[Path]]) -> tuple[list[Match], dict[Path, Tensor]]:
    """Crops whose nearest is the one known crop of their person, the farthest in time, among all crops of the others.

    And the embedding of each crop.
    """
    vectors = {file: _unit(model, _shown(model, file)) for files in people.values() for file in files}
    found = []
    for who, files in people.items():
        others = [file for name, theirs in people.items() if name != who for file in theirs]
        for file in files:
            same = files[0] if files.index(file) >= len(files) / 2 else files[-1]
            other = max(others, key=lambda each: float(vectors[file] @ vectors[each]))
            if float(vectors[file] @ vectors[same]) > float(vectors[file] @ vectors[other]):
                found.append(Match(file, same, other, others))
    return found, vectors


def _shown(model: pl.VisionModel, file: Path) -> Tensor:
    return model.pictures(pl.media.read_image(file))[0][None]


def _unit(model: pl.VisionModel, x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(model.outputs(x), dim=1)[0]


def hidden(x: Tensor, cells: Tensor, filling: Tensor) -> Tensor:
    """Cells, numbers of the grid, filled."""
    mask = torch.zeros(_GRID[0] * _GRID[1])
    mask[cells] = 1
    whole = mask.reshape(1, 1, *_GRID).repeat_interleave(16, 2).repeat_interleave(16, 3)
    return x * (1 - whole) + filling * whole


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def pairs(most: int) -> Section:
    """How many right matches break where a tenth of the picture is hidden, by the map and at random."""
    section = Section("People recognised again", "")
    folder = data_folder()
    if not (folder / _NETWORK).is_file() or not (folder / _WALKERS).is_file():
        section.skipped = "no network that recognises people, or no film of walkers: set PELLUCID_DATA to a folder."
        return section
    model = recogniser(folder / _NETWORK)
    with tempfile.TemporaryDirectory() as into:
        people = crops(folder, Path(into))
        matches, vectors = right_matches(model, people)
        chosen = matches[:: max(1, len(matches) // most)][:most]
        counted = _counted(model, chosen, vectors)
    section.rows += [
        _share(f"matches broken by hiding the tenth that {name} points at", broken, at_least(0.9) if ours else None)
        for (name, ours), broken in zip(_MAPS, counted, strict=False)
    ]
    section.rows.append(_share("matches broken by hiding a tenth at random", counted[-1], at_most(0.1)))
    section.about = (
        f"{len(vectors)} crops of seven people in one film. A black box is asked which crop is nearest to each, among "
        "one other of the same person, the farthest in time, and all those of the other six. It is right about "
        f"{len(matches)}; {len(chosen)} of these matches are explained, `rank:` beside the nearest of somebody else, "
        "by `trace-order` (the cells whose hiding takes most, one after another, each with those before hidden; 12 "
        "are tried for each of 13 ranks) and by occlusion (windows of 32 pixels, steps of 16). The tenth of the cells "
        "(16 x 16 pixels) at the top of the map is filled with the picture's mean; a match breaks where somebody else "
        f"is then the nearest. At random: {_DRAWS} draws a match."
    )
    return section


def _share(what: str, broken: Sequence[bool], limit: Limit | None) -> Row:
    low, high = interval(sum(broken), len(broken))
    note = f"95 % interval {low:.2f} to {high:.2f}"
    return single(what, sum(broken) / max(1, len(broken)), "", limit, note=note)


def _counted(model: pl.VisionModel, matches: Sequence[Match], vectors: dict[Path, Tensor]) -> list[list[bool]]:
    """Which matches break, by each of the maps, and at random."""
    broken: list[list[bool]] = [[] for _ in (*_MAPS, "random")]
    generator = torch.Generator().manual_seed(0)
    methods = [
        get_method("trace-order", cells=_GRID, curve="deletion", tried=12, ranks=13, sweeps=0, baseline="mean"),
        get_method("occlusion", window=32, stride=16, baseline="mean"),
    ]
    for match in matches:
        x = _shown(model, match.query)
        filling, gallery = _mean(x), torch.stack([vectors[file] for file in (match.same, *match.others)])
        maps = pl.explain(model, match.query, methods, f"rank:{match.same}>{match.other}")
        total = math.prod(_GRID)
        count = round(_HIDDEN * total)
        tops = [cell_ranking(e.map()[0], _GRID)[:count] for e in maps]
        drawn = [torch.randperm(total, generator=generator)[:count] for _ in range(_DRAWS)]
        lost = [int((gallery @ _unit(model, hidden(x, cells, filling))).argmax()) != 0 for cells in (*tops, *drawn)]
        for k in range(len(tops)):
            broken[k].append(lost[k])
        broken[-1] += lost[len(tops) :]
    return broken
