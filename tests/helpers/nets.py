"""Small networks with a known truth, and seeded random-weight ones."""

from dataclasses import dataclass

import numpy as np
import timm
import torch
from torch import nn

TIMM_SIZE = {"densenet121": 96, "resnet18": 96, "mobilenetv2_050": 96, "convnext_atto": 96, "vit_tiny_patch16_224": 224}


def random_net(name, *, classes=10, seed=0, **options):
    """A timm network in evaluation mode, its weights drawn with `seed`, with lively batch-norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = timm.create_model(name, num_classes=classes, **options).eval()
        for m in net.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.normal_(m.bias, 0.1, 0.2)
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 1.5)
    return net


def noise(*shape, seed=0):
    """Gaussian noise that does not touch the global random state."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(build, seed=0):
    """`build()` with the global random state seeded and put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def settled(net: nn.Module) -> nn.Module:
    """Normalisations as after training: no mean is 0, no variance 1."""
    generator = torch.Generator().manual_seed(5)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            part.running_mean = torch.randn(part.num_features, generator=generator) * 0.3
            part.running_var = torch.rand(part.num_features, generator=generator) + 0.5
            if part.affine:
                part.weight.data = torch.rand(part.num_features, generator=generator) + 0.5
                part.bias.data = torch.randn(part.num_features, generator=generator)
    return net.eval()


def chained(*widths, classes=5, seed=0):
    """A straight chain of 3 x 3 convolutions and ReLUs, pooling, and one linear layer that tells six places apart."""

    def build():
        layers = []
        for width, wider in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
        head = [nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(6 * widths[-1], classes)]
        return nn.Sequential(*layers, nn.MaxPool2d(2), *head).eval()

    return seeded(build, seed)


class OneConv(nn.Module):
    """Captum's `BasicModel_ConvNet_One_Conv`, on 1 x 4 x 4 inputs, with the input itself as a layer."""

    def __init__(self, inplace=False):
        super().__init__()
        self.entry = nn.Identity()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.fc1 = nn.Linear(8, 4)
        self.relu2 = nn.ReLU(inplace=inplace)
        with torch.no_grad():
            self.conv1.weight.fill_(1)
            self.conv1.bias.copy_(torch.tensor([-50.0, -75.0]))
            self.fc1.weight.copy_(torch.tensor([1.0] * 5 + [-1.0] * 3).expand(4, 8))
            self.fc1.bias.zero_()
        self.eval()

    def forward(self, x):
        x = self.relu1(self.conv1(self.entry(x)))
        return self.relu2(self.fc1(x.view(-1, 8)))


_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def pooled(dims=2, *, channels=6, classes=5, inplace=False, seed=0, width=3):
    """Convolutions over `dims` axes, global average pooling, one linear layer; the last ReLU is layer `3`."""
    conv = _CONVS[dims]
    return seeded(
        lambda: nn.Sequential(
            conv(width, 4, 3, stride=2, padding=1),
            nn.ReLU(inplace),
            conv(4, channels, 3, stride=2, padding=1),
            nn.ReLU(inplace),
            _POOLS[dims](1),
            nn.Flatten(),
            nn.Linear(channels, classes),
        ).eval(),
        seed,
    )


class Sevens(nn.Module):
    """Positions matter behind its layer `body`, so that gradients differ from cell to cell; tanh makes them signed."""

    def __init__(self, side=32, channels=6, classes=5):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, channels, 4, 4), nn.Tanh(), nn.Conv2d(channels, channels, 3, 1, 1), nn.SiLU()
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * (side // 4) ** 2, 16), nn.Tanh(), nn.Linear(16, classes)
        )

    def forward(self, x):
        return self.head(self.body(x))


class Busy(nn.Module):
    """Does what nets of others do: counts, caches, replaces and makes buffers, writes to its input, draws numbers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.tail = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.fc = nn.Linear(6, 5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("cache", None)
        self.count, self.tally = 0, torch.zeros(2)
        self.by_shape, self.log, self.seen = {"kept": 1}, ["kept"], {"kept"}

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.tally += 1
        self.by_shape[x.shape] = self.fc.weight * 2  # holds a graph, as some caches of attention biases do
        self.log.append(x)
        self.seen.add(len(x))
        self.last = x
        self.mean = x.detach().mean((0, 2, 3))  # another tensor
        self.cache = self.mean.clone()
        if "late" not in self._buffers:
            self.register_buffer("late", torch.ones(1))
        torch.rand(3)
        np.random.rand(2)
        import random

        random.random()
        x.mul_(0.5)
        return self.fc(self.tail(self.body(x)).mean((2, 3)))


@dataclass
class Output:
    """What Hugging Face models return, in small."""

    loss: object
    logits: torch.Tensor


class Shuffled(nn.Module):
    """Patches to tokens in a known order, after `prefix` extra tokens that mix with nobody; pooling; linear.

    `order[i]` is the token of grid cell `i`. With `bright`, channel 0 of a token is its patch's mean and class 0 is
    the pooled channel 0: Grad-CAM for class 0 is then proportional to the brightness of each patch.
    """

    def __init__(self, grid, patch, order, prefix=0, channels=8):
        super().__init__()
        self.embed = nn.Conv2d(3, channels, patch, patch)
        self.tokens = nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU())
        self.fc = nn.Linear(channels, 3)
        self.prefix = prefix
        self.extra = nn.Parameter(torch.randn(1, prefix, channels))
        self.order = order
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[torch.tensor(order)] = torch.arange(len(order))
        self.register_buffer("inverse", inverse)
        with torch.no_grad():
            self.embed.weight[0] = 1 / (3 * patch * patch)
            self.embed.bias.zero_()
            self.mlp[0].weight.copy_(torch.eye(channels))
            self.mlp[0].bias.zero_()
            self.fc.weight[0] = torch.eye(channels)[0]
            self.fc.bias.zero_()

    def forward(self, x):
        t = self.embed(x).flatten(2).mT  # (N, cells, C), row by row
        t = t[:, self.inverse]  # token k shows cell inverse[k], so cell i is token order[i]
        t = torch.cat([self.extra.expand(len(x), -1, -1), t], 1)
        t = self.mlp(self.tokens(t))
        return self.fc(t[:, self.prefix :].mean(1))


class Twice(nn.Module):
    """One convolution that runs twice."""

    def __init__(self):
        super().__init__()
        self.front, self.shared, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 3, 1, 1), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.shared(self.shared(self.front(x)).relu()).relu().mean((2, 3)))


class Biasless(nn.Module):
    """Two convolutions and a linear layer, whatever they are put together by; without biases nothing is absorbed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.fc = nn.Linear(6, 5, bias=False)


class MultiLayer(nn.Module):
    """Captum's `BasicModel_MultiLayer`, over inputs of three values."""

    def __init__(self):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(3, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.linear1.weight.fill_(1)
            self.linear1.bias.copy_(torch.tensor([-10.0, 1, 1, 1]))
            self.linear2.weight.fill_(1)
            self.linear2.bias.copy_(torch.tensor([-1.0, 1]))

    def forward(self, x):
        return self.linear2(self.linear1(x.flatten(1)).relu())
