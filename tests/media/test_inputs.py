import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from helpers import dicom as made
from pellucid.errors import MediaError
from pellucid.media import SAMPLES, expand, read_image, sample_path
from pellucid.media.volumes import volumes_in


@pytest.fixture
def folder(tmp_path):
    for name in ("f10.png", "f2.png", "F1.JPG", "notes.txt", ".hidden.png", "sub/deep.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"never opened")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(sources):
    return [os.path.basename(s) for s in sources]


def test_a_folder_gives_its_own_pictures_in_natural_order(folder):
    assert names(expand([folder])) == ["F1.JPG", "f2.png", "f10.png"]


def test_globs_reach_into_sub_folders_and_skip_other_files(folder):
    assert names(expand([f"{folder}/*"])) == ["F1.JPG", "f2.png", "f10.png"]
    assert names(expand([f"{folder}/**/*"])) == ["F1.JPG", "f2.png", "f10.png", "deep.webp"]


def test_order_is_kept_and_duplicates_go(folder, monkeypatch):
    monkeypatch.chdir(folder)
    got = expand(["f2.png", "sample:moon", folder, "./f2.png", "sample:moon", "notes.txt"])
    assert names(got) == ["f2.png", "sample:moon", "F1.JPG", "f10.png", "notes.txt"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(folder):
    (folder / "a[1].png").write_bytes(b"x")
    assert names(expand([folder / "a[1].png"])) == ["a[1].png"]


def test_samples_expand_too():
    assert expand(["sample:co*"]) == ["sample:coffee", "sample:coins", "sample:colors"]
    assert len(expand(["sample:*"])) == len(SAMPLES)
    assert expand(["samples:"]) == expand(["sample:*"])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("{}/empty", "holds no picture"),
        ("{}/*.gif", "matches no picture"),
        ("{}/f3.png", "did you mean f2.png"),
        ("{}/nowhere/x.png", "check the path"),
        ("https://example.org/cat.jpg", "is a URL"),
        ("sample:coffe", "did you mean coffee"),
        ("sample:zz*", "The samples are astronaut"),
    ],
)
def test_what_holds_nothing_is_said_with_a_cure(folder, item, message):
    with pytest.raises(MediaError, match=message):
        expand([item.format(folder)])


def test_every_sample_is_the_picture_skimage_means():
    from skimage import data, io

    assert np.array_equal(read_image("sample:cat").pixels, data.chelsea())
    assert np.array_equal(read_image("sample:coffee").pixels, data.coffee())
    assert np.array_equal(read_image("sample:camera").pixels[..., 1], data.camera())
    for name in SAMPLES:
        raw = io.imread(sample_path(name))
        assert read_image(f"sample:{name}").size == raw.shape[:2]
        with Image.open(sample_path(f"sample:{name}")) as image:
            image.verify()


def test_samples_do_not_import_skimage():
    code = "import sys, pellucid.media as m; m.sample_path('cat'); assert 'skimage' not in sys.modules"
    path = os.pathsep.join(p for p in sys.path if p)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


def test_a_study_of_folders_in_folders_is_one_input_and_each_series_a_volume(tmp_path):
    pytest.importorskip("pydicom")
    for name, uid in (("a", "1.2.3"), ("b", "1.2.4")):
        for k in range(3):
            made.write(
                tmp_path / "study" / "day" / name / f"IM{k}", np.zeros((4, 4), np.int16), SeriesInstanceUID=uid,
                ImagePositionPatient=[0, 0, 5 * k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1],
            )  # fmt: skip
    study = str(tmp_path / "study")
    assert expand([study], clips=None) == [study]
    assert volumes_in(study) == [f"series:1:{study}", f"series:2:{study}"]
