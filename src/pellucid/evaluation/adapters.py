"""Objects of other libraries as rivals: known by the module that they come from, so none of them is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.evaluation.competitors import Rival


def _captum(given: Any) -> tuple[Rival, bool]:
    """An `Attribution` object, or its class, which is then made for each model."""

    def draw(module: nn.Module, x: Tensor, target: Any) -> Any:
        method = given(module) if isinstance(given, type) else given
        return method.attribute(x.requires_grad_(), target=target).sum(1)

    return draw, not isinstance(given, type)


def _grad_cam(given: Any) -> tuple[Rival, bool]:
    """A CAM of pytorch-grad-cam, `(N, H, W)` in [0, 1]."""

    def draw(module: nn.Module, x: Tensor, target: Any) -> Any:
        return given(input_tensor=x, targets=[lambda output: output[..., target]] * len(x))

    return draw, True


def _torchcam(given: Any) -> tuple[Rival, bool]:
    """An extractor of torchcam, hooked to its model."""

    def draw(module: nn.Module, x: Tensor, target: Any) -> Any:
        given.model.zero_grad()
        with torch.enable_grad():
            scores = given.model(x.requires_grad_())
        return given([target] * len(x), scores)[0]

    return draw, True


def _zennit(given: Any) -> tuple[Rival, bool]:
    """An attributor; a composite, which is registered on whatever model is asked about."""

    def one_hot(target: Any) -> Callable[[Tensor], Tensor]:
        def of(output: Tensor) -> Tensor:
            return torch.eye(output.shape[1])[[target] * len(output)].to(output)

        return of

    def draw(module: nn.Module, x: Tensor, target: Any) -> Any:
        if not hasattr(given, "forward"):  # a composite
            with given.context(module) as changed, torch.enable_grad():
                x = x.requires_grad_()
                output = changed(x)
                (relevance,) = torch.autograd.grad(output, x, one_hot(target)(output))
                return relevance.sum(1)
        with given:
            return given(x, one_hot(target))[1].sum(1)

    return draw, hasattr(given, "forward")


def _autolrp(given: Any) -> tuple[Rival, bool]:
    """A configuration of autolrp: relevance on the graph that its own tensors record."""

    def draw(module: nn.Module, x: Tensor, target: Any) -> Any:
        import autolrp

        maps = []
        for row in x[:, None]:  # what it shares out over several scores is 1 in all, whatever their signs
            wrapped = autolrp.tensor(row)
            score = module(wrapped)[0, target]
            score.lrp(config=given)
            maps.append(score.detach().as_subclass(Tensor) * wrapped.relevance.as_subclass(Tensor)[0].sum(0))
        return torch.stack(maps)

    return draw, False


def _rex(given: Any) -> tuple[Rival, bool]:
    """A `ReX` with its own settings: responsibility for the class, one input after the other."""

    def draw(module: nn.Module, x: Tensor, target: Any) -> Any:
        from rex_xai.input.input_data import Data
        from rex_xai.responsibility.prediction import Prediction

        maps = []
        for row in x[:, None]:
            data = Data(row.cpu().numpy(), list(row.shape), given.device, mode="RGB")
            data.data, data.transposed = row.to(given.device), True
            data.target = Prediction(target, 1.0)
            kept, given.data = given.data, data
            try:
                maps.append(given.calculate_responsibility().maps.get(target))
            finally:
                given.data = kept
        return maps

    return draw, True


ADAPTERS: dict[str, Callable[[Any], tuple[Rival, bool]]] = {
    "autolrp": _autolrp,
    "captum": _captum,
    "pytorch_grad_cam": _grad_cam,
    "rex_xai": _rex,
    "torchcam": _torchcam,
    "zennit": _zennit,
}
"""By the module that an object comes from: to `(rival, whether it belongs to one model)`."""
