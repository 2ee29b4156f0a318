"""A planted detector: bright squares of a known size in cells of a known grid, every number of its answer exact."""

import torch
from torch import nn

from pellucid.models.detections import Detections

CELL = 8  # pixels a side of a cell of the planted grid
DIM, RED = 0.6, 0.9


class Squares(nn.Module):
    """One candidate a cell of 8 x 8 pixels, of two classes: `red`, if the first channel is the brighter, and `blue`.

    Objectness is the mean brightness of the cell; `red` is the share of the first channel in both; the box is the cell,
    its right edge moved by the brightness of the third channel (4 pixels at 1).
    """

    def forward(self, x):
        n, _, h, w = x.shape
        cells = torch.nn.functional.avg_pool2d(x, CELL)
        rows, columns = h // CELL, w // CELL
        first, second, third = (cells[:, c].flatten(1) for c in range(3))
        being = (first + second) / 2
        red = first / (first + second).clamp(min=1e-6)
        y, x0 = torch.meshgrid(torch.arange(rows) * CELL, torch.arange(columns) * CELL, indexing="ij")
        left, top = (t.flatten().float().expand(n, -1) for t in (x0, y))
        boxes = torch.stack([left, top, left + CELL + 4 * third, top + CELL], -1)
        return Detections(boxes, torch.stack([red, 1 - red], -1), being, threshold=0.25)


class BusySquares(Squares):
    """`Squares` that counts its passes, replaces a buffer, writes to its input, draws, and may fail on the way."""

    error, at = None, 0

    def __init__(self):
        super().__init__()
        self.count = 0
        self.register_buffer("seen", torch.zeros(3))
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        BusySquares.calls += 1
        self.count += 1
        self.seen = x.detach().mean((0, 2, 3))
        torch.rand(2)
        if BusySquares.calls == BusySquares.at:
            raise BusySquares.error
        x.mul_(0.5)
        return super().forward(x * 2)

    calls = 0


def scene():
    """A dark picture `(1, 3, 32, 32)` with a red square in the cell at (8, 16) and a dimmer blue one at (24, 0)."""
    x = torch.zeros(1, 3, 32, 32)
    x[0, 0, 16:24, 8:16] = RED
    x[0, 1, 16:24, 8:16] = 0.1
    x[0, 1, 0:8, 24:32] = DIM
    x[0, 2, 0:8, 24:32] = 0.5
    return x


def listed(x):
    """What `Squares` ends with, as a function that answers a list: boxes, labels and scores."""
    rows = []
    for found in Squares()(x).answered():
        rows.append({"boxes": found.boxes.numpy(), "labels": found.labels.numpy(), "scores": found.scores.numpy()})
    return rows
