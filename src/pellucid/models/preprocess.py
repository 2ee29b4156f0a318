"""From a picture to what a model wants to see, and the exact way back."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pellucid.errors import MediaError, ModelError
from pellucid.media import MAX_PIXELS, Geometry, Picture

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "nearest-exact": Image.Resampling.NEAREST,  # what torchvision calls PIL's nearest
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_FITS = ("exact", "cover", "contain")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as PIL's mode L


class Preprocessing(Protocol):
    """What a model needs from its preprocessing."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(h, w) of the model's input."""

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB), or whatever else the model takes."""

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The model's input (C, h, w), float32, and its map to the picture."""

    def display(self, x: Tensor) -> Tensor:
        """Undo the normalisation of (..., C, h, w): values in [0, 1]."""

    def as_dict(self) -> dict[str, Any]:
        """A plain description, ready for JSON."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize, crop or pad about the centre, normalise; bit for bit as timm and torchvision on 8-bit pictures.

    Attributes:
        input_size: (h, w) of the model's input. With ``crop=False`` and a resize that keeps the aspect, the
            input has the size the picture is resized to, and this is only the nominal one.
        mean, std: one number a channel, for pixels in [0, 1]. resize: None, the length of the shorter side,
        or (h, w) to be met as ``fit`` says. fit: ``exact`` (stretch to ``resize``), ``cover`` (keep the
        aspect, fill it) or ``contain`` (stay within). crop: cut ``input_size`` from the centre, padding with
        ``fill`` where the picture is smaller. fill: the padding, 0 to 255, one number a channel; empty is
        black. interpolation: nearest, box, bilinear, hamming, bicubic or lanczos, antialiased as PIL does.
        channels: 1 (the picture's luma) or 3 (RGB). assumed: nobody said that the model was trained with
        these settings.

    Raises:
        ModelError: the settings contradict each other.
    """

    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | tuple[int, int] | None = None
    fit: str = "exact"
    crop: bool = True
    fill: tuple[int, ...] = ()
    interpolation: str = "bilinear"
    channels: int = 3
    assumed: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        sizes = (self.resize,) if isinstance(self.resize, int) else self.resize or ()
        pair = self.resize is None or isinstance(self.resize, int) or len(self.resize) == 2
        if not pair or len(self.input_size) != 2 or min(*self.input_size, *sizes) < 1:
            raise ModelError(f"Sizes are positive (h, w), not {self.input_size} and {self.resize}.")
        if self.channels not in (1, 3):
            raise ModelError(
                f"A picture has 1 or 3 channels, not {self.channels}; give the model a transform of your own."
            )
        if not len(self.mean) == len(self.std) == self.channels or len(self.fill) not in (0, self.channels):
            raise ModelError(
                f"mean, std and fill need one number for each of {self.channels} channels, not "
                f"{len(self.mean)}, {len(self.std)} and {len(self.fill)}."
            )
        if not all(s > 0 and math.isfinite(s) for s in self.std) or not all(map(math.isfinite, self.mean)):
            raise ModelError(f"mean must be finite and std positive, not {self.mean} and {self.std}.")
        if self.interpolation not in _FILTERS:
            raise ModelError(f"Interpolation is one of {', '.join(_FILTERS)}, not {self.interpolation!r}.")
        if self.fit not in _FITS:
            raise ModelError(f"fit is one of {', '.join(_FITS)}, not {self.fit!r}.")
        if not self.crop and self.fit == "exact" and len(sizes) == 2 and self.resize != self.input_size:
            raise ModelError(f"Without a crop, resize must equal input_size {self.input_size}, not {self.resize}.")

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The model's input (C, h, w), float32, and its map to the picture.

        Raises:
            MediaError: the picture is so long and thin that it can't be resized.
        """
        return self.finish(self._resized(picture), picture.size)

    def finish(self, pixels: NDArray[Any], source: tuple[int, int]) -> tuple[Tensor, Geometry]:
        """Crop or pad and normalise resized pixels (H, W, C) of a picture that was `source` (H, W) large."""
        resized = pixels.shape[:2]
        size = self.input_size if self.crop else (resized[0], resized[1])
        offset = tuple(_centre(n, m) for n, m in zip(resized, size, strict=True))
        x = torch.from_numpy(self._cut(pixels, offset, size)).permute(2, 0, 1).contiguous()
        x = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x
        x = x.sub_(self._per_channel(self.mean, x)).div_(self._per_channel(self.std, x))
        scales = [n / r for n, r in zip(source, resized, strict=True)]
        box = tuple((o * s, (o + n) * s) for o, n, s in zip(offset, size, scales, strict=True))
        return x, Geometry(source, size, box)

    def display(self, x: Tensor) -> Tensor:
        """Undo the normalisation of (..., C, h, w): values in [0, 1], clipped."""
        return (x * self._per_channel(self.std, x) + self._per_channel(self.mean, x)).clamp(0, 1)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if key != "assumed"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Read back what ``as_dict`` wrote, through JSON or not."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any], *, channels: int | None = None) -> Preprocess:
        """What ``timm.data.create_transform(**config, is_training=False)`` does.

        Args:
            config: what ``timm.data.resolve_model_data_config(model)`` returns.
            channels: overrides the channels of the config; going from 3 to 1 averages ``mean`` and ``std``.
        """
        in_channels, *size = config["input_size"]
        channels = channels or in_channels
        mean, std = (_averaged(config[key], channels) for key in ("mean", "std"))
        scaled = tuple(math.floor(n / (config.get("crop_pct") or 0.875)) for n in size)
        mode = config.get("crop_mode") or "center"
        return cls(
            input_size=(size[0], size[1]),
            resize=scaled[0] if mode == "center" and scaled[0] == scaled[1] else (scaled[0], scaled[1]),
            fit={"squash": "exact", "border": "contain"}.get(mode, "cover"),
            fill=tuple(round(255 * m) for m in mean) if mode == "border" else (),
            interpolation=config.get("interpolation") or "bilinear",
            mean=mean,
            std=std,
            channels=channels,
        )

    @classmethod
    def from_torchvision(cls, preset: Any) -> Preprocess:
        """What ``weights.transforms()`` of a torchvision classifier or segmentation model does to a PIL
        image."""
        kind = type(preset).__name__
        if kind not in ("ImageClassification", "SemanticSegmentation") or not preset.resize_size:
            raise ModelError(f"The torchvision preset {kind} is not known here; give it as a transform instead.")
        crop = kind == "ImageClassification"
        resize = preset.resize_size
        size = preset.crop_size if crop else resize
        return cls(
            input_size=(size[0], size[-1]),
            resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
            crop=crop,
            interpolation=getattr(preset.interpolation, "value", preset.interpolation),
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )

    def _resized(self, picture: Picture) -> NDArray[Any]:
        """The picture's pixels (H, W, C), resized; uint8 stays uint8, so that it is rounded as PIL rounds."""
        target = self.resized_size(*picture.size)
        if min(target) < 1 or target[0] * target[1] > MAX_PIXELS:
            raise MediaError(f"{picture.name} {picture.size} is too long and thin to be resized; crop it.")
        size, resample = (target[1], target[0]), _FILTERS[self.interpolation]
        pixels = picture.pixels
        if pixels.dtype == np.uint8:
            image = Image.fromarray(pixels)
            image = image.convert("L") if self.channels == 1 else image
            image = image if target == picture.size else image.resize(size, resample)
            return np.array(image).reshape(*target, self.channels)
        planes = [pixels @ _LUMA] if self.channels == 1 else list(np.moveaxis(pixels, -1, 0))
        if target != picture.size:  # clipped as 8 bits are: bicubic and lanczos overshoot
            planes = [np.asarray(Image.fromarray(p).resize(size, resample)).clip(0, 1) for p in planes]
        return np.stack(planes, -1)

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) the picture is resized to, rounded as torchvision and timm round."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, int):
            long = int(self.resize * max(height, width) / min(height, width))
            return (self.resize, long) if height <= width else (long, self.resize)
        if self.fit == "exact":
            return self.resize
        choose = min if self.fit == "cover" else max
        ratio = choose(height / self.resize[0], width / self.resize[1])
        return round(height / ratio), round(width / ratio)

    def _cut(self, pixels: NDArray[Any], offset: tuple[int, ...], size: tuple[int, int]) -> NDArray[Any]:
        """The window of ``size`` at ``offset`` (negative: before the picture), filled up outside it."""
        canvas = np.zeros((*size, self.channels), pixels.dtype)
        if self.fill:
            canvas[:] = self.fill if pixels.dtype == np.uint8 else np.array(self.fill) / 255
        to, come = [], []
        for start, n, m in zip(offset, pixels.shape, size, strict=False):
            come.append(slice(max(start, 0), min(start + m, n)))
            to.append(slice(come[-1].start - start, come[-1].stop - start))
        canvas[tuple(to)] = pixels[tuple(come)]
        return canvas

    @staticmethod
    def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


class TransformPreprocess:
    """Any function of yours from a PIL image to a tensor (C, h, w), a torchvision ``Compose`` for instance.

    Its normalisation and its geometry are measured: flat pictures show the first, and pictures that are ramps
    along x and y show which source coordinate each input pixel shows. Where that is one affine map an axis
    (any resize, crop and padding), the maps go back to the original. Where it is not (flips, rotations,
    warps, anything random), the geometry says ``known=False`` and is the identity over the model's own input.
    Deep pictures are rounded to 8 bits.

    Attributes:
        transform: the function.
        input_size: (h, w) it makes of a 512 x 512 picture.
        channels: how many channels it makes.

    Raises:
        ModelError: the function fails, or returns something other than a float tensor (C, h, w).
    """

    def __init__(self, transform: Callable[[Image.Image], Tensor]) -> None:
        self.transform = transform
        self._measured: dict[tuple[int, int], Geometry] = {}
        with _random_state_kept():
            black, white = (self._run(Image.new("RGB", (512, 512), (v, v, v))).cpu() for v in (0, 255))
        if black.shape != white.shape:
            raise ModelError("The transform gives two sizes for two pictures of one size; fix it to one.")
        self.channels, height, width = black.shape
        self.input_size = (height, width)
        # Padding looks the same whatever the picture: the levels are those where black and white differ most.
        where = (white - black).abs().flatten(1).argmax(1, keepdim=True)
        self._black, self._white = (flat.flatten(1).gather(1, where)[..., None] for flat in (black, white))

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The model's input (C, h, w), float32, and its map to the picture, or an unknown one."""
        x = self._run(picture.pil())
        return x, self.geometry(picture.size, (x.shape[-2], x.shape[-1]))

    def geometry(self, size: tuple[int, int], made: tuple[int, int]) -> Geometry:
        """The map to a picture of `size` (H, W), of which an input of `made` (h, w) was made; measured once a size."""
        geometry = self._measured.get(size)
        if geometry is None:
            geometry = self._measure(size)
            if len(self._measured) >= 256:  # a folder where every picture has its own size
                self._measured.clear()
            self._measured[size] = geometry
        return geometry if geometry.input_size == made else Geometry.identity(made, known=False)

    def display(self, x: Tensor) -> Tensor:
        """Undo the normalisation of (..., C, h, w): values in [0, 1], clipped.

        A transform that normalises each picture by itself can't be undone; ``x`` is then stretched to [0, 1].
        """
        low, high = self._black.to(x), self._white.to(x)
        if not (high - low).abs().min() > 1e-6:
            low, high = x.amin((-3, -2, -1), keepdim=True), x.amax((-3, -2, -1), keepdim=True) + 1e-12
        return ((x - low) / (high - low)).clamp(0, 1)

    def as_dict(self) -> dict[str, Any]:
        """How the transform prints itself; it can't be rebuilt from that."""
        return {"transform": repr(self.transform)}

    def _run(self, image: Image.Image) -> Tensor:
        try:
            x = self.transform(image)
        except Exception as error:
            raise ModelError(
                f"The transform failed on an RGB picture of {image.width} x {image.height} ({error}); "
                "it must take a PIL image."
            ) from error
        if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
            got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ModelError(f"The transform must return a float tensor (C, h, w), not {got}.")
        return x.detach().as_subclass(Tensor).to(torch.float32)

    def _measure(self, size: tuple[int, int]) -> Geometry:
        """Fit one line an axis to what the transform makes of ramps; unknown if lines don't explain it."""
        height, width = size
        along_x = Image.fromarray(_ramp(width, height)).convert("RGB")
        along_y = Image.fromarray(_ramp(height, width).T.copy()).convert("RGB")
        flats = [Image.new("RGB", (width, height), (v, v, v)) for v in (0, 255)]
        with _random_state_kept() as drawn:
            runs = [self._run(image).cpu() for image in (*flats, along_x, along_y, along_x, along_y)]
            unknown = Geometry.identity(runs[0].shape[-2:], known=False)
            if drawn() or any(run.shape != runs[0].shape for run in runs):
                return unknown
        black, white, x, y, x_again, y_again = (run.double() for run in runs)
        contrast = white - black
        full = contrast.abs().amax((1, 2), keepdim=True)
        useful = full[:, 0, 0] > 1e-6
        if not (useful.any() and torch.equal(x, x_again) and torch.equal(y, y_again)):
            return unknown
        inside = (contrast.abs() > 0.99 * full)[useful].all(0).numpy()
        shares = [((ramp - black) / contrast)[useful].mean(0).numpy() for ramp in (y, x)]
        rows = _interval(shares[0].T, inside.T, height)
        columns = _interval(shares[1], inside, width)
        return Geometry(size, unknown.input_size, (rows, columns)) if rows and columns else unknown


def _centre(size: int, window: int) -> int:
    """Where a window about the centre starts, rounded as torchvision's ``center_crop`` rounds."""
    return -((window - size) // 2) if window > size else round((size - window) / 2)


def _averaged(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return (sum(values) / len(values),) if channels == 1 else tuple(values)


def _ramp(length: int, rows: int) -> NDArray[np.uint8]:
    """(rows, length) of 8 bits, rising from 0 to 255; rows are rounded in turn so that their mean is
    exact."""
    exact = 255 * (np.arange(length) + 0.5) / length
    phase = np.arange(55) * 0.6180339887 % 1  # after 55 rows golden steps nearly close: the pattern repeats
    return np.floor(exact + phase[:, None]).clip(0, 255).astype(np.uint8)[np.arange(rows) % 55]


def _interval(share: NDArray[Any], inside: NDArray[Any], length: int) -> tuple[float, float] | None:
    """[start, stop) of the source that the last axis of ``share`` (h, w) covers, None if no line fits it.

    ``share`` is the source coordinate over ``length`` that each pixel shows, where ``inside`` (no padding).
    """
    at = np.arange(share.shape[1]) + 0.5
    count = inside.sum(0)
    profile = np.where(inside, share, 0).sum(0) / np.maximum(count, 1)
    chosen = np.flatnonzero(count)
    third = len(chosen) // 3
    chosen = chosen[third : len(chosen) - third]  # the middle: mirrored or repeated borders bend the rest
    line, slope = profile, 0.0
    for _ in range(2):
        if len(chosen) < 3:
            return None
        slope, offset = np.polyfit(at[chosen], profile[chosen], 1)
        if slope <= 1e-9:
            return None
        line = offset + slope * at
        # Near the picture's own border kernels are cut short, and beyond it there is only padding.
        border = 1.5 * slope + 0.5 / length
        chosen = np.flatnonzero((line > border) & (line < 1 - border) & (count > 0))
    if not len(chosen):
        return None
    error = np.where(inside, share - line, 0)[:, chosen]
    rows = np.flatnonzero(inside[:, chosen].any(1))
    across = error[rows].sum(1) / inside[rows][:, chosen].sum(1)
    tilt = np.polyfit(rows, across, 1)[0] * len(rows) / 2 if len(rows) > 2 else 0.0  # of a rotation, a shear
    worst = max(np.abs(error).max() - 3 / 255, np.abs(profile - line)[chosen].max() - 0.5 / 255, abs(tilt))
    if worst > 0.5 * slope + 0.5 / length:  # half a pixel of the input, and of the source for "nearest"
        return None
    near = 0.25 * slope * length
    start, stop = (float(length * (offset + slope * t)) for t in (0.0, float(len(at))))
    return (0.0 if abs(start) < near else start), (float(length) if abs(stop - length) < near else stop)


@contextmanager
def _random_state_kept() -> Iterator[Callable[[], bool]]:
    """Put the global random states back at the end; the value given tells whether anything was drawn
    since."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()

    def drawn() -> bool:
        now: Any = np.random.get_state(legacy=False)
        same = all(np.array_equal(now["state"][key], was) for key, was in numpy["state"].items())
        return not (same and random.getstate() == python and torch.equal(torch.get_rng_state(), pytorch))

    try:
        yield drawn
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)
