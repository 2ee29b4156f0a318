"""Heat maps: where a model looked. One file a family, one small class a method.

Each method is a formula with its paper and its cost, and one verb: `attribute(model, inputs, target)`.
"""

from pellucid.heatmaps.adaptive import AISE
from pellucid.heatmaps.agi import AGI
from pellucid.heatmaps.attention import AttentionRelevance, AttentionRollout
from pellucid.heatmaps.attention_rows import BeyondIntuition, RawAttention, TransitionAttention
from pellucid.heatmaps.base import METHODS, Attribution, Method, explain_all, get_method, method
from pellucid.heatmaps.bent_paths import IDGI, XRAI, BlurIG, GuidedIG, IntegratedDecisionGradients
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
    SaliencyTubes,
    XGradCAM,
)
from pellucid.heatmaps.contrast_cams import FinerCAM, RefineCAM
from pellucid.heatmaps.crp import CRP
from pellucid.heatmaps.deep_lift import DeepLIFT, DeepLIFTSHAP
from pellucid.heatmaps.drise import DRISE
from pellucid.heatmaps.enough import CompleteRegion, NecessaryRegion, SufficientRegion
from pellucid.heatmaps.full_grad import FullGrad, LibraGradients
from pellucid.heatmaps.gradient import InputXGradient, Saliency
from pellucid.heatmaps.instance_cam import ODAM, SSGradCAM
from pellucid.heatmaps.layer_paths import InternalInfluence, LayerConductance, LayerIntegratedGradients
from pellucid.heatmaps.legrad import LeGrad
from pellucid.heatmaps.lime import LIME
from pellucid.heatmaps.lrp import CPLRP, LRP, AttnLRP, ExcitationBackprop
from pellucid.heatmaps.mask_optimisation import ExtremalPerturbation, IGOSPlusPlus, MeaningfulPerturbation
from pellucid.heatmaps.masked_cam import ISCAM, SSCAM, GroupCAM, ScoreCAM
from pellucid.heatmaps.multi_scale_cam import MultiScaleCAM
from pellucid.heatmaps.newer_cams import (
    FEM,
    KPCACAM,
    IntegratedGradCAM,
    RelevanceCAM,
    ShapleyCAM,
    SmoothGradCAMPlusPlus,
)
from pellucid.heatmaps.noise import ExpectedGradients, SmoothGrad, SmoothGradSquared, VarGrad
from pellucid.heatmaps.pair_paths import IntegratedJacobians
from pellucid.heatmaps.path import IntegratedGradients
from pellucid.heatmaps.perturbation import FeatureAblation, Occlusion
from pellucid.heatmaps.rectified import DeconvNet, GuidedBackprop, GuidedGradCAM
from pellucid.heatmaps.recurrent import LSTMLRP, ContrastiveExcitationBackprop, StateAblation, StateGradient
from pellucid.heatmaps.region_cam import SegGradCAM, SegXResCAM
from pellucid.heatmaps.sampling import RISE
from pellucid.heatmaps.sbsm import SBSM
from pellucid.heatmaps.sensitivity import HSIC, Sobol
from pellucid.heatmaps.shapley import KernelSHAP, Owen, Shapley
from pellucid.heatmaps.step import STEP
from pellucid.heatmaps.tail_cam import AblationCAM, ReciproCAM
from pellucid.heatmaps.trace_order import TraceOrder
from pellucid.heatmaps.transformer_attribution import TransformerAttribution
from pellucid.heatmaps.vit_masks import TIS, ViTCX

__all__ = [
    "AGI",
    "AISE",
    "CAM",
    "CPLRP",
    "CRP",
    "DRISE",
    "FEM",
    "HSIC",
    "IDGI",
    "ISCAM",
    "KPCACAM",
    "LIME",
    "LRP",
    "LSTMLRP",
    "METHODS",
    "ODAM",
    "RISE",
    "SBSM",
    "SSCAM",
    "STEP",
    "TIS",
    "XRAI",
    "AblationCAM",
    "AttentionRelevance",
    "AttentionRollout",
    "AttnLRP",
    "Attribution",
    "BeyondIntuition",
    "BlurIG",
    "ChannelRelevance",
    "CompleteRegion",
    "ContrastiveExcitationBackprop",
    "DeconvNet",
    "DeepLIFT",
    "DeepLIFTSHAP",
    "EigenCAM",
    "EigenGradCAM",
    "ElementwiseGradCAM",
    "ExcitationBackprop",
    "ExpectedGradients",
    "ExtremalPerturbation",
    "FeatureAblation",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMPlusPlus",
    "GroupCAM",
    "GuidedBackprop",
    "GuidedGradCAM",
    "GuidedIG",
    "HiResCAM",
    "IGOSPlusPlus",
    "InputXGradient",
    "IntegratedDecisionGradients",
    "IntegratedGradCAM",
    "IntegratedGradients",
    "IntegratedJacobians",
    "InternalInfluence",
    "KernelSHAP",
    "LayerCAM",
    "LayerConductance",
    "LayerIntegratedGradients",
    "LeGrad",
    "LibraGradients",
    "MeaningfulPerturbation",
    "Method",
    "MultiScaleCAM",
    "NecessaryRegion",
    "Occlusion",
    "Owen",
    "RawAttention",
    "ReciproCAM",
    "RefineCAM",
    "RelevanceCAM",
    "SSGradCAM",
    "Saliency",
    "SaliencyTubes",
    "ScoreCAM",
    "SegGradCAM",
    "SegXResCAM",
    "Shapley",
    "ShapleyCAM",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "SmoothGradSquared",
    "Sobol",
    "StateAblation",
    "StateGradient",
    "SufficientRegion",
    "TraceOrder",
    "TransformerAttribution",
    "TransitionAttention",
    "VarGrad",
    "ViTCX",
    "XGradCAM",
    "explain_all",
    "get_method",
    "method",
]

_FAMILIES = ("cam", "gradient", "propagation", "path", "perturbation", "region", "mask", "attention", "recurrent")
METHODS.extend("pellucid.methods")
METHODS.order(lambda cls: _FAMILIES.index(cls.family) if cls.family in _FAMILIES else len(_FAMILIES))
