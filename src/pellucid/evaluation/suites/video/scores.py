"""How well a map of a clip finds its evidence: in which frames, and at which places of which frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def frame_difference(clips: Tensor) -> Tensor:
    """The rival that knows no model: `max_c |x_t - x_(t-1)|`, `(N, C, T, H, W) -> (N, T, H, W)`; the first frame: 0."""
    moved = clips.diff(dim=2).abs().amax(1)
    return torch.cat([torch.zeros_like(moved[:, :1]), moved], dim=1)


def tube_auc(maps: Tensor, tubes: Tensor) -> Tensor:
    """Chance that a place of the tube has a higher value than one outside of it, `(N,)`; ties count half.

    Args:
        maps: `(N, *grid)`, drawn linearly at the size of the tubes.
        tubes: `(N, T, H, W)`, true where the evidence is.
    """
    drawn = interpolate(maps[:, None].float(), size=tubes.shape[1:], mode="trilinear", align_corners=False)[:, 0]
    found = []
    for values, inside in zip(drawn.flatten(1), tubes.flatten(1), strict=True):
        _, rank, counts = torch.unique(values, return_inverse=True, return_counts=True)
        middle = counts.cumsum(0).double() - (counts.double() - 1) / 2  # ties share a rank
        ranks, n = middle[rank], inside.sum().double()
        found.append((ranks[inside].sum() - n * (n + 1) / 2) / (n * ((~inside).sum().double())))
    return torch.stack(found)


def temporal_curve(maps: Tensor) -> Tensor:
    """What speaks for the target in each step, `(N, T', ...) -> (N, T')`: positive values summed over places."""
    return maps.relu().flatten(2).sum(2) if maps.ndim > 2 else maps.relu()


def temporal_pointing(maps: Tensor, tubes: Tensor, slack: int = 1) -> Tensor:
    """Whether the peak of a map's temporal curve lies in a frame with evidence, `(N,)`, 0 or 1.

    Args:
        maps: `(N, T', ...)`, on any number of steps.
        tubes: `(N, T, H, W)`, true where the evidence is.
        slack: frames by which the peak may miss: the difference of two frames has no frame of its own.
    """
    curve, frames = temporal_curve(maps), tubes.shape[1]
    peak = (2 * curve.argmax(1) + 1) * frames // (2 * curve.shape[1])  # the frame in the middle of the step
    reach = max(slack, (frames // curve.shape[1]) // 2)  # a step of the map is as wide as so many frames
    evidence = tubes.flatten(2).any(2)
    hits = [row[max(0, p - reach) : p + reach + 1].any() for row, p in zip(evidence, peak.tolist(), strict=True)]
    return torch.stack(hits).float()


def random_pointing(tubes: Tensor, steps: int, slack: int = 1) -> Tensor:
    """The chance that a random step of a map passes `temporal_pointing`, `(N,)`."""
    every = torch.eye(steps)
    hits = [temporal_pointing(row.expand(len(tubes), -1), tubes, slack) for row in every]
    return torch.stack(hits).mean(0)
