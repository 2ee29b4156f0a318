"""PyTorch Image Models."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pellucid.errors import ModelError
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import libraries
from pellucid.models.sources.hub import reachable_or_cached, unreachable
from pellucid.models.sources.imagenet import imagenet_labels
from pellucid.models.sources.registry import Built, source


def _names() -> list[str]:
    return list(libraries.timm().list_models())


@source("timm", "PyTorch Image Models; weights from the Hugging Face hub", _names)
def build(name: str, classes: int | None, pretrained: bool) -> Built:
    """An architecture of timm, with its own preprocessing."""
    timm = libraries.timm()
    from timm.data.config import resolve_model_data_config
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=4)
        hint = f"did you mean {', '.join(f'timm:{n}' for n in near)}?" if near else "`pellucid models` lists them."
        raise ModelError(f"timm has no model {name!r}; {hint}")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if pretrained:
        options["pretrained_cfg_overlay"] = reachable_or_cached(name)
    try:
        module = timm.create_model(name, pretrained=pretrained, **options)
    except RuntimeError as error:
        if "pretrained" not in str(error):
            raise
        tags = timm.list_pretrained(f"{architecture}*")[:4]
        raise ModelError(
            f"timm has no such published weights: {error}. "
            + (f"There are {', '.join(tags)}; or use" if tags else "Use")
            + " --weights FILE or --random-weights."
        ) from error
    except OSError as error:
        raise ModelError(unreachable(f"timm:{name}")) from error
    labels: Sequence[str] | None = None
    subset = infer_imagenet_subset(module)
    if subset == "imagenet-1k":
        labels = imagenet_labels()
    elif subset is not None:
        info = ImageNetInfo(subset)
        labels = [info.index_to_description(i) for i in range(info.num_classes())]
    return module, Preprocess.from_timm(resolve_model_data_config(module)), labels
