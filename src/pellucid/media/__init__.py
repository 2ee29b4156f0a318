"""Bytes to pixels, and back to where they came from: pictures of any common kind and depth, upright and
capped in size (image), the ready-made ones (samples), what a person types for them (inputs); moving pictures
(clip, footage: video, frames), those drawn with a known truth (generated), and which of their frames are taken
(sampling); and the exact map between the
model's input and the original (geometry). Nothing here knows a model."""

from pellucid.media.clip import Caps, Clip, Footage, FramesInMemory
from pellucid.media.footage import SCHEMES, is_video, open_clip, read_clip
from pellucid.media.generated import SUITES
from pellucid.media.geometry import Geometry
from pellucid.media.image import MAX_BYTES, MAX_PIXELS, Picture, read_image
from pellucid.media.inputs import expand
from pellucid.media.samples import SAMPLES, sample_path
from pellucid.media.sampling import Plan

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "SAMPLES",
    "SCHEMES",
    "SUITES",
    "Caps",
    "Clip",
    "Footage",
    "FramesInMemory",
    "Geometry",
    "Picture",
    "Plan",
    "expand",
    "is_video",
    "open_clip",
    "read_clip",
    "read_image",
    "sample_path",
]
