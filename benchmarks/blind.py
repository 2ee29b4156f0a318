"""Does `check()` believe maps that know nothing, and does it believe true ones?

Blind maps are drawn without a look at the model: noise of several finenesses, and soft spots anywhere. Where a pattern
was planted, the true map is known to be true: the only thing that the network reads is where it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.pointing import cifar_network, data_folder
from benchmarks.report import Section, at_least, at_most, single
from pellucid.engine.baselines import blur
from pellucid.evaluation import Perturbed, cell_ranking, judge
from pellucid.evaluation.verdict import SIGNIFICANT
from pellucid.heatmaps import IntegratedGradients, get_method

ACCEPTED = ("faithful", "partly faithful")
_SIDE, _PATCH = 56, 9  # of planted pictures and of what is planted, in pixels
_DECOYS = 4
_SAMPLES = ("cat", "coffee", "rocket", "motorcycle", "astronaut")


@dataclass
class Subject:
    """A picture `(1, C, h, w)` as a network takes it, the class explained, and maps that are no blind ones."""

    module: nn.Module
    x: Tensor
    target: int
    maps: dict[str, Tensor] = field(default_factory=dict)
    asked: int = 0

    def score(self, inputs: Tensor) -> Tensor:
        """The probability of the class."""
        self.asked += len(inputs)
        with torch.no_grad():
            return self.module(inputs).softmax(1)[:, self.target]

    def explained(self, *names: str) -> Subject:
        """With the maps of these methods; integrated gradients start from the blur, which hides all evidence."""
        for name in names:
            own = IntegratedGradients(baseline=_hidden(self.x)[0], max_steps=50, tolerance=None)
            method = own if name == "integrated-gradients" else get_method(name)
            found = method.attribute(self.module, self.x, self.target)[0].cpu()
            self.maps[name] = found.sum(0) if found.ndim == 3 else found
        return self


def _hidden(x: Tensor) -> Tensor:
    return blur(x, torch.Generator(), sigma=0.1)


def blind_maps(generator: torch.Generator) -> dict[str, Tensor]:
    """One map of each kind."""

    def noise(n: int) -> Tensor:
        return torch.randn(n, n, generator=generator)

    def spot(width: float) -> Tensor:
        y, x = torch.rand(2, generator=generator) * 14
        cells = torch.arange(14) + 0.5
        return torch.exp(-((cells[:, None] - y) ** 2 + (cells - x) ** 2) / (2 * width**2))

    return {
        "noise, 14 x 14": noise(14),
        "noise, 7 x 7 (as Grad-CAM's)": noise(7),
        "noise, 4 x 4": noise(4),
        "narrow spots": spot(1.2),
        "wide spots": spot(14 / 6),
    }


def centred() -> Tensor:
    """A spot in the middle: it knows no model, but it knows photographers."""
    cells = torch.arange(14) - 6.5
    return torch.exp(-(cells[:, None] ** 2 + cells**2) / (2 * 3.0**2))


# ---------------------------------------------------------------- planted truths


class Detector(nn.Module):
    """The likeness of a pattern, at one place or wherever it is greatest, as the score of class 1."""

    def __init__(self, pattern: Tensor, place: tuple[int, int] | None) -> None:
        super().__init__()
        self.likeness = nn.Conv2d(3, 1, _PATCH, bias=False)
        self.likeness.weight.data = pattern[None] / pattern.norm()
        self.gain, self.offset, self.place = 1.0, 0.0, place

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 2)`."""
        found = self.likeness(x)
        best = found.amax((1, 2, 3)) if self.place is None else found[:, 0, self.place[0], self.place[1]]
        score = self.gain * best + self.offset
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def stretch(self, x: Tensor, low: float, high: float) -> None:
        """Let the score be `low` on the blur of `x` and `high` on `x`."""
        with torch.no_grad():
            hidden, shown = (float(self(p)[0, 1]) for p in (_hidden(x), x))
        self.gain = (high - low) / (shown - hidden)
        self.offset = low - self.gain * hidden


class Weighted(nn.Module):
    """The score of class 1 is a weighted sum over all pixels: no place is better than another by much."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.head = nn.Linear(3 * _SIDE * _SIDE, 2, bias=False)
        self.head.weight.data = torch.randn(2, 3 * _SIDE * _SIDE, generator=generator) * 0.03

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, 2)`."""
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def planted(kind: str, seed: int) -> Subject:
    """A crop of a photo with a pattern planted somewhere, and a network that reads nothing else."""
    g = torch.Generator().manual_seed(seed + 1000 * PLANTED.index(kind))  # other pictures for each kind
    if kind == "all pixels count":
        x = torch.randn(1, 3, _SIDE, _SIDE, generator=g)
        return Subject(Weighted(g).eval(), x, 1).explained("integrated-gradients")
    pixels = np.asarray(pl.read_image(f"sample:{_SAMPLES[seed % len(_SAMPLES)]}").pixels)
    photo = torch.as_tensor(pixels[..., :3].copy()).permute(2, 0, 1).float() / 255
    side = int(torch.randint(150, min(photo.shape[1:]), (1,), generator=g))
    top, left = (int(torch.randint(0, n - side + 1, (1,), generator=g)) for n in photo.shape[1:])
    crop = photo[None, :, top : top + side, left : left + side]
    x = (nn.functional.interpolate(crop, size=(_SIDE, _SIDE), mode="area") - 0.5) / 0.25
    pattern = torch.randn(3, _PATCH, _PATCH, generator=g).sign()
    y, z = torch.randint(0, _SIDE - _PATCH, (2,), generator=g).tolist()
    there = (..., slice(y, y + _PATCH), slice(z, z + _PATCH))
    x[there] = 0.5 * x[there] + 1.2 * pattern
    if kind == AMONG:
        _with_decoys(x, (y, z), g)
    net = Detector(pattern, None if kind in ("a pattern anywhere", AMONG) else (y, z)).eval()
    net.stretch(x, *((-4.0, 40.0) if kind == "a pattern, saturated" else (-3.0, 3.0)))
    return Subject(net, x, 1).explained("integrated-gradients")


def _with_decoys(x: Tensor, place: tuple[int, int], g: torch.Generator) -> None:
    """Patterns of the same contrast that no network knows, none on another: contrast alone tells nothing then."""
    taken = [place]
    while len(taken) <= _DECOYS:
        y, z = torch.randint(0, _SIDE - _PATCH, (2,), generator=g).tolist()
        if all(max(abs(y - a), abs(z - b)) >= _PATCH for a, b in taken):
            there = (..., slice(y, y + _PATCH), slice(z, z + _PATCH))
            x[there] = 0.5 * x[there] + 1.2 * torch.randn(3, _PATCH, _PATCH, generator=g).sign()
            taken.append((y, z))


AMONG = "a pattern among others"
PLANTED = ("a pattern at one place", "a pattern anywhere", "a pattern, saturated", "all pixels count", AMONG)

# ---------------------------------------------------------------- networks and photographs


def embedded(count: int) -> Iterator[Subject]:
    """The embedded network on the samples, then on crops of them."""
    model, g = pl.load(), torch.Generator().manual_seed(0)
    for k in range(count):
        whole = model.preprocess(pl.read_image(f"sample:{_SAMPLES[k % len(_SAMPLES)]}"))[0][None]
        side = whole.shape[-1] if k < len(_SAMPLES) else int(torch.randint(120, 200, (1,), generator=g))
        top, left = (int(torch.randint(0, whole.shape[-1] - side + 1, (1,), generator=g)) for _ in "yx")
        crop = whole[..., top : top + side, left : left + side]
        x = nn.functional.interpolate(crop, size=(128, 128), mode="bilinear", antialias=True, align_corners=False)
        yield _of(model.module, x)


def cifar(count: int) -> Iterator[Subject]:
    """A ResNet-20 on CIFAR-10's test pictures."""
    module, _, x = cifar_network("resnet20_cifar")
    yield from (_of(module, one[None]) for one in x[:: max(1, len(x) // count)][:count])


def _of(module: nn.Module, x: Tensor) -> Subject:
    with torch.no_grad():
        top = int(module(x).argmax())
    return Subject(module, x, top).explained("grad-cam", "hires-cam", "integrated-gradients")


# ---------------------------------------------------------------- rates


def verdict(perturbed: Perturbed, values: Tensor) -> str:
    """What `check()` says of a map, shuffled weights aside; the curves are drawn only where they can decide."""
    found = perturbed.agreement(values)
    if found.p_value > SIGNIFICANT:
        return "not faithful"
    insertion, deletion = perturbed.curves(cell_ranking(values, perturbed.grid))
    return judge(insertion=insertion, deletion=deletion, agreement=found).verdict


@dataclass
class Rates:
    """How often maps of each kind are accepted, how often other masks say the same, and what a map alone costs."""

    accepted: dict[str, list[bool]] = field(default_factory=dict)
    steady: dict[str, list[bool]] = field(default_factory=dict)
    forwards: list[int] = field(default_factory=list)

    def add(self, subject: Subject, draws: int, seeds: int, salt: int) -> None:
        """Blind maps, `draws` of each kind; and the subject's own, by `seeds` sets of masks (`check` has one)."""
        g = torch.Generator().manual_seed(salt)
        shared = Perturbed(subject.score, subject.x)
        blind = [(kind, m) for _ in range(draws) for kind, m in blind_maps(g).items()]
        for kind, values in [*blind, ("a spot in the centre", centred())]:
            self._accept(kind, verdict(shared, values))
        for name, values in subject.maps.items():
            said = []
            for seed in range(seeds):
                before = subject.asked
                said.append(verdict(Perturbed(subject.score, subject.x, seed), values))
                self.forwards.append(subject.asked - before)
            self._accept(name, said[0])
            self.steady.setdefault(name, []).append(len({word in ACCEPTED for word in said}) == 1)

    def _accept(self, kind: str, said: str) -> None:
        self.accepted.setdefault(kind, []).append(said in ACCEPTED)


def rates(title: str, subjects: Iterator[Subject], draws: int, seeds: int, true: bool) -> Section:
    """A table of one network."""
    found = Rates()
    for k, subject in enumerate(subjects):
        found.add(subject, draws, seeds, k)
    blind = blind_maps(torch.Generator()).keys()
    section = Section(title, "")
    for kind, hits in found.accepted.items():
        limit = at_most(5) if kind in blind else at_least(95) if true and kind in found.steady else None
        note = f"of {len(hits)}"
        if kind in found.steady:
            same = 100 * sum(found.steady[kind]) / len(found.steady[kind])
            note += f"; with {seeds} sets of masks the same in {same:.0f} % of the pictures"
        section.rows.append(single(f"accepted: {kind}", 100 * sum(hits) / len(hits), " %", limit, note))
    mean = sum(found.forwards) / len(found.forwards)
    section.rows.append(single("forwards of a map, on average", mean, "", at_most(210)))
    return section


def truths(pictures: int, draws: int, seeds: int) -> Iterator[Section]:
    """The planted truths."""
    for kind in PLANTED:
        section = rates(f"Believed: {kind}", (planted(kind, s) for s in range(pictures)), draws, seeds, true=True)
        section.about = f"{pictures} pictures; a network whose evidence is known."
        yield section


def photographs(network: str, pictures: int, draws: int, seeds: int) -> Section:
    """Real weights: which maps are true is not known, so only blind ones have a target."""
    makers: dict[str, Callable[[int], Iterator[Subject]]] = {"EfficientNet-Lite0": embedded, "ResNet-20": cifar}
    title = f"Believed: {network} on photographs"
    if network == "ResNet-20" and not (data_folder() / "code" / "zoo.py").is_file():
        return Section(title, "", skipped="no folder of pictures and weights: set PELLUCID_DATA to one.")
    section = rates(title, partial(makers[network], pictures)(), draws, seeds, true=False)
    section.about = (
        f"{pictures} photographs, the top class. How many of a method's maps are accepted has no target: it is what is "
        "measured. A spot in the centre knows no model, but photographers put things there."
    )
    return section
