"""A saved readable model as a model to predict with and to explain: `pl.load("out/model")`."""

from __future__ import annotations

from pathlib import Path

from pellucid.errors import ModelError
from pellucid.interpretable import small_cnn
from pellucid.interpretable.distilled import Surrogate, from_files, preprocessing
from pellucid.interpretable.net import ReadableNet
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import load


def open_surrogate(path: str | Path) -> tuple[ReadableNet, Preprocess, list[str]]:
    """The network, its preprocessing and labels.

    Raises:
        StorageError: no such file.
        ModelError: the network under it was wrapped, so that no name loads it again.
    """
    surrogate = from_files(path)
    return as_net(surrogate, backbone(surrogate)), preprocessing(surrogate), surrogate.labels


def backbone(surrogate: Surrogate) -> VisionModel:
    """The network that the words are read from."""
    source = surrogate.record.model["source"]
    if surrogate.trained:
        return small_cnn.assemble(
            [str(i) for i in range(len(surrogate.trained["head.bias"]))], preprocessing(surrogate), surrogate.trained
        )
    if not source:
        raise ModelError(
            f"The network under it, {surrogate.record.model['name']!r}, was wrapped, so no name loads it again: build "
            "the model with `Surrogate.model(backbone)`."
        )
    return load(**source)


def as_net(surrogate: Surrogate, model: VisionModel) -> ReadableNet:
    """The surrogate on top of its network."""
    net = ReadableNet(
        model.module, surrogate.layer, surrogate.layout, surrogate.words, surrogate.head, model.preprocess.display
    )
    return net.eval()
