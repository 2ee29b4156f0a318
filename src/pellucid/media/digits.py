"""scikit-learn's handwritten digits: 1797 labelled pictures of 8 x 8, already on the machine with scikit-learn.

``digits:`` means all of them, ``digits:17`` one. They are small enough for a network to learn in seconds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import MediaError

DIGITS = "digits:"


@lru_cache(maxsize=1)
def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (1797, 8, 8), uint8, and what each shows, (1797,).

    Alpaydin & Kaynak 1998, UCI "Optical Recognition of Handwritten Digits"; grey levels 0 to 16 made 0 to 255.
    """
    from sklearn import datasets

    grey, labels = datasets.load_digits(return_X_y=True)
    pixels = np.rint(np.asarray(grey) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return pixels, np.asarray(labels, np.int64)


def digit(source: str) -> NDArray[np.uint8]:
    """The picture (8, 8) behind ``digits:17``.

    Raises:
        MediaError: no such number.
    """
    pixels, _ = load_digits()
    number = source.removeprefix(DIGITS)
    if not number.isdecimal() or int(number) >= len(pixels):
        raise MediaError(f"There is no picture {source!r}: they run from digits:0 to digits:{len(pixels) - 1}.")
    found: NDArray[np.uint8] = pixels[int(number)]
    return found
