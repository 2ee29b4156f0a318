"""What users hold: results with their verbs `show` and `save`. One file a kind.

Concepts and importance bring libraries that a heatmap needs none of, so they are fetched when they are first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pellucid._room import called_as_verb
from pellucid.results.base import Result
from pellucid.results.heatmap import Heatmap, Heatmaps, Session, VideoHeatmap, VolumeHeatmap, check
from pellucid.results.shown import file_names, names_of_inputs, slug, unused

if TYPE_CHECKING:
    from pellucid.results.concepts import Concepts
    from pellucid.results.importance import Importance

__all__ = [
    "Concepts",
    "Heatmap",
    "Heatmaps",
    "Importance",
    "Result",
    "Session",
    "VideoHeatmap",
    "VolumeHeatmap",
    "check",
    "file_names",
    "names_of_inputs",
    "slug",
    "unused",
]

_LATER = {"Concepts": "concepts", "Importance": "importance"}

called_as_verb(__name__)


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
