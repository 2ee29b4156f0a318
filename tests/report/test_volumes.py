"""Volumes in the viewer: laid as radiologists look, anatomy under the map, raw values and millimetres of the voxel."""

import numpy as np
import pytest
import torch

from pellucid.media import Geometry
from pellucid.media.orientation import from_lps, said, to_mm
from pellucid.media.volume import Volume
from pellucid.render.viewer.outlines import edge_path, outlines
from pellucid.results import Heatmaps
from report.cases import heatmap, record
from report.test_viewer import point_at, same, told

SIZE, SEEN = (10, 14, 12), (8, 7, 9)  # of the file's axes; of the input's, which are turned
AFFINE = from_lps(np.array([[0, 0, 2.0, -9], [0, 1.5, 0, -8], [-4.0, 0, 0, 30], [0, 0, 0, 1]], float))
TURN = (3, -1, 2)
BOX = ((1.0, 11.0), (0.0, 10.0), (2.0, 14.0))  # along the input's axes


def volume(map_size=(5, 4, 6)):
    geometry = Geometry(
        SIZE, SEEN, BOX, turn=TURN, affine=tuple(tuple(map(float, row)) for row in AFFINE[:3])
    )  # fmt: skip
    values = np.random.default_rng(4).normal(size=map_size)
    grey = np.zeros(SIZE, np.float32)
    grey[:, :7], grey[:5] = 0.5, 1.0
    picture = Volume(grey, AFFINE, "head", "", "0", window=(0.5, 1.0))
    seen = torch.ones(1, *SIZE, dtype=torch.bool)
    seen[0, :4, 3:8, ::2] = False
    return heatmap(values, geometry=geometry, picture=picture, record=record(name="head"), extras={"seen": seen})


@pytest.fixture
def page_of(tmp_path):
    def write(*explanations):
        file = tmp_path / "page.html"
        file.write_text(Heatmaps(explanations).html())
        return file

    return write


def laid_sizes(shape, affine):
    """Sizes of the file's axes in the order superior, anterior, right: by the largest part of each step."""
    along = [int(np.abs(affine[r, :3]).argmax()) for r in (2, 1, 0)]
    return [shape[a] for a in along], along


def test_the_value_and_the_millimetres_under_the_pointer_are_the_voxel_s(page_of, opened):
    e = volume()
    truth = e.heatmap()[0].numpy()
    assert truth.shape == SIZE
    sizes, along = laid_sizes(SIZE, AFFINE)
    random = np.random.default_rng(6)
    seen = set()
    with opened(page_of(e)) as watched:
        page = watched.page
        for plane in range(3):
            page.select_option("[data-control=plane]", str(plane))
            flat = [n for axis, n in enumerate(sizes) if axis != plane]
            for index in random.integers(0, sizes[plane], 4).tolist():
                page.locator("[data-control=index]").fill(str(index))
                for _ in range(5):
                    point_at(page, [int(random.integers(0, n)) for n in flat], flat)
                    at, values = told(page)
                    assert at[along[plane]] in (index, SIZE[along[plane]] - 1 - index)
                    assert same(values[0], truth[at])
                    assert said(to_mm(AFFINE, at)) in page.locator(".pv-said").inner_text()
                    seen.add(at)
    assert len(seen) > 50
    assert np.isnan(truth).any()


def test_planes_lie_as_radiologists_look_with_the_anatomy_under_them(page_of, opened):
    e = volume()
    grey = e.picture.values
    with opened(page_of(e)) as watched:
        page = watched.page
        page.locator("[data-control=opacity]").fill("0")
        page.wait_for_function(
            "() => { const c = document.querySelector('canvas.pv-ground');"
            " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some((v) => v > 250) }"
        )
        for plane, letters in enumerate(("RLAP", "RLSI", "APSI")):
            page.select_option("[data-control=plane]", str(plane))
            assert "".join(page.locator(".pv-letter").all_inner_texts()) == letters
            box = page.locator(".pv-picture").bounding_box()
            corners = {}
            for name, (y, x) in {"high left": (0.1, 0.1), "high right": (0.1, 0.9), "low left": (0.9, 0.1)}.items():
                page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
                at, _ = told(page)
                corners[name] = np.array(to_mm(AFFINE, at))
                shown = page.evaluate(
                    "([y, x]) => { const c = document.querySelector('canvas.pv-ground'), g = c.getContext('2d');"
                    " return g.getImageData(x * c.width, y * c.height, 1, 1).data[0] }",
                    [y, x],
                )
                assert shown == pytest.approx(255 * grey[at], abs=40)  # a JPEG of three levels
            right, down = corners["high right"] - corners["high left"], corners["low left"] - corners["high left"]
            axis = {
                letter: (k, s)
                for k, pair in enumerate(("RL", "AP", "SI"))
                for letter, s in zip(pair, (1, -1), strict=True)
            }
            for moved, letter in ((right, letters[1]), (down, letters[3])):
                assert np.sign(moved[axis[letter][0]]) == axis[letter][1]
            # a voxel is as tall and wide as it is in the patient
            steps = box["height"] / 0.8 / abs(down).max(), box["width"] / 0.8 / abs(right).max()
            assert steps[0] == pytest.approx(steps[1], rel=0.35)


def test_comma_and_full_stop_walk_through_the_slices(page_of, opened):
    with opened(page_of(volume())) as watched:
        page = watched.page
        index = page.locator("[data-control=index]")
        start = int(index.input_value())
        page.locator(".pv-stage").focus()
        page.keyboard.press(".")
        page.keyboard.press(".")
        assert int(index.input_value()) == min(start + 2, int(index.get_attribute("max")))
        page.select_option("[data-control=plane]", "1")
        page.select_option("[data-control=plane]", "0")
        assert int(index.input_value()) == min(start + 2, int(index.get_attribute("max")))


def enough():
    """A volume with two sufficient regions: a block of cells, and two cells in the corner that comes first."""
    cells = torch.zeros(1, 2, 5, 4, 6)
    cells[0, 0, 1:3, 2:4, 2:5] = 1
    cells[0, 1, 0, :2, 0] = 1
    e = volume()
    e.method, e.signed, e.extras = "sufficient", False, {"regions": cells}
    return e


def inside(e, rank):
    """Which voxels lie in a region, laid superior to inferior, anterior to posterior, right to left, voxel by voxel."""
    found = np.zeros(SIZE, bool)
    for at in np.ndindex(*SIZE):
        seen = (at[2], SIZE[0] - 1 - at[0], at[1])  # TURN
        shares = [(v + 0.5 - low) / (high - low) for v, (low, high) in zip(seen, BOX, strict=True)]
        if all(0 <= s < 1 for s in shares):
            cell = tuple(int(s * n) for s, n in zip(shares, (5, 4, 6), strict=True))
            found[at] = bool(e.extras["regions"][(0, rank, *cell)])
    _, along = laid_sizes(SIZE, AFFINE)
    rows = [AFFINE[r, a] > 0 for r, a in zip((2, 1, 0), along, strict=True)]
    return np.flip(found.transpose(along), [k for k, up in enumerate(rows) if up])


def test_sufficient_regions_are_outlined_in_the_slices_where_they_are(page_of, opened):
    e = enough()
    shapes = outlines([e])
    for rank in range(2):
        truth = inside(e, rank)
        assert truth.any()
        for plane in range(3):
            mine = [s for s in shapes if s["plane"] == plane and s["name"] == str(rank + 1)]
            for index, flat in enumerate(np.moveaxis(truth, plane, 0)):
                here = [s for s in mine if s["slices"][0] <= index <= s["slices"][1]]
                assert len(here) == bool(flat.any())
                assert [s["path"] for s in here] == [edge_path(flat)] * len(here)
    with opened(page_of(e)) as watched:
        page = watched.page
        for plane in range(3):
            page.select_option("[data-control=plane]", str(plane))
            for index, flat in enumerate(np.moveaxis(inside(e, 0), plane, 0)):
                page.locator("[data-control=index]").fill(str(index))
                assert page.locator(".pv-rank-0").count() == bool(flat.any())
