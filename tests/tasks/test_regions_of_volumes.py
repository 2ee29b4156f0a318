"""Regions of volumes: organs, lesions, single voxels by index and in millimetres, errors beside a true mask."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.errors import AbsentError, TargetError
from pellucid.media import Volume
from pellucid.media.orientation import to_mm
from pellucid.media.volumes import read_volume
from pellucid.models.targets.base import parse_target, split_targets
from pellucid.models.targets.places import on_input

nibabel = pytest.importorskip("nibabel")

AFFINE = np.array([[0, -2.0, 0, 30], [3.0, 0, 0, -12], [0, 0, 4.0, 5], [0, 0, 0, 1]])  # axes run A, L, S


class Bright(nn.Module):
    """Background, organ where it is bright, lesion where it is very bright: scores that hang on each voxel alone."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv3d(1, 1, 1)
        with torch.no_grad():
            self.same.weight.fill_(1)
            self.same.bias.fill_(0)

    def forward(self, x):
        v = self.same(x)[:, 0]
        return torch.stack([0.5 - v, v - 0.5, 2 * v - 2], 1)  # 0.5, 1.5: where one hands over to the next


@pytest.fixture
def scan():
    """An organ of 3 x 4 x 5 voxels, in it a lesion of two and, apart from it, one of a single voxel."""
    values = np.zeros((8, 9, 10), np.float32)
    values[2:5, 3:7, 2:7] = 1
    values[3, 4, 3:5] = 2
    values[7, 8, 9] = 2
    return Volume(values, AFFINE, "scan", "", "abc")


@pytest.fixture
def model():
    return pl.wrap(
        pl.SlidingWindow(Bright().eval(), (6, 6, 6), mode="constant"),
        transform=pl.VolumePreprocess(orientation="RAS"), labels=["nothing", "organ", "lesion"],
    )  # fmt: skip


def places(e):
    return np.argwhere(e.extras["region"][0].numpy()).tolist()


def test_an_organ_is_the_places_given_to_it(model, scan):
    e = pl.explain(model, scan, "saliency", "region:organ")
    assert (e.target, e.record.target) == ("organ", "region:organ")
    np.testing.assert_array_equal(e.extras["region"][0].numpy(), scan.values == 1)
    heat = e.heatmap()[0]
    assert (heat[torch.from_numpy(scan.values == 1)] > 0).all()
    assert float(heat[torch.from_numpy(scan.values != 1)].abs().max()) == 0
    shares = {p.label: p.probability for p in e.prediction}
    assert shares["organ"] == pytest.approx(58 / 720)
    assert shares["lesion"] == pytest.approx(3 / 720)


def test_a_lesion_is_a_connected_piece(model, scan):
    assert places(pl.explain(model, scan, "saliency", "region:lesion#1")) == [[3, 4, 3], [3, 4, 4]]
    assert places(pl.explain(model, scan, "saliency", "region:lesion#2")) == [[7, 8, 9]]
    with pytest.raises(AbsentError, match="2 connected pieces"):
        pl.explain(model, scan, "saliency", "region:lesion#3")


@pytest.mark.parametrize("spacing", [None, 2.5])
def test_a_voxel_is_meant_by_its_index_or_its_millimetres(scan, spacing):
    net = pl.SlidingWindow(Bright().eval(), (6, 6, 6), mode="constant")
    model = pl.wrap(net, transform=pl.VolumePreprocess(orientation="RAS", spacing=spacing), labels=["a", "b", "c"])
    mm = ",".join(f"{v:g}" for v in to_mm(AFFINE, (3, 4, 3)))
    by_index = pl.explain(model, scan, "saliency", "region:b@3,4,3")
    in_mm = pl.explain(model, scan, "saliency", f"region:b@{mm}mm")
    torch.testing.assert_close(by_index.heatmap(), in_mm.heatmap())
    assert in_mm.target == f"b at {mm}mm"
    strongest = np.unravel_index(int(by_index.heatmap()[0].argmax()), scan.size)
    assert np.abs(np.subtract(strongest, (3, 4, 3))).max() <= (0 if spacing is None else 1)
    again = parse_target(in_mm.record.target)
    assert (again.at, again.mm) == (to_mm(AFFINE, (3, 4, 3)), True)
    with pytest.raises(AbsentError, match="outside of what the model sees of this volume of 8 x 9 x 10 voxels"):
        pl.explain(model, scan, "saliency", "region:b@900,0,0mm")
    with pytest.raises(TargetError, match="write @i,j,k or x,y,zmm"):
        pl.explain(model, scan, "saliency", "region:b@3,4")


def test_places_of_three_numbers_are_kept_together():
    text = "region:a@1,2,3,region:b@-4.5,6,7mm/all,tabby"
    assert split_targets(text) == ["region:a@1,2,3", "region:b@-4.5,6,7mm/all", "tabby"]
    for wrong in ("region:a@1", "region:a@1,2,3,4", "region:a@1,2mm", "region:a@x,y,z"):
        with pytest.raises(TargetError, match="is no region"):
            parse_target(wrong)


def mask(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values.astype(np.uint8), affine), path)
    return path


@pytest.mark.parametrize("turned", [False, True])
def test_an_error_is_where_the_network_and_a_true_mask_differ(model, scan, tmp_path, turned):
    truth = scan.values == 1
    truth[2, 3, 2], truth[6, 1, 1] = False, True  # one voxel too many, one missed
    made = Volume(truth.astype(np.float32), AFFINE, "t", "", "")
    laid = made.turned((-3, 1, 2)) if turned else made
    path = mask(tmp_path / "true.nii.gz", np.asarray(laid.values), laid.affine)
    e = pl.explain(model, scan, "saliency", f"region:organ/error={path}")
    assert places(e) == [[2, 3, 2], [6, 1, 1]]
    assert e.record.target == f"region:organ/error={path}"


def test_a_mask_that_lies_elsewhere_is_refused(model, scan, tmp_path):
    beside = AFFINE.copy()
    beside[2, 3] += 4
    for path in (
        mask(tmp_path / "a.nii.gz", scan.values == 1, beside),
        mask(tmp_path / "b.nii.gz", np.ones((3, 3, 3))),
    ):
        with pytest.raises(AbsentError, match="is not on the volume's grid"):
            pl.explain(model, scan, "saliency", f"region:organ/error={path}")
    (tmp_path / "c.nii.gz").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(TargetError, match="The true mask cannot be read"):
        pl.explain(model, scan, "saliency", f"region:organ/error={tmp_path / 'c.nii.gz'}")


def test_a_mask_is_nothing_beyond_its_volume(scan, tmp_path):
    path = mask(tmp_path / "all.nii.gz", np.ones(scan.size))
    _, geometry = pl.VolumePreprocess(orientation="RAS", size=(12, 6, 14))(scan)
    found = on_input(read_volume(path), geometry, "all")
    covered = geometry.to_source(found.float())
    assert covered[geometry.seen()].min() == 1
    assert int(found.sum()) == 9 * 6 * 10  # the input's axes run R, A, S: 9 and 10 voxels are there, 6 of 8 are kept


def test_the_region_is_drawn_in_the_planes(model, scan):
    from pellucid.render.planes import planes_of

    e = pl.explain(model, scan, "saliency", "region:organ")
    shown = planes_of(e)
    assert [any(region.any() for region, _ in p.outlined) for p in shown.planes] == [True, True, True, False]
    assert e.figure() is not None
    assert e.slices() is not None


def test_segmenters_of_monai_need_no_task():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    net = nets.BasicUNet(3, 1, 2, features=(4, 4, 4, 4, 4, 4)).eval()
    model = pl.wrap(net, transform=pl.VolumePreprocess(), labels=["background", "spleen"])
    values = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    e = pl.explain(model, Volume(values, np.eye(4), "v", "", "x"), "grad-cam", "region:spleen/all")
    assert e.heatmap().shape == (1, 32, 32, 32)
    assert sum(p.probability for p in e.prediction) == pytest.approx(1)
