"""Weights from a file the user names: safetensors, or a checkpoint that needs no code to be read."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ModelError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Named tensors from `.safetensors`, or from a `torch.save` checkpoint read with `weights_only`.

    Raises:
        ModelError: missing, not a checkpoint, or pickled code (never executed).
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}: check the path given with --weights.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is not a sound safetensors file ({error}): save or download it again.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is refused below
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds pickled Python objects, which can run code when read, so it is refused: save the weights "
            "alone with torch.save(model.state_dict(), ...) or as safetensors."
        ) from error
    except Exception as error:  # on rubbish the unpickler raises nearly anything
        raise ModelError(
            f"{path} is no checkpoint that can be read: give safetensors or a saved state_dict."
        ) from error
    return _state_dict(stored, path)


def _state_dict(stored: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(stored, Mapping) and (
        inner := next((k for k in _WRAPPERS if isinstance(stored.get(k), Mapping)), None)
    ):
        stored = stored[inner]
    if not isinstance(stored, Mapping) or not stored or not any(isinstance(v, Tensor) for v in stored.values()):
        raise ModelError(f"{path} holds no named weights: give safetensors or a saved state_dict.")
    return {str(k): v for k, v in stored.items() if isinstance(v, Tensor)}


def fit_names(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """`weights` with wrapper prefixes (`module.` and their like) taken off where that makes the names fit."""
    wanted = module.state_dict().keys()
    fitted = {_fitting(name, wanted): value for name, value in weights.items()}
    return fitted | {name: value for name, value in weights.items() if name in wanted}


def _fitting(name: str, wanted: Set[str]) -> str:
    """`name` without as many wrapper prefixes as it takes to be one of `wanted`; as it is if that never happens."""
    shorter = name
    while shorter not in wanted:
        prefix = next((p for p in _PREFIXES if shorter.startswith(p)), "")
        if not prefix:
            return name
        shorter = shorter.removeprefix(prefix)
    return shorter


def load_into(module: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load named weights; every name and shape must fit.

    Raises:
        ModelError: naming the first weight that is missing, unknown or of another shape.
    """
    state = module.state_dict()
    counters = {k for k in state if k.endswith("num_batches_tracked")}
    missing = sorted(state.keys() - weights.keys() - counters)
    unknown = sorted(weights.keys() - state.keys())
    shapes = [k for k in state.keys() & weights.keys() if state[k].shape != weights[k].shape]
    if missing or unknown or shapes:
        what = (
            f"{min(shapes)!r} has shape {tuple(weights[min(shapes)].shape)}, not {tuple(state[min(shapes)].shape)}"
            if shapes
            else f"it lacks {missing[0]!r}"
            if missing
            else f"it holds {unknown[0]!r}, which the model does not have"
        )
        raise ModelError(
            f"The weights in {path} are not for this architecture ({what}; {len(missing)} missing, {len(unknown)} "
            f"unknown, {len(shapes)} of another shape): name the model they were saved from."
        )
    module.load_state_dict(weights, strict=False)


def head_size(weights: Mapping[str, Tensor], module: nn.Module) -> int | None:
    """The number of classes that a checkpoint was trained for, if only the last layer tells it from `module`."""
    state = module.state_dict()
    differing = [k for k in state.keys() & weights.keys() if state[k].shape != weights[k].shape]
    sizes = {weights[k].shape[0] for k in differing}
    ours = {state[k].shape[0] for k in differing}
    same_rest = all(state[k].shape[1:] == weights[k].shape[1:] for k in differing)
    return sizes.pop() if len(sizes) == len(ours) == 1 and len(differing) <= 4 and same_rest else None
