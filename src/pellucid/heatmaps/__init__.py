"""Heat maps: where a model looked. One file a family, one small class a method.

Each method is a formula with its paper and its cost, and one verb: `attribute(model, inputs, target)`.
"""

from pellucid.heatmaps.base import METHODS, Attribution, Method, explain_all, get_method, method
from pellucid.heatmaps.cam import (
    CAM,
    ChannelRelevance,
    EigenCAM,
    EigenGradCAM,
    ElementwiseGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from pellucid.heatmaps.gradient import InputXGradient, Saliency
from pellucid.heatmaps.path import IntegratedGradients

__all__ = [
    "CAM",
    "METHODS",
    "Attribution",
    "ChannelRelevance",
    "EigenCAM",
    "EigenGradCAM",
    "ElementwiseGradCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCAM",
    "Method",
    "Saliency",
    "XGradCAM",
    "explain_all",
    "get_method",
    "method",
]
