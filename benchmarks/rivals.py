"""The contestants: the same explanation of one batch by Pellucid and by each rival, as functions of no argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import pellucid as pl
from pellucid.engine import find_layer
from pellucid.heatmaps import METHODS, GradCAM, explain_all, get_method
from pellucid.models.layers import Layer

Call = Callable[[], object]

MODELS = {"ResNet-50": "torchvision:resnet50", "ViT-B/16": "timm:vit_base_patch16_224"}
CAMS = (
    "cam", "grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "grad-cam-elementwise", "eigen-cam",
    "eigen-grad-cam",
)  # fmt: skip


@dataclass
class Setting:
    """A model, a batch, a class for each picture, and the layer all contestants explain."""

    module: nn.Module
    inputs: Tensor
    classes: list[int]
    layer: Layer | None = None

    @classmethod
    def make(cls, name: str, batch: int, device: str = "cpu", *, probe: bool = True) -> Setting:
        """An architecture with random weights, noise pictures and the classes it answers with."""
        module = pl.load(MODELS[name], random_weights=True, device=device).module
        inputs = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
        with torch.no_grad():
            classes = module(inputs).argmax(1).tolist()
        setting = cls(module, inputs, classes)
        if probe:
            setting.layer = setting.find_layer()
        return setting

    def find_layer(self) -> Layer:
        """The layer that Pellucid chooses in its first call; it keeps the answer for the model's later ones."""
        found = GradCAM().explain(self.module, self.inputs, [self.classes])[0].layer
        assert found is not None
        return found

    @property
    def target_layer(self) -> nn.Module:
        """The explained layer itself."""
        assert self.layer is not None
        return find_layer(self.module, self.layer.name)

    def to_map(self, activation: Tensor) -> Tensor:
        """`reshape_transform` of the rivals."""
        assert self.layer is not None
        return self.layer.layout.to_map(activation)


def forward(s: Setting) -> Call:
    """The bare forward pass."""

    def call() -> object:
        with torch.no_grad():
            return s.module(s.inputs)

    return call


def pellucid_grad_cam(s: Setting) -> Call:
    """Grad-CAM at the layer found by itself."""
    return lambda: GradCAM().attribute(s.module, s.inputs, s.classes)


def pellucid_all_cams(s: Setting, names: tuple[str, ...] = CAMS) -> Call:
    """All class activation maps out of one call."""
    methods = [METHODS[n]() for n in names]
    return lambda: explain_all(methods, s.module, s.inputs, [s.classes])


def captum_grad_cam(s: Setting) -> Call:
    """captum's LayerGradCam, which does not reshape tokens: on transformers its maps mean little, its cost does."""
    from captum.attr import LayerGradCam

    target = torch.tensor(s.classes, device=s.inputs.device)
    return lambda: LayerGradCam(s.module, s.target_layer).attribute(s.inputs, target, relu_attributions=True)


def package_grad_cam(s: Setting) -> Call:
    """The grad-cam package (pytorch-grad-cam)."""
    from pytorch_grad_cam import GradCAM as PackageGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(c) for c in s.classes]

    def call() -> object:
        with PackageGradCAM(s.module, [s.target_layer], reshape_transform=s.to_map) as cam:
            maps = cam(s.inputs, targets)
        s.module.zero_grad(set_to_none=True)  # it leaves a gradient in every parameter
        return maps

    return call


def torchcam_grad_cam(s: Setting) -> Call:
    """torchcam's GradCAM."""
    from torchcam.methods import GradCAM as TorchGradCAM

    def call() -> object:
        with TorchGradCAM(s.module, s.target_layer, reshape_transform=s.to_map) as cam:
            return cam(s.classes, s.module(s.inputs))

    return call


def pellucid_eigen_cam(s: Setting, layer: str) -> Call:
    """Eigen-CAM at a given layer."""
    return lambda: get_method("eigen-cam", layer=layer).attribute(s.module, s.inputs)


def package_eigen_cam(s: Setting, layer: str) -> Call:
    """The grad-cam package's EigenCAM."""
    from pytorch_grad_cam import EigenCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(c) for c in s.classes]

    def call() -> object:
        with EigenCAM(s.module, [find_layer(s.module, layer)]) as cam:
            return cam(s.inputs, targets)

    return call


GRAD_CAMS: dict[str, Callable[[Setting], Call]] = {
    "forward": forward,
    "pellucid": pellucid_grad_cam,
    "captum": captum_grad_cam,
    "grad-cam package": package_grad_cam,
    "torchcam": torchcam_grad_cam,
}
