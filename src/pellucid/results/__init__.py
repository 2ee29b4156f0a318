"""What users hold: results with their verbs `show` and `save`. One file a kind."""

from pellucid._room import called_as_verb
from pellucid.results.base import Result
from pellucid.results.concepts import Concepts
from pellucid.results.heatmap import Heatmap, Heatmaps, Session, VideoHeatmap, VolumeHeatmap, check
from pellucid.results.importance import Importance
from pellucid.results.shown import file_names, names_of_inputs, slug, unused

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

called_as_verb(__name__)
