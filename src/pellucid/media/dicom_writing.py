"""Maps as DICOM objects that viewers open: Parametric Map, Segmentation, Secondary Capture. Extra `medical`.

Without `keep` the objects name nobody: patient and study are empty, and every identifier that they must hold (of the
study, the frame of reference, the pictures that they refer to) is a number made of the true one, the same each time.
With it they carry the source's, so that a viewer lays them over the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pellucid._version import __version__
from pellucid.errors import MediaError
from pellucid.media.dicom import quiet
from pellucid.media.orientation import codes, from_lps, spacing, turn_to, turned, turned_affine
from pellucid.media.series import SeriesSlice
from pellucid.media.volume import Volume

BANNER = "AI explanation, not for diagnosis"
_MAKER = "Pellucid"
_COPIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("StudyID", "ReferringPhysicianName"),
)
_MOMENTS = ("Content", "InstanceCreation", "Series")
_REFERENCES = (
    *("ReferencedSeriesSequence", "SourceImageSequence", "DerivationImageSequence"),
    "CurrentRequestedProcedureEvidenceSequence",
)
_PICTURE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture: of a stand-in for what is no file of one slice
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True)
class Wording:
    """What an object says of itself.

    Attributes:
        method, target, model: of the explanation.
        key: what the run is known by: the same key and values give the same object.
        keep: whether the identifiers of patient and study are kept.
    """

    method: str
    target: str
    model: str
    key: str
    keep: bool = False

    def uid(self, *parts: str) -> str:
        """A number made of the run and of what it is for."""
        return made_uid(self.key, *parts)


def made_uid(*parts: str) -> str:
    """A UID that is always the same for the same texts, and tells nothing of them."""
    return f"2.25.{int(sha256('/'.join(('pellucid', *parts)).encode()).hexdigest()[:30], 16)}"


def parametric_map(values: NDArray[Any], volume: Volume, wording: Wording) -> bytes:
    """A Parametric Map of values `(I, J, K)`, each number as it is (single precision; NaN where nothing was seen).

    Raises:
        MediaError: the source does not say where it lies.
    """
    hd = _highdicom()
    frames, sources, places = _laid_out(values, volume, wording)
    if places is None:
        raise MediaError(
            "A Parametric Map lies in the patient, and this picture does not say where it does (a projection): write a "
            "segmentation, or take the values of heatmap()."
        )
    finite = frames[np.isfinite(frames)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="1",
        lut_explanation=f"{wording.method}, {wording.target}"[:64],
        unit=hd.sr.CodedConcept("1", "UCUM", "no units"),
        value_range=(low, max(high, np.nextafter(low, np.inf))),
        slope=1.0,
        intercept=0.0,
    )
    with _dated():
        made = hd.pm.ParametricMap(
            source_images=sources,
            pixel_array=frames,
            real_world_value_mappings=[mapping],
            plane_positions=places,
            contains_recognizable_visual_features=False,
            window_center=(low + high) / 2,
            window_width=max(high - low, 1e-6),
            content_label="AI_EXPLANATION",
            content_description=BANNER,
            **_common(wording, "pm"),
        )
    return _finished(made, volume, wording, f"{wording.method} for {wording.target}")


def segmentation(
    values: NDArray[Any], volume: Volume, wording: Wording, kind: Literal["fractional", "labelmap"] = "fractional"
) -> bytes:
    """A Segmentation: the share of the strongest value (`fractional`, 255 steps), or where it is half of that."""
    hd = _highdicom()
    frames, sources, places = _laid_out(values, volume, wording)
    top = float(np.nanmax(frames, initial=0.0))
    share = np.nan_to_num(frames / top if top > 0 else np.zeros_like(frames)).clip(0, 1)
    codes_ = hd.sr.CodedConcept("111111", "99PELLUCID", "Evidence for an answer of a model")
    about = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=f"{wording.method}, {wording.target}"[:64],
        segmented_property_category=hd.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=codes_,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=_algorithm(hd, wording),
    )
    with _dated():
        made = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=share if kind == "fractional" else (share >= 0.5).astype(np.uint8),
            segmentation_type=kind.upper(),
            segment_descriptions=[about],
            plane_positions=places,
            omit_empty_frames=False,
            content_label="AI_EXPLANATION",
            content_description=BANNER,
            **_common(wording, kind),
        )
    return _finished(made, volume, wording, f"{wording.method} for {wording.target}, {kind}")


def secondary_capture(pixels: NDArray[np.uint8], volume: Volume, wording: Wording) -> bytes:
    """A figure `(H, W, 3)` as a Secondary Capture, with what it is burned in at the foot."""
    hd = _highdicom()
    _, sources, _ = _laid_out(np.zeros(volume.size, np.float32), volume, wording)
    with _dated():
        made = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=sources[0],
            pixel_array=_burned(pixels),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            series_instance_uid=wording.uid("sc", "series"),
            series_number=9003,
            sop_instance_uid=wording.uid("sc", "instance"),
            instance_number=1,
            manufacturer=_MAKER,
        )
    made.PatientOrientation = ""  # of several planes
    made.BurnedInAnnotation = "NO"  # nothing that names the patient
    made.DerivationDescription = f"{BANNER}: {wording.method} for {wording.target}, {wording.model}"[:1024]
    return _finished(made, volume, wording, f"{wording.method} for {wording.target}")


def structured_report(numbers: Mapping[str, float], volume: Volume, wording: Wording) -> bytes:
    """A structured report (TID 1500) with what was measured of a map.

    Raises:
        MediaError: nothing was measured.
    """
    if not numbers:
        raise MediaError("Nothing was measured of this map: call check() or reliability() before it is reported.")
    hd = _highdicom()
    _, sources, _ = _laid_out(np.zeros(volume.size, np.float32), volume, wording)
    sr, none = hd.sr, hd.sr.CodedConcept("1", "UCUM", "no units")
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=made_uid(_MAKER, __version__), name=_MAKER, model_name=wording.model[:64] or _MAKER
    )
    observer = sr.ObserverContext(sr.CodedConcept("121007", "DCM", "Device"), device)
    algorithm = sr.AlgorithmIdentification(name=f"{_MAKER} {wording.method}"[:64], version=__version__)
    measured = [
        sr.Measurement(
            name=sr.CodedConcept(f"1112{k:02d}", "99PELLUCID", f"{name} of the map"),
            value=float(np.float32(value)),
            unit=sr.CodedConcept("mm", "UCUM", "millimeter") if name == "distance" else none,
            algorithm_id=algorithm,
        )
        for k, (name, value) in enumerate(sorted(numbers.items()))
    ]
    tracking = sr.TrackingIdentifier(uid=wording.uid("sr", "tracking"), identifier=wording.target[:64] or "map")
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        finding_type=sr.CodedConcept("111111", "99PELLUCID", "Evidence for an answer of a model"),
        measurements=measured,
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[group],
    )
    with _dated():
        made = sr.Comprehensive3DSR(
            evidence=sources,
            content=report,
            series_instance_uid=wording.uid("sr", "series"),
            series_number=9004,
            sop_instance_uid=wording.uid("sr", "instance"),
            instance_number=1,
            manufacturer=_MAKER,
        )
    return _finished(made, volume, wording, f"{wording.method} for {wording.target}, figures")


def _burned(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    tall = max(24, height // 24)
    canvas = Image.new("RGB", (width, height + tall), "black")
    canvas.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((tall // 3, height + tall // 6), BANNER, fill=(255, 196, 60), font_size=int(tall * 0.6))
    return np.asarray(canvas)


def _laid_out(
    values: NDArray[Any], volume: Volume, wording: Wording
) -> tuple[NDArray[np.float32], list[Any], list[Any] | None]:
    """The map slice by slice, the data sets that it refers to, and where each slice lies (None: nowhere)."""
    hd = _highdicom()
    if tuple(values.shape) != volume.size:
        raise MediaError(f"A map of {tuple(values.shape)} is not on the volume's grid {volume.size}.")
    stack = volume.made_from if volume.origin.get("kind") == "dicom" else None
    if stack is None:
        turn = turn_to(volume.affine, "SPL")
        affine = turned_affine(volume.affine, volume.size, turn)
        frames = np.ascontiguousarray(turned(values, turn), np.float32)
        sources = [_stand_in(affine, k, frames.shape, volume, wording) for k in range(len(frames))]
    else:
        frames = np.ascontiguousarray(values, np.float32)
        sources = [_source(s, wording) for s in stack]
    if "ImagePositionPatient" not in sources[0]:
        return frames, sources, None
    positions = [hd.PlanePositionSequence("PATIENT", list(s.ImagePositionPatient)) for s in sources]
    return frames, sources, positions


def _source(one: SeriesSlice, wording: Wording) -> Any:
    """What a written object needs to know of a slice, and no more; a frame goes as a file of its own until the end."""
    from pydicom.dataset import Dataset

    found, true = Dataset(), one.file.dataset
    found.SOPClassUID, found.Modality = true.SOPClassUID, one.file.modality
    found.Rows, found.Columns = one.size
    found.SliceThickness = one.file.tag("SliceThickness", 1.0)
    _identified(found, true, wording)
    if one.placed:
        found.ImageOrientationPatient = one.file.tag("ImageOrientationPatient")
        found.ImagePositionPatient, found.PixelSpacing = _short(one.corner), one.file.tag("PixelSpacing")
    else:
        found.PixelSpacing = one.file.tag("PixelSpacing", one.file.tag("ImagerPixelSpacing", [1.0, 1.0]))
        del found.FrameOfReferenceUID
    if one.frame is not None:
        found.SOPClassUID, found.SOPInstanceUID = _PICTURE, _frame_uid(found.SOPInstanceUID, one.frame)
    return found


def _frame_uid(file: str, frame: int) -> str:
    return made_uid(file, "frame", str(frame))


def _stand_in(affine: NDArray[Any], k: int, size: Sequence[int], volume: Volume, wording: Wording) -> Any:
    """A slice of a volume that was no DICOM series, as if it had been one; nothing refers to it afterwards."""
    from pydicom.dataset import Dataset

    lps = from_lps(affine)
    apart, down, along = spacing(affine)
    cosines = lps[:3, :3] / [apart, down, along]
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-4):
        raise MediaError(f"This volume ({codes(affine)}) is sheared, which DICOM cannot hold: write NIfTI.")
    found = Dataset()
    found.SOPClassUID, found.Modality = _PICTURE, "OT"
    found.Rows, found.Columns = size[1], size[2]
    found.ImagePositionPatient = _short((lps @ [k, 0, 0, 1])[:3])
    found.ImageOrientationPatient = _short([*cosines[:, 2], *cosines[:, 1]])
    found.PixelSpacing, found.SliceThickness = _short([down, along]), _short([apart])[0]
    fake = Dataset()
    for name in _UIDS:
        own = (str(k),) if name == "SOPInstanceUID" else ()
        setattr(fake, name, made_uid(volume.sha256, name, *own))
    _identified(found, fake, wording)
    return found


def _short(numbers: Sequence[float] | NDArray[Any]) -> list[str]:
    """Decimal strings of sixteen letters at most, as DICOM writes numbers."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(n)) for n in numbers]


def _identified(found: Any, true: Any, wording: Wording) -> None:
    for name in _COPIED:
        setattr(found, name, true.get(name, "") if wording.keep else "")
    for name in _UIDS:
        value = str(true.get(name, "") or made_uid(name))
        setattr(found, name, value if wording.keep else made_uid(value))
    found.PositionReferenceIndicator = ""


def _common(wording: Wording, kind: str) -> dict[str, Any]:
    return {
        "series_instance_uid": wording.uid(kind, "series"),
        "series_number": {"pm": 9000, "fractional": 9001, "labelmap": 9002}[kind],
        "sop_instance_uid": wording.uid(kind, "instance"),
        "instance_number": 1,
        "manufacturer": _MAKER,
        "manufacturer_model_name": _MAKER,
        "software_versions": __version__,
        "device_serial_number": "0",
    }


def _algorithm(hd: Any, wording: Wording) -> Any:
    family = hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")
    return hd.AlgorithmIdentificationSequence(
        name=f"{_MAKER} {wording.method}"[:64], family=family, version=__version__, parameters={"model": wording.model}
    )


def _finished(made: Any, volume: Volume, wording: Wording, description: str) -> bytes:
    """The object as bytes: without dates of this moment, and without references where there is nothing to refer to."""
    made.SeriesDescription = f"AI explanation: {description}"[:64]
    date, time = str(made.get("StudyDate") or "19000101"), str(made.get("StudyTime") or "000000")
    dimensions = wording.uid(str(made.SOPInstanceUID), "dimensions")
    fixed = {f"{what}Date": date for what in _MOMENTS} | {f"{what}Time": time for what in _MOMENTS}
    _settled(
        made,
        fixed
        | {"ContributionDateTime": date + time, "DimensionOrganizationUID": dimensions}
        | {"DateOfSecondaryCapture": date, "TimeOfSecondaryCapture": time},
    )
    if volume.origin.get("kind") != "dicom":
        _unreferred(made)
    elif frames := _frames_of(volume, wording):
        _of_one_file(made, frames)
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _settled(dataset: Any, fixed: dict[str, str]) -> None:
    """Write fixed values over those that the library takes from the clock or draws at random."""
    for element in dataset:
        if element.keyword in fixed:
            element.value = fixed[element.keyword]
        elif element.VR == "SQ":
            for item in element.value:
                _settled(item, fixed)


def _frames_of(volume: Volume, wording: Wording) -> dict[str, tuple[str, str, int]]:
    """By the stand-in's number of each frame of an enhanced file: kind and number of the file, the frame from 1."""
    found = {}
    for one in (s for s in volume.made_from if s.frame is not None):
        true = one.file.dataset
        uid = str(true.get("SOPInstanceUID", "") or made_uid("SOPInstanceUID"))
        file = uid if wording.keep else made_uid(uid)
        found[_frame_uid(file, one.frame)] = (str(true.SOPClassUID), file, one.frame + 1)
    return found


def _of_one_file(dataset: Any, frames: Mapping[str, tuple[str, str, int]]) -> None:
    """References to the stand-ins of frames made those to their file: once to the file, or to a frame by its number."""
    for element in (e for e in dataset if e.VR == "SQ"):
        met, kept = set(), []
        for item in element.value:
            _of_one_file(item, frames)
            if (there := frames.get(str(item.get("ReferencedSOPInstanceUID", "")))) is not None:
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, number = there
                if element.keyword == "SourceImageSequence":
                    item.ReferencedFrameNumber = number
                elif there[1] in met:
                    continue
                met.add(there[1])
            kept.append(item)
        if len(kept) < len(element.value):
            element.value = kept


def _unreferred(dataset: Any) -> None:
    for name in _REFERENCES:
        if name in dataset:
            delattr(dataset, name)
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _unreferred(item)


@contextmanager
def _dated() -> Iterator[None]:
    """Nothing of the library is let out, and what it will not write is said in a sentence without its values."""
    try:
        with quiet():
            yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise MediaError(
            f"The source's headers do not let a DICOM object be written ({type(error).__name__}; its slices may be of "
            "several studies or frames of reference): use the other files."
        ) from None


def _highdicom() -> Any:
    try:
        import highdicom
        import highdicom.pm
        import highdicom.sc
        import highdicom.seg
        import highdicom.sr
    except ImportError:
        raise MediaError('Writing DICOM needs highdicom: pip install "pellucid[medical]".') from None
    return highdicom
