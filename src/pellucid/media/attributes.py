"""Attributes that people gave to pictures: a table `attributes.csv` beside them, a number in each column."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError
from pellucid.media.pictures import Pictures, PictureSet

TABLE = "attributes.csv"


def read_attributes(pictures: Pictures) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the attributes, and their values `(N, attributes)`, from the folder that holds all the pictures.

    The first column names the file as it lies under that folder, all others are numbers (0 and 1 for no and yes).

    Raises:
        MediaError: no table, a picture it does not list, or a value that is no number.
    """
    sources = pictures.sources if isinstance(pictures, PictureSet) else ()
    files = [Path(s).resolve() for s in sources if ":" not in s.partition("/")[0]]
    if not files or len(files) < len(pictures):
        raise MediaError("Attributes need pictures in a folder with a table attributes.csv: give such a folder.")
    home = Path(os.path.commonpath([f.parent for f in files]))
    table = home / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no table in UTF-8"
        raise MediaError(f"{table} can't be read ({reason}): write a header, then a row for each picture.") from error
    if len(header) < 2 or any(len(row) != len(header) for row in rows):
        raise MediaError(f"{table} needs the file and at least one attribute in every row: complete it.")
    known = {(home / row[0]).resolve(): row[1:] for row in rows}
    if missing := next((f for f in files if f not in known), None):
        raise MediaError(f"{table} does not list {missing.relative_to(home)}: add a row for it.")
    try:
        values = np.array([[float(x) for x in known[f]] for f in files], np.float64)
    except ValueError as error:
        raise MediaError(
            f"{table} holds something that is no number ({error}): write 0 and 1 for no and yes."
        ) from error
    if not np.isfinite(values).all():
        raise MediaError(f"{table} holds NaN or infinity: give numbers.")
    return header[1:], values
