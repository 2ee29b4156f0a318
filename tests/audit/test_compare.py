"""Two models on the same pictures: a model with itself, planted changes, other label sets, the command."""

import json

import numpy as np
import pytest
from benchmarks.reliances import CLASSES, trained, world

import pellucid as pl
from helpers.audits import saved, table
from pellucid.audit.columns import Columns
from pellucid.audit.paired import aligned, compare
from pellucid.errors import DataError


@pytest.fixture(scope="module")
def clean():
    return trained(None, count=300, epochs=3)


def other(first, wrong, right=()):
    """The table of a model that errs on some samples, and is right on others, besides."""
    p = first.probabilities.copy()
    p[list(wrong)] = p[list(wrong)][:, ::-1]
    p[list(right)] = np.eye(2, dtype=np.float32)[first.truth[list(right)]] * 0.8 + 0.1
    return type(first)(**{**vars(first), "probabilities": p, "scores": np.log(p)})


def literals(count, inside):
    mask = np.zeros((count, 1), bool)
    mask[list(inside)] = True
    return Columns(("north",), mask, ("site",))


def test_a_table_and_itself_differ_in_nothing():
    first = table(60)
    found = compare(first, first, literals(60, range(30)), (None, None))
    assert (found.lost, found.won, found.changed, found.p, found.verdict) == ((), (), (), 1.0, "no difference")
    np.testing.assert_allclose(found.agreement, 1)
    assert found.border == pytest.approx((0, 0, 0))


def test_flips_are_counted_and_tested():
    first = table(60)
    first = other(first, [50, 51])
    second = other(first, range(12), [50])
    found = compare(first, second, literals(60, range(40, 60)), (None, None))
    assert found.lost == tuple(range(12))
    assert found.won == (50,)
    assert found.p == pytest.approx(2 * (1 + 13) / 2**13)
    assert found.accuracies == pytest.approx((58 / 60, 47 / 60))
    assert found.verdict == "worse"
    assert compare(second, first, literals(60, range(40, 60)), (None, None)).verdict == "better"


def test_a_slice_that_got_worse_is_found_though_the_whole_did_not():
    """As many are won as lost, but those that are lost are all of one site."""
    first = table(200)
    first = other(first, range(100, 116))
    second = other(first, range(16), range(100, 116))
    found = compare(first, second, literals(200, range(24)), (None, None))
    assert found.p == 1
    (worst,) = found.worse_slices
    assert worst.name == "north"
    assert worst.won == 0
    assert found.verdict == "worse"


def test_classes_are_mapped_by_name_or_refused():
    second = table(20)
    swapped = aligned(second, ["a", "B"], ["b", "A"])
    np.testing.assert_array_equal(swapped.scores, second.scores[:, ::-1])
    np.testing.assert_array_equal(swapped.truth, 1 - second.truth)
    assert aligned(second, ["a", "b"], ["a", "b"]) is second
    with pytest.raises(DataError, match=r"other classes \(the second has no b\)"):
        aligned(second, ["a", "b"], ["a", "c"])
    with pytest.raises(DataError, match="the second has more"):
        aligned(second, ["a"], ["a", "b"])


def test_the_verb_reads_writes_and_verifies(clean, tmp_path):
    marked, data = trained("mark", count=300, epochs=4), world(None, 120)
    same = pl.compare(clean, clean, data)
    assert same.paired.verdict == "no difference"
    assert same.paired.changed == ()
    found = pl.compare(clean, marked, data)
    files = found.save(tmp_path)
    again = pl.read(files[0])
    assert list(again.lines()) == list(found.lines())
    assert str(pl.verify(files[0], model=(clean, marked), inputs=data)) == "same"
    assert "<figure>" in found.html()
    assert found.png()[:4] == b"\x89PNG"
    renamed = pl.wrap(marked.module, transform=marked.preprocess, labels=["one", *CLASSES[1:]])
    with pytest.raises(DataError, match="other classes"):
        pl.compare(clean, renamed, data)


def test_broken_files_are_named_and_the_rest_is_compared(clean, tmp_path):
    folder = saved(world(None, 6), tmp_path)
    (folder / CLASSES[0] / "bad.png").write_bytes(b"no picture")
    found = pl.compare(clean, clean, folder)
    assert len(found.first) == 6
    assert "1 picture could not be used" in found.notes[-1]
    assert "bad.png" in found.notes[-1]


@pytest.mark.slow
def test_the_command_fails_if_it_is_worse(tmp_path, capsys, monkeypatch):
    from pellucid.cli import main

    folder = saved(world(None, 12), tmp_path / "pictures", labelled=False)
    names = ["efficientnet-lite0", "efficientnet-lite0", str(folder)]
    assert main(["compare", *names, "--out", str(tmp_path / "out"), "--fail-if", "worse", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["results"]
    assert entry["changed"] == 0
    monkeypatch.setattr("pellucid.audit.paired.Paired.verdict", "worse")
    assert main(["compare", *names, "--out", str(tmp_path / "out"), "--fail-if", "worse"]) == 1
    assert main(["compare", *names, "--out", str(tmp_path / "out")]) == 0
    assert main(["compare", *names, "--fail-if", "nonsense"]) != 0
