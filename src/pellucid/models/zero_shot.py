"""Models that compare a picture with texts (CLIP, SigLIP), as classifiers between labels that anyone may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ModelError
from pellucid.models.adapters import Adapter
from pellucid.models.task import Scores

PROMPT = "a photo of {}"
KINDS = ("clip", "siglip", "siglip2")
_SAME = 1e-3  # of logits


class ZeroShot(Adapter):
    """A model of pictures and texts whose texts are fixed: its scores are the logits of each picture with each text.

    The texts are embedded once. CLIP's labels exclude each other (softmax); SigLIP asks each by itself (sigmoid).

    Args:
        module: with a `vision_model`, and logits of pictures with texts.
        texts: what its tokenizer makes of the labels, `input_ids` and perhaps `attention_mask`, `(labels, length)`.

    Raises:
        ModelError: it compares otherwise than CLIP and SigLIP do.
    """

    def __init__(self, module: nn.Module, texts: Mapping[str, Tensor]) -> None:
        super().__init__(module)
        net: Any = module
        size = net.config.vision_config.image_size
        noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            answer = net(pixel_values=noise, **texts)
            embedded = answer.text_embeds
            self.register_buffer("texts", embedded / embedded.norm(dim=-1, keepdim=True), persistent=False)
            mine = self(noise)
        if mine.shape != answer.logits_per_image.shape or not torch.allclose(mine, answer.logits_per_image, atol=_SAME):
            raise ModelError(
                f"{type(module).__name__} compares pictures with texts in a way of its own: wrap a function that "
                "answers a row of scores, one a label."
            )
        self.task = Scores(declared="labels" if hasattr(net, "logit_bias") else "classes")

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, labels)` of pictures `(N, 3, h, w)`."""
        net: Any = self.module
        pooled = net.vision_model(pixel_values=x).pooler_output
        if hasattr(net, "visual_projection"):
            pooled = net.visual_projection(pooled)
        logits = pooled / pooled.norm(dim=-1, keepdim=True) @ self.texts.T * net.logit_scale.exp()
        scores: Tensor = logits + net.logit_bias if hasattr(net, "logit_bias") else logits
        return scores


class Unprompted(nn.Module):
    """A model of pictures and texts that waits for its labels."""

    def __init__(self, module: nn.Module, tokenize: Any, name: str) -> None:
        super().__init__()
        self.module, self.tokenize, self.name = module, tokenize, name

    def prompted(self, labels: Sequence[str] | None) -> ZeroShot:
        """With labels; one that already is a sentence of the kind is taken as it is.

        Raises:
            ModelError: there are none.
        """
        if not labels:
            raise ModelError(
                f"{self.name} compares pictures with texts: say which, --labels 'dog,cat' or --labels FILE; each is "
                f"read as {PROMPT.format('...')!r}."
            )
        start = PROMPT.format("")
        texts = [label if label.startswith(start) else PROMPT.format(label) for label in labels]
        return ZeroShot(self.module, self.tokenize(texts))
