"""Labelled regions of pictures on disk: a folder of label images, one for each picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.errors import MediaError
from pellucid.media.pictures import PictureSet

_ENDINGS = ("", "_mask", "_labels", "_segmentation")


@dataclass(frozen=True, eq=False)
class LabelledRegions:
    """Where each label is in each picture of a set.

    Attributes:
        files: the label image of each picture; None where there is none.
        names: value in a label image -> label; values that are not named are called `region 7`; 0 is background.
    """

    files: tuple[Path | None, ...]
    names: dict[int, str]

    def __call__(self, index: int) -> dict[str, NDArray[np.bool_]]:
        """Label -> where it is in a picture, `(H, W)`; empty where the picture has no label image."""
        file = self.files[index]
        if file is None:
            return {}
        try:
            with Image.open(file) as image:
                values = np.array(image if image.mode in ("L", "P", "I", "1") else image.convert("L")).astype(np.int64)
        except (OSError, ValueError) as error:
            raise MediaError(f"{file} can't be read as a label image ({error}); save it as PNG.") from error
        found = [int(v) for v in np.unique(values) if v != 0]
        return {self.names.get(v, "region" if found == [v] else f"region {v}"): values == v for v in found}


def read_regions(folder: str | Path, pictures: PictureSet) -> LabelledRegions:
    """Label images for pictures: a file of the same name, or with `_mask` after it; whole numbers, 0 is background.

    A file `names.json` in the folder may name the values: `{"1": "wheel", "2": "window"}`.

    Raises:
        MediaError: no folder, no label image for any picture, or a damaged table of names.
    """
    home = Path(folder).expanduser()
    if not home.is_dir():
        raise MediaError(f"There is no folder {folder} of labelled regions; check the path.")
    there = {p.stem: p for p in sorted(home.rglob("*.png"))}
    stems = [Path(source).stem for source in pictures.sources]
    own = {Path(source).resolve() for source in pictures.sources}
    files = []
    for stem in stems:
        options = [there[stem + e] for e in _ENDINGS if stem + e in there and there[stem + e].resolve() not in own]
        files.append(options[0] if options else None)
    if not any(files):
        raise MediaError(f"The folder {folder} holds no PNG named like a picture of {pictures.name}: {stems[0]}.png.")
    names: dict[int, str] = {}
    if (home / "names.json").is_file():
        try:
            names = {int(k): str(v) for k, v in json.loads((home / "names.json").read_text()).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise MediaError(f'{home / "names.json"} is no table such as {{"1": "wheel"}}: mend it.') from error
    return LabelledRegions(tuple(files), names)
