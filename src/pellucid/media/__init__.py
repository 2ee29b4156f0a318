"""Bytes to pixels, and back to where they came from.

Pictures of any common kind and depth, upright and capped in size (image, tiff, depth), the ready-made ones (samples,
digits), what a person types for them (inputs), what opens them again (address), many of them with their classes
(pictures); moving pictures (clip, footage: video, frames), those drawn with a known truth (generated), and which of
their frames are taken (sampling); and the exact map between the model's input and the original (geometry). Nothing here
knows a model."""

from pellucid.media.address import SCHEMES, STILLS, VOLUMES, address, scheme
from pellucid.media.clip import Caps, Clip, Footage, FramesInMemory
from pellucid.media.footage import is_video, open_clip, read_clip
from pellucid.media.generated import SUITES
from pellucid.media.geometry import Geometry
from pellucid.media.image import digest, read_image
from pellucid.media.inputs import expand, read_lines
from pellucid.media.medium import CLIP, MEDIA, PICTURE, VOLUME, Medium, medium_of
from pellucid.media.picture import MAX_BYTES, MAX_PIXELS, Picture
from pellucid.media.pictures import Box, Origin, Pictures, PictureSet, Shown, as_pictures, read_folder
from pellucid.media.samples import SAMPLES, sample_path
from pellucid.media.sampling import Plan
from pellucid.media.volume import Volume
from pellucid.media.volumes import read_volume

__all__ = [
    "CLIP",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MEDIA",
    "PICTURE",
    "SAMPLES",
    "SCHEMES",
    "STILLS",
    "SUITES",
    "VOLUME",
    "VOLUMES",
    "Box",
    "Caps",
    "Clip",
    "Footage",
    "FramesInMemory",
    "Geometry",
    "Medium",
    "Origin",
    "Picture",
    "PictureSet",
    "Pictures",
    "Plan",
    "Shown",
    "Volume",
    "address",
    "as_pictures",
    "digest",
    "expand",
    "is_video",
    "medium_of",
    "open_clip",
    "read_clip",
    "read_folder",
    "read_image",
    "read_lines",
    "read_volume",
    "sample_path",
    "scheme",
]
