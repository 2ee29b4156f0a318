"""The fingerprint of a model: a hash of all that its `state_dict` holds, of whatever kind.

An entry need not be a tensor: quantised layers keep packed weights and types there, and `get_extra_state` may return
anything. A tensor need not lie in memory as it looks: it may be sparse, quantised, or a subclass made of other tensors.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pellucid.engine.run import require_values


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of everything in a module's `state_dict`.

    Raises:
        ModelError: weights on the `meta` device, which hold no values, or a lazy module that has seen no input yet.
    """
    require_values(module)
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        _add(digest, name, value)
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    """Add one entry, its name first, so that no two different ones read alike."""
    if isinstance(value, Tensor):
        _add_tensor(digest, name, value)
    elif isinstance(value, Mapping):
        _head(digest, name, "mapping", len(value))
        for key, item in value.items():
            _add(digest, f"{name}[{key!r}]", item)
    elif isinstance(value, tuple | list):
        _head(digest, name, "sequence", len(value))
        for k, item in enumerate(value):
            _add(digest, f"{name}[{k}]", item)
    elif isinstance(value, set | frozenset):
        _head(digest, name, "set", *sorted(map(repr, value)))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        _head(digest, name, value.dtype, value.shape)
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, torch.ScriptObject):
        _add(digest, name, value.__getstate__())
    else:
        _head(digest, name, type(value).__qualname__, _written(value))


def _add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    _head(digest, name, tensor.dtype, tuple(tensor.shape))
    value: Any = tensor.detach()
    if value.is_meta:
        return
    if is_traceable_wrapper_subclass(value):
        parts, context = value.__tensor_flatten__()
        _head(digest, name, type(value).__qualname__, _written(context))
        for part in sorted(parts):
            _add(digest, f"{name}.{part}", getattr(value, part))
    elif value.is_quantized:
        _add_quantised(digest, name, value)
    elif value.layout is torch.strided:
        plain = value.cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    elif value.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc, torch.sparse_coo):
        whole = value.cpu().to_sparse_coo().coalesce()
        _add(digest, name, (str(value.layout), whole.indices(), whole.values()))
    else:
        _add(digest, name, (str(value.layout), value.to_dense()))


def _add_quantised(digest: Any, name: str, value: Tensor) -> None:
    scheme = value.qscheme()
    if scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scales: Any = value.q_scale(), value.q_zero_point()
    else:
        scales = value.q_per_channel_scales(), value.q_per_channel_zero_points(), value.q_per_channel_axis()
    _add(digest, name, (str(scheme), scales, value.int_repr()))


def _head(digest: Any, name: str, *what: object) -> None:
    digest.update(" ".join(map(str, (name, *what))).encode())


def _written(value: object) -> str:
    """What tells a value from others; of one that cannot be written, that it is there."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return repr(value)
    try:
        return hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest()
    except Exception:  # a user's own class may raise anything
        return ""
