"""Segmenters of transformers that answer a mask for each of their queries: MaskFormer, Mask2Former."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pellucid.models.adapters import Adapter
from pellucid.models.task import Task

_GRIDS = {"mask2former": (384, 384)}  # on which the processor puts masks together, by type of model


class QuerySegmenter(Adapter):
    """Masks and classes of queries as scores of classes at places: at each, the sum of class times mask.

    It is what the processors' `post_process_semantic_segmentation` takes the largest of.
    """

    def __init__(self, module: nn.Module, task: Task) -> None:
        super().__init__(module)
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, C, h, w)` of pictures `(N, 3, H, W)`."""
        answer: Any = self.module(x)
        config: Any = self.module.config
        masks = answer.masks_queries_logits
        if (size := _GRIDS.get(config.model_type)) is not None:
            masks = nn.functional.interpolate(masks, size, mode="bilinear", align_corners=False)
        classes = answer.class_queries_logits.softmax(-1)[..., :-1]
        return torch.einsum("nqc,nqhw->nchw", classes, masks.sigmoid())
