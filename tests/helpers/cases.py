"""Pictures, good and hostile, and tiny models for whole-verb tests; the truths are written out, not computed by us."""

import struct
import zlib

import numpy as np
import torch
from PIL import Image
from torch import nn

from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import wrap

SIDE = 64  # of the tiny model's input
PLAIN = Preprocess(input_size=(SIDE, SIDE), resize=SIDE, fit="cover", mean=(0.0,) * 3, std=(1.0,) * 3)
STRETCH = Preprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)


def bright_net():
    """Patches of 8 x 8, pooling, one linear layer: class 0 counts the bright patches, class 1 the dark ones."""
    net = nn.Sequential(nn.Conv2d(3, 2, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight[0] = 1 / 192
        net[0].weight[1] = -1 / 192
        net[0].bias.copy_(torch.tensor([-0.5, 0.5]))
        net[4].weight.copy_(torch.eye(2) * 20)
        net[4].bias.zero_()
    return net.eval()


def planted_net():
    """As `bright_net`, but only patches brighter than the object's blur count: what is blurred is gone."""
    net = bright_net()
    with torch.no_grad():
        net[0].bias[0] = -0.8
        net[4].weight[0, 0] = 200
    return net


def bright_model(preprocess=PLAIN, labels=("bright", "dark"), **options):
    return wrap(bright_net(), transform=preprocess, labels=labels, **options)


class Breaking:
    """`bright_net` as a black box that breaks, once, from a certain row on: it raises, answers NaN or another shape."""

    def __init__(self, at=10**9, how="raises"):
        self.net, self.at, self.how, self.rows, self.broken = bright_net(), at, how, 0, False

    def __call__(self, batch):
        if self.rows + len(batch) > self.at and not self.broken:
            self.broken = True
            if self.how == "raises":
                raise ConnectionError("the line is dead")
            return torch.full((len(batch), 2), torch.nan) if self.how == "nan" else torch.zeros(len(batch) + 1, 2)
        self.rows += len(batch)
        with torch.no_grad():
            return self.net(batch)


def breaking_box(*how):
    """`Breaking` as a model; and itself, to be counted."""
    predictor = Breaking(*how)
    return wrap(predictor, transform=PLAIN, labels=("bright", "dark")), predictor


BREAKS = {  # how a black box may fail, and what is said of it
    "raises": "ConnectionError: the line is dead",
    "nan": "answered NaN or infinity",
    "shape": "must answer one row of scores for each",
}


def pixels(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path, array=None, **options):
    """A picture file at `path`; returns the path as text, as the command line takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed=len(path.stem)) if array is None else array).save(path, **options)
    return str(path)


def truncated_jpeg(path):
    save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return str(path)


def png_header(path, width, height):
    """A PNG that claims to be `width` x `height` and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b""))
    return str(path)


def nan_tiff(path):
    values = np.full((32, 32), 0.5, np.float32)
    values[3, 4] = np.nan
    Image.fromarray(values).save(path)
    return str(path)


def tree(folder):
    """Every file below `folder`, hidden and temporary ones too, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
