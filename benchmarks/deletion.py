"""How many masked inputs a map needs: HSIC and Sobol beside RISE with 8000 masks, judged by deletion.

RISE's maps take most of the time by far, so they are kept in the system's folder for temporary files, each under a
name that says what it hangs on: the picture as the model takes it, and RISE's settings.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import pellucid as pl
from benchmarks.pointing import boxed_pictures, data_folder
from benchmarks.report import Row, Section, at_most, single
from benchmarks.timing import Spread
from pellucid.engine import default_batch
from pellucid.evaluation.faithfulness import Perturbed, cell_ranking
from pellucid.heatmaps import Method, get_method

_SAMPLES = ("cat", "coffee", "rocket", "motorcycle", "astronaut")


@dataclass(frozen=True)
class Subject:
    """A picture as the model takes it, `(1, 3, h, w)`, and its top class."""

    name: str
    x: Tensor
    target: int


def subjects(count: int, model: pl.VisionModel) -> list[Subject]:
    """The samples first, then labelled photographs; or crops of the samples where there are none."""
    sources: list[tuple[str, Tensor]] = [(n, _input(model, f"sample:{n}")) for n in _SAMPLES[:count]]
    folder = data_folder()
    if (folder / "images" / "imagenet_sample").is_dir():
        more: Iterable[tuple[str, Tensor]] = (
            (p.path.stem, _input(model, p.path)) for p in boxed_pictures(folder, max(1, count - len(sources)))
        )
    else:
        more = ((f"{n}, a crop", _zoomed(x)) for n, x in list(sources))
    sources += list(more)[: count - len(sources)]
    found = []
    for name, x in sources[:count]:
        with torch.no_grad():
            found.append(Subject(name, x, int(model.module(x).argmax())))
    return found


def _input(model: pl.VisionModel, source: str | Path) -> Tensor:
    return model.preprocess(pl.read_image(source))[0][None].to(model.device)


def _zoomed(x: Tensor) -> Tensor:
    """The middle of an input, at its full size."""
    size = x.shape[-1]
    edge = size // 6
    return torch.nn.functional.interpolate(
        x[..., edge : size - edge, edge : size - edge], size=x.shape[2:], mode="bilinear", align_corners=False
    )


def kept_map(method: Method, model: pl.VisionModel, subject: Subject) -> Tensor:
    """A method's map, from the folder for temporary files if it has been made before."""
    weights = next(iter(model.module.parameters())).detach().cpu().numpy().tobytes()
    key = hashlib.sha256(subject.x.cpu().numpy().tobytes() + weights + repr(method.parameters()).encode())
    file = Path(tempfile.gettempdir(), "pellucid-benchmarks", f"{method.name}-{key.hexdigest()[:16]}.pt")
    if file.is_file():
        found: Tensor = torch.load(file, weights_only=True)
        return found
    values = method.attribute(model, subject.x, subject.target)[0].cpu()
    file.parent.mkdir(exist_ok=True)
    half = file.with_suffix(".half")
    torch.save(values, half)
    half.replace(file)
    return values


def judge(model: pl.VisionModel, subject: Subject) -> Perturbed:
    """Deletion and insertion of a picture, by the probability of its class."""

    def score(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            step = default_batch(inputs)
            return torch.cat([model.module(part).softmax(1)[:, subject.target] for part in inputs.split(step)])

    return Perturbed(score, subject.x)


def budgets(pictures: int, masks: int, device: str) -> Section:
    """Mean area under the deletion curve of each method, relative to RISE's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # no time is measured here
    try:
        return _budgets(pictures, masks, device)
    finally:
        torch.set_num_threads(threads)


def _budgets(pictures: int, masks: int, device: str) -> Section:
    model = pl.load(device=device)
    quarter = masks // 4
    methods = {
        f"rise, {masks} masks": get_method("rise", samples=masks),
        f"hsic, {quarter} masks": get_method("hsic", samples=quarter),
        f"sobol, at most {quarter} masks": get_method("sobol", cells=7, samples=quarter),
    }
    first = next(iter(methods))
    areas: dict[str, list[float]] = {name: [] for name in methods}
    spent: dict[str, int] = {}
    chance = []
    for subject in subjects(pictures, model):
        perturbed = judge(model, subject)
        for name, method in methods.items():
            if name == first:
                values, spent[name] = kept_map(method, model, subject), masks
            else:
                found = method.explain(model, subject.x, [subject.target])[0]
                values, spent[name] = found.values[0].cpu(), found.cost.forwards
            _, deletion = perturbed.curves(cell_ranking(values, perturbed.grid))
            areas[name].append(deletion.auc)
        chance.append(deletion.random_mean)
    mean = {name: sum(a) / len(a) for name, a in areas.items()}
    rows = []
    for name in list(methods)[1:]:
        better = sum(a <= b for a, b in zip(areas[name], areas[first], strict=True))
        note = f"{spent[name]} forwards; at least as good on {better} of {len(areas[name])} pictures"
        rows.append(single(f"deletion area, {name} : {first}", mean[name] / mean[first], limit=at_most(1), note=note))
    rows += [Row(f"deletion area, {name}", Spread.of(a), "") for name, a in areas.items()]
    rows.append(Row("deletion area, random orders", Spread.of(chance), ""))
    about = (
        f"The embedded EfficientNet-Lite0 with its real weights, {pictures} pictures, the top class. The area under "
        "the deletion curve of its probability, on the picture's blur, a grid of 14 x 14 cells (smaller is better); "
        "RISE is Pellucid's own, whose error is smaller than the paper's at the same number of masks. Ratios are of "
        "means over the pictures, spreads are over pictures."
    )
    return Section("Evaluations that a map needs", about, rows)
