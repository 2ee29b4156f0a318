"""What classifiers of ImageNet share: their labels, and how most were shown their pictures."""

from __future__ import annotations

from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import libraries


def imagenet_labels() -> list[str]:
    """The thousand labels, by index."""
    return list(libraries.torchvision().models.ResNet18_Weights.DEFAULT.meta["categories"])


def imagenet_preprocess(size: tuple[int, int], channels: int) -> Preprocess:
    """What most ImageNet classifiers were trained with: the shorter side to 8/7 of the input, its centre cut out."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if channels == 1:
        mean, std = (0.449,), (0.226,)  # type: ignore[assignment]
    resize = tuple(round(s * 8 / 7) for s in size) if size[0] != size[1] else round(size[0] * 8 / 7)
    return Preprocess(input_size=size, resize=resize, fit="cover", mean=mean, std=std, channels=channels)  # type: ignore[arg-type]
