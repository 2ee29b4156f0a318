"""Feature importance: how much each part of an input, or of a model, matters.

Players (regions, channels, layers, bands, properties) x estimators (ablation, Shapley, ...), two small interfaces.

The room has the name of its verb, so it is called like it too: `pl.importance(model, inputs, ...)`.
"""

from pellucid._room import called_as_verb
from pellucid.importance.bands import ColourBands, FrequencyBands, Properties
from pellucid.importance.blocks import Blocks
from pellucid.importance.drawn import Drawn, read_regions
from pellucid.importance.estimators import ESTIMATORS, Estimator, get_estimator
from pellucid.importance.features import FEATURES, get_players
from pellucid.importance.game import Game, Players
from pellucid.importance.internals import Channels, Tokens
from pellucid.importance.measure import Measured, measure
from pellucid.importance.regions import Patches, Regions, Superpixels
from pellucid.importance.result import Answer, Share, Table

__all__ = [
    "ESTIMATORS",
    "FEATURES",
    "Answer",
    "Blocks",
    "Channels",
    "ColourBands",
    "Drawn",
    "Estimator",
    "FrequencyBands",
    "Game",
    "Measured",
    "Patches",
    "Players",
    "Properties",
    "Regions",
    "Share",
    "Superpixels",
    "Table",
    "Tokens",
    "get_estimator",
    "get_players",
    "measure",
    "read_regions",
]

FEATURES.extend("pellucid.players")
ESTIMATORS.extend("pellucid.estimators")
called_as_verb(__name__)
