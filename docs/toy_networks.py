"""Small networks behind some of the documentation's pictures, where no trained one is at hand that may be shown.

A transformer learns in half a minute which coloured discs are in a picture; a detector of the same discs is set by
hand; the embedded classifier reads each place by itself. So it is known beforehand what a map has to show.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, interpolate

import pellucid as pl
from pellucid.models.detections import Detections

COLOURS = {"green": (0.1, 0.8, 0.2), "blue": (0.1, 0.2, 0.85), "yellow": (0.9, 0.8, 0.1)}
RING = (0.9, 0.15, 0.1)  # is always there, and says nothing
SIDE, RADIUS = 48, 6  # pixels
PLAIN = pl.Preprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.4,) * 3, std=(0.25,) * 3)


def _painted(picture: Tensor, colour: tuple[float, ...], at: tuple[float, float], inner: float = -1) -> None:
    axis = torch.arange(SIDE) + 0.5
    away = ((axis[:, None] - at[0]) ** 2 + (axis - at[1]) ** 2).sqrt()
    soft = (RADIUS - away + 0.5).clamp(0, 1) * (away - inner).clamp(0, 1)
    picture += soft * (torch.tensor(colour)[:, None, None] - picture)


def discs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures `(N, 3, SIDE, SIDE)` with a red ring and up to three discs, and which discs are there `(N, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = interpolate(torch.rand(count, 1, 6, 6, generator=generator), size=(SIDE, SIDE), mode="bilinear")
    pictures = 0.3 + 0.3 * coarse + 0.03 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    there = (torch.rand(count, len(COLOURS), generator=generator) < 0.5).float()
    for picture, row in zip(pictures, there, strict=True):
        corners = torch.randperm(4, generator=generator).tolist()  # one for each, so that none covers another
        moved = (torch.rand(4, 2, generator=generator) * (SIDE / 2 - 2 * RADIUS) + RADIUS).tolist()
        spots = [(SIDE / 2 * (k // 2) + y, SIDE / 2 * (k % 2) + x) for k, (y, x) in zip(corners, moved, strict=True)]
        _painted(picture, RING, spots[0], inner=3)
        for colour, on, spot in zip(COLOURS.values(), row.tolist(), spots[1:], strict=True):
            if on:
                _painted(picture, colour, spot)
    return pictures.clamp(0, 1), there


def photo(seed: int = 0, want: tuple[float, ...] = (1, 1, 0)) -> Image.Image:
    """The first picture of a seed that holds these discs."""
    pictures, there = discs(64, seed)
    first = next(k for k, row in enumerate(there.tolist()) if tuple(row) == want)
    return Image.fromarray((pictures[first] * 255).round().byte().permute(1, 2, 0).numpy())


def transformer(steps: int = 300) -> pl.VisionModel:
    """A plain vision transformer that says which discs are there, right on 99 of 100 fresh pictures."""
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": SIDE, "patch_size": 6, "embed_dim": 48, "depth": 4, "num_heads": 4, "num_classes": 3}
    net = timm.create_model("vit_tiny_patch16_224", **sizes)
    learning = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(learning, 4e-3, total_steps=steps)
    for step in range(steps):
        x, there = discs(48, step + 1000)
        learning.zero_grad()
        binary_cross_entropy_with_logits(net((x - 0.4) / 0.25), there).backward()
        learning.step()
        schedule.step()
    net.eval()
    x, there = discs(256, 1)
    with torch.no_grad():
        right = float(((net((x - 0.4) / 0.25) > 0) == there.bool()).float().mean())
    assert right > 0.99, f"The transformer is right on {right:.1%} of its answers: it needs more steps."
    return pl.wrap(net, transform=PLAIN, labels=list(COLOURS), scores="sigmoid", name="a small ViT")


class Discs(nn.Module):
    """A detector of the same discs: how much of each colour a place has, less what is around, is how sure a box is."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Sequential(nn.Conv2d(3, len(COLOURS), 1), nn.ReLU())
        find = self.colours[0]
        assert isinstance(find, nn.Conv2d)
        assert find.bias is not None
        with torch.no_grad():
            for k, colour in enumerate(COLOURS.values()):
                direction = torch.tensor(colour) - sum(colour) / 3
                direction = direction / direction.norm()
                find.weight[k] = 4 * direction[:, None, None]
                find.bias[k] = -3.2 * float(direction @ torch.tensor(colour))

    def forward(self, x: Tensor) -> Detections:
        """A candidate every 4 pixels, as large as a disc."""
        found = self.colours(x)
        inside = avg_pool2d(found, 11, 4, 5)
        around = avg_pool2d(found, 23, 4, 11)
        sure = (6 * inside - 4 * around).relu().tanh().flatten(2).transpose(1, 2)
        rows, columns = inside.shape[2:]
        y, x0 = torch.meshgrid(4.0 * torch.arange(rows), 4.0 * torch.arange(columns), indexing="ij")
        centres = torch.stack([x0, y], -1).flatten(0, 1) + 0.5
        boxes = torch.cat([centres - RADIUS, centres + RADIUS], 1).expand(len(x), -1, -1)
        return Detections(boxes, sure, threshold=0.5, overlap=0.2)


def detector() -> pl.VisionModel:
    """The detector, as a model."""
    plain = pl.Preprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)
    return pl.wrap(Discs().eval(), transform=plain, labels=list(COLOURS), task="boxes", name="a detector of discs")


class Embedding(nn.Module):
    """The embedded classifier's features, pooled."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """`(N, D)`."""
        pooled: Tensor = self.network.global_pool(self.network.forward_features(x))
        return pooled


class Dense(nn.Module):
    """The embedded classifier, asked at each place of its last layer: a segmentation by pieces of 32 pixels."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """`(N, classes, h, w)`."""
        features = self.network.forward_features(x)
        scores: Tensor = self.network.classifier(features.movedim(1, -1)).movedim(-1, 1)
        return interpolate(scores, size=x.shape[2:], mode="bilinear")
