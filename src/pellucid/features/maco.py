"""MACO: the magnitude of every frequency is that of natural pictures, and only the phases are optimised.

Fel et al. 2023, "Unlocking feature visualization for deeper networks with magnitude constrained optimization",
arXiv:2306.06805: `x = F^-1(r e^(i phi))`. Where things are is free, how much of each frequency there is is not, so deep
units cannot be reached by high-frequency noise, and no regulariser has to be tuned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import MethodError
from pellucid.features.canvas import Canvas, Generators, uniform
from pellucid.features.colour import Colours, samples
from pellucid.features.parametrisations import Parameters, Parametrisation, falloff, half_spectrum, parametrisation

_POWER = 0.5  # variance of a synthetic picture's decorrelated channels; all natural pictures together have 1


@parametrisation("maco")
@dataclass(frozen=True, kw_only=True, eq=False)
class MACO(Parametrisation):
    """`mean + root F^-1(r e^(i phi))`: the phases `phi` are optimised, the magnitudes `r` are kept exactly.

    The magnitudes are those of the decorrelated channels. No squashing function behind them would change them; the few
    values that leave [0, 1] are clipped at the end only, and counted.

    Attributes:
        rate: of NAdam.
        spectrum: `natural` (the sample pictures', averaged over all directions), `synthetic` (1/f^decay), or measured
            magnitudes `(C or 1, *half_spectrum)`, see `measured_spectrum`.
        decay: of the synthetic spectrum, and of a natural one along time.
    """

    optimiser = "nadam"

    rate: float = 0.1
    spectrum: Literal["natural", "synthetic"] | Tensor = "natural"
    decay: float = 1.0

    def prepared(self, canvas: Canvas, colours: Colours) -> MACO:
        """With the magnitudes of this canvas, `(C, *half_spectrum)`.

        Raises:
            MethodError: an unknown name, or magnitudes of another size.
        """
        shape = (canvas.channels, *half_spectrum(canvas.space))
        if isinstance(self.spectrum, Tensor):
            found = self.spectrum.detach().float().cpu()
            if found.shape[1:] != shape[1:] or len(found) not in (1, canvas.channels) or not (found >= 0).all():
                raise MethodError(
                    f"A spectrum for this canvas holds magnitudes {shape}, none negative; got {tuple(found.shape)}: "
                    "make it with measured_spectrum(pictures), of pictures of the canvas's size."
                )
            return replace(self, spectrum=found.expand(shape))
        if self.spectrum not in ("natural", "synthetic"):
            raise MethodError(f"A spectrum is natural, synthetic or a tensor, not {self.spectrum!r}.")
        if self.spectrum == "natural" and canvas.channels in (1, 3):
            curve, natural_power = _natural(canvas, colours)
            over_time = falloff(canvas.space, 0.0, self.decay)
            found = over_time * (curve if len(canvas.space) == 2 else curve[:, None])
            return replace(self, spectrum=_of_power(found, canvas.space, natural_power))
        found = falloff(canvas.space, self.decay, self.decay)
        return replace(self, spectrum=_of_power(found.expand(shape), canvas.space, _POWER))

    def start(self, canvas: Canvas, generators: Generators) -> Parameters:
        """Even phases."""
        return [uniform((canvas.channels, *half_spectrum(canvas.space)), generators, -math.pi, math.pi)]

    def draw(self, parameters: Parameters, canvas: Canvas, colours: Colours) -> Tensor:
        """Pictures whose decorrelated channels have exactly these magnitudes."""
        phase = hermitian(parameters[0], canvas.space)
        assert isinstance(self.spectrum, Tensor)
        waves = torch.polar(self.spectrum.to(phase).expand_as(phase), phase)
        axes = tuple(range(-len(canvas.space), 0))
        return colours.correlate(torch.fft.irfftn(waves, s=canvas.space, dim=axes))


def hermitian(phase: Tensor, space: Sequence[int]) -> Tensor:
    """Phases made odd where the half spectrum holds both a frequency and its negative, `(N, C, *half_spectrum)`.

    Those are the first column and, for an even width, the last. A real picture has conjugate values there; an inverse
    transform of others would quietly change their magnitudes.
    """
    axes = tuple(range(2, phase.ndim - 1))
    width = phase.shape[-1]
    columns = [0, width - 1] if space[-1] % 2 == 0 and width > 1 else [0]
    edge = phase[..., columns]
    mirrored = edge.flip(axes).roll([1] * len(axes), axes)
    odd = (edge - mirrored) / 2
    parts = [odd[..., :1], phase[..., 1 : width - 1 if len(columns) == 2 else width]]
    return torch.cat([*parts, odd[..., 1:]], -1)


def measured_spectrum(pictures: Tensor, colours: Colours | None = None) -> Tensor:
    """Mean magnitudes of the decorrelated channels of pictures `(N, C, *space)`, to use as `MACO(spectrum=...)`.

    Args:
        pictures: display values, of the canvas's size.
        colours: as used in the synthesis; default: measured on these pictures.
    """
    colours = colours or Colours.measured(pictures)
    return _magnitudes(pictures, colours).mean(0)


def _magnitudes(pictures: Tensor, colours: Colours) -> Tensor:
    z = colours.decorrelate(pictures)
    axes = tuple(range(2, z.ndim))
    magnitude: Tensor = torch.fft.rfftn(z - z.mean(axes, keepdim=True), dim=axes).abs()
    return magnitude


def _power(magnitude: Tensor, space: Sequence[int]) -> float:
    """The variance of what is transformed back, mean over the channels (Parseval)."""
    twice = torch.full(magnitude.shape[-1:], 2.0)
    twice[0] = 1
    if space[-1] % 2 == 0:
        twice[-1] = 1
    return float((magnitude.square() * twice).flatten(1).sum(1).mean()) / math.prod(space) ** 2


def _of_power(magnitude: Tensor, space: Sequence[int], power: float) -> Tensor:
    """Scaled to this variance, without a mean: `colours` holds that."""
    magnitude = magnitude.clone()
    magnitude.flatten(1)[:, 0] = 0
    return magnitude * math.sqrt(power / _power(magnitude, space))


def _natural(canvas: Canvas, colours: Colours) -> tuple[Tensor, float]:
    """The sample pictures' mean magnitude by the frequency alone, `(C, *half_spectrum of H, W)`, and its power.

    Five pictures are too few for every frequency by itself, and many for a curve.
    """
    pictures = samples(canvas.channels, 256)
    found = _magnitudes(pictures, colours).mean(0)
    power = _power(found, pictures.shape[2:])
    y, x = torch.fft.fftfreq(256), torch.fft.rfftfreq(256)
    rings = (torch.hypot(y[:, None], x[None]) * 256).round().long()
    count = torch.zeros(int(rings.max()) + 1).index_add(0, rings.flatten(), torch.ones(rings.numel()))
    sums = torch.zeros(len(found), len(count)).index_add(1, rings.flatten(), found.flatten(1))
    curve = sums / count.clamp(min=1)
    height, width = canvas.space[-2:]
    y, x = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    at = (torch.hypot(y[:, None], x[None]) * 256).clamp(min=1, max=len(count) - 1)
    low = at.floor().long().clamp(max=len(count) - 2)
    return torch.lerp(curve[:, low], curve[:, low + 1], at - low), power
