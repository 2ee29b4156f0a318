"""Options that several verbs share: what is said of a model and of a run, and how a model is loaded from it.

A command says `of: ModelOptions = PLAIN` where the options of a model belong; `spelled_out` puts them there one by one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pellucid.cli.console import say

if TYPE_CHECKING:
    from pellucid.models.model import VisionModel

A_MODEL = "A model: see `pellucid models`; or module:function, which builds one."
ModelArgument = Annotated[str, typer.Argument(help=A_MODEL)]
ModelOfRecord = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="The model, where the record can't load it: module:function, which builds it; of a comparison two.",
    ),
]
ModelName = Annotated[str, typer.Option("--model", "-m", help=A_MODEL)]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="A safetensors file or saved state_dict for the model.")
]
RandomWeights = Annotated[bool, typer.Option("--random-weights", help="No trained weights: try an architecture.")]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="Class names, with commas, or a file: one a line, or a JSON list.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...; default: cuda if there is one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]

PerFrame = Annotated[
    str | None,
    typer.Option("--per-frame", help="An image model on every frame of a clip; its scores pooled: mean, max or none."),
]
Frames = Annotated[
    str | None,
    typer.Option(
        "--frames", help="Which frames of a clip: uniform:16, dense:16@2.5, stride:16x4, rate:16x15, windows:16."
    ),
]

Scores = Annotated[
    str | None,
    typer.Option("--scores", help="What the model's scores are: softmax, sigmoid, probabilities or none; else found."),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", help="The part of the model's output that holds its scores: a name or number; else found."
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window", help="Of DICOM pictures: auto, CENTRE,WIDTH, a number of the file's own, or bone, brain, lung ..."
    ),
]

Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="What the model answers: classes, labels, values, boxes, boxes:yolox, regions ...; else found.",
    ),
]

Runtime = Annotated[
    str, typer.Option("--runtime", help="What runs plain passes: auto, torch, openvino, onnx.", show_default=True)
]
Precision = Annotated[
    str, typer.Option("--precision", help="Of their sums: f32, or bf16, which is quicker and rough.", show_default=True)
]
PerSlice = Annotated[
    str | None,
    typer.Option("--per-slice", help="An image model on the slices of a volume; its scores pooled: mean or max."),
]
KeepIdentifiers = Annotated[
    bool,
    typer.Option(
        "--keep-identifiers",
        help="Written DICOM keeps patient, study and references, so that a viewer lays it over the study.",
    ),
]

Dicom = Annotated[
    str,
    typer.Option(
        "--dicom",
        metavar="auto|own|none|SERIES",
        help="DICOM objects: of DICOM; of NIfTI too, in a study of their own; none; or over the SERIES it was made of.",
        show_default=True,
    ),
]

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures, pages, tables, values and records.")]
Seed = Annotated[int, typer.Option("--seed", help="Of whatever is random.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PARAMETER=VALUE", help="A parameter of the method; may be repeated."),
]
Layer = Annotated[str | None, typer.Option("--layer", help="Module path; default: the best is found.")]
LayerWithPlaces = Annotated[str | None, typer.Option("--layer", help="Module path; default: the last with places.")]
Methods = Annotated[str, typer.Option("--method", help="One or several, with commas: see `methods`.")]
Pictures = Annotated[
    str, typer.Argument(metavar="FOLDER", help="Pictures (sub-folders or labels.csv: classes); sample:*, digits:.")
]
Truth = Annotated[
    Path | None,
    typer.Option(
        "--truth",
        help="What is truly there: a COCO file, VOC files, a folder of YOLO files or of masks; a detector's hits, "
        "misses and false boxes are explained apart, other maps are laid beside the truth.",
    ),
]
Redact = Annotated[
    str | None,
    typer.Option(
        "--redact",
        help="Boxes to make unrecognisable in all that is shown and written: annotations, or x0,y0,x1,y1;...",
    ),
]

DEFAULT_MODEL = "efficientnet-lite0"
OUT = Path("pellucid-out")


@dataclass(frozen=True)
class ModelOptions:
    """What is said of a model besides its name."""

    device: Device = None
    weights: Weights = None
    random_weights: RandomWeights = False
    labels: Labels = None
    scores: Scores = None
    output: Output = None
    task: Task = None

    def load(self, name: str, **meaning: str | None) -> VisionModel:
        """The model of that name; `meaning`: `per_frame`, `frames`, `per_slice`, where a command has them."""
        said = {"scores": self.scores, "output": self.output, "task": self.task, **meaning}
        return load_model(name, self.weights, self.random_weights, self.labels, self.device, **said)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, files by paths that hold wherever they are read; None for what is left open."""
        files = {"weights": self.weights, "labels": self.labels}
        paths = {name: None if file is None else str(file.resolve()) for name, file in files.items()}
        return {**asdict(self), **paths, "random_weights": self.random_weights or None}


PLAIN = ModelOptions()


def model_of_record(name: str | None) -> Any:
    """The model that is given for a record which can't load its own, or two with a comma; None: the record's."""
    given = [PLAIN.load(each.strip()) for each in (name or "").split(",") if each.strip()]
    return tuple(given) if len(given) > 1 else given[0] if given else None


def spelled_out(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes options one by one, in the place of each parameter whose default is an object of them: `of`,
    the options of a model, and what a command bundles besides.
    """
    own = inspect.signature(command, eval_str=True)
    bundles: dict[str, Any] = {p.name: p.default for p in own.parameters.values() if is_dataclass(p.default)}
    parameters: list[inspect.Parameter] = []
    for p in own.parameters.values():
        parameters += _each(bundles[p.name]) if p.name in bundles else [p]

    @wraps(command)
    def taking(**given: object) -> None:
        made = {
            name: type(bundle)(**{f.name: given.pop(f.name) for f in fields(bundle) if f.name in given})
            for name, bundle in bundles.items()
        }
        command(**given, **made)

    taking.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return taking


def _each(bundle: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(type(bundle), include_extras=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name]) for f in fields(bundle)]


def in_window(inputs: Sequence[str], window: str | None) -> list[str]:
    """What was typed, each file to be shown in a window (see `pellucid.media.window`)."""
    return [f"window:{window}:{given}" for given in inputs] if window not in (None, "auto") else list(inputs)


def first_given(beside: Mapping[str, object]) -> str | None:
    """Of options that do not go with something, the first that was given all the same: name -> what was given."""
    return next((name for name, given in beside.items() if given), None)


def running(runtime: str, precision: str) -> AbstractContextManager[None]:
    """Inside, plain passes are run as the options say; nothing heavy is loaded where they say nothing."""
    if (runtime, precision) == ("auto", "f32"):
        return nullcontext()
    from pellucid.engine.runtimes.asked import runtime as running_in

    return running_in(runtime, precision)


def fitting_model(name: str, inputs: Sequence[str]) -> str:
    """The model's name; where none is named and all inputs are clips of one suite, the network of that suite."""
    suites = {":".join(given.split(":")[:2]) if given.startswith("suite:") else "" for given in inputs}
    return suites.pop() if name == DEFAULT_MODEL and len(suites) == 1 and "" not in suites else name


def load_model(
    name: str,
    weights: Path | None,
    random_weights: bool,
    labels: Path | None,
    device: str | None,
    **meaning: str | None,
) -> VisionModel:
    """The model that the shared options name; `meaning`: what its input and its output are, see `sources.load`."""
    import torch

    from pellucid.models.sources import model_of

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = model_of(
        name,
        Path.cwd(),
        weights=weights,
        random_weights=random_weights,
        labels=labels,
        device=device,
        **meaning,
    )
    each = getattr(model.preprocess, "spatial", model.preprocess)  # frame or slice
    if getattr(each, "assumed", False):
        *_, height, width = each.input_size
        say(
            f"{name} came without a preprocessing, so pictures are shown to it as most networks of ImageNet see them, "
            f"at {height} x {width} pixels: if it was trained otherwise, let the function return "
            "pl.wrap(module, transform=...).",
            aside=True,
        )
    return model
