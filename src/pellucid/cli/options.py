"""Options that several verbs share, and how they load a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pellucid.models.model import VisionModel

ModelName = Annotated[str, typer.Option("--model", "-m", help="A model: see `pellucid models`.", show_default=True)]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="A safetensors file or saved state_dict for the model.")
]
RandomWeights = Annotated[bool, typer.Option("--random-weights", help="No trained weights: try an architecture.")]
Labels = Annotated[Path | None, typer.Option("--labels", help="Class names: a file, one a line or a JSON list.")]
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

DEFAULT_MODEL = "efficientnet-lite0"


def in_window(inputs: Sequence[str], window: str | None) -> list[str]:
    """What was typed, each file to be shown in a window (see `pellucid.media.window`)."""
    return [f"window:{window}:{given}" for given in inputs] if window not in (None, "auto") else list(inputs)


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
    """The model that the shared options name; `meaning`: `per_frame`, `frames`, `scores`, `output`, `task`."""
    import torch

    from pellucid.models.sources import load

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return load(
        name,
        weights=weights,
        random_weights=random_weights,
        labels=labels,
        device=device,
        **meaning,
    )
