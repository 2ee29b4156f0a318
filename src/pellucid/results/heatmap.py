"""The results users hold: an explanation with its verbs `check`, `show` and `save`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid import storage
from pellucid.errors import MediaError
from pellucid.evaluation.check import Explained, Session, by_picture, check
from pellucid.evaluation.reliability import READERS, ReliabilityCard
from pellucid.evaluation.reliability import reliability as measure_reliability
from pellucid.explanation import REDACTED, Explanation, Quality
from pellucid.keep.once import computing_once, once
from pellucid.media import Medium, Volume
from pellucid.media.redaction import check_hideable, redacted
from pellucid.results.base import Result
from pellucid.results.shown import file_names, names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card

__all__ = ["Heatmap", "Heatmaps", "Session", "VideoHeatmap", "VolumeHeatmap", "check", "kind_of"]


@dataclass(repr=False)
class Heatmap(Explained):
    """An explanation of one picture by one method for one target.

    `attribution` holds the raw signed values; `heatmap()` maps them to the original picture; `check()` measures how
    far they can be trusted; `show()` and `save()` draw and store them.
    """

    card: ReliabilityCard | None = field(default=None, repr=False)

    def check(self) -> Quality:
        """Measure insertion, deletion, dependence on the weights and the completeness gap; kept as `quality`.

        Costs about 190 forward passes, most of them once for a picture and target, and two further explanations; three
        passes, one once for a target, and an explanation more where nothing has spoken against the map so far; some 400
        where the answer is close.

        Raises:
            ModelError: the model's weights are no longer those that were explained.
            StorageError: read from disk, so the model is not at hand.
        """
        check([self])
        assert self.quality is not None
        return self.quality

    def reliability(self, mask: NDArray[np.bool_] | None = None) -> ReliabilityCard:
        """Whether the map stays where it is under noise and a small rotation, and lies on a mask; kept in `remarks`.

        Costs two further explanations. `mask` is true where a finding lies, on the original's grid.

        Raises:
            StorageError: read from disk, so the model is not at hand.
            MediaError: the mask is of another size or empty.
        """
        card = self.card = measure_reliability(self, mask)
        told = ("Repeated: ", "Beside the mask: ", READERS)
        self.remarks = [*(r for r in self.remarks if not r.startswith(told)), *card.lines()]
        return card

    @property
    def hidden(self) -> Tensor | None:
        """Boxes `(K, 4)` of the original that nobody is shown; None where nothing was redacted."""
        boxes = self.extras.get(REDACTED)
        return None if boxes is None else boxes[0]

    def redact(self, boxes: Sequence[Sequence[float]]) -> Heatmap:
        """Hide boxes of the original in all that is shown and written (see `Heatmaps.redact`)."""
        Heatmaps([self]).redact(boxes)
        return self

    def dicom(
        self,
        kind: str = "parametric-map",
        *,
        keep_identifiers: bool = False,
        like: str | Path | Volume | None = None,
    ) -> bytes:
        """The map of a volume, or of a DICOM picture, as a DICOM object.

        Args:
            kind: `parametric-map` (each value as it is), `segmentation` (the share of the strongest value), `labelmap`
                (where it is at least half of that), `capture` (the figure), or `report` (the figures measured by
                `check`, `reliability`: a structured report, TID 1500).
            keep_identifiers: patient, study and references of the source, so that a viewer lays the map over it. Else
                names are empty and identifiers are replaced, the same each time.
            like: the DICOM series that a NIfTI volume was made of: the object refers to it and lies on its grid.

        Raises:
            MediaError: highdicom is missing, the volume is sheared, the series is on another grid, the picture was no
                DICOM, or there is no such kind.
        """
        from pellucid.media import read_volume
        from pellucid.results.viewers import dicom_object

        series = None if like is None else read_volume(like)
        return dicom_object(self, kind, keep_identifiers=keep_identifiers, like=series)

    def measured(self) -> dict[str, float]:
        """The figures of `check` and `reliability`, those that were measured, by name."""
        from pellucid.results.viewers import measured

        return measured(self)

    def viewed(self, study: str = "auto", *, keep_identifiers: bool = False) -> dict[str, bytes]:
        """What viewers open, by the endings of files: DICOM objects of what came as DICOM (see `Heatmaps.save`)."""
        from pellucid.results.viewers import dicom_objects

        try:
            return dicom_objects(self, study, keep_identifiers=keep_identifiers)
        except MediaError as error:  # the rest is written nevertheless
            self.notes.append(str(error))
            return {}

    def figure(self) -> Figure:
        """The picture beside its overlay, as a matplotlib figure."""
        return Heatmaps([self]).figure()

    def show(self) -> None:
        """Show the figure: in the notebook, or in the system's picture viewer."""
        Heatmaps([self]).show()

    def save(self, folder: str | Path, *, dicom: str = "auto", keep_identifiers: bool = False) -> list[Path]:
        """Write the values (.npz), the record (.json) and the figure (.png) into `folder`; returns the files.

        Of what came as DICOM and of volumes, what viewers open too (see `Heatmaps.save`).
        """
        return Heatmaps([self]).save(folder, dicom=dicom, keep_identifiers=keep_identifiers)

    def on_page(self, file: str = "") -> Card:
        """The explanation as a part of a page."""
        return Heatmaps([self]).on_page(file)

    def html(self) -> str:
        """One page that needs nothing else (see `Heatmaps.html`)."""
        return Heatmaps([self]).html()

    def _repr_html_(self) -> str:
        return Heatmaps([self])._repr_html_()


@dataclass(repr=False)
class VideoHeatmap(Heatmap):
    """An explanation of one clip: `tube()` is the map over time and space, `spatial()` and `temporal()` its two sides.

    The time grid stays the model's own; it is interpolated only where it is drawn.
    """

    @property
    def times(self) -> tuple[float, ...]:
        """When the frames that the model was shown are shown, in seconds (frame numbers for a clip without times)."""
        return self.geometry.ticks

    def video(self, kind: str = "webm") -> bytes:
        """The clip with the map laid over it, as a WebM (VP9) or MP4 (H.264) video: to be looked at, not computed with.

        Raises:
            MediaError: PyAV is missing, or has no such encoder.
        """
        from pellucid.render import overlay_video

        return overlay_video(self, kind)

    def check(self) -> Quality:
        """Measure insertion and deletion over space and time and over whole frames, and dependence on the weights.

        Costs about 210 forward passes, 150 of them once for a clip and target, and two further explanations; up to
        520 more where the answer is close.

        Raises:
            ModelError: the model's weights are no longer those that were explained.
            StorageError: read from disk, so the model is not at hand.
        """
        return super().check()


@dataclass(repr=False)
class VolumeHeatmap(Heatmap):
    """An explanation of one volume: `heatmap()` is `(1, I, J, K)`, its own grid, NaN where the model never looked."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """From an index of `heatmap()[0]` to millimetres to the patient's Right, Anterior and Superior, `(4, 4)`."""
        return np.vstack([np.asarray(self.geometry.affine, np.float64), [0.0, 0.0, 0.0, 1.0]])

    def heatmap(self) -> Tensor:
        """The map on the volume's own grid, float32 `(1, I, J, K)`, NaN where the model never looked."""
        return once("heatmap", self, super().heatmap)

    @property
    def peak(self) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
        """The voxel where the map is strongest, and where that is in millimetres."""
        from pellucid.render.planes import peak_of

        return peak_of(self)

    @property
    def volume(self) -> Volume:
        """The volume explained; where it is not at hand an empty one on its grid."""
        if isinstance(self.picture, Volume):
            return self.picture
        about = self.record.input
        blank = np.zeros(self.geometry.source_size, np.float32)
        return Volume(blank, self.affine, self.name, "", about["sha256"])

    def nifti(self) -> bytes:
        """The map on the volume's own grid as NIfTI (`.nii.gz`), single precision, NaN where nothing was seen.

        Raises:
            MediaError: nibabel is missing.
        """
        from pellucid.media.nifti_writing import nifti_bytes

        return nifti_bytes(self.heatmap()[0].numpy(), self.volume)

    def viewed(self, study: str = "auto", *, keep_identifiers: bool = False) -> dict[str, bytes]:
        """What viewers open, by the endings of files: a sheet of slices, NIfTI, DICOM objects."""
        from pellucid.render.save import figure_png

        files = {".slices.png": figure_png(self.slices()), ".nii.gz": self.nifti()}
        return files | super().viewed(study, keep_identifiers=keep_identifiers)

    def slices(self) -> Figure:
        """Slices from the lowest to the highest that the model saw, each under the map."""
        from pellucid.render.planes import slice_sheet

        return slice_sheet(self)


_KINDS: dict[str, type[Heatmap]] = {"picture": Heatmap, "clip": VideoHeatmap, "volume": VolumeHeatmap}


def kind_of(medium: Medium) -> type[Heatmap]:
    """What an explanation of one of this medium is."""
    return _KINDS[medium.name]


def hide(e: Explanation, boxes: Tensor) -> None:
    """Make boxes `(K, 4)` of an explanation's picture unrecognisable, and note them for whoever opens it again."""
    check_hideable(e.name, e.geometry)
    if e.picture is not None and not isinstance(e.picture, Volume):
        e.picture = redacted(e.picture, boxes.tolist())
    e.others = ()  # the boxes are of the explained picture: what is to be hidden in others is not known
    e.extras[REDACTED] = boxes[None]


class Heatmaps(list[Heatmap], Result):
    """Several explanations; those of one picture make one panel."""

    def by_picture(self) -> list[Heatmaps]:
        """Grouped by picture, in order."""
        return [Heatmaps(group) for group in by_picture(self)]

    def check(self) -> list[Quality]:
        """`Heatmap.check` for all, sharing what can be shared."""
        check(self)
        for e in self:
            of_a_patient = isinstance(e, VolumeHeatmap) or getattr(e.picture, "medical", False)
            if of_a_patient and e.kind == "map":  # the card stands beside every medical map
                truth = e.extras.get("truth")
                e.reliability(truth[0].numpy() if truth is not None and truth.any() else None)
        return [e.quality for e in self if e.quality is not None]

    def redact(self, boxes: Sequence[Sequence[float]]) -> Heatmaps:
        """Hide boxes `(x0, y0, x1, y1)` of the original in all that is shown and written; the values stay as they are.

        What is read back from disk is hidden too. All explanations must be of one picture or clip.

        Raises:
            MediaError: a box is none, it is a volume, or the model's transform has no known way back to the picture.
        """
        for e in self:
            hide(e, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        return self

    @property
    def caption(self) -> str:
        """The picture, the methods, the targets."""
        from pellucid.render.figure import caption

        return caption(self)

    def figure(self) -> Figure:
        """One panel of all explanations, which must be of one picture."""
        from pellucid.render import panel

        return panel(self)

    def show(self) -> None:
        """Show each picture's panel: in the notebook, or in the system's picture viewer."""
        for group in self.by_picture():
            Result.show(group)

    def save(self, folder: str | Path, *, dicom: str = "auto", keep_identifiers: bool = False) -> list[Path]:
        """Write each explanation's values and record, and each picture's panel, into `folder`; returns the files.

        Of volumes NIfTI and a sheet of slices too, and DICOM objects of volumes and pictures.

        Args:
            folder: made where it is missing.
            dicom: `auto`: of what came as DICOM; `own`: of any volume, in a study of its own; `none`; or the DICOM
                series that a NIfTI volume was made of, which the objects then lie over.
            keep_identifiers: see `Heatmap.dicom`.
        """
        taken = names_of_inputs(folder, [e.record.input["source"] for e in self])
        panels = (
            group.save_panel(Path(folder), taken, dicom=dicom, keep_identifiers=keep_identifiers)
            for group in self.by_picture()
        )
        return [file for files in panels for file in files]

    def save_panel(
        self,
        folder: Path,
        taken: set[str],
        *,
        dicom: str = "auto",
        keep_identifiers: bool = False,
        stem: str | None = None,
    ) -> list[Path]:
        """`save` for the explanations of one picture, under a name that is not in `taken`; the panel comes last.

        `stem` is that name, where it is known.
        """
        stem = unused(slug(self[0].name), taken) if stem is None else stem
        files: list[Path] = []
        with computing_once():
            for e, name in zip(self, file_names(self), strict=True):
                files += storage.save(e, folder / f"{stem}.{name}")
                if isinstance(e, VideoHeatmap) and e.kind == "map" and e.picture is not None:
                    files.append(storage.write_bytes(folder / f"{stem}.{name}.webm", e.video()))
                for ending, data in (
                    e.viewed(dicom, keep_identifiers=keep_identifiers) if e.kind == "map" else {}
                ).items():
                    files.append(storage.write_bytes(folder / f"{stem}.{name}{ending}", data))
            return [*files, storage.write_bytes(folder / f"{stem}.png", self.png())]

    def on_page(self, file: str = "") -> Card:
        """All explanations, which must be of one picture, as a part of a page: they share one viewer."""
        from pellucid.render.pages.heatmaps import heatmap_card

        return heatmap_card(self, [file] * len(self))

    def html(self) -> str:
        """One page that needs nothing else: a viewer for each picture, how far each map may be believed, its record."""
        from pellucid.render.pages.report import report_page

        cards = [group.on_page() for group in self.by_picture()]
        return report_page(cards[0].title if len(cards) == 1 else f"{len(cards)} pictures", cards)

    def _repr_html_(self) -> str:
        return "\n".join(Result._repr_html_(group) for group in self.by_picture())
