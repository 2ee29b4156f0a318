"""What kind of thing is looked at, a picture, a clip or a volume: one object that is asked, in place of many tests.

A `Medium` says how many axes an input has, which files and folders hold one, how one is opened, and what to do with one
of another kind. What a model makes of it stands in `models/feed.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from pellucid.errors import MediaError
from pellucid.media.address import SCHEMES, STILLS, VOLUMES, address, scheme
from pellucid.media.clip import Clip, Footage, StillError
from pellucid.media.footage import is_video, open_clip
from pellucid.media.image import read_image
from pellucid.media.inputs import SUFFIXES, VIDEOS, Wanted, listed
from pellucid.media.magic import DICOM_ENDINGS, is_nifti_name
from pellucid.media.picture import Picture
from pellucid.media.volume import Volume
from pellucid.media.volumes import read_volume, volumes_in


@dataclass(frozen=True, eq=False)
class Medium:
    """A kind of input.

    Attributes:
        name: what one is called; `name` + `s` are several.
        axes: of space and time, of one input: its tensor is `(C, *axes)`.
        moving: whether the first of them is time.
        wanted: which files and folders hold one.
        open: from what a person gives to one of its kind.
        gives: what to give a model that takes it, in words.
        instead: by the name of another medium, what to do with one of this where a model takes that.
    """

    name: str
    axes: int
    moving: bool
    wanted: Wanted
    open: Callable[[Any], Any]
    gives: str
    instead: Mapping[str, str] = field(default_factory=dict)

    def is_batch(self, x: Tensor) -> bool:
        """Whether a tensor has a batch axis in front of `(C, *axes)`."""
        return x.ndim > 1 + self.axes

    def expand(self, inputs: Sequence[str | Path]) -> list[str]:
        """The sources behind what a person typed, each one of this medium (see `pellucid.media.expand`)."""
        return listed(inputs, self.wanted, SCHEMES if self.moving else ())

    def opened(self, item: Any, model: str) -> Any:
        """What was given to a model that takes this medium, opened.

        Raises:
            MediaError: it cannot be opened, or it is of another medium; the sentence says what to do with that.
        """
        found = medium_of(item)
        if found is not None and found is not self:
            raise self._misfit(found, item, model)
        try:
            return self.open(item)
        except StillError:
            raise self._misfit(PICTURE, item, model) from None

    def _misfit(self, found: Medium, item: Any, model: str) -> MediaError:
        cure = found.instead.get(self.name, self.gives)
        return MediaError(f"{name_of(item)} is a {found.name}, and {model} takes {self.name}s: {cure}.")


@dataclass(frozen=True, eq=False)
class VolumeMedium(Medium):
    """Volumes, which are a file each, or a folder of slices; a folder of several series is one of each."""

    def expand(self, inputs: Sequence[str | Path]) -> list[str]:
        """The volumes behind what a person typed."""
        found: dict[str, str] = {}
        for item in inputs:
            for source in volumes_in(os.fspath(item)):
                found.setdefault(address(source), source)
        return list(found.values())


def name_of(item: Any) -> str:
    """What people call an input: its path or its own name."""
    return str(item) if isinstance(item, str | Path) else getattr(item, "name", "The input")


def _picture(item: Any) -> Picture:
    return item if isinstance(item, Picture) else read_image(item)


PICTURE = Medium("picture", 2, False, Wanted(SUFFIXES, "picture"), _picture, "give a picture")
CLIP = Medium(
    "clip",
    3,
    True,
    Wanted(VIDEOS, "video", whole=SUFFIXES),
    open_clip,
    "give a video, an animated GIF or WebP, a DICOM clip, a folder of numbered frames, or an array (T, H, W, 3)",
    {
        "picture": "explain it frame by frame with pl.per_frame(model) (--per-frame mean), or choose a video model "
        "such as torchvision:r3d_18"
    },
)
VOLUME = VolumeMedium(
    "volume",
    3,
    False,
    Wanted(frozenset((".nii", ".nii.gz", *DICOM_ENDINGS)), "volume"),
    read_volume,
    "give a NIfTI file, a folder of DICOM slices or a pl.Volume",
    {"picture": "explain it slice by slice with pl.per_slice(model), or choose a model of volumes"},
)
MEDIA = {medium.name: medium for medium in (PICTURE, CLIP, VOLUME)}
"""By name."""


def medium_of(item: Any) -> Medium | None:
    """What something is, as far as its type, its scheme or its first bytes tell; None: it may be one or the other."""
    if isinstance(item, Clip | Footage):
        return CLIP
    if isinstance(item, Volume):
        return VOLUME
    if isinstance(item, Picture | Image.Image):
        return PICTURE
    if isinstance(item, np.ndarray):
        return CLIP if item.ndim == 4 else PICTURE
    if not isinstance(item, str | os.PathLike):
        return None
    if known := scheme(item):
        if known == "window":  # of a picture, a clip or a volume
            return None
        return PICTURE if known in STILLS else VOLUME if known in VOLUMES else CLIP
    if is_nifti_name(item):
        return VOLUME
    return CLIP if is_video(item) else None
