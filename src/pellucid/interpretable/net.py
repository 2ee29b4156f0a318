"""A readable model on top of a network, as a network: it predicts, and it can be explained like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.engine import find_layer
from pellucid.engine.hooks import Hooks
from pellucid.engine.leaves import first_tensor
from pellucid.errors import ModelError
from pellucid.interpretable.base import Readable
from pellucid.interpretable.bcos import BcosHead
from pellucid.interpretable.examples import Prototypes
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.words import Words
from pellucid.models.layouts import Layout


class ReadableNet(nn.Module):
    """Network -> layer -> words -> readable model; `(N, C, *space)` -> scores `(N, K)`.

    Gradients pass through the words and through linear, B-cos, nearest-prototype and hierarchical models. Trees, rules
    and their kin answer in steps, which have no gradient: explain them with methods that need outputs only.

    Args:
        backbone: the network.
        layer: module path in it, unused by words about the picture.
        layout: how the layer reads; None for a vector a picture.
        words: what the model speaks of.
        head: the readable model.
        display: input -> pixels in [0, 1], for words about the picture.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layer: str,
        layout: Layout | None,
        words: Words,
        head: Readable,
        display: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.backbone, self.words = backbone, words
        self.layer, self.layout, self.head, self.display = layer, layout, head, display
        for name, array in {**words.arrays(), **head.arrays()}.items():  # so that the fingerprint sees them
            self.register_buffer(f"learned_{name.replace('.', '_')}", torch.from_numpy(np.asarray(array)))

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return head_scores(self.head, self.words(self.activation(x)))

    def activation(self, x: Tensor) -> Tensor:
        """What the words are computed from: `(N, cells, C)`, or pixels."""
        if self.words.domain == "picture":
            return self.display(x)
        seen: list[Tensor] = []

        def note(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                seen.append(tensor)

        with Hooks() as hooks:
            hooks.behind(find_layer(self.backbone, self.layer), note)
            self.backbone(x)
        if not seen:
            raise ModelError(f"Layer {self.layer!r} never ran in the forward pass; name a layer that does.")
        A = seen[-1].float()
        return A[:, None] if self.layout is None else self.layout.to_map(A).flatten(2).movedim(1, 2)


def head_scores(head: Readable, X: Tensor) -> Tensor:
    """`head.scores` with gradients, where the head has any."""

    def constant(array: Any) -> Tensor:
        return torch.from_numpy(np.asarray(array)).to(X)

    if isinstance(head, SparseLinear):
        return ((X - constant(head.mean_)) / constant(head.scale_)) @ constant(head.weights_) + constant(
            head.intercept_
        )
    if isinstance(head, Hierarchy) and head.rule == "max":
        return X @ constant(head.weights_).T + constant(head.intercept_)
    if isinstance(head, BcosHead):
        scores: Tensor = head.net_.to(X.device)((X - constant(head.mean_)) / constant(head.scale_))
        return scores
    if isinstance(head, Prototypes):
        Z = (X - constant(head.mean_)) / constant(head.scale_)
        far = (Z[:, None] - constant(head.rows_)).square().mean(2)
        owner = constant(head.answers_).argmax(1)
        columns = [
            far[:, owner == k].amin(1) if (owner == k).any() else torch.full_like(far[:, 0], 1e3)
            for k in range(len(head.classes_))
        ]
        return torch.stack(columns, 1) / -head.width_
    return torch.from_numpy(head._scores(X.detach().cpu().double().numpy())).to(X)
