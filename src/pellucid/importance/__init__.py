"""Feature importance: how much each part of an input, or of a model, matters.

Players (regions, channels, layers, bands, properties) x estimators (ablation, Shapley, ...), two small interfaces.
"""

from pellucid.importance.estimators import ESTIMATORS, Estimator, get_estimator
from pellucid.importance.game import Game, Players
from pellucid.importance.inputs import ColourBands, FrequencyBands, Properties, Regions
from pellucid.importance.internals import Blocks, Channels
from pellucid.importance.measure import Measured, measure
from pellucid.importance.result import Ranked, bootstrap

__all__ = [
    "ESTIMATORS",
    "Blocks",
    "Channels",
    "ColourBands",
    "Estimator",
    "FrequencyBands",
    "Game",
    "Measured",
    "Players",
    "Properties",
    "Ranked",
    "Regions",
    "bootstrap",
    "get_estimator",
    "measure",
]
