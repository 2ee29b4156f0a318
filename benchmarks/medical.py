"""Volumes: a sliding network beside its bare passes, windows that are not run again, a series beside MONAI."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pellucid as pl
from benchmarks.memory import _peak, _reset_peak
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.timing import Spread, paired, timed
from pellucid.errors import MediaError
from pellucid.heatmaps import get_method
from pellucid.media import read_volume
from pellucid.models.window_memory import remembering


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        repeats: rounds. nets: how many of deepbet's two. window: of the sliding network. spacing: millimetres of its
            input. slices, side: of the series.
    """

    repeats: int
    nets: int
    window: int
    spacing: float
    slices: int
    side: int


FULL, QUICK = Size(4, 2, 128, 1.0, 300, 512), Size(1, 2, 128, 1.0, 300, 512)
TITLE = "Medical volumes"
_NETS = {"bbox_model.pt": "box network", "model.pt": "mask network"}
_METHODS = ["grad-cam", "saliency"]


class _Scaled(nn.Module):
    """deepbet's own scaling of a window, then its network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """`(n, 2, *window)`: background and brain."""
        axes = (2, 3, 4)
        deviation = x.std(axes, keepdim=True).clamp(min=1e-6)
        answer: Tensor = self.network(0.226 * (x - x.mean(axes, keepdim=True)) / deviation + 0.449)
        return answer


def _deepbet() -> Path | None:
    """The folder of the networks that deepbet brings."""
    try:
        folder = Path(str(distribution("deepbet").locate_file("data/models")))
    except PackageNotFoundError:
        return None
    return folder if folder.is_dir() else None


def _model(file: Path, window: int, spacing: float) -> pl.VisionModel:
    network = pl.Unscripted(torch.jit.load(file).eval())
    slid = pl.SlidingWindow(_Scaled(network), (window,) * 3, overlap=0.25)
    transform = pl.VolumePreprocess(spacing=spacing, intensity="percentile")
    return pl.wrap(slid, transform=transform, labels=["background", "brain"], name=f"deepbet {file.stem}")


def _missing() -> str:
    """Why nothing can be measured; empty where all is there."""
    if _deepbet() is None:
        return "no deepbet (pip install deepbet)"
    try:
        read_volume("volume:mni-t1")
    except MediaError as error:
        return str(error)
    return ""


def _run(call: Callable[[], object]) -> tuple[float, float, int]:
    """Seconds on the wall and of the processor, and bytes of the whole process at its peak, while something runs."""
    gc.collect()
    _reset_peak()
    wall, cpu = timed(call)
    return wall, cpu, _peak()


def sliding(size: Size, _device: str) -> Iterator[Section]:
    """Two maps of a segmentation with all that is written, beside the network's bare passes."""
    about = (
        f"deepbet on nilearn's MNI T1 at {size.spacing:g} mm, windows of {size.window}³ that overlap by "
        f"a quarter; `{'`, `'.join(_METHODS)}` for `region:brain`, figures, slices, NIfTI, values and records written. "
        "*Bare* is the plain inference by windows, then once more forward and backward, window by window. Memory is of "
        "the whole process."
    )
    section = Section("A segmentation by sliding windows", about, skipped=_missing())
    if not section.skipped:
        for file, name in list(_NETS.items())[: size.nets]:
            section.rows += _beside_bare(_model(_deepbet() / file, size.window, size.spacing), name, size)
    yield section


def _beside_bare(model: pl.VisionModel, name: str, size: Size) -> list[Row]:
    volume = read_volume("volume:mni-t1")
    x = model.volumes(volume)[0][None]
    net: Any = model.module

    def bare() -> None:
        with torch.no_grad():
            net(x)
        leaf = x.clone().requires_grad_()
        net(leaf)[:, 1].sum().backward()

    with tempfile.TemporaryDirectory() as folder:

        def ours() -> None:
            pl.explain(model, volume, _METHODS, target="region:brain").save(folder)

        ours()
        rounds = []
        for k in range(size.repeats):
            mine, theirs = (_run(c) for c in (ours, bare)) if k % 2 == 0 else [_run(c) for c in (bare, ours)][::-1]
            rounds.append((*(a / b for a, b in zip(mine, theirs, strict=True)), theirs[1]))
    wall, cpu, memory, alone = (Spread.of(column) for column in zip(*rounds, strict=True))
    return [
        Row(f"{name}: maps and files : bare passes", wall, limit=at_most(1.3), cpu=cpu),
        Row(f"{name}: peak memory : that of bare passes", memory, limit=at_most(1.5)),
        Row(f"{name}: bare passes", alone, " s", note="processor"),
    ]


def windows(size: Size, _device: str) -> Iterator[Section]:
    """Shapley values of supervoxels, by a network of which only changed windows are run."""
    about = (
        "Shapley values of supervoxels (a grid, four orders) of deepbet's box network on the MNI T1 at 3 mm, windows "
        "of 32³ that overlap by a quarter, `region:brain`. Windows that a coalition leaves as they are are not run."
    )
    section = Section("Windows that are not run again", about, skipped=_missing())
    if not section.skipped:
        model = _model(_deepbet() / "bbox_model.pt", 32, 3.0)
        method = get_method("shapley", segments="grid", samples=4)
        with remembering() as memory:
            pl.explain(model, "volume:mni-t1", method, target="region:brain")
        saved = 100 * (1 - memory.run / memory.asked)
        section.rows = [
            single("windows not run", saved, " %", at_least(50), note=f"{memory.run:,} of {memory.asked:,} were run")
        ]
    yield section


def series(size: Size, _device: str) -> Iterator[Section]:
    """A series read, sorted and resampled, beside MONAI."""
    about = (
        f"{size.slices} CT slices of {size.side} x {size.side}, 1.25 mm apart, whose files' names say nothing of their "
        "places: read, sorted, turned to RAS and resampled to 1.5 mm. MONAI: `LoadImage`, `EnsureChannelFirst`, "
        "`Orientation`, `Spacing`, as documented."
    )
    section = Section("A series read and resampled", about)
    try:
        from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Spacing
    except ImportError:
        section.skipped = "no MONAI"
        yield section
        return
    chain = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Orientation(axcodes="RAS"),
            Spacing(pixdim=(1.5, 1.5, 1.5)),
        ]
    )
    transform = pl.VolumePreprocess(orientation="RAS", spacing=1.5)
    with tempfile.TemporaryDirectory() as name:
        _write_series(Path(name), size.slices, size.side)
        ours, theirs = transform(read_volume(name))[0], chain(name)
        grid = f"{tuple(ours.shape[1:])} and {tuple(theirs.shape[1:])} voxels"
        calls = {"Pellucid": lambda: transform(read_volume(name)), "MONAI": lambda: chain(name)}
        found = paired(calls, size.repeats)
    ratio, cpu = found.ratio("Pellucid", "MONAI"), found.ratio("Pellucid", "MONAI", "cpu")
    section.rows = [
        Row("Pellucid : MONAI", ratio, limit=at_most(1.0), cpu=cpu, note=grid),
        Row("Pellucid", found.seconds("Pellucid", "cpu"), " s", note="processor"),
    ]
    yield section


def _write_series(folder: Path, slices: int, side: int) -> None:
    """A CT series of noise about a disc that grows."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    draw = np.random.default_rng(0)
    study, series_uid, frame = (generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame"))
    down, along = np.mgrid[:side, :side] - side / 2
    for file, k in enumerate(draw.permutation(slices).tolist()):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"slice {k}"])
        one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series_uid, frame
        one.Modality, one.InstanceNumber, one.SeriesNumber = "CT", k + 1, 1
        one.ImagePositionPatient, one.ImageOrientationPatient = [-180.0, -180.0, 1.25 * k], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness = [0.7, 0.7], 1.25
        one.Rows = one.Columns = side
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 1
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
        disc = np.hypot(down, along) < side * (0.2 + 0.25 * k / slices)
        one.PixelData = (1000 * disc + draw.integers(0, 60, (side, side))).astype(np.int16).tobytes()
        one.save_as(folder / f"{file:04}.dcm", enforce_file_format=True)


SECTIONS = {"sliding": sliding, "windows": windows, "series": series}
