"""Models of transformers, of pictures and of clips: an architecture, a folder, or a name on the hub."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from torch import nn

from pellucid.errors import ModelError
from pellucid.media import Plan
from pellucid.models import zero_shot
from pellucid.models.adapters import ClipInput
from pellucid.models.clips import ClipPreprocess
from pellucid.models.preprocess import Preprocess
from pellucid.models.processors import from_processor, processor_settings
from pellucid.models.recognition import configured_labels
from pellucid.models.sources.registry import Built, source

_HEADS = {
    "ForSemanticSegmentation": "AutoModelForSemanticSegmentation",
    "ForObjectDetection": "AutoModelForObjectDetection",
    "ForUniversalSegmentation": "AutoModelForUniversalSegmentation",
    "ForInstanceSegmentation": "AutoModelForInstanceSegmentation",
}
"""What an architecture's name ends with -> the class that loads it."""

HF: dict[str, tuple[str, Plan, tuple[float, ...], tuple[float, ...]]] = {
    "videomae": ("VideoMAE", Plan("stride", 16, 4), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "timesformer": ("Timesformer", Plan("stride", 8, 32), (0.45,) * 3, (0.225,) * 3),
    "vivit": ("Vivit", Plan("stride", 32, 2), (0.5,) * 3, (0.5,) * 3),
}
"""Architecture in transformers -> the prefix of its classes, the frames and the normalisation it was trained with."""


def _names() -> list[str]:
    """The architectures that can be made without any file; folders and names on the hub come beside them."""
    return list(HF)


@source(
    "hf", "classifiers, detectors, segmenters of transformers (extra `hf`), also of clips: a folder or hub name", _names
)
def build(name: str, classes: int | None, pretrained: bool) -> Built:
    """A classifier of transformers: an architecture, a folder that `save_pretrained` wrote, or a name on the hub.

    Raises:
        ModelError: transformers is not installed, or there is no such model here or on the hub.
    """
    try:
        import transformers
    except ImportError as error:
        raise ModelError("hf: models need transformers, which is not installed: pip install 'pellucid[hf]'.") from error
    if name in HF and pretrained:
        raise ModelError(
            f"hf:{name} names an architecture without weights: give a folder or a name on the hub (hf:FOLDER), a file "
            "with --weights FILE, or try it with --random-weights."
        )
    config = _config(transformers, name)
    kind = str(config.model_type)
    saved = [str(name) for name in config.architectures or ()]
    if kind in zero_shot.KINDS:
        return _build_zero_shot(transformers, name, config, pretrained)
    for ending, auto in _HEADS.items():
        if kind not in HF and any(name.endswith(ending) for name in saved):
            return _build_image(transformers, name, config, classes, pretrained, auto)
    if kind not in HF and kind in transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return _build_image(transformers, name, config, classes, pretrained)
    if kind not in HF:
        near = difflib.get_close_matches(kind, HF, n=2)
        raise ModelError(f"hf:{name} is a {kind}; known are {', '.join(near or HF)}: wrap others with pl.wrap.")
    if classes is not None:
        config.num_labels = classes
    prefix, plan, mean, std = HF[kind]
    cls = getattr(transformers, f"{prefix}ForVideoClassification")
    if pretrained:
        try:
            module = cls.from_pretrained(name, config=config, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ModelError(_unreachable(name)) from error
    else:
        module = cls(config)
    size = _pair(config.image_size)
    settings = processor_settings(name)
    resize = settings.get("size", {}).get("shortest_edge") or round(min(size) * 256 / 224)
    spatial = Preprocess(
        input_size=size,
        resize=int(resize),
        mean=tuple(settings.get("image_mean", mean)),
        std=tuple(settings.get("image_std", std)),
    )
    labels = config.id2label if pretrained and len(config.id2label) == config.num_labels else None
    known = None if labels is None else [str(labels[i]) for i in range(config.num_labels)]
    plan = Plan(plan.kind, int(config.num_frames), plan.step)
    return ClipInput(module.eval(), "BTCHW"), ClipPreprocess(spatial=spatial, plan=plan), known


def _build_image(
    transformers: Any,
    name: str,
    config: Any,
    classes: int | None,
    pretrained: bool,
    auto: str = "AutoModelForImageClassification",
) -> tuple[nn.Module, Preprocess, Sequence[str] | None]:
    """A network of pictures with a head of a known kind, with the labels and the processor saved beside it."""
    if classes is not None:
        config.num_labels = classes
    cls = getattr(transformers, auto)
    try:
        module = cls.from_pretrained(name, config=config) if pretrained else cls.from_config(config)
        settings = processor_settings(name) or transformers.AutoImageProcessor.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        raise ModelError(_unreachable(name)) from error
    return module.eval(), from_processor(settings), configured_labels(module) if pretrained else None


def _build_zero_shot(
    transformers: Any, name: str, config: Any, pretrained: bool
) -> tuple[nn.Module, Preprocess, Sequence[str] | None]:
    """A model of pictures and texts, with the tokenizer and the processor saved beside it."""
    try:
        module = (
            transformers.AutoModel.from_pretrained(name) if pretrained else transformers.AutoModel.from_config(config)
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        settings = processor_settings(name) or transformers.AutoImageProcessor.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        raise ModelError(_unreachable(name)) from error
    padding = "max_length" if config.model_type != "clip" else True  # as SigLIP was trained

    def tokenize(texts: list[str]) -> dict[str, Any]:
        return dict(tokenizer(texts, padding=padding, truncation=True, return_tensors="pt"))

    return zero_shot.Unprompted(module.eval(), tokenize, f"hf:{name}"), from_processor(settings), None


def _config(transformers: Any, name: str) -> Any:
    if name in HF:
        return getattr(transformers, f"{HF[name][0]}Config")()
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(_unreachable(name)) from error


def _unreachable(name: str) -> str:
    return (
        f"hf:{name} is neither a folder of a saved model here nor to be had from the hub: check the name and the "
        f"network, or name an architecture ({', '.join(HF)}) with --weights FILE or --random-weights."
    )


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[-1]))
