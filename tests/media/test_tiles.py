"""Pictures kept in tiles: each laid where it belongs, by the order of the standard or by its own position."""

import numpy as np
import pytest

from helpers import dicom as made
from pellucid.errors import MediaError
from pellucid.media import read_image, read_volume
from pellucid.media.footage import open_clip

pydicom = pytest.importorskip("pydicom")
WHOLE = np.random.default_rng(0).integers(0, 255, (7, 10)).astype(np.uint8)
ROWS, COLUMNS = 4, 4


def tiles():
    """(row, column) of each tile, and the tile, filled up with zeros; row by row."""
    for row in range(0, 7, ROWS):
        for column in range(0, 10, COLUMNS):
            tile = np.zeros((ROWS, COLUMNS), np.uint8)
            part = WHOLE[row : row + ROWS, column : column + COLUMNS]
            tile[: part.shape[0], : part.shape[1]] = part
            yield (row, column), tile


def slide(path, frames, **tags):
    about = {"TotalPixelMatrixRows": 7, "TotalPixelMatrixColumns": 10, "Modality": "SM"}
    return made.write(path, np.stack(frames), **(about | tags))


def positioned(row, column):
    frame, place = pydicom.Dataset(), pydicom.Dataset()
    place.RowPositionInTotalImagePixelMatrix, place.ColumnPositionInTotalImagePixelMatrix = row + 1, column + 1
    frame.PlanePositionSlideSequence = [place]
    return frame


def test_tiles_in_full_lie_row_by_row(tmp_path):
    path = slide(tmp_path / "a.dcm", [tile for _, tile in tiles()], DimensionOrganizationType="TILED_FULL")
    found = read_image(path)
    np.testing.assert_allclose(found.pixels[..., 0], WHOLE / 255, atol=1e-6)
    assert found.seen is None
    assert not any("The first of its" in note for note in found.notes)


def test_tiles_lie_where_they_say_and_where_none_lies_nothing_was_seen(tmp_path):
    order = [4, 0, 5, 2, 3]  # the second is missing
    given = list(tiles())
    frames = [positioned(*given[k][0]) for k in order]
    path = slide(tmp_path / "a.dcm", [given[k][1] for k in order], PerFrameFunctionalGroupsSequence=frames)
    found = read_image(path)
    assert not found.seen[:4, 4:8].any()
    assert found.seen.sum() == 70 - 16
    np.testing.assert_allclose(found.pixels[..., 0], np.where(found.seen, WHOLE / 255, 0), atol=1e-6)


def test_tiles_are_no_clip_no_volume_and_not_too_many(tmp_path):
    path = slide(tmp_path / "a.dcm", [tile for _, tile in tiles()], DimensionOrganizationType="TILED_FULL")
    with pytest.raises(MediaError, match="tiles of one picture, no clip"):
        open_clip(path)
    with pytest.raises(MediaError, match="tiles of one picture, no volume"):
        read_volume(path)
    large = slide(tmp_path / "b.dcm", [tile for _, tile in tiles()], TotalPixelMatrixColumns=10**9)
    with pytest.raises(MediaError, match="give a smaller level of the slide"):
        read_image(large)
    nowhere = slide(tmp_path / "c.dcm", [tile for _, tile in tiles()])
    with pytest.raises(MediaError, match="does not say where its tiles lie"):
        read_image(nowhere)
