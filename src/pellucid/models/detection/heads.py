"""How the raw outputs of known detectors are read: each head is one function, entered by `@head`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ModelError, TargetError
from pellucid.models.detections import Detections, padded
from pellucid.models.parts import described, parts
from pellucid.registry import Registry


@dataclass(frozen=True)
class Head:
    """How a detector takes its pictures and answers.

    Attributes:
        read: (output, (h, w) of the input) -> detections.
        shown: what it takes, of RGB in [0, 1]: `rgb`, `bgr`, or `bgr255`.
        fit: how a picture is brought to the input's size: `contain` (with a grey border) or `exact`.
        size: (h, w) of the input that it is trained with, where its file does not say.
    """

    read: Callable[[Any, tuple[int, int]], Detections]
    shown: str = "rgb"
    fit: str = "contain"
    size: tuple[int, int] = (640, 640)


HEADS: Registry[Head] = Registry("detector's head", error=ModelError)

Read = Callable[[Any, tuple[int, int]], Detections]


def head(name: str, *, shown: str = "rgb", fit: str = "contain", side: int = 640) -> Callable[[Read], Read]:
    """Enter a head (see `Head`)."""

    def enter(read: Read) -> Read:
        HEADS[name] = Head(read, shown, fit, (side, side))
        return read

    return enter


def grid(rows: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the columns and rows of a grid's cells, row by row: `(rows * columns,)` each."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return x.flatten().to(like), y.flatten().to(like)


@head("yolox", shown="bgr255", side=416)
def yolox(output: Any, size: tuple[int, int]) -> Detections:
    """YOLOX (Ge et al. 2021): `(N, K, 5 + C)`, centre and log of the size in strides of 8, 16, 32; probabilities."""
    raw = _one(output)
    strides = [(s, -(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32)]
    if raw.ndim != 3 or raw.shape[1] != sum(h * w for _, h, w in strides) or raw.shape[2] < 6:
        raise TargetError(_other("yolox", raw, f"(N, {sum(h * w for _, h, w in strides)}, 5 + classes)"))
    corner, stride = (each.to(raw) for each in _pyramid(tuple(strides)))
    centre = (raw[..., :2] + corner) * stride
    half = raw[..., 2:4].exp() * (stride / 2)
    return Detections(torch.cat([centre - half, centre + half], -1), raw[..., 5:], raw[..., 4])


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must serve gradients too
def _pyramid(levels: tuple[tuple[int, int, int], ...]) -> tuple[Tensor, Tensor]:
    """Of (stride, rows, columns): the column and row of each cell `(K, 2)`, and its stride `(K, 1)`."""
    corners = [torch.stack(grid(h, w, torch.zeros(())), -1) for _, h, w in levels]
    strides = [torch.full((h * w, 1), float(s)) for s, h, w in levels]
    return torch.cat(corners), torch.cat(strides)


@head("fastestdet", shown="bgr", fit="exact", side=352)
def fastestdet(output: Any, size: tuple[int, int]) -> Detections:
    """FastestDet: `(N, 5 + C, h, w)`, objectness, offset and size of the box in each cell, probabilities of classes."""
    raw = _one(output)
    if raw.ndim != 4 or raw.shape[1] < 6:
        raise TargetError(_other("fastestdet", raw, "(N, 5 + classes, rows, columns)"))
    cells = raw.flatten(2).transpose(1, 2)
    corner, scale, most = (each.to(raw) for each in _cells(raw.shape[2], raw.shape[3], size))
    centre = (cells[..., 1:3].tanh() + corner) * scale
    half = cells[..., 3:5].sigmoid() * most
    boxes = torch.cat([centre - half, centre + half], -1)
    return Detections(boxes, cells[..., 5:], cells[..., 0], powers=(0.6, 0.4))


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _cells(rows: int, columns: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The column and row of each cell `(K, 2)`, a cell's width and height, and half of the input's."""
    x, y = grid(rows, columns, torch.zeros(()))
    cell, half = (torch.tensor(each) for each in ((size[1] / columns, size[0] / rows), (size[1] / 2, size[0] / 2)))
    return torch.stack([x, y], -1), cell, half


@head("yolo")
def yolo(output: Any, size: tuple[int, int]) -> Detections:
    """YOLO of one head: `(N, 4 + C, K)`, centre and size in pixels, and probabilities.

    Or, after suppression, `(N, M, 6)`: corners, score, class.
    """
    raw = _one(output)
    if raw.ndim == 3 and raw.shape[2] == 6:
        found = [{"boxes": r[:, :4], "scores": r[:, 4], "labels": r[:, 5].round().long()} for r in raw]
        return Detections.of(padded(found))
    if raw.ndim != 3 or raw.shape[1] < 5 or raw.shape[1] > raw.shape[2]:
        raise TargetError(_other("yolo", raw, "(N, 4 + classes, candidates) or (N, boxes, 6)"))
    cells = raw.transpose(1, 2)
    half = cells[..., 2:4] / 2
    return Detections(torch.cat([cells[..., :2] - half, cells[..., :2] + half], -1), cells[..., 4:])


@head("ssd", fit="exact", side=300)
def ssd(output: Any, size: tuple[int, int]) -> Detections:
    """SSD: boxes `(N, K, 4)` as corners in [0, 1] of the input, and scores `(N, K, C)`, class 0 being background."""
    found = [p.tensor for p in parts(output) if p.tensor.ndim == 3]
    boxes = next((t for t in found if t.shape[2] == 4), None)
    classes = next((t for t in found if t is not boxes and boxes is not None and t.shape[:2] == boxes.shape[:2]), None)
    if boxes is None or classes is None:
        raise TargetError(f"The head 'ssd' reads boxes (N, K, 4) and scores (N, K, C), not {described(output)}.")
    inside = bool(((classes >= 0) & (classes <= 1)).all())
    classes = classes if inside else classes.softmax(-1)
    without = torch.cat([torch.zeros_like(classes[..., :1]), classes[..., 1:]], -1)
    scale = torch.tensor([size[1], size[0], size[1], size[0]]).to(boxes)
    return Detections(boxes * scale, without)


def _one(output: Any) -> Tensor:
    tensor = output if isinstance(output, Tensor) else next((p.tensor for p in parts(output) if p.scores), None)
    if tensor is None:
        raise TargetError(f"The detector answered {described(output)}, in which there is no number.")
    return tensor


def _other(name: str, raw: Tensor, wanted: str) -> str:
    return (
        f"The head {name!r} reads outputs of shape {wanted}, and this model answers {tuple(raw.shape)}: name another "
        f"head ({', '.join(HEADS)}), or wrap a function that answers boxes, labels and scores."
    )
