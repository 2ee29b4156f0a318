"""Models by name, or made of any module or function of the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.errors import ModelError
from pellucid.media import Plan
from pellucid.models import embedded
from pellucid.models.adapters import ClipInput, PerFrame
from pellucid.models.blackbox import BlackBox
from pellucid.models.checkpoints import fit_names, head_size, load_into, read_weights
from pellucid.models.clips import ClipPreprocessing, as_clips
from pellucid.models.model import VisionModel, check_labels
from pellucid.models.preprocess import Preprocess, Preprocessing, TransformPreprocess
from pellucid.models.processors import from_processor, is_processor, processor_settings
from pellucid.models.reading import Reading
from pellucid.models.recognition import configuration, configured_labels
from pellucid.models.sources.imagenet import imagenet_preprocess
from pellucid.models.sources.registry import find_source
from pellucid.models.tasks import claimed_task, declared_task
from pellucid.models.volume_preprocess import VolumePreprocessing
from pellucid.models.volumes import sliced
from pellucid.models.zero_shot import Unprompted

DEFAULT = embedded.NAME


def load(
    name: str = DEFAULT,
    *,
    weights: str | Path | None = None,
    random_weights: bool | int = False,
    labels: Sequence[str] | str | Path | None = None,
    device: str | torch.device | None = None,
    per_frame: str | None = None,
    frames: Plan | str | int | None = None,
    scores: str | None = None,
    output: str | int | None = None,
    task: str | None = None,
    per_slice: str | None = None,
) -> VisionModel:
    """Load a model by name.

    Args:
        name: `efficientnet-lite0` (embedded), `timm:NAME`, `torchvision:NAME[:WEIGHTS]`, `hf:NAME`,
            `suite:NAME` or `onnx:FILE`.
        weights: a safetensors file or `state_dict` checkpoint for that architecture.
        random_weights: no weights at all, for trying an architecture; a number seeds them (True: 0).
        labels: class names, also as one text with commas, or a file of them (one a line, or a JSON list).
        device: where to put it; by default the CPU.
        per_frame: make an image model one of clips: how the scores of frames are pooled (see `per_frame`).
        per_slice: make an image model one of volumes: how the scores of slices are pooled (see `pellucid.per_slice`).
        frames: another sampling plan than the video model's own (see `Plan`); a detector of pictures is shown single
            frames, so it is none of its business.
        scores, output, task: what its output means, see `wrap`.

    Raises:
        ModelError: unknown name (near misses), unreachable hub (with the way round it), unfit weights.
    """
    if weights is not None and random_weights is not False:
        raise ModelError("Give either a weights file or random weights, not both.")
    reading, asked = Reading.declared(scores, output), declared_task(task, scores)
    source, short = find_source(name)
    pretrained = weights is None and random_weights is False
    seed = int(random_weights) if random_weights is not True else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, preprocess, known = source.build(short, None, pretrained)
        if weights is not None:
            stored = fit_names(read_weights(weights), module)
            if (classes := head_size(stored, module)) is not None:
                module, preprocess, _ = source.build(short, classes, False)
                known = None
            load_into(module, stored, weights)
        elif random_weights is not False:
            _wake_zero_layers(module)
    spec: dict[str, Any] = {"name": name}
    if weights is not None:
        spec["weights"] = str(Path(weights).resolve())
    if random_weights is not False:
        spec["random_weights"] = seed
    if labels is not None:
        known = _labels(labels)
        spec["labels"] = list(known)
    if isinstance(module, Unprompted):
        module = module.prompted(known)
    spec |= {k: v for k, v in (("scores", scores), ("output", output), ("task", task)) if v is not None}
    if (asked := asked or claimed_task(module)) is not None:
        usual = preprocess if isinstance(preprocess, Preprocess) else None
        preprocess = asked.preprocessing(module, usual) or preprocess
        module = asked.adapted(module)
    loaded = VisionModel(_to(module.eval(), device), preprocess, check_labels(known), name, spec, reading, asked)
    return made_for(loaded, per_frame, frames, per_slice)


def made_for(
    model: VisionModel, per_frame: str | None, frames: Plan | str | int | None, per_slice: str | None
) -> VisionModel:
    """The model as one of clips or volumes, or with another sampling plan, as `load` is asked."""
    if per_slice is not None:
        return sliced(model, per_slice)
    if per_frame is not None:
        return _per_frame(model, per_frame, Plan.parse(8 if frames is None else frames))
    if frames is None or (model.task is not None and model.task.by_frame and not model.takes_clips):
        return model
    return replace(model, preprocess=_planned(model, frames))


def wrap(
    module: nn.Module | Callable[[Any], Any],
    *,
    transform: Preprocessing | Callable[[Any], torch.Tensor] | None = None,
    labels: Sequence[str] | str | Path | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    numpy: bool = False,
    frames: Plan | str | int | None = None,
    layout: str = "BCTHW",
    pathways: Sequence[int] = (),
    scores: str | None = None,
    output: str | int | None = None,
    task: str | None = None,
) -> VisionModel:
    """Any model of yours, with its preprocessing and labels.

    Args:
        module: returns class scores `(N, classes)`, or whatever your targets read. An `nn.Module` is used as it is,
            never copied. Any other function from a batch to scores is a black box, which only methods that need
            nothing but outputs can explain.
        numpy: a function takes float32 arrays rather than tensors (it may return either).
        transform: a `Preprocess`, or any function from a PIL picture to a tensor `(C, H, W)` such as a torchvision
            transform, or an image processor of transformers. Default: the module's own timm configuration, the
            processor saved beside a model of transformers, or ImageNet's at 224 pixels.
        labels: class names, or a file of them.
        name: what to call it.
        device: move it there; by default it stays where it is.
        frames: for models of clips: how many frames they take, or a sampling plan such as "rate:16x15" (see `Plan`).
            A `transform` of pictures then serves every frame; a function takes all frames, a uint8 tensor (T, C, H, W),
            and returns (C, T, h, w).
        layout: of a clip model's input: BCTHW, or BTCHW.
        pathways: for models that take a list of clips, slowest first (SlowFast): by how much each has fewer frames than
            the input, such as (4, 1).
        scores: what the scores are: `softmax`: logits of classes of which one is true; `sigmoid`: logits of labels that
            may be true together, or one logit between two; `probabilities` already; `none`: plain values, never in
            percent. Default: recognised (see docs/guide.md, "What an output means").
        output: which part of the output holds the scores, by name or number: "logits", 1, "heads.0". Default: found.
        task: what kind of answer it gives: `classes` of which one is true, `labels` of which several may be, `values`,
            `boxes`, `regions` or an `embedding`. `boxes:HEAD` reads the raw output of a known detector: yolox, yolo,
            ssd, fastestdet. Default: found.
    """
    if isinstance(module, VisionModel):
        raise ModelError("This model is wrapped already: use it as it is.")
    if not isinstance(module, nn.Module):
        if not callable(module):
            raise ModelError(f"pl.wrap takes a torch.nn.Module or a function, not {type(module).__name__}.")
        name = name or getattr(module, "__name__", type(module).__name__)
        module = BlackBox(module, numpy=numpy)
    if device is not None:
        module = _to(module, device)
    known = check_labels(configured_labels(module) if labels is None else _labels(labels))
    name = name or type(module).__name__
    reading, asked = Reading.declared(scores, output), declared_task(task, scores) or claimed_task(module)
    if asked is not None:
        transform = asked.preprocessing(module, None) if transform is None and frames is None else transform
        module = asked.adapted(module)
    if frames is None and not isinstance(transform, ClipPreprocessing):
        if layout != "BCTHW" or pathways:
            raise ModelError("layout and pathways are of models of clips: say how many frames they take, frames=16.")
        return VisionModel(module, _preprocess(module, transform), known, name, reading=reading, task=asked)
    if layout != "BCTHW" or pathways:
        module = ClipInput(module, layout, pathways)
    plan = transform.plan if isinstance(transform, ClipPreprocessing) else Plan()
    plan = plan if frames is None else Plan.parse(frames)
    clips = as_clips(_preprocess(module, transform, clips=True), plan)
    return VisionModel(module, clips, known, name, reading=reading, task=asked)


def per_frame(
    model: VisionModel | nn.Module | str,
    pool: str | Callable[[torch.Tensor], torch.Tensor] = "mean",
    *,
    frames: Plan | str | int = 8,
) -> VisionModel:
    """An image model as a model of clips: it sees every frame by itself, and the frames' scores are pooled.

    Args:
        model: an image model, its name, or a bare module.
        pool: `mean` or `max` over the frames; `none` for a sequence of scores (target `step:T`); or a function
            `(N, T, classes) -> (N, classes)`.
        frames: how many, or a sampling plan.

    Raises:
        ModelError: the model takes clips already, or there is no such pooling.
    """
    return _per_frame(_loaded(model), pool, Plan.parse(frames))


def per_slice(
    model: VisionModel | nn.Module | str,
    pool: str | Callable[[torch.Tensor], torch.Tensor] = "mean",
    *,
    slices: int | None = 16,
    orientation: str = "SPL",
    window: tuple[float, float] | None = None,
) -> VisionModel:
    """An image model as a model of volumes: it sees slices one by one, and their scores are pooled.

    Args:
        model: an image model, its name, or a bare module.
        pool: `mean` or `max` over the slices, or a function `(N, slices, classes) -> (N, classes)`.
        slices: so many, evenly spread over the volume; None: all.
        orientation: where slices, rows and columns go: `SPL` axial, `ASL` coronal and so on.
        window: centre and width, in the volume's units; None: its own.

    Raises:
        ModelError: the model takes no pictures, or there is no such pooling.
    """
    return sliced(_loaded(model), pool, slices, orientation, window)


def _loaded(model: VisionModel | nn.Module | str) -> VisionModel:
    return load(model) if isinstance(model, str) else model if isinstance(model, VisionModel) else wrap(model)


def _per_frame(loaded: VisionModel, pool: str | Callable[[torch.Tensor], torch.Tensor], plan: Plan) -> VisionModel:
    if isinstance(loaded.preprocess, ClipPreprocessing):
        raise ModelError(f"{loaded.name} takes clips already: use it as it is.")
    source = (
        {**loaded.source, "per_frame": pool, "frames": str(plan)} if loaded.source and isinstance(pool, str) else {}
    )
    return VisionModel(
        PerFrame(loaded.module, pool, loaded.reading),
        as_clips(loaded.preprocess, plan),
        loaded.labels,
        loaded.name,
        source,
        replace(loaded.reading, output=None),
        loaded.task,
    )


def _planned(model: VisionModel, frames: Plan | str | int) -> ClipPreprocessing:
    if not isinstance(model.preprocess, ClipPreprocessing):
        raise ModelError(
            f"{model.name} takes pictures, so no frames are sampled: make it a model of clips with "
            "pl.per_frame(model), --per-frame mean."
        )
    if model.source:
        model.source["frames"] = str(Plan.parse(frames))
    return model.preprocess.planned(Plan.parse(frames))


def _preprocess(module: nn.Module, transform: Any, *, clips: bool = False) -> Any:
    """The preprocessing that `transform` stands for; of clips, a function of the frames stays one."""
    if transform is None:
        config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
        if config:
            from timm.data.config import resolve_model_data_config

            return Preprocess.from_timm(resolve_model_data_config(module))
        saved = processor_settings(getattr(configuration(module), "_name_or_path", None) or "")
        return (
            from_processor(saved) if saved and not clips else replace(imagenet_preprocess((224, 224), 3), assumed=True)
        )
    if is_processor(transform):
        return from_processor(transform)
    if isinstance(transform, Preprocess | TransformPreprocess | ClipPreprocessing | VolumePreprocessing):
        return transform
    if callable(transform) and clips:
        return transform
    if callable(transform):
        return TransformPreprocess(transform)
    raise ModelError(f"A transform is a function from a picture to a tensor, not {type(transform).__name__}.")


def _to(module: nn.Module, device: str | torch.device | None) -> nn.Module:
    if device is None:
        return module
    try:
        return module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"Device {str(device)!r} is not available here: use cpu, or see `pellucid doctor`.") from error


def _labels(labels: Sequence[str] | str | Path) -> Sequence[str]:
    if not isinstance(labels, str | Path):
        return labels
    if "," in str(labels) and not Path(labels).exists():
        return [label.strip() for label in str(labels).split(",") if label.strip()]
    try:
        text = Path(labels).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"Cannot read labels from {labels}: give a text file with one label a line.") from error
    if text.lstrip().startswith("["):
        try:
            return [str(label) for label in json.loads(text)]
        except ValueError as error:
            raise ModelError(f"{labels} is not a JSON list of labels.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _wake_zero_layers(module: nn.Module) -> None:
    """Some architectures start with a head of zeros, on which every explanation is zero: draw it like the rest."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.trunc_normal_(parameter, std=0.02)
