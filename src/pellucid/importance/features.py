"""The kinds of players by name, as the command line asks for them."""

from __future__ import annotations

from typing import Any

from pellucid.errors import MethodError
from pellucid.importance.bands import ColourBands, FrequencyBands, Properties
from pellucid.importance.blocks import Blocks
from pellucid.importance.drawn import Drawn
from pellucid.importance.frames import Frames, Segments, Tubes
from pellucid.importance.game import Players
from pellucid.importance.internals import Channels, Tokens
from pellucid.importance.regions import Patches, Superpixels
from pellucid.registry import Registry, settings_of

FEATURES: Registry[type[Players]] = Registry(
    "feature",
    {
        p.kind: p
        for p in (
            *(Superpixels, Patches, Drawn, Channels, Tokens, Blocks, ColourBands, FrequencyBands, Properties),
            *(Frames, Segments, Tubes),
        )
    },
)
"""Name -> its class. A new kind of players is entered here, and has a verb."""


def get_players(name: str, **settings: Any) -> Players:
    """Players by name; settings that are None are left at their defaults.

    Raises:
        MethodError: unknown name (near misses are listed), or a setting that these players do not have.
    """
    cls = FEATURES.find(name)
    given = {key: value for key, value in settings.items() if value is not None}
    known = set(settings_of(cls))
    if "layers" in known and isinstance(given.get("layer"), str):  # several may be compared
        given["layers"] = tuple(part.strip() for part in given.pop("layer").split(","))
    given = {key: value for key, value in given.items() if key in known or key != "seed"}
    if unknown := sorted(set(given) - known):
        owners = [feature for feature, owner in FEATURES.items() if unknown[0] in settings_of(owner)]
        raise MethodError(
            f"{cls.kind} have no {unknown[0]}: leave it out, or choose {' or '.join(owners) or 'another feature'}."
        )
    return cls(**given)
