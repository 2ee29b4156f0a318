"""Volumes: every orientation there and back, a planted voxel in millimetres, and models that read them."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers import dicom as made
from helpers.volumes import ALL, nifti, oblique, place, rigid, series
from pellucid.errors import MediaError, ModelError
from pellucid.heatmaps import get_method
from pellucid.media import CLIP, PICTURE, VOLUME, VOLUMES, Geometry, Volume, expand, medium_of, read_volume
from pellucid.media.orientation import codes, from_lps, said, spacing, to_mm, turn_to
from pellucid.media.volumes import volumes_in
from pellucid.models.volume_preprocess import input_affine

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


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
    _, resampled = pl.VolumePreprocess(orientation="PSL", spacing=1.7, size=(16, 14, 12))(volume)
    there = resampled.input_point(planted)
    np.testing.assert_allclose(to_mm(input_affine(resampled), there), mm, atol=1e-6)
    np.testing.assert_allclose(to_mm(volume.affine, resampled.source_point(there)), mm, atol=1e-6)


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


FAMILIES = {
    "class activation": ["grad-cam", "layer-cam"],
    "gradients": ["saliency", "input-x-gradient", "integrated-gradients", "lrp"],
    "masks": ["occlusion", "rise"],
    "supervoxels": [get_method(name, segments="supervoxels") for name in ("lime", "kernel-shap", "shapley")],
    "regions": ["sufficient"],
}


@pytest.mark.parametrize(
    "method", [m for methods in FAMILIES.values() for m in methods], ids=lambda m: getattr(m, "name", m)
)
def test_a_planted_lesion_is_found_by_each_family(method):
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
    moment = "window:10,20:time:3:a.nii"  # windows of what is no file are handed on as they are
    assert expand([moment], clips=None, schemes=VOLUMES) == volumes_in(moment) == [moment]
    path = nifti(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16), rigid((0, 0, 0)))
    assert read_volume(f"window:10,20:{path}").window == (10, 20)
    with pytest.raises(MediaError, match="not in Hounsfield units"):
        read_volume(f"window:bone:{path}")
    with pytest.raises(MediaError, match="0 windows of its own"):
        read_volume(f"window:3:{folder}")
    model = pl.per_slice(pl.load("timm:test_resnet", random_weights=True), slices=2)
    dark, bright = (model.volumes(read_volume(f"window:{w}:{folder}"))[0].mean() for w in ("1000,10", "-1000,10"))
    assert bright > dark
