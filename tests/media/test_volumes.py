"""Volumes: every orientation there and back, a planted voxel in millimetres, NIfTI and DICOM series as they are."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers import dicom as made
from pellucid.errors import MediaError, ModelError
from pellucid.media import CLIP, PICTURE, VOLUME, Geometry, Volume, medium_of, read_volume
from pellucid.media.orientation import codes, from_lps, said, spacing, to_mm, turn_to
from pellucid.media.volumes import volumes_in
from pellucid.models.volume_preprocess import input_affine

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PAIRS = ("RL", "AP", "SI")
ALL = [
    "".join(p[k][s] for k, s in enumerate(sides)) for p in permutations(PAIRS) for sides in product((0, 1), repeat=3)
]


def oblique(orientation, steps=(0.7, 1.3, 4.0), angle=0.2):
    """An affine near an orientation, turned a little about a skew axis, with uneven steps and an odd origin."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    columns = np.zeros((3, 3))
    for k, letter in enumerate(orientation):
        row = next(i for i, pair in enumerate(PAIRS) if letter in pair)
        columns[row, k] = 1 if letter in "RAS" else -1
    affine = np.eye(4)
    affine[:3, :3] = turn @ columns * steps
    affine[:3, 3] = (-31.5, 12.25, 7.125)
    return affine


def test_there_are_48_orientations_and_their_letters_are_nibabels():
    assert len(set(ALL)) == 48
    for letters in ALL:
        affine = oblique(letters)
        assert codes(affine) == letters == "".join(nibabel.aff2axcodes(affine))


@pytest.mark.parametrize("letters", ALL)
def test_a_planted_voxel_keeps_its_place_through_every_step_and_back(letters):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 12, 7)).astype(np.float32)
    planted = (6, 3, 4)
    values[planted] = 100
    volume = Volume(values, oblique(letters), "v", "", "")
    mm = to_mm(volume.affine, planted)
    preprocess = pl.VolumePreprocess(orientation="RAS", size=(14, 10, 16))
    x, geometry = preprocess(volume)
    at = np.unravel_index(int(x[0].argmax()), x.shape[1:])
    assert float(x.max()) == 100
    np.testing.assert_allclose(to_mm(input_affine(geometry), at), mm, atol=1e-6)
    np.testing.assert_allclose(geometry.source_point(at), planted, atol=1e-9)
    np.testing.assert_allclose(geometry.input_point(planted), at, atol=1e-9)
    back = geometry.to_source(x[0])
    seen = geometry.seen()
    assert torch.equal(back.isnan(), ~seen)
    np.testing.assert_allclose(back[seen].numpy(), values[seen.numpy()], atol=1e-5)
    again = Geometry.from_dict(geometry.as_dict())
    assert again == geometry


@pytest.mark.parametrize("letters", ["RAS", "LPS", "SPL", "AIR", "ILP"])
@pytest.mark.parametrize(("step", "close"), [(0.6, 1e-4), (1.1, 0.02)])  # where voxels shrink, a triangle averages them
def test_a_resampled_point_lies_where_it_lay(letters, step, close):
    """A linear function of millimetres is the same function after turning and resampling."""
    size = (20, 24, 18)
    affine = oblique(letters, angle=0.0)
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    mm = index @ affine[:3, :3].T + affine[:3, 3]
    volume = Volume((mm @ [0.3, -0.2, 0.5]).astype(np.float32), affine, "v", "", "")
    x, geometry = pl.VolumePreprocess(orientation="RAS", spacing=step)(volume)
    there = input_affine(geometry)
    grid = np.stack(np.meshgrid(*map(np.arange, x.shape[1:]), indexing="ij"), -1)
    expected = (grid @ there[:3, :3].T + there[:3, 3]) @ [0.3, -0.2, 0.5]
    inner = tuple(slice(5, n - 5) for n in x.shape[1:])
    np.testing.assert_allclose(x[0].numpy()[inner], expected[inner], atol=close)
    np.testing.assert_allclose(spacing(there), step, atol=1e-9)
    back = geometry.to_source(x[0]).numpy()
    inside = tuple(slice(n // 3, -(n // 3)) for n in size)
    np.testing.assert_allclose(back[inside], volume.values[inside], atol=0.05)


def test_intensities():
    values = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    volume = Volume(values, np.eye(4), "v", "", "")
    made_by = {
        how: pl.VolumePreprocess(intensity=how, window=(500, 200), percentiles=(10, 90))(volume)[0]
        for how in ("window", "z-score", "percentile", "range", "none")
    }
    np.testing.assert_allclose(made_by["window"][0].numpy(), ((values - 400) / 200).clip(0, 1), atol=1e-6)
    assert float(made_by["z-score"].mean()) == pytest.approx(0, abs=1e-5)
    assert float(made_by["z-score"].std(unbiased=False)) == pytest.approx(1, abs=1e-4)
    low, high = np.percentile(values, (10, 90))
    np.testing.assert_allclose(made_by["percentile"][0].numpy(), ((values - low) / (high - low)).clip(0, 1), atol=1e-6)
    assert made_by["range"].min() == 0
    assert made_by["range"].max() == 1
    np.testing.assert_array_equal(made_by["none"][0].numpy(), values)
    assert pl.VolumePreprocess(multiple=16)(volume)[0].shape == (1, 16, 16, 16)
    for wrong in (
        {"orientation": "RAX"},
        {"orientation": "RLS"},
        {"spacing": -1.0},
        {"size": (1, 2)},
        {"fit": "stretch"},
        {"intensity": "bright"},
    ):
        with pytest.raises((ModelError, MediaError)):
            pl.VolumePreprocess(**wrong)


# NIfTI


def nifti(path, values, sform=None, qform=None, units="mm", **header):
    image = nibabel.Nifti1Image(values, None)
    image.header["pixdim"][1:4] = 2.0
    image.set_sform(sform, code=header.pop("scode", 1) if sform is not None else 0)
    image.set_qform(qform, code=header.pop("qcode", 1) if qform is not None else 0)
    image.header.set_xyzt_units(units)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def rigid(shift):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = shift
    return affine


def test_the_sform_is_taken_whenever_its_code_is_above_zero(tmp_path):
    values = np.zeros((3, 4, 5), np.int16)
    s, q = rigid((1, 2, 3)), rigid((7, 8, 9))
    for code in (1, 2, 4, 5):
        found = read_volume(nifti(tmp_path / f"{code}.nii", values, s, q, scode=code))
        np.testing.assert_allclose(found.affine, s)
        assert found.origin["affine"] == f"sform, code {code}"
    only = read_volume(nifti(tmp_path / "q.nii.gz", values, None, q))
    np.testing.assert_allclose(only.affine, q, atol=1e-6)
    assert only.name == "q"


def test_micrometres_and_metres_are_made_millimetres(tmp_path):
    values = np.zeros((3, 4, 5), np.int16)
    for units, scale in (("micron", 1e-3), ("meter", 1e3), ("mm", 1)):
        found = read_volume(nifti(tmp_path / f"{units}.nii", values, rigid((1, 2, 3)), units=units))
        np.testing.assert_allclose(found.spacing, 2 * scale)


def test_a_slope_of_zero_scales_nothing(tmp_path):
    path = nifti(tmp_path / "a.nii", np.full((3, 4, 5), 7, np.int16), rigid((0, 0, 0)))
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([0, 100], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(data)
    assert (read_volume(path).values == 7).all()


def test_a_moment_is_chosen_and_a_trailing_axis_of_one_is_no_time(tmp_path):
    values = np.arange(3 * 4 * 5 * 2, dtype=np.float32).reshape(3, 4, 5, 2)
    path = nifti(tmp_path / "a.nii", values, rigid((0, 0, 0)))
    with pytest.raises(MediaError, match="2 moments: choose one"):
        read_volume(path)
    second = read_volume(f"time:1:{path}")
    np.testing.assert_array_equal(second.values, values[..., 1])
    np.testing.assert_array_equal(read_volume(second.source).values, values[..., 1])
    one = read_volume(nifti(tmp_path / "b.nii", values[..., :1], rigid((0, 0, 0))))
    np.testing.assert_array_equal(one.values, values[..., 0])


def test_bad_niftis_get_one_sentence(tmp_path):
    good = np.zeros((3, 4, 5), np.int16)
    rgb = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    zero = nifti(tmp_path / "zero.nii", good, rigid((0, 0, 0)))
    data = bytearray(zero.read_bytes())
    data[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    zero.write_bytes(data)
    short = tmp_path / "short.nii"
    short.write_bytes(nifti(tmp_path / "c.nii", np.zeros((9, 9, 9), np.float32), rigid((0, 0, 0))).read_bytes()[:700])
    huge = nifti(tmp_path / "huge.nii", good, rigid((0, 0, 0)))
    data = bytearray(huge.read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    huge.write_bytes(data)
    cases = {
        "does not say where its voxels lie": zero,
        "damaged or cut short": short,
        "claims 30000 x 30000 x 30000 voxels": huge,
        "3 x 4 x 5 x 2 x 2, not a volume of three axes": nifti(
            tmp_path / "five.nii", np.zeros((3, 4, 5, 2, 2), np.int16), rigid((0, 0, 0))
        ),
        "complex numbers": nifti(tmp_path / "complex.nii", np.zeros((3, 4, 5), np.complex64), rigid((0, 0, 0))),
        "colours": nifti(tmp_path / "rgb.nii", rgb, rigid((0, 0, 0))),
        "There is no file": tmp_path / "none.nii",
    }
    for sentence, path in cases.items():
        with pytest.raises(MediaError, match=sentence):
            read_volume(path)
    (tmp_path / "p.nii").write_bytes(b"\x80\x04\x95 a pickle in disguise")
    with pytest.raises(MediaError, match="neither NIfTI nor DICOM"):
        read_volume(tmp_path / "p.nii")


def test_values_that_are_no_numbers_were_not_seen(tmp_path):
    values = np.ones((3, 4, 5), np.float32)
    values[0] = np.nan
    found = read_volume(nifti(tmp_path / "a.nii", values, rigid((0, 0, 0))))
    assert not found.seen[0].any()
    assert found.seen[1:].all()
    assert np.isfinite(found.values).all()


def test_every_volume_of_nibabels_own_is_read_or_refused_in_a_sentence():
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    read, refused = 0, []
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            found = read_volume(path)
        except MediaError as error:
            refused.append(str(error))
        else:
            read += 1
            assert found.values.ndim == 3
    assert read >= 4
    assert not any("\n" in sentence for sentence in refused)


# DICOM series

AXIAL = [1, 0, 0, 0, 1, 0]


def series(folder, count=6, spacing=5.0, order=None, uid="1.2.3", **tags):
    """Slices whose value is their number from below; the files' names and numbers say nothing of where they lie."""
    rng = np.random.default_rng(1)
    order = rng.permutation(count) if order is None else order
    for file, k in enumerate(order):
        stored = np.full((8, 10), 1000 + k, np.int16)
        stored[2, 7] = 2000 + k
        made.write(
            folder / f"{file:03d}.dcm", stored, SeriesInstanceUID=uid, ImageOrientationPatient=tags.get("iop", AXIAL),
            ImagePositionPatient=[-20, -30, 40 + spacing * float(k)], PixelSpacing=[0.5, 0.75], RescaleSlope=1,
            RescaleIntercept=-1000.0 - 0.5 * k if tags.get("own") else -1024,
            StudyInstanceUID="1.2.7", FrameOfReferenceUID="1.2.8", InstanceNumber=int(rng.integers(1, 99)),
            **{n: v for n, v in tags.items() if n[0].isupper()},
        )  # fmt: skip
    return folder


def place(path, corner, iop=AXIAL, **tags):
    """One more slice of the series of `series`, or of another."""
    where = {"ImageOrientationPatient": iop, "ImagePositionPatient": corner, "PixelSpacing": [0.5, 0.75]}
    return made.write(path, np.zeros((8, 10), np.int16), **({"SeriesInstanceUID": "1.2.3"} | where | tags))


def test_slices_are_sorted_by_where_they_lie(tmp_path):
    found = read_volume(series(tmp_path / "s"))
    assert found.size == (6, 8, 10)
    np.testing.assert_array_equal(found.values[:, 0, 0], np.arange(6) - 24)
    assert found.unit == "HU"
    np.testing.assert_allclose(to_mm(found.affine, (0, 0, 0)), (20, 30, 40))  # L, P in DICOM are R, A below zero
    np.testing.assert_allclose(to_mm(found.affine, (3, 2, 7)), (20 - 7 * 0.75, 30 - 2 * 0.5, 55))
    assert found.codes == "SPL"
    assert found.name.startswith("ct-")


def test_a_slices_own_intercept_is_kept_as_a_fraction(tmp_path):
    found = read_volume(series(tmp_path / "s", own=True))
    np.testing.assert_allclose(found.values[:, 0, 0], np.arange(6) * 0.5)


def test_a_missing_slice_is_named_by_where_it_would_lie(tmp_path):
    folder = series(tmp_path / "s", order=[0, 1, 2, 4, 5])
    with pytest.raises(MediaError, match=r"1 slice is missing, the first at .*S 55\.0 mm"):
        read_volume(folder)


def test_stacks_that_are_not_even_are_refused(tmp_path):
    uneven = series(tmp_path / "a", order=[0, 1, 2, 3, 4.3, 5])
    with pytest.raises(MediaError, match="not evenly"):
        read_volume(uneven)
    tilted = tmp_path / "b"
    for k in range(4):
        place(tilted / f"{k}.dcm", [0, 2.0 * k, 5.0 * k])
    with pytest.raises(MediaError, match="gantry was tilted"):
        read_volume(tilted)
    single = series(tmp_path / "c", count=1)
    with pytest.raises(MediaError, match="single slice"):
        read_volume(single)
    for k in range(3):
        place(tmp_path / "d" / f"{k}.dcm", [0, 0, 5.0])
    with pytest.raises(MediaError, match="all its slices lie at one place"):
        read_volume(tmp_path / "d")


def test_copies_scouts_and_strays_are_left_out_and_said(tmp_path):
    folder = series(tmp_path / "s")
    place(folder / "copy.dcm", [-20, -30, 50])
    place(folder / "stray.dcm", [0, 0, 0], [0, 1, 0, 0, 0, -1])
    place(folder / "scout.dcm", [0, 0, 0], SeriesInstanceUID="1.2.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (folder / "notes.txt").write_text("not DICOM")
    found = read_volume(folder)
    assert found.size[0] == 6
    assert any("at the place of another" in n for n in found.notes)
    assert any("another size or orientation" in n for n in found.notes)


def test_of_moments_at_each_place_the_first_makes_the_volume_whatever_the_files_are_called(tmp_path):
    where = {
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.5, 0.75],
        "SeriesInstanceUID": "1.2.3",
        "RescaleIntercept": 0,
    }
    for moment, k in ((m, k) for m in range(3) for k in range(4)):
        values = np.full((8, 10), 100 * moment, np.int16)
        name = f"{(5 * moment + 7 * k) % 12:02}-{moment}{k}.dcm"
        made.write(
            tmp_path / "s" / name, values, ImagePositionPatient=[0, 0, 2.0 * k], InstanceNumber=4 * moment + k, **where
        )
    found = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(found.values, np.zeros((4, 8, 10)))
    assert "8 of 12 slices lie at the place of another, and are left out." in found.notes


def test_two_patients_in_one_folder_are_two_volumes(tmp_path):
    folder = series(tmp_path / "s")
    for path in sorted(series(tmp_path / "t", count=4, uid="1.2.4", PatientID="OTHER").iterdir()):
        path.rename(folder / f"other-{path.name}")
    with pytest.raises(MediaError, match=r"2 series \(of 6, 4 files\): choose one"):
        read_volume(folder)
    both = volumes_in(str(folder))
    found = [read_volume(v) for v in both]
    assert [volume.size[0] for volume in found] == [6, 4]
    told = "Its folder holds 2 series of 2 patients, each a volume of its own."
    assert all(told in volume.notes for volume in found)
    assert not any(s in " ".join(both).lower() for s in made.SECRETS)


def test_frames_of_one_file_are_rescaled_each_by_its_own_intercept_and_sorted(tmp_path):
    """An enhanced CT whose frames lie in a random order, with an intercept each."""
    order = [3, 0, 4, 1, 2]
    stored = np.stack([np.full((4, 6), 100 + k, np.int16) for k in order])
    frames = []
    for k in order:
        frame, place, value = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, 2.0 * k]
        value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 1, -10.5 * k, "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [value]
        frames.append(frame)
    shared, orientation, measures = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = AXIAL, [1, 1]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    path = made.write(
        tmp_path / "e.dcm", stored, PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared]
    )
    found = read_volume(path)
    np.testing.assert_allclose(found.values[:, 0, 0], [100 + k - 10.5 * k for k in range(5)])
    np.testing.assert_allclose(found.spacing, (2, 1, 1))


def test_padding_of_a_series_was_not_seen(tmp_path):
    found = read_volume(series(tmp_path / "s", PixelPaddingValue=2003))
    assert not found.seen[3, 2, 7]
    assert found.seen.sum() == found.seen.size - 1


# models of volumes


class Small(nn.Module):
    """Says how bright the strongest cell is, and how bright all are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv3d(1, 6, 3, padding=1), nn.Conv3d(6, 6, 3, stride=2, padding=1)
        with torch.no_grad():
            self.first.weight.copy_(self.first.weight.abs())
            self.second.weight.copy_(self.second.weight.abs())
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3, 4)))


def lesion():
    """A dark volume with one bright spot, lying askew, and where the spot is in millimetres."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 0.02, (20, 26, 22)).astype(np.float32)
    values[12:15, 6:9, 15:18] = 1
    affine = oblique("LSP", (2.0, 1.5, 3.0), angle=0.1)
    return Volume(values, affine, "lesion", "", "", unit=""), to_mm(affine, (13, 7, 16))


@pytest.mark.parametrize(
    "method", ["grad-cam", "layer-cam", "input-x-gradient", "occlusion", "rise", "kernel-shap", "integrated-gradients"]
)
def test_a_planted_lesion_is_found_by_each_family(method, tmp_path):
    volume, mm = lesion()
    net = Small().eval()
    with torch.no_grad():
        net.head.weight[0], net.head.weight[1] = net.head.weight[0].abs(), -net.head.weight[1].abs()
    model = pl.wrap(
        net, transform=pl.VolumePreprocess(orientation="RAS", spacing=2.0, multiple=2), labels=["bright", "dark"]
    )
    assert model.medium is VOLUME
    e = pl.explain(model, volume, method, target="bright")
    assert isinstance(e, pl.VolumeHeatmap)
    assert e.heatmap().shape == (1, *volume.size)
    far = np.linalg.norm(np.subtract(e.peak[1], mm))
    assert far < 12, f"{method}: {said(e.peak[1])} rather than {said(mm)}"


def test_results_of_volumes_are_saved_read_and_verified(tmp_path):
    volume, _ = lesion()
    path = nifti(tmp_path / "v.nii.gz", volume.values, volume.affine)
    model = pl.wrap(Small().eval(), transform=pl.VolumePreprocess(orientation="RAS", size=(16, 16, 16)))
    e = pl.explain(model, path, "grad-cam")
    assert e.heatmap().isnan().any()
    files = e.save(tmp_path / "out")
    assert any(f.name.endswith("slices.png") for f in files)
    again = pl.read(next(f for f in files if f.suffix == ".json"))
    assert isinstance(again, pl.VolumeHeatmap)
    torch.testing.assert_close(again.heatmap(), e.heatmap(), equal_nan=True)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)
    assert isinstance(again.picture, Volume)
    assert pl.verify(next(f for f in files if f.suffix == ".json"), model=model).status == "same"


def test_tensors_of_volumes_are_taken():
    model = pl.wrap(Small().eval(), transform=pl.VolumePreprocess())
    both = pl.explain(model, torch.rand(2, 1, 8, 8, 8), "saliency")
    assert len(both) == 2
    assert both[0].heatmap().shape == (1, 8, 8, 8)
    with pytest.raises(MediaError, match="takes volumes"):
        pl.explain(model, torch.rand(8, 8, 8), "saliency")


def test_an_image_model_reads_a_volume_slice_by_slice(tmp_path):
    volume, _ = lesion()
    bare = pl.load("timm:test_resnet", random_weights=True)
    with pytest.raises(MediaError, match=r"is a volume, and .* takes pictures: explain it slice by slice"):
        pl.explain(bare, volume)
    model = pl.per_slice(bare, "max", slices=5)
    e = pl.explain(model, volume, "grad-cam")
    assert e.heatmap().shape == (1, *volume.size)
    x, geometry = model.volumes(volume)
    assert x.shape[1] == 5
    middle = [(n - 1) / 2 for n in geometry.input_size]
    np.testing.assert_allclose(
        to_mm(volume.affine, geometry.source_point(middle)), to_mm(input_affine(geometry), middle), atol=1e-6
    )
    slices = [
        bare.pictures(
            pl.Picture(
                np.repeat(volume.turned(turn_to(volume.affine, "SPL")).brightness()[k][..., None], 3, -1), "", "", ""
            )
        )[0]
        for k in (2, 7, 13, 18, 23)
    ]
    with torch.no_grad():
        torch.testing.assert_close(model.module(x[None]), bare.module(torch.stack(slices)).amax(0, keepdim=True))


def test_each_medium_is_known_by_what_it_is(tmp_path):
    volume, _ = lesion()
    assert medium_of(volume) is VOLUME
    assert medium_of("a.nii.gz") is VOLUME
    assert medium_of("volume:mni-t1") is VOLUME
    assert medium_of("suite:order:0") is CLIP
    assert medium_of("sample:coffee") is PICTURE
    model = pl.wrap(Small().eval(), transform=pl.VolumePreprocess())
    with pytest.raises(MediaError, match="takes volumes: give a NIfTI file"):
        pl.explain(model, "sample:coffee")


def test_nothing_of_the_patient_is_left_of_a_series(tmp_path, capsys):
    folder = series(tmp_path / "in" / made.PATIENT)
    model = pl.wrap(Small().eval(), transform=pl.VolumePreprocess(orientation="RAS", size=(8, 8, 8)))
    e = pl.explain(model, folder, "grad-cam")
    e.save(tmp_path / "out")
    print(e, e.picture)
    assert made.leaks(tmp_path / "out") == []
    said_ = capsys.readouterr()
    assert not any(s in (said_.out + said_.err).lower() for s in made.SECRETS)


def test_slices_of_several_studies_are_explained_and_only_their_dicom_is_left_out(tmp_path):
    for k in range(4):
        place(tmp_path / "s" / f"{k}.dcm", [0, 0, 5 * k])  # each has a study of its own
    model = pl.wrap(Small().eval(), transform=pl.VolumePreprocess(orientation="RAS", size=(8, 8, 8)))
    e = pl.explain(model, tmp_path / "s", "saliency")
    endings = {f.name.partition("saliency")[2] for f in e.save(tmp_path / "out")}
    assert ".nii.gz" in endings
    assert ".pm.dcm" not in endings
    assert any("do not let a DICOM object be written" in note for note in e.notes)


def test_the_patients_axes_are_those_of_dicom():
    np.testing.assert_array_equal(from_lps(np.eye(4)), np.diag([-1, -1, 1, 1]))
    assert said((-1.0, 2.0, -3.5)) == "L 1.0, A 2.0, I 3.5 mm"


def test_a_window_of_a_volume_is_a_part_of_its_address(tmp_path):
    folder = series(tmp_path / "s")
    plain, lung = read_volume(folder), read_volume(f"window:lung:{folder}")
    assert (plain.window, lung.window) == ((40, 400), (-600, 1500))
    assert read_volume(lung.source).window == (-600, 1500)
    assert volumes_in(f"window:lung:{folder}") == [f"window:lung:{folder}"]
    path = nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16), rigid((0, 0, 0)))
    assert read_volume(f"window:10,20:{path}").window == (10, 20)
    with pytest.raises(MediaError, match="not in Hounsfield units"):
        read_volume(f"window:bone:{path}")
    with pytest.raises(MediaError, match="0 windows of its own"):
        read_volume(f"window:3:{folder}")
    model = pl.per_slice(pl.load("timm:test_resnet", random_weights=True), slices=2)
    dark, bright = (model.volumes(read_volume(f"window:{w}:{folder}"))[0].mean() for w in ("1000,10", "-1000,10"))
    assert bright > dark


def test_doses_of_radiotherapy_lie_where_their_offsets_say():
    path = Path(pydicom.data.__file__).parent / "test_files" / "rtdose.dcm"
    found, header = read_volume(path), pydicom.dcmread(path)
    offsets = list(map(float, header.GridFrameOffsetVector))
    np.testing.assert_allclose(found.spacing[0], abs(offsets[1] - offsets[0]))
    scaled = header.pixel_array * float(header.DoseGridScaling)
    up = found.values if offsets[1] > offsets[0] else found.values[::-1]
    np.testing.assert_allclose(up, scaled, rtol=1e-6)
