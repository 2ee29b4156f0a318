"""Tables of what else is known of pictures, matched to them."""

import numpy as np
import pytest

from helpers.audits import table
from pellucid.audit.columns import describe
from pellucid.audit.metadata import UNKNOWN, read_metadata
from pellucid.errors import DataError


@pytest.fixture
def pictures(tmp_path):
    return [str(tmp_path / "pictures" / kind / f"{i}.png") for kind in ("cat", "dog") for i in range(3)]


def written(folder, *lines):
    file = folder / "table.csv"
    file.write_text("\n".join(lines))
    return file


def test_rows_are_matched_in_full_relative_to_the_table_to_the_folder_and_by_a_name_that_is_alone(pictures, tmp_path):
    sources = [*pictures, str(tmp_path / "elsewhere" / "alone.png")]
    file = written(
        tmp_path, "file,site,age", f"{pictures[0]},north,3", "pictures/cat/1.png,south,4", "dog/2.png,east,5",
        "somewhere/alone.png,west,6",
    )  # fmt: skip
    found = read_metadata(file, sources, tmp_path / "pictures")
    assert found.columns["site"] == ["north", "south", UNKNOWN, UNKNOWN, UNKNOWN, "east", "west"]
    assert found.columns["age"] == ["3", "4", UNKNOWN, UNKNOWN, UNKNOWN, "5", "6"]
    assert found.notes == ("table.csv says nothing of 3 pictures; their values are `unknown`.",)


def test_paths_that_do_not_exist_are_one_sentence_and_the_rest_goes_on(pictures, tmp_path):
    lines = [f"{p},north" for p in pictures]
    file = written(tmp_path, "file,site", "gone.png,south", *lines, "0.png,twice", "lost/too.png,east")
    found = read_metadata(file, pictures)
    assert found.columns == {"site": ["north"] * 6}
    assert found.notes == (
        "3 rows of table.csv are none of the pictures and were left out; the first: gone.png.",
    )  # the bare name 0.png is that of two


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["file,site", "gone.png,north"], "No row of"),
        (["file", "a.png"], "at least two columns"),
        (["file,site"], "at least two columns"),
        ([], "at least two columns"),
        (["file,site,site", "a.png,1,2"], "two columns named site"),
    ],
)
def test_a_table_that_says_nothing_is_refused(lines, sentence, pictures, tmp_path):
    with pytest.raises(DataError, match=sentence):
        read_metadata(written(tmp_path, *lines), pictures)
    with pytest.raises(DataError, match="There is no table"):
        read_metadata(tmp_path / "absent.csv", pictures)


def test_a_column_of_many_numbers_is_cut_at_its_outer_fifths():
    ages = [str(i) for i in range(39)] + [UNKNOWN]
    found = describe(table(40), ["a", "b"], {"age": ages, "site": ["n", "s"] * 20})
    literals = dict(zip(found.names, found.values.T, strict=True))
    low, high = literals["little age (up to 7.6)"], literals["much age (from 30.4)"]
    np.testing.assert_array_equal(np.flatnonzero(low), range(8))
    np.testing.assert_array_equal(np.flatnonzero(high), range(31, 39))
    assert literals["site n"].sum() == 20
