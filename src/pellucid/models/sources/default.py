"""The embedded default: real weights out of a package of Python."""

from __future__ import annotations

from pellucid.models import embedded
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import libraries
from pellucid.models.sources.imagenet import imagenet_labels
from pellucid.models.sources.registry import Built, source


@source("embedded", "real ImageNet weights, nothing to download", lambda: [embedded.NAME])
def build(name: str, classes: int | None, pretrained: bool) -> Built:
    """The embedded network; another number of classes comes without weights."""
    module = libraries.timm().create_model("tf_efficientnet_lite0", pretrained=False, num_classes=classes or 1000)
    if pretrained:
        embedded.load_weights(module)
    return module, Preprocess.from_timm(embedded.PREPROCESS), imagenet_labels()
