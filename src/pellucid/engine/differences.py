"""Convolutions behind a layer of which only a few channels change: they answer what they did, and what those add.

A convolution is linear, `W * (A + d) = W * A + W * d`, and where `d` is zero but for `k` of `C` channels, `W * d` takes
`k / C` of the work. Channels left out one by one are the case for it: the convolutions that read the layer itself then
cost next to nothing. What is read through anything else is computed as ever.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.engine.shells import copied, hooked, plain_weights, shell

_LEAST = 8  # channels for each that changes, for the detour to pay


class Differences:
    """The changed activations of one batch, as the channels in which they differ from the unchanged.

    Args:
        plain: the unchanged activation `(1, C, H, W)`.

    Example:
        differences = Differences(A)
        quicker = differences.read_by(tail)
        differences.changed = B  # (N, C, H, W), which the tail is then given
        quicker(B)
    """

    def __init__(self, plain: Tensor) -> None:
        self.plain = plain
        self.changed: Tensor | None = None
        self._of: tuple[Tensor, int] | None = None  # what the channels were last found of, and its state
        self._channels: tuple[Tensor, Tensor] | None = None

    def read_by(self, module: nn.Module) -> nn.Module:
        """The module, its convolutions of such activations replaced; what it holds is shared, nothing is written to."""
        return copied(module, {m: self._reader(m) for m in module.modules() if _readable(m)})

    def channels(self) -> tuple[Tensor, Tensor] | None:
        """Indices `(N, k)` of the channels that differ, and by how much `(N, k, H, W)`; None where they are many."""
        B = self.changed
        if B is None or B.is_inference() or B.shape[1:] != self.plain.shape[1:]:
            return None
        if self._of is None or self._of[0] is not B or self._of[1] != B._version:  # it may be written to in between
            self._of, self._channels = (B, B._version), None
            differ = (self.plain != B).flatten(2).any(2)
            k = max(1, int(differ.sum(1).max()))
            if k * _LEAST <= self.plain.shape[1]:
                index = differ.byte().topk(k, dim=1).indices
                rows = torch.arange(len(index), device=index.device)[:, None]
                self._channels = index, B[rows, index] - self.plain[0, index]
        return self._channels

    def _reader(self, conv: nn.Module) -> nn.Module:
        assert isinstance(conv, nn.Conv2d)
        plain: list[Tensor] = []

        def forward(x: Tensor) -> Tensor:
            found = self.channels() if x is self.changed else None
            if found is None:
                return conv(x)  # type: ignore[no-any-return]
            if not plain:
                plain.append(conv(self.plain))
            index, by = found
            by = nn.functional.pad(by, conv._reversed_padding_repeated_twice)
            # Rows of places, so that the answer lies channels-last, as the folded convolutions want it.
            patches = nn.functional.unfold(by, conv.kernel_size, conv.dilation, 0, conv.stride).transpose(1, 2)
            weight = conv.weight[:, index].movedim(0, -1).reshape(len(index), -1, conv.out_channels)
            rows = plain[0].flatten(2).transpose(1, 2).expand(len(index), -1, -1)
            return torch.baddbmm(rows, patches, weight).transpose(1, 2).reshape(-1, *plain[0].shape[1:])

        reader = shell(conv)
        reader.forward = forward
        return reader


def _readable(part: nn.Module) -> bool:
    plain = type(part) is nn.Conv2d and part.groups == 1 and part.padding_mode == "zeros"
    return plain and plain_weights(part) and not hooked(part)
