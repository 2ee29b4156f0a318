"""Weights on the hub: whether they are reachable, cached, or neither."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse

from pellucid.errors import ModelError


def reachable_or_cached(name: str) -> dict[str, str] | None:
    """Nothing when the hub answers; else the cached weights file; else an error at once, not after many retries."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    host = urlparse(constants.ENDPOINT).hostname or ""
    proxied = any(os.environ.get(k) for k in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if not constants.HF_HUB_OFFLINE and (proxied or answers(host)):
        return None
    config = timm.get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        return None  # no such weights, or none on this hub: timm says so
    for file in ("model.safetensors", "pytorch_model.bin"):
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return {"file": cached}
    raise ModelError(unreachable(f"timm:{name}"))


def answers(host: str) -> bool:
    """Whether a host can be reached."""
    try:
        with socket.create_connection((host, 443), timeout=5):
            return True
    except OSError:
        return False


def unreachable(name: str) -> str:
    """The sentence for a model whose weights are nowhere to be had."""
    return (
        f"The weights of {name} cannot be downloaded, the hub does not answer: connect to the network, or give a file "
        "with --weights FILE, or try the architecture with --random-weights."
    )
