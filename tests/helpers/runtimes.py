"""A small network, and its scores in a runtime."""

from __future__ import annotations

import torch
from torch import nn

import pellucid as pl
from helpers.nets import noise
from pellucid.engine.masks import SegmentMasks
from pellucid.engine.perturb import Scorer


class Small(nn.Module):
    """A convolution with its normalisation, a grouped one, a head."""

    def __init__(self, channels: int = 3, dims: int = 2) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.a, self.na = conv(channels, 8, 3, padding=1), norm(8)
        self.b = conv(8, 8, 3, padding=1, groups=4, stride=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.b(self.na(self.a(x)).relu()).relu()
        return self.head(x.flatten(2).mean(2))


def scores_in(runtime, net, x, masks, targets=2, **how):
    """Scores of the first outputs, and what answered them."""

    def score(output, watched, rows):
        return [output[:, k] for k in range(targets)]

    ground = how.pop("baseline", torch.zeros_like(x))
    with pl.runtime(runtime), Scorer(net, x, ground, score, targets=targets, **how) as scorer:
        return scorer(masks), scorer.cost


def coalitions(space):
    cells = torch.Size(space).numel()
    labels = torch.arange(6).repeat_interleave(-(-cells // 6))[:cells].view(space)
    return SegmentMasks((noise(21, 6) > 0).float(), labels)
