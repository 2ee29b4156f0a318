"""`pellucid report`: results of every kind in one file, within its size, and found out where it was changed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from pellucid import storage
from pellucid.cli import main
from pellucid.errors import StorageError
from pellucid.render.pages.provenance import command, python
from pellucid.render.pages.trust import sentences, trust
from pellucid.render.viewer.stored import opened as page_opened
from pellucid.verbs.report import expected_size, report
from pellucid.verbs.verify_report import verify_report
from report.cases import coarse, fine, heatmap, quality, record, tiny

KEPT = Path(__file__).parents[1] / "results" / "kept"
QUICK = [f for f in sorted(KEPT.glob("*.json")) if f.stem != "digits.tree"]


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Two real maps of one picture, one of them measured, saved."""
    folder = tmp_path_factory.mktemp("explained")
    found = pl.explain(tiny(), "sample:cat", method=["hires-cam", "grad-cam"], target="one")
    found[0].check()
    found.save(folder)
    return folder


def saved(folder, *explanations):
    for k, e in enumerate(explanations):
        storage.save(e, folder / f"{k}.{e.method}")
    return folder


def test_results_of_every_kind_are_in_it_and_nothing_is_fetched(tmp_path, opened):
    made = report(QUICK)
    assert made.count == len(QUICK)
    assert made.refused == made.shrunk == []
    file = made.save(tmp_path / "report.html")
    with opened(file) as watched:
        cards = watched.page.locator("article")
        assert (
            cards.count() == watched.page.locator("nav tr").count() >= len(QUICK) - 1
        )  # maps of one picture share one
        assert watched.page.locator("pellucid-view .pv-pane").count() == 2
        assert watched.page.locator("article details summary", has_text="Provenance").count() == len(QUICK)


def test_it_is_verified_from_itself_alone(explained, tmp_path):
    file = tmp_path / "elsewhere" / "report.html"
    report([explained]).save(file)
    found = list(verify_report(file, model=tiny()))
    assert [c.found.status for c in found] == ["same", "same"]


def changed(text, old, new, count=1):
    assert old in text
    return text.replace(old, new, count)


def test_one_changed_digit_is_found_wherever_it_stands(explained, tmp_path):
    whole = report([explained]).text
    file = tmp_path / "report.html"

    def reasons(text):
        file.write_text(text)
        return {
            c.name: c.found.reasons
            for c in verify_report(file, model=tiny())
            if c.found.status not in ("same", "within tolerance")
        }

    area = re.search(r"an area of (0\.\d+) under", whole)[1]
    digit = f"{area[:-1]}{(int(area[-1]) + 1) % 10}"
    shown = reasons(changed(whole, f"an area of {area}", f"an area of {digit}"))
    assert list(shown) == ["card 1"]
    assert f"the page says '{digit}' where '{area}' was written" in shown["card 1"][0]

    point = re.search(r'<polyline class="own" points="[\d., ]*?(\d)"', whole)
    other = whole[: point.start(1)] + str((int(point[1]) + 1) % 10) + whole[point.end(1) :]
    assert list(reasons(other)) == ["card 1"]

    measured = [r.meta["quality"] for r in page_opened(whole).results if r.meta["quality"]]
    kept = measured[0]["insertion"]["auc"]
    stored = f'"auc":{kept!r}'
    named = reasons(changed(whole, stored, f'"auc":{kept + 0.1!r}'))
    assert any("record was changed" in r for why in named.values() for r in why)
    assert any("quality’s insertion auc" in r for why in named.values() for r in why)

    values = re.search(r'"data":"(\w{8})', whole)
    swapped = "AACAPwAA" if values[1] != "AACAPwAA" else "AAAAQAAA"
    assert any("hires-cam" in name or "grad-cam" in name for name in reasons(changed(whole, values[1], swapped)))


def test_its_size_is_said_beforehand_and_kept(tmp_path):
    many = [fine(k, method="saliency", record=record("saliency", f"cat {k}")) for k in range(4)]
    for k, e in enumerate(many):
        e.record.input["sha256"] = str(k)
    folder = saved(tmp_path, *many)
    whole = report([folder])
    assert not whole.shrunk
    assert len(whole.text) <= expected_size([folder])
    small = report([folder], limit=0.4)
    assert small.shrunk
    assert len(small.text) < len(whole.text)
    assert "shown as a picture" in small.text
    assert small.text.count("<pellucid-view><") == 4 - len(small.shrunk)


def test_a_file_that_cannot_be_shown_has_a_card_that_says_why(tmp_path):
    folder = saved(tmp_path, coarse(0), coarse(1, method="hires-cam"), coarse(2, method="cam"))
    first, second, third = sorted(folder.glob("*.json"))
    first.write_text(first.read_text().replace("tiger cat", "tiger cut"))
    newer = json.loads(second.read_text()) | {"format": "pellucid-explanation/9"}
    second.write_text(json.dumps(newer))
    made = report([folder])
    assert len(made.refused) == 2
    assert "was changed after it was written" in made.text
    assert "holds no result of this format" in made.text
    assert third.name in made.text
    with pytest.raises(StorageError, match="no saved result"):
        report([folder / "missing.json"])
    with pytest.raises(StorageError, match="holds no saved results"):
        report([tmp_path / "nothing"] if (tmp_path / "nothing").mkdir() is None else [])


def test_a_page_of_another_kind_or_a_newer_one_is_refused_in_a_sentence(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<p>hello")
    with pytest.raises(StorageError, match="holds no results of Pellucid"):
        list(verify_report(page))
    page.write_text(report([saved(tmp_path, coarse(0))]).text.replace("pellucid-html/1", "pellucid-html/2"))
    with pytest.raises(StorageError, match="update Pellucid"):
        list(verify_report(page))


def test_trust_is_told_in_words():
    said = sentences(quality())
    assert "area of 0.812 under its curve; in random order 0.438 ± 0.0312" in said[0]
    assert said[0].endswith("better than chance.")
    assert said[1].endswith("better than chance.")
    assert sentences(quality(auc=0.46))[0].endswith("no different from chance.")
    assert sentences(quality(auc=0.2))[0].endswith("worse than chance.")
    assert "0.781 of 100 draws" in said[2]
    assert "rank correlation 0.02" in said[3]
    assert trust(coarse(0, quality=quality())).count("<svg") == 2
    assert "not measured" in trust(coarse(0))


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (("hires-cam", "lynx"), {}),
        (("layer-cam", "lynx>tabby"), {"layer": "blocks.3"}),
    ],
)
def test_the_command_and_the_lines_in_a_page_make_the_result_again(asked, options, embedded_model, tmp_path):
    method, target = asked
    e = pl.explain(embedded_model, "sample:cat", method=method, target=target, **options)
    words = command(e.record).split()
    assert words[0] == "pellucid"
    import shlex

    arguments = shlex.split(command(e.record))[1:]
    assert main([*arguments, "--out", str(tmp_path), "--no-check"]) == 0
    again = pl.read(next(tmp_path.glob("*.json")))
    assert np.array_equal(again.attribution, e.attribution)
    names = {}
    exec(python(e.record), names)
    assert np.array_equal(names["result"].attribution, e.attribution)


def test_the_command_line_writes_and_verifies(embedded_model, tmp_path, capsys):
    explained = tmp_path / "saved"
    pl.explain(embedded_model, "sample:cat", method=["grad-cam", "hires-cam"]).save(explained)
    out = tmp_path / "r.html"
    assert main(["report", str(explained), "-o", str(out), "--title", "Two <cats>"]) == 0
    said = capsys.readouterr()
    assert "2 results" in said.out
    assert said.err.startswith("about ")
    assert "<h1>Two &lt;cats&gt;</h1>" in out.read_text()
    assert main(["verify", str(out), "--json"]) == 0
    assert [r["status"] for r in json.loads(capsys.readouterr().out)["results"]] == ["same", "same"]
    out.write_text(out.read_text().replace("Two &lt;cats&gt;</h1>", "Ten &lt;cats&gt;</h1>", 1))
    assert main(["verify", str(out)]) == 1
    assert "the head of the page: different; after “” the page says 'Ten' where 'Two'" in capsys.readouterr().out


def test_a_notebook_shows_the_same_page_in_a_frame_that_reaches_nothing():
    shown = heatmap(np.eye(7))._repr_html_()
    assert 'sandbox="allow-scripts"' in shown
    assert "allow-same-origin" not in shown
    assert "&lt;pellucid-view&gt;" in shown


def test_a_result_that_cannot_be_drawn_is_listed_with_the_reason(explained, tmp_path, monkeypatch):
    (file, *_) = sorted(explained.glob("*.json"))
    monkeypatch.setattr("pellucid.verbs.report.opened", lambda stored: stored.arrays["attribution"])
    made = report([file])
    (said,) = made.refused
    assert "pellucid-explanation/" in said
    assert "pellucid.results.base.Result" in said
    assert "has no page" in made.text
