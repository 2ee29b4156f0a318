"""Pictures unlike the others and blurred ones: planted ones are named, sets of one kind are left alone."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.planted_slices import _world
from benchmarks.reliances import trained
from scipy.stats import fisher_exact

import pellucid as pl
from helpers.audits import saved, table
from pellucid.audit.odd import LEAST, nearest, odd_pictures
from pellucid.audit.samples import PROPERTIES
from pellucid.numerics.proportions import difference

CONTRAST, SHARP = (PROPERTIES.index(name) for name in ("contrast", "sharpness"))


def usual(count=200, seed=0, size=8):
    """A table of pictures of one kind."""
    rng = np.random.default_rng(seed)
    s = table(count, seed)
    s.properties[:, CONTRAST] = 0.2
    s.properties[:, SHARP] = 0.1 * np.exp(0.3 * rng.standard_normal(count))
    return replace(s, embedding=(rng.standard_normal((count, size)) + 3).astype(np.float32))


def test_planted_ones_are_named_the_oddest_first_and_their_errors_beside_the_rest():
    s = usual()
    s.embedding[[7, 30, 31, 90]] *= -1
    s.properties[[4, 5, 6], SHARP] = (0.002, 0.001, 0.003)
    s.truth[[7, 30, 31, 100, 101]] = 1 - s.truth[[7, 30, 31, 100, 101]]
    far, blurred = odd_pictures(s)
    assert (far.kind, blurred.kind) == ("far", "blurred")
    assert set(far.members) == {7, 30, 31, 90}
    assert blurred.members == (5, 4, 6)
    assert (far.error, far.others) == pytest.approx((3 / 4, 2 / 196))
    assert (far.gap, far.low, far.high) == pytest.approx(difference(3, 4, 2, 196))
    assert far.p == pytest.approx(2 * fisher_exact([[3, 1], [2, 194]], "greater").pvalue)
    assert "Of these 75% are answered wrongly, of the rest 1%" in far.errors
    assert blurred.errors.endswith("no more than by chance")


def test_sets_of_one_kind_are_left_alone():
    """One picture or more by chance in a twentieth of the sets, if the logarithms are normal."""
    claimed = [{o.kind for o in odd_pictures(usual(seed=seed, size=16))} for seed in range(40)]
    assert sum("blurred" in kinds for kinds in claimed) <= 6
    assert sum("far" in kinds for kinds in claimed) <= 10


def test_the_distance_is_that_to_the_tenth_nearest():
    rng = np.random.default_rng(0)
    rows, pool = rng.standard_normal((40, 5)), rng.standard_normal((30, 5))
    u, v = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (rows, pool))
    away = np.linalg.norm(u[:, None] - v[None], axis=2)
    np.testing.assert_allclose(nearest(rows, pool), np.sort(away, 1)[:, 9])
    own = np.linalg.norm(u[:, None] - u[None], axis=2)
    np.testing.assert_allclose(nearest(rows), np.sort(own, 1)[:, 10], atol=1e-7)
    np.testing.assert_allclose(nearest(rows[:4]), np.sort(own[:4, :4], 1)[:, 3], atol=1e-7)


def test_beside_training_pictures_far_is_what_is_far_from_those():
    s, pool = usual(60), usual(200, seed=1)
    assert not [o for o in odd_pictures(s, pool) if o.kind == "far" and len(o.members) > 3]
    s.embedding[:30] *= -1  # as many that none of them is far from the rest
    assert "far" not in {o.kind for o in odd_pictures(s)}
    far = next(o for o in odd_pictures(s, pool) if o.kind == "far")
    assert set(range(30)) <= set(far.members)


def test_few_pictures_plain_ones_and_unknown_classes_are_no_error():
    assert odd_pictures(table(LEAST - 1)) == []
    s = usual(60)
    s.embedding[:] = 1
    s.properties[:, [CONTRAST, SHARP]] = 0
    assert odd_pictures(s) == []
    s = usual(60)
    s.embedding[0] *= -1
    s.truth[:] = -1
    (far,) = odd_pictures(s)
    assert far.members == (0,)
    assert far.errors == ""


def test_blurred_pictures_stand_in_summary_table_page_and_file(tmp_path):
    data, inside = _world("blurred", 0.02, 5)
    data.pixels, data.labels, inside = (
        np.concatenate([part[inside][:6], part[~inside][:120]]) for part in (data.pixels, data.labels, inside)
    )
    model = trained(None, count=600, epochs=8)
    found = pl.audit(model, saved(data, tmp_path / "pictures", labelled=True))
    blurred = next(o for o in found.odd if o.kind == "blurred")
    named = {int(found.sources[i].rsplit("/", 1)[-1][:-4]) for i in blurred.members}
    assert named >= set(range(6))
    assert len(named) <= 8
    assert f"{blurred.line}." in list(found.lines())
    files = found.save(tmp_path / "out")
    again = pl.read(files[0])
    assert list(again.lines()) == list(found.lines())
    assert again.csv() == found.csv()
    assert "Blurred beside the others" in files[-1].read_text()
    assert sum(row["blurred beside the others"] for row in found.table()) == len(blurred.members)
    (csv,) = found.export("csv", tmp_path / "out")
    assert csv.read_text().count("\nblurred,") == len(blurred.members)
