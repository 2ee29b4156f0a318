"""Tables of boxes, whatever their columns are called."""

import pytest

from pellucid.errors import DataError
from pellucid.truth import read_truth


@pytest.mark.parametrize("edges", ["x0,y0,x1,y1", "xmin,ymin,xmax,ymax", "x1,y1,x2,y2"])
@pytest.mark.parametrize("named", ["name", "file", "image"])
def test_boxes_of_a_table(tmp_path, named, edges):
    table = tmp_path / "boxes.csv"
    table.write_text(f"{named},{edges},class\na.png,1,2,5,6,dog\na.png,0,0,2,2,cat\nb.png,,,,,\n")
    for source in (table, tmp_path):
        known = read_truth(source)
        assert [(o.label, o.box) for o in known.of("x/a.png").objects] == [("dog", (1, 2, 5, 6)), ("cat", (0, 0, 2, 2))]
        assert known.of("b.png").objects == ()
        assert known.labels == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("picture,left\na,1\n", "its columns are name, x0, y0, x1, y1"),
        ("", "its columns are"),
        ("name,x0,y0,x1,y1\na,1,2,three,4\n", "row 2: a box is four numbers"),
        ("name,x0,y0,x1,y1\na,1,2,3,4\nb,5,2,3,4\n", "row 3: the box 5, 2, 3, 4 encloses nothing"),
    ],
)
def test_what_is_no_table_of_boxes(tmp_path, text, said):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_truth(tmp_path)
