"""Which answers look wrong: planted signs are learned, chance is not, and no picture has a part in its own score."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.reliances import world
from sklearn.metrics import roc_auc_score
from torch import nn

import pellucid as pl
from helpers.audits import table
from pellucid import storage
from pellucid.audit.failures import FACTS, _neighbours, area_under, failure_score, paired_areas
from pellucid.verbs.audit import recompute
from pellucid.verbs.kinds import REQUESTS


def answered(count=500, seed=0, chance=lambda sure, rng: np.full(len(sure), 0.2)):
    """A table of two classes whose confidence is drawn from 0.5 to 1, and wrong with the given chance."""
    samples, rng = table(count, seed), np.random.default_rng(100 + seed)
    sure = rng.uniform(0.5, 1, count)
    wrong = rng.random(count) < chance(sure, rng)
    answers = np.where(wrong, 1 - samples.truth, samples.truth)
    p = np.where(np.eye(2)[answers] > 0, sure[:, None], 1 - sure[:, None]).astype(np.float32)
    return replace(samples, scores=np.log(p), probabilities=p)


def test_signs_that_the_confidence_lacks_are_learned():
    """Wrong answers lie together in the embedding."""
    samples = answered()
    samples.embedding[samples.wrong] += np.array([3, 0, 0, 0, 0, 0], np.float32)
    found = failure_score(samples)
    assert found.low > 0.1
    assert found.low < found.gap < found.high
    assert found.gap == pytest.approx(found.area - found.alone)
    assert found.area == pytest.approx(roc_auc_score(samples.wrong, found.values))
    assert found.alone == pytest.approx(roc_auc_score(samples.wrong, -samples.confidence))
    assert f"A score of {len(FACTS)} facts ranks wrong answers at AUROC {found.area:.3f} beside" in found.line


def test_the_place_of_the_evidence_is_learned():
    samples = answered(seed=1)
    samples.maps[samples.wrong, 3:-3, 3:-3] = 0
    assert failure_score(samples).low > 0.1


def test_where_the_confidence_says_all_nothing_is_won():
    """No gain is claimed, and what facts that say nothing cost is little."""
    found = [failure_score(answered(800, seed, lambda sure, rng: 0.9 * (1 - sure))) for seed in range(6)]
    assert all(f.low <= 0 for f in found)
    assert sum(f.low <= 0 <= f.high for f in found) >= 3
    assert all(f.alone > 0.6 and abs(f.gap) < 0.02 for f in found)


def test_errors_at_random_cannot_be_ranked():
    areas = [failure_score(answered(seed=seed)).area for seed in range(6)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.05)


def test_two_files_of_one_picture_tell_nothing_of_each_other():
    """Errors at random, each picture twice: a copy in another fold would give its own error away."""
    rows = np.concatenate([np.arange(300), np.arange(300)])
    names = ("scores", "probabilities", "embedding", "maps", "properties", "boxes", "thumbs", "truth")
    given_away, kept_apart = [], []
    for seed in range(6):
        half = answered(300, seed)
        twice = replace(half, positions=np.arange(600), **{name: getattr(half, name)[rows] for name in names})
        given_away.append(failure_score(twice).area)
        kept_apart.append(failure_score(twice, [(i, i + 300) for i in range(300)]).area)
    assert min(given_away) > 0.8
    assert np.mean(kept_apart) == pytest.approx(0.5, abs=0.06)


def test_neighbours_are_of_neither_fold():
    samples, rng = answered(40), np.random.default_rng(0)
    folds = rng.integers(-1, 5, 40)  # -1: its class is unknown
    rows = samples.embedding.astype(float) - samples.embedding.astype(float).mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = _neighbours(samples, folds)
    for fold in range(5):
        for i in range(40):
            asked = [j for j in range(40) if folds[j] not in (-1, fold, folds[i])]
            w = np.array([np.exp((rows[i] @ rows[j] - 1) / 0.1) for j in asked])
            agree = sum(w[samples.truth[asked] == samples.answers[i]]) / w.sum()
            wrong = sum(w[samples.wrong[asked]]) / w.sum()
            np.testing.assert_allclose(found[fold, i], [agree, wrong, np.log(w.mean())], rtol=1e-6, atol=1e-9)


def test_the_area_is_that_of_scikit_learn_ties_and_weights_too():
    rng = np.random.default_rng(0)
    score, wrong = rng.integers(0, 7, 90) / 7, rng.random(90) < 0.3
    weights = rng.integers(0, 4, (3, 90)).astype(float)
    assert area_under(score, wrong) == pytest.approx(roc_auc_score(wrong, score))
    wanted = [roc_auc_score(wrong, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(area_under(score, wrong, weights), wanted)


def test_a_score_beside_itself_differs_by_nothing():
    rng = np.random.default_rng(0)
    score, wrong = rng.random(90), rng.random(90) < 0.3
    assert paired_areas(score, score, wrong, rng)[2:] == (0, 0, 0)


def test_pictures_of_unknown_class_are_scored_too():
    samples = answered()
    samples.embedding[samples.wrong] += np.array([3, 0, 0, 0, 0, 0], np.float32)
    wrong = samples.wrong.copy()
    samples.truth[::5] = -1
    values = failure_score(samples).values
    assert roc_auc_score(wrong[::5], values[::5]) > 0.8


def test_too_few_errors_are_no_score():
    samples = answered(400)
    right = np.flatnonzero(~samples.wrong)
    few = np.concatenate([right, np.flatnonzero(samples.wrong)[:19]])
    assert failure_score(replace(samples, truth=np.where(np.isin(np.arange(400), few), samples.truth, -1))) is None
    assert failure_score(samples) is not None


def test_errors_on_one_picture_alone_are_no_score():
    samples = answered(120)
    wrong = np.flatnonzero(samples.wrong)[:21]
    samples.truth[np.setdiff1d(np.flatnonzero(samples.wrong), wrong)] = -1
    assert failure_score(samples) is not None
    assert failure_score(samples, [(wrong[0], other) for other in wrong[1:]]) is None


def test_a_broken_output_is_scored_by_the_rest():
    samples = answered()
    samples.scores[3], samples.embedding[5] = np.nan, np.inf
    samples.embedding[samples.wrong] += np.array([3, 0, 0, 0, 0, 0], np.float32)
    assert np.isfinite(failure_score(samples).values).all()


class Bright(nn.Module):
    """Three classes, as bright as red, green and blue are."""

    def __init__(self):
        super().__init__()
        self.see = nn.Conv2d(3, 3, 3, padding=1)
        self.see.weight.data = nn.init.dirac_(self.see.weight.data) * 9

    def forward(self, x):
        return self.see(x).relu().mean((2, 3))


def test_it_stands_in_summary_table_and_page_and_is_verified(tmp_path):
    look = pl.Preprocess(input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    data = world(None, 90)
    model = pl.wrap(Bright().eval(), transform=look, labels=list(data.classes), scores="softmax")
    found = pl.audit(model, data)
    assert found.failure.line + "." in list(found.lines())
    assert found.table()[7]["chance of being wrong"] == found.failure.values[7]
    files = found.save(tmp_path)
    again = pl.read(files[0])
    assert list(again.lines()) == list(found.lines())
    assert again.csv() == found.csv()
    page = files[-1].read_text()
    assert "Most likely wrong by the score" in page
    assert found.failure.line[:40] in page
    assert str(pl.verify(files[0], model=model, inputs=data)) == "same"
    remade = recompute(storage.read_artefact(files[0], REQUESTS), model, data).arrays
    np.testing.assert_array_equal(remade["failure.values"].numpy(), found.failure.values)
    without = replace(found, failure=None)  # as older files are
    assert pl.read(without.save(tmp_path / "older")[0]).failure is None
    assert "chance of being wrong" not in without.csv()


def test_an_audit_with_few_errors_says_why_there_is_no_score(tmp_path):
    look = pl.Preprocess(input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    data = world(None, 21)
    found = pl.audit(pl.wrap(Bright().eval(), transform=look, labels=list(data.classes), scores="softmax"), data)
    wrong = int(found.samples.wrong.sum())
    said = f"20 wrong and 20 right ones are needed, and there are {wrong} and {21 - wrong}."
    assert any(said in line for line in found.lines())
    assert found.failure is None
