"""Feature visualisation: pictures made to excite a unit of a model.

Parametrisation -> robust views -> model -> objective, each a small interface; `synthesise` climbs.
"""

from pellucid.features.canvas import Canvas
from pellucid.features.colour import Colours
from pellucid.features.cppn import CPPN
from pellucid.features.maco import MACO, measured_spectrum
from pellucid.features.objectives import (
    Channel,
    Direction,
    LayerEnergy,
    Neuron,
    Objective,
    Score,
    Token,
    as_objective,
    parse_objective,
)
from pellucid.features.optimise import synthesise
from pellucid.features.parametrisations import PARAMETRISATIONS, Fourier, Parametrisation, Pixel, get_parametrisation
from pellucid.features.passes import activation
from pellucid.features.references import Caricature, Diversity, Inversion, PixelNorm, TotalVariation
from pellucid.features.result import Synthesis
from pellucid.features.robustness import Robustness
from pellucid.features.settings import PRESETS, Settings

Layer, Contrast = LayerEnergy, PixelNorm  # what they were called at first

__all__ = [
    "CPPN",
    "MACO",
    "PARAMETRISATIONS",
    "PRESETS",
    "Canvas",
    "Caricature",
    "Channel",
    "Colours",
    "Contrast",
    "Direction",
    "Diversity",
    "Fourier",
    "Inversion",
    "Layer",
    "LayerEnergy",
    "Neuron",
    "Objective",
    "Parametrisation",
    "Pixel",
    "PixelNorm",
    "Robustness",
    "Score",
    "Settings",
    "Synthesis",
    "Token",
    "TotalVariation",
    "activation",
    "as_objective",
    "get_parametrisation",
    "measured_spectrum",
    "parse_objective",
    "synthesise",
]
