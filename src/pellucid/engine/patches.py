"""Windows: the first layers compute only what a window changes.

Where an input differs from another in a small box alone, the answer of a convolution or a pooling differs in that box
and as far around it as the layer reads (Nakandala et al. 2019, Krypton, doi:10.1145/3299869.3319874). The unchanged
input's activations are kept. Each layer of the chain that a network begins with (`pellucid.engine.chains`) then reads
a patch of them with the changed one laid over, up to the layer from which on a patch saves nothing; there it is laid
over the whole activation, and the rest of the network runs as ever. The numbers are the same but for rounding.

All this happens inside a twin that shares what it does not change: its first layer answers for the whole chain, and
the others pass that on. Nothing of it is trusted: the twin must answer windows of noise as the network does, and what
its first layer reads must not differ from what it read of the unchanged input but in the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pellucid.engine.capture import Capture, Cost
from pellucid.engine.chains import Link, Place, chain
from pellucid.engine.folding import PAYS, alike
from pellucid.engine.masks import Masks
from pellucid.engine.shells import UNSOUND, copied, shell

_SMALL = 1.5  # what a multiply-add costs in a patch, beside one in a whole picture
_HANDLING = 2_000_000  # multiply-adds in the time that it takes to cut one window out and lay it over, at one layer
_LEAST = 1.4  # how many times less work there must be
_PROVEN_BY = 3  # windows that are run both ways
_PASSES = 1 + 2 * _PROVEN_BY  # of one input, before the first window is scored


class PatchNet:
    """A network whose first layers compute only what a window changes.

    Args:
        capture: runs the network.
        inputs: the unchanged ones `(N, C, H, W)`.
        links: the chain.
        starts: for each input, where its windows begin.
        size: rows and columns of all windows.
        cost: takes the passes that note the activations of unchanged inputs.

    Attributes:
        network: answers the changed inputs `(m, C, H, W)` that were announced to `expect`.
    """

    def __init__(
        self,
        capture: Capture,
        inputs: Tensor,
        links: Sequence[Link],
        starts: Sequence[Sequence[Place]],
        size: Place,
        cost: Cost,
    ) -> None:
        self.links, self.size, self.cost = links, size, cost
        self._capture, self._inputs, self._starts = capture, inputs, starts
        self._noted: dict[int, list[Tensor]] = {}  # of each unchanged input: itself, what links read, the last answer
        self._noting: list[Tensor] | None = None
        self._windows: Sequence[tuple[int, int]] = ()
        first, *others = (link.module for link in links)
        player = shell(first)
        player.forward = self._forward
        self.network = copied(capture.network, {first: player} | {m: nn.Identity() for m in others})

    def expect(self, windows: Sequence[tuple[int, int]]) -> None:
        """For each changed input that comes next: the unchanged one, and which of its windows.

        The activations of unchanged inputs that are not among them are let go.

        Raises:
            RuntimeError: the network does not run its first layer where it holds it.
        """
        wanted = {n for n, _ in windows}
        self._noted = {n: kept for n, kept in self._noted.items() if n in wanted}
        for n in sorted(wanted - self._noted.keys()):
            noted: list[Tensor] = []
            self._noting = noted
            try:
                self._capture.forward(self._inputs[n : n + 1], self.network)
            finally:
                self._noting = None
            self.cost.forwards += 1
            if not noted:
                raise RuntimeError("The first layer's twin never ran.")
            self._noted[n] = noted
        self._windows = windows

    def proven(self, batch: int) -> bool:
        """Whether the network answers some windows of noise, a batch at a time, as it does without all this."""
        n = next(n for n, starts in enumerate(self._starts) if starts)
        last, (rows, columns) = len(self._starts[n]) - 1, self.size
        x, generator = self._inputs[n], torch.Generator().manual_seed(0)
        windows = [(n, m) for m in sorted({k * last // (_PROVEN_BY - 1) for k in range(_PROVEN_BY)})]
        changed = x.repeat(len(windows), 1, 1, 1)
        for picture, (_, m) in zip(changed, windows, strict=True):
            (top, left), noise = self._starts[n][m], torch.randn((len(x), *self.size), generator=generator).to(x)
            picture[:, top : top + rows, left : left + columns] += (float(x.std()) or 1) * noise
        try:
            for k in range(0, len(windows), batch):
                some = changed[k : k + batch]
                self.cost.forwards += 2 * len(some)
                plain = self._capture.forward(some), dict(self._capture.watched)
                self.expect(windows[k : k + batch])
                if not alike(plain, (self._capture.forward(some, self.network), dict(self._capture.watched))):
                    return False
        except UNSOUND:
            return False
        return True

    def _forward(self, x: Tensor) -> Tensor:
        return self._changed(x) if self._noting is None else self._note(x, self._noting)

    def _note(self, x: Tensor, noted: list[Tensor]) -> Tensor:
        noted.append(x)
        x = x.clone()  # a layer may write to what it reads
        for link in self.links:
            if not link.pointwise:
                x = link.padded(x)
                noted.append(x)
            x = link.act(x)
        noted.append(x.clone())
        return x

    def _changed(self, x: Tensor) -> Tensor:
        windows, self._windows = self._windows[: len(x)], self._windows[len(x) :]  # a network may split its batch
        if len(x) != len(windows):
            raise ValueError("The network runs its first layer on more inputs than it was given.")
        noted = zip(*(self._noted[n] for n, _ in windows), strict=True)
        size, starts = self.size, [self._starts[n][m] for n, m in windows]
        if _elsewhere(x, torch.cat(next(noted)), starts, size):
            raise ValueError("What the first layer reads changes outside of the window as well.")
        patches = _cut(list(x[:, None]), starts, size)
        for link in self.links:
            if not link.pointwise:
                size, within = link.changed(size), [_sum(at, link.before) for at in starts]
                starts = [link.first(at, size) for at in starts]
                corners = [link.corner(at) for at in starts]
                patches = _laid_over(_cut(next(noted), corners, link.needed(size)), corners, patches, within)
            patches = link.act(patches)
        return _laid_over(torch.cat(next(noted)), [(0, 0)] * len(starts), patches, starts)


def _elsewhere(changed: Tensor, plain: Tensor, starts: Sequence[Place], size: Place) -> bool:
    """Whether pictures `(m, C, H, W)` differ outside of a window in each."""
    differ = changed != plain
    for picture, (y, x) in zip(differ, starts, strict=True):
        picture[:, y : y + size[0], x : x + size[1]] = False
    return bool(differ.any())


def _sum(a: Place, b: Place) -> Place:
    return a[0] + b[0], a[1] + b[1]


def _cut(pictures: Sequence[Tensor], corners: Sequence[Place], size: Place) -> Tensor:
    """A copy `(m, C, *size)` of a part of each picture `(1, C, H, W)`; channels-last where they are."""
    rows, columns = size
    return torch.cat([p[:, :, y : y + rows, x : x + columns] for p, (y, x) in zip(pictures, corners, strict=True)])


def _laid_over(pictures: Tensor, corners: Sequence[Place], patches: Tensor, starts: Sequence[Place]) -> Tensor:
    """Each picture `(C, H, W)`, whose corner is in one place, with a patch laid over it that begins in another."""
    for picture, corner, patch, start in zip(pictures, corners, patches, starts, strict=True):
        to, of = [], []
        for length, low, extent, begin in zip(picture.shape[1:], corner, patch.shape[1:], start, strict=True):
            first = max(low, begin)
            last = max(first, min(low + length, begin + extent))
            to.append(slice(first - low, last - low))
            of.append(slice(first - begin, last - begin))
        picture[:, to[0], to[1]] = patch[:, of[0], of[1]]
    return pictures


def are_windows(inputs: Tensor, masks: Sequence[Masks]) -> bool:
    """Whether there are so many masks, each of which hides so small a box, that patches may be worth while."""
    return _windows(inputs, masks) is not None


def _windows(inputs: Tensor, masks: Sequence[Masks]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]] | None:
    """The size that holds all boxes, and where those of each input begin and end."""
    if sum(map(len, masks)) < PAYS or inputs.ndim != 4 or inputs.device.type != "cpu":
        return None
    boxes = [box for box in (m.boxes() for m in masks) if box is not None]
    if len(boxes) < len(masks):
        return None
    size = torch.stack([(ends - starts).amax(0) for starts, ends in boxes if len(starts)]).amax(0).clamp(min=1)
    return None if 2 * size.prod() > torch.tensor(inputs.shape[2:]).prod() else (size, boxes)


def find_patches(capture: Capture, inputs: Tensor, masks: Sequence[Masks], batch: int, cost: Cost) -> PatchNet | None:
    """The quicker network; None where it is not worth while, or does not answer as the network does.

    Args:
        capture: runs the network.
        inputs: the unchanged ones `(N, C, H, W)`.
        masks: of each input; the changed ones differ from it where a mask is not 1.
        batch: inputs at a time, for which there is memory.
        cost: takes the passes that this and the network need beside those of the changed inputs.
    """
    found = _windows(inputs, masks)
    if found is None:
        return None
    count = sum(map(len, masks))
    size, boxes = found
    parts = list(capture.network.modules())  # a black box has none, and compiled ones run no hooks
    if any(isinstance(m, torch.jit.ScriptModule) for m in parts) or not any(isinstance(m, nn.Conv2d) for m in parts):
        return None
    space = torch.tensor(inputs.shape[2:])
    places = [torch.minimum(starts, space - size).tolist() for starts, _ in boxes]
    box: Place = (int(size[0]), int(size[1]))
    cost.forwards += 1
    try:
        with capture.acting():  # a layer that is watched is read
            links, work = chain(capture.network, inputs[:1])
    except UNSOUND:  # such as a network that cannot run with a graph
        return None
    depth, saved = _saved(links, box)
    if not depth or not _pays(saved, work, count, _PASSES + len(inputs)):
        return None
    patches = PatchNet(capture, inputs, links[:depth], [[(y, x) for y, x in starts] for starts in places], box, cost)
    return patches if patches.proven(batch) else None


def _pays(saved: float, work: int, windows: int, passes: int) -> bool:
    """Whether what each window saves of the work of a pass is no trifle, and all together outweigh some more passes."""
    return work >= _LEAST * (work - saved) and saved * windows >= 2 * passes * work


def _saved(links: Sequence[Link], size: Place) -> tuple[int, float]:
    """How many links to take, and the multiply-adds that they save for each window of a size."""
    depth, most, saved = 0, 0.0, 0.0
    for k, link in enumerate(links, 1):
        size = link.changed(size)
        saved += link.whole - _SMALL * link.work * math.prod(size) - (0 if link.pointwise else _HANDLING)
        if saved > 0 and saved >= most:
            depth, most = k, saved
    return depth, most
