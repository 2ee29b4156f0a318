"""Real pictures already on the machine: files inside the scikit-image wheel, never fetched from anywhere."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from pellucid.errors import MediaError

PREFIX, EVERY = "sample:", "samples:"

SAMPLES: dict[str, tuple[str, str]] = {
    "astronaut": ("astronaut.png", "an astronaut in an orange suit before a flag, colour"),
    "brick": ("brick.png", "a brick wall, grey"),
    "camera": ("camera.png", "a man behind a camera on a tripod, grey"),
    "cat": ("chelsea.png", "the face of a tabby cat, colour"),
    "cell": ("cell.png", "one cell under a microscope, grey"),
    "clock": ("clock_motion.png", "a wall clock blurred by motion, grey"),
    "coffee": ("coffee.png", "a cup of coffee with a spoon on a wooden table, colour"),
    "coins": ("coins.png", "rows of ancient coins, grey"),
    "colors": ("color.png", "a wheel of all hues on black, colour"),
    "galaxies": ("hubble_deep_field.jpg", "thousands of galaxies from a space telescope, colour"),
    "grass": ("grass.png", "grass from above, grey"),
    "gravel": ("gravel.png", "gravel from above, grey"),
    "horse": ("horse.png", "the silhouette of a horse, with transparency"),
    "ihc": ("ihc.png", "stained colon tissue under a microscope, colour"),
    "logo": ("logo.png", "a drawn snake in a disc, with transparency"),
    "microaneurysms": ("microaneurysms.png", "a small patch of a retina with lesions, grey"),
    "moon": ("moon.png", "craters of the moon, grey"),
    "motorcycle": ("motorcycle_left.png", "a motorcycle in a garage, colour"),
    "page": ("page.png", "a page of printed text under uneven light, grey"),
    "phantom": ("phantom.png", "the Shepp-Logan head phantom, drawn"),
    "retina": ("retina.jpg", "the fundus of an eye, colour"),
    "rocket": ("rocket.jpg", "a rocket on its launch pad at dusk, colour"),
    "text": ("text.png", "hand-written formulas, grey"),
}
"""Name -> (file in the scikit-image wheel, one line on what it shows)."""


def sample_path(name: str) -> Path:
    """The file behind ``sample:NAME``; ``name`` comes with or without the prefix.

    Raises:
        MediaError: no sample has that name, or scikit-image (whose files they are) is not installed.
    """
    name = name.removeprefix(PREFIX)
    if name not in SAMPLES:
        near = get_close_matches(name, SAMPLES, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise MediaError(f"There is no sample {name!r}: {hint}The samples are {', '.join(SAMPLES)}.")
    spec = find_spec("skimage")  # finds the folder without importing the package, which takes a second
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "data", SAMPLES[name][0])
        if path.is_file():
            return path
    raise MediaError(f"The sample {name!r} is a file of scikit-image: run `pip install scikit-image`.")
