"""DICOM pictures: values, windows, colours, padding, and nothing of the patient."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from helpers import dicom as made
from pellucid.errors import MediaError
from pellucid.media import expand, read_image, read_volume
from pellucid.media.dicom import open_dicom
from pellucid.media.footage import open_clip

pydicom = pytest.importorskip("pydicom")
ROWS = np.arange(64, dtype=np.int16).reshape(8, 8)


def grey(path):
    return read_image(path).pixels[..., 0]


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_forty_hounsfield_units_are_the_middle_of_their_window_whatever_the_bits(tmp_path, dtype):
    stored = np.full((4, 4), 1064, dtype)
    path = made.write(tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=-1024)
    assert grey(f"window:40,400:{path}") == pytest.approx(0.5)
    assert grey(f"window:soft:{path}") == pytest.approx(0.5)
    assert grey(f"window:bone:{path}") == pytest.approx((40 - (400 - 900)) / 1800)


def test_windows_of_the_file_follow_the_formulas_of_the_standard(tmp_path):
    tags = {"WindowCenter": [20, 40], "WindowWidth": [20, 10], "RescaleSlope": 1, "RescaleIntercept": 0}
    path = made.write(tmp_path / "a.dcm", ROWS, **tags)
    x = ROWS.astype(float)
    linear = np.where(x <= 19.5 - 9.5, 0, np.where(x > 19.5 + 9.5, 1, (x - 19.5) / 19 + 0.5))
    np.testing.assert_allclose(grey(path), linear, atol=1e-6)
    np.testing.assert_allclose(grey(f"window:1:{path}"), linear, atol=1e-6)
    np.testing.assert_allclose(grey(f"window:2:{path}"), ((x - 39.5) / 9 + 0.5).clip(0, 1), atol=1e-6)
    exact = made.write(tmp_path / "b.dcm", ROWS, **tags, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(grey(exact), ((x - 20) / 20 + 0.5).clip(0, 1), atol=1e-6)
    sigmoid = made.write(tmp_path / "c.dcm", ROWS, **tags, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(grey(sigmoid), 1 / (1 + np.exp(-4 * (x - 20) / 20)), atol=1e-6)
    with pytest.raises(MediaError, match="2 windows of its own, and no window 3"):
        read_image(f"window:3:{path}")
    with pytest.raises(MediaError, match="A window is auto"):
        read_image(f"window:wide:{path}")


def test_a_named_window_needs_hounsfield_units(tmp_path):
    path = made.write(tmp_path / "a.dcm", ROWS, Modality="MR")
    with pytest.raises(MediaError, match="not in Hounsfield units"):
        read_image(f"window:bone:{path}")


def test_a_lookup_table_of_the_file_is_used(tmp_path):
    entry = pydicom.Dataset()
    entry.LUTDescriptor = [64, 0, 8]
    entry.LUTData = np.array([(i * i) % 256 for i in range(64)], np.uint16).tobytes()
    path = made.write(tmp_path / "a.dcm", ROWS.astype(np.uint16), VOILUTSequence=[entry], Modality="CR")
    np.testing.assert_allclose(grey(path), (ROWS.astype(int) ** 2 % 256) / 255, atol=1e-6)


def test_a_modality_table_is_obeyed(tmp_path):
    entry = pydicom.Dataset()
    entry.LUTDescriptor = [64, 0, 16]
    entry.LUTData = np.array([1000 + 3 * i for i in range(64)], np.uint16).tobytes()
    entry.ModalityLUTType = "US"
    path = made.write(tmp_path / "a.dcm", ROWS.astype(np.uint16), ModalityLUTSequence=[entry], Modality="CR")
    file = open_dicom(path)
    np.testing.assert_array_equal(file.rescaled(file.stored()), 1000 + 3 * ROWS)


def test_signed_numbers_without_sign_extension_are_negative(tmp_path):
    stored = np.array([[0xFFF, 0x7FF], [0x800, 1]], np.uint16)  # 12 bits: -1, 2047, -2048, 1
    path = made.write(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_array_equal(open_dicom(path).stored(), [[-1, 2047], [-2048, 1]])


def test_monochrome1_is_turned_over_once_and_said(tmp_path):
    window = {"WindowCenter": 32, "WindowWidth": 64, "VOILUTFunction": "LINEAR_EXACT"}
    plain = made.write(tmp_path / "a.dcm", ROWS, **window)
    turned = made.write(tmp_path / "b.dcm", ROWS, **window, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(grey(turned), 1 - grey(plain), atol=1e-6)
    assert sum("MONOCHROME1" in note for note in read_image(turned).remarks) == 1


def test_a_real_world_mapping_beside_a_rescale_is_not_applied(tmp_path):
    mapping = pydicom.Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 7.0, 3.0
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 63
    tags = {"RescaleSlope": 2, "RescaleIntercept": -10, "RealWorldValueMappingSequence": [mapping]}
    file = open_dicom(made.write(tmp_path / "a.dcm", ROWS, **tags))
    np.testing.assert_array_equal(file.rescaled(file.stored()), 2 * ROWS - 10)


def test_padding_is_not_seen_and_does_not_set_the_window(tmp_path):
    stored = ROWS.copy()
    stored[:2] = -2000
    path = made.write(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000, Modality="MR", BitsStored=16)
    picture = read_image(path)
    assert not picture.seen[:2].any()
    assert picture.seen[2:].all()
    assert (picture.pixels[:2] == 0).all()
    assert picture.pixels[2, 0, 0] < 0.05  # the lowest value that was measured is black: the padding is left out
    assert picture.pixels[4, 4, 0] == pytest.approx((36 - 16) / 47, abs=0.02)
    ranged = made.write(tmp_path / "b.dcm", stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=17)
    assert not read_image(ranged).seen[2, :2].any()
    assert read_image(ranged).seen[2, 2:].all()


def test_a_map_is_not_a_number_where_nothing_was_measured(tmp_path):
    stored = np.arange(1024, dtype=np.int16).reshape(32, 32)
    stored[:, :8] = -2000
    path = made.write(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000)
    model = pl.load("timm:test_resnet", random_weights=True)
    heat = pl.explain(model, path, "saliency")
    assert heat.heatmap()[0, :, :8].isnan().all()
    assert heat.heatmap()[0, 16, 8:].isfinite().any()
    heat.save(tmp_path / "out")
    again = pl.read(next((tmp_path / "out").glob("*.json")))
    assert again.heatmap()[0, :, :8].isnan().all()
    assert pl.verify(next((tmp_path / "out").glob("*.json")), model=model, inputs=path).status == "same"


def test_colours_come_out_as_colours(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(made.write(tmp_path / "a.dcm", rgb)).pixels, rgb)
    index = (ROWS % 4).astype(np.uint8)
    table = np.array([0, 100, 200, 255], np.uint16) << 8
    palette = {f"{c}PaletteColorLookupTableDescriptor": [4, 0, 16] for c in ("Red", "Green", "Blue")}
    data = {
        f"{c}PaletteColorLookupTableData": np.roll(table, k).tobytes() for k, c in enumerate(("Red", "Green", "Blue"))
    }
    path = made.write(tmp_path / "b.dcm", index, PhotometricInterpretation="PALETTE COLOR", **palette, **data)
    expected = np.stack([np.roll(table >> 8, k)[index] for k in range(3)], -1)
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    with pytest.raises(MediaError, match="in colour, which has no window"):
        read_image(f"window:40,400:{path}")


def test_colour_that_the_library_has_turned_to_rgb_is_not_turned_again():
    path = Path(pydicom.data.__file__).parent / "test_files" / "SC_rgb_small_odd_jpeg.dcm"
    plain = Path(pydicom.data.__file__).parent / "test_files" / "SC_rgb_small_odd.dcm"
    assert open_dicom(path).colours == "YBR_FULL"
    difference = read_image(path).pixels.astype(int) - read_image(plain).pixels
    assert np.abs(difference).max() < 20  # JPEG's loss, not another colour space


def test_bad_files_get_one_sentence(tmp_path):
    good = made.write(tmp_path / "a.dcm", ROWS).read_bytes()
    cases = {
        "without a picture": made.dataset(ROWS, PixelData=None),
        "claims 60000 x 60000": made.dataset(ROWS, Rows=60000, Columns=60000),
        "damaged, cut short": good[: len(good) - 50],
    }
    for said, content in cases.items():
        path = tmp_path / "bad.dcm"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save_as(path, enforce_file_format=True)
        with pytest.raises(MediaError, match=said) as caught:
            read_image(path)
        assert caught.value.__cause__ is None
        assert not any(s in str(caught.value).lower() for s in made.SECRETS)
    (tmp_path / "b.dcm").write_bytes(b"\x80\x04\x95 a pickle in disguise")
    with pytest.raises(MediaError, match="none of PNG"):
        read_image(tmp_path / "b.dcm")


def test_a_deflated_stream_that_swells_is_stopped(tmp_path, monkeypatch):
    d = made.dataset(np.zeros((256, 256), np.int16))
    d.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    path = tmp_path / "a.dcm"
    d.save_as(path, enforce_file_format=True)
    assert read_image(path).size == (256, 256)
    monkeypatch.setattr("pellucid.media.dicom.MAX_BYTES", 100_000)
    with pytest.raises(MediaError, match="swells to more than"):
        read_image(path)
    assert len(zlib.compress(bytes(10**6))) < 2000  # such a stream is small on disk


def test_nothing_of_the_patient_is_left(tmp_path, capsys):
    from pellucid.cli import main

    path = made.write(tmp_path / "in" / made.PATIENT / "a.dcm", np.arange(1024, dtype=np.int16).reshape(32, 32))
    out = tmp_path / "out"
    asked = ["explain", str(path), "--model", "timm:test_resnet", "--random-weights", "--no-check", "--out", str(out)]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert list(out.glob("ct-*.npz"))
    assert made.leaks(out) == []
    assert not any(s in (said.out + said.err).lower() for s in made.SECRETS)


def test_the_window_is_part_of_the_address(tmp_path):
    path = made.write(tmp_path / "a.dcm", ROWS)
    assert expand([f"window:bone:{tmp_path}"]) == [f"window:bone:{path}"]
    picture = read_image(f"window:bone:{path}")
    np.testing.assert_array_equal(read_image(picture.source).pixels, picture.pixels)
    assert picture.sha256 == read_image(path).sha256
    with pytest.raises(MediaError, match="no DICOM picture"):
        read_image("window:bone:" + str(Path(__file__)))


def test_every_file_of_the_library_is_read_or_refused_in_a_sentence(caplog, recwarn):
    files = sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))
    read, refused = 0, []
    for path in files:
        for whole in (read_volume, open_clip):
            try:
                whole(path)
            except MediaError as error:
                refused.append(str(error))
        try:
            picture = read_image(path)
        except MediaError as error:
            refused.append(str(error))
        else:
            read += 1
            assert np.isfinite(picture.pixels).all()
            assert picture.pixels.shape[-1] == 3
    assert read >= len(files) // 2
    assert not any("\n" in sentence for sentence in refused)
    assert not [w for w in recwarn if "pydicom" in str(w.filename)]


def test_a_file_in_memory_is_as_one_on_disk(tmp_path):
    buffer = io.BytesIO()
    made.dataset(ROWS).save_as(buffer, enforce_file_format=True)
    assert open_dicom("x.dcm", buffer.getvalue()).name.startswith("ct-")
