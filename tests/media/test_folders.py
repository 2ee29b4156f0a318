import numpy as np
import pytest

from helpers.cases import save
from pellucid.errors import MediaError
from pellucid.media import expand, read_folder, read_image
from pellucid.media.digits import load_digits


def test_sub_folders_are_classes_in_natural_order(tmp_path):
    for name in ("class10/b.png", "class10/a.png", "class2/c.jpg", "empty/readme.txt", ".hidden/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("no picture")
    found = read_folder(tmp_path)
    assert found.classes == ("class2", "class10")
    assert [s.rsplit("/", 1)[1] for s in found.sources] == ["c.jpg", "a.png", "b.png"]
    assert found.labels.tolist() == [0, 1, 1]
    assert found.digest(1) == found.read(1).sha256
    chosen = found.select([2, 0])
    assert chosen.labels.tolist() == [1, 0]
    assert chosen.sources == (found.sources[2], found.sources[0])


def test_a_plain_folder_has_no_classes(tmp_path):
    save(tmp_path / "a.png")
    found = read_folder(tmp_path)
    assert len(found) == 1
    assert not len(found.labels)
    assert found.classes == ()


def test_a_table_names_the_classes(tmp_path):
    for name in ("a.png", "b.png", "unlisted.png"):
        save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,id,class\nb.png,7,dog\na.png,8,cat\n")
    found = read_folder(tmp_path)
    assert [s.rsplit("/", 1)[1] for s in found.sources] == ["b.png", "a.png"]
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [1, 0]
    (tmp_path / "labels.csv").write_text("file,id\nb.png,7\na.png,10\n")
    assert read_folder(tmp_path).classes == ("7", "10")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,class\n", "needs a header and rows"),
        ("file\na.png\n", "needs a header and rows"),
        ("file,class\na.png,x\na.png,y\n", "more than once"),
        ("file,class\nz.png,x\n", "is not there"),
        ("file,class\na.png\n", "lacks a file or a class"),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path, table, said):
    save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(MediaError, match=said):
        read_folder(tmp_path)


def test_pictures_beside_classes_are_refused(tmp_path):
    save(tmp_path / "cat/a.png")
    save(tmp_path / "lost.png")
    with pytest.raises(MediaError, match="1 pictures beside its folders of classes"):
        read_folder(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(MediaError, match="holds no picture"):
        read_folder(tmp_path)


def test_digits_read_as_pictures_with_their_truth():
    found = read_folder("digits:")
    pixels, labels = load_digits()
    assert len(found) == 1797
    assert found.classes == tuple("0123456789")
    assert np.array_equal(found.labels, labels)
    picture = found.read(17)
    assert picture.source == "digits:17"
    assert picture.name == "digits-17"
    assert np.array_equal(picture.pixels, np.repeat(pixels[17][..., None], 3, -1))
    assert found.digest(17) == picture.sha256 == read_image("digits:17").sha256
    assert expand(["digits:3", "digits:3"]) == ["digits:3"]
    assert len(expand(["digits:"])) == 1797
    for wrong in ("digits:1797", "digits:x", "digits:-1"):
        with pytest.raises(MediaError, match="digits:1796"):
            read_image(wrong)
