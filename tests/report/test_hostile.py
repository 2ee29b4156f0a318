"""Texts inside a medical file are never markup: in a page, in a report of saved results, and in a browser."""

import html

import numpy as np
import pytest

import pellucid as pl
from helpers import dicom as made
from pellucid.verbs.report import report
from report.cases import tiny

pytest.importorskip("pydicom")
EVIL = "<img src=x onerror='window.hurt=1'>"


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A DICOM picture all of whose texts are markup, explained and saved."""
    folder = tmp_path_factory.mktemp("hostile")
    texts = dict.fromkeys(("StudyDescription", "SeriesDescription", "ImageComments", "PatientComments", "ProtocolName",
                           "WindowCenterWidthExplanation", "InstitutionName"), EVIL)  # fmt: skip
    values = np.random.default_rng(0).integers(0, 400, (64, 80)).astype(np.int16)
    file = made.write(folder / f"a{EVIL.replace('/', '')}.dcm", values, PatientName=EVIL, PatientID=EVIL,
                      WindowCenter=200, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0, **texts)  # fmt: skip
    found = pl.explain(tiny(), str(file), "hires-cam", "one")
    (folder / "out").mkdir()
    pl.Heatmaps([found]).save(folder / "out")
    return found, folder / "out"


def test_a_dicom_file_s_texts_are_never_markup(explained, tmp_path, opened):
    found, folder = explained
    pages = {"page": found.html(), "report": report([folder]).text, "notebook": found._repr_html_()}
    for name, text in pages.items():
        assert "<img src=x" not in text, name
        assert found.name in html.unescape(text), name
    file = tmp_path / "page.html"
    file.write_text(pages["report"])
    with opened(file) as watched:
        assert watched.page.evaluate("window.hurt") is None
        assert watched.page.locator("img[src=x]").count() == 0
        assert watched.page.locator(".pv-pane").count() == 1
