"""Small video networks whose attention and recurrence are plain to see."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):
    """Multi-head self-attention over the middle axis of `(B, L, C)`, in one of the three ways people write it."""

    def __init__(self, width, heads, way):
        super().__init__()
        self.qkv, self.heads, self.way = nn.Linear(width, 3 * width), heads, way

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.way == "sdpa":
            out = scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
        return out.transpose(1, 2).flatten(2)


class Divided(nn.Module):
    """TimeSformer in small: over the frames at each place (no class token), then over the places of each frame."""

    def __init__(self, width=16, depth=2, patch=8, frames=4, side=16, way="sdpa", class_token=True, classes=3):
        super().__init__()
        self.embed = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch))
        self.token = nn.Parameter(torch.randn(1, int(class_token), width))
        self.time = nn.ModuleList(Attention(width, 2, way) for _ in range(depth))
        self.space = nn.ModuleList(Attention(width, 2, way) for _ in range(depth))
        self.place = nn.Parameter(torch.randn(1, width, frames, side // patch, side // patch))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        n = len(x)
        cells = (self.embed(x) + self.place).flatten(3).permute(0, 2, 3, 1)  # (N, T, S, C)
        token = self.token.expand(n, -1, -1)
        for time, space in zip(self.time, self.space, strict=True):
            t, s = cells.shape[1:3]
            seen = time(cells.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, s)).transpose(1, 2)
            cells = cells + seen
            every = torch.cat([token[:, None].expand(-1, t, -1, -1), cells], 2).flatten(0, 1)
            seen = space(every).unflatten(0, (n, t))
            p = token.shape[1]
            token, cells = token + seen[:, :, :p].mean(1), cells + seen[:, :, p:]
        pooled = token[:, 0] if token.shape[1] else cells.mean((1, 2))
        return self.head(pooled)


class Factorised(nn.Module):
    """ViViT's second model in small: the places of each frame, then the frames' class tokens."""

    def __init__(self, width=16, depth=2, patch=8, way="sdpa", classes=3, frames=4, side=16):
        super().__init__()
        self.embed = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch))
        self.token, self.last = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, width, frames, side // patch, side // patch))
        self.space = nn.ModuleList(Attention(width, 2, way) for _ in range(depth))
        self.time = nn.ModuleList(Attention(width, 2, way) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        n = len(x)
        cells = (self.embed(x) + self.place).flatten(3).permute(0, 2, 3, 1).flatten(0, 1)  # (N T, S, C)
        tokens = torch.cat([self.token.expand(len(cells), -1, -1), cells], 1)
        for space in self.space:
            tokens = tokens + space(tokens)
        frames = torch.cat([self.last.expand(n, -1, -1), tokens[:, 0].unflatten(0, (n, -1))], 1)
        for time in self.time:
            frames = frames + time(frames)
        return self.head(frames[:, 0])


class FrameLSTM(nn.Module):
    """Frames through a small convolutional network, then a recurrent layer of any kind; `read` says what of it."""

    def __init__(self, kind="LSTM", read="last", bidirectional=False, layers=1, batch_first=True, bias=True, classes=3):
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.rnn = getattr(nn, kind)(
            6, 5, num_layers=layers, batch_first=batch_first, bidirectional=bidirectional, bias=bias
        )
        self.fc, self.read = nn.Linear(5 * (1 + bidirectional), classes), read

    def forward(self, x):
        n = len(x)
        features = self.cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, -1))
        if not self.rnn.batch_first:
            features = features.transpose(0, 1)
        out, state = self.rnn(features)
        if self.read == "state":
            return self.fc((state[0] if isinstance(state, tuple) else state)[-1])
        out = out if self.rnn.batch_first else out.transpose(0, 1)
        return self.fc(out[:, -1] if self.read == "last" else out.mean(1))
