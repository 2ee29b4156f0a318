"""The error-aware mixture and spotlights: against scikit-learn, on planted groups, blind to the answers of the rest."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from helpers.audits import table
from pellucid.audit.columns import Columns, described
from pellucid.audit.groups import Likeness, distributions
from pellucid.audit.mixture import ErrorMixture, principal
from pellucid.audit.slices import find
from pellucid.audit.spotlight import dimness, spotlights


def clouds(count=400, seed=0):
    """Rows of two clouds; in a corner of the second, a twelfth of all, class 1 is answered 0."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2
    rows = rng.standard_normal((count, 4)) * 0.3
    rows[:, 0] += 2 * truth
    inside = (truth == 1) & (np.arange(count) % 12 == 1)
    rows[inside, 1] += 3
    said = np.where((truth[:, None] == np.arange(2)) ^ inside[:, None], 0.9, 0.1)
    return rows, truth, said, inside


def test_without_weight_it_is_the_gaussian_mixture_of_scikit_learn():
    rows, truth, said, _ = clouds()
    mixed = ErrorMixture.fitted(rows, truth, said, groups=3, weight=0)
    other = GaussianMixture(3, covariance_type="diag").fit(rows)
    other.weights_, other.means_ = mixed.weights, mixed.means
    other.covariances_, other.precisions_cholesky_ = mixed.variances, 1 / np.sqrt(mixed.variances)
    np.testing.assert_allclose(
        np.exp(mixed.joint(rows, truth, said, weight=0)).sum(1), np.exp(other.score_samples(rows)), rtol=1e-9
    )


def test_each_round_raises_the_likelihood():
    rows, truth, said, _ = clouds()
    values, mixed = [], ErrorMixture.fitted(rows, truth, said, groups=6)
    for _ in range(5):
        joint = mixed.joint(rows, truth, said)
        total = np.logaddexp.reduce(joint, 1)
        values.append(total.mean())
        mixed = ErrorMixture._of(rows, np.eye(2)[truth], said, np.exp(joint - total[:, None]))
    assert all(b >= a - 0.02 for a, b in pairwise(values))  # variances have a floor


def test_a_planted_group_is_one_of_the_mixture_the_most_at_fault():
    rows, truth, said, inside = clouds()
    mixed = ErrorMixture.fitted(rows, truth, said, groups=6)
    g = int(mixed.faults.argmax())
    assert mixed.faults[g] > 0.7
    assert inside[np.argsort(-mixed.belongs(rows, truth)[:, g])[:20]].mean() > 0.9


def test_a_spotlight_lies_where_the_losses_are_and_lights_its_share():
    rows, truth, said, inside = clouds()
    z = principal(rows)
    losses = -np.log(said[np.arange(400), truth])
    (light,) = spotlights(z, losses, 1, share=0.05)
    lit = light.lights(z)
    assert lit.sum() >= 0.045 * 400
    assert inside[np.argsort(-lit)[:20]].mean() > 0.9
    first, second = spotlights(z, losses, 2, share=0.05)
    assert np.linalg.norm(first.centre - second.centre) > 0.2  # the first is dimmed
    assert spotlights(z, np.zeros(400)) == []


def planted(seed=0):
    """A table of 400 samples whose embedding has a corner where nine of ten answers are wrong; elsewhere one of 20."""
    rows, truth, _, inside = clouds(seed=seed)
    rng = np.random.default_rng(seed)
    wrong = rng.random(400) < np.where(inside, 0.9, 0.05)
    p = np.where((truth[:, None] == np.arange(2)) ^ wrong[:, None], 0.9, 0.1).astype(np.float32)
    made = replace(table(400, seed), embedding=rows.astype(np.float32), truth=truth, probabilities=p, scores=np.log(p))
    return made, inside


def literals(count=400, seed=0):
    values = np.random.default_rng(seed).random((count, 3)) < 0.3
    return Columns(("c0", "c1", "c2"), values, ("c0", "c1", "c2"))


def test_what_no_column_says_is_found_among_like_pictures():
    s, inside = planted()
    everything = np.ones(400, bool)
    first = find(literals(), s.wrong, everything, 0, Likeness.of(s))[0]
    assert first.kind in ("mixture", "spotlight")
    assert first.name.startswith("like pictures, mostly ")
    assert first.p < 0.001
    assert first.low > 0.4
    assert inside[list(first.members[:10])].mean() > 0.9
    marks = s.wrong[list(first.members)]
    assert marks[: marks.sum()].all()  # those that are wrong come first
    assert not any(m.p < 0.05 and inside[list(m.members)].any() for m in find(literals(), s.wrong, everything, 0))


def test_groups_do_not_depend_on_the_answers_of_the_other_half():
    s, _ = planted()
    search, other = np.arange(0, 400, 2), np.arange(1, 400, 2)
    p = s.probabilities.copy()
    p[other] = p[other][:, ::-1]
    turned = replace(s, probabilities=p, scores=np.log(p))
    found, again = (list(Likeness.of(t).propose(search)) for t in (s, turned))
    for one, two in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.score, two.score)


def test_its_gradient_is_that_of_differences():
    rows, truth, said, _ = clouds(60)
    losses = -np.log(said[np.arange(60), truth])
    place, squares = np.array([0.3, 0.2, -0.1, 0.4, -0.5]), (rows**2).sum(1)
    for least in (5.0, 50.0):  # with light enough, and with too little
        _, slope = dimness(place, rows, squares, losses, least)
        for j, step in enumerate(np.eye(5) * 1e-6):
            up, down = (dimness(place + s * step, rows, squares, losses, least)[0] for s in (1, -1))
            assert slope[j] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.slow
def test_errors_at_random_make_few_claims():
    claimed = 0
    for seed in range(20):
        s = table(300, seed)
        wrong = np.random.default_rng(seed).random(300) < 0.15
        p = np.where((s.truth[:, None] == np.arange(2)) ^ wrong[:, None], 0.9, 0.1).astype(np.float32)
        s = replace(s, probabilities=p, scores=np.log(p))
        claimed += any(f.p < 0.05 for f in find(literals(300), wrong, np.ones(300, bool), seed, Likeness.of(s)))
    assert claimed <= 4  # one is expected, more than four in less than one time in 300


def test_samples_without_a_truth_are_in_no_group_and_what_is_no_distribution_is_its_answer():
    s, _ = planted()
    truth = s.truth.copy()
    truth[:50] = -1
    s = replace(s, truth=truth)
    assert all(not c.score[:50].any() for c in Likeness.of(s).propose(np.arange(50, 400)))
    scores = replace(s, probabilities=s.scores)
    np.testing.assert_array_equal(distributions(scores), np.eye(2)[s.answers])


def test_a_group_is_described_by_what_tells_it_best():
    values = np.zeros((12, 3), bool)
    values[:6, 0], values[3:9, 1], values[0, 2] = True, True, True
    columns = Columns(("north", "dark", "answered a"), values, ("site", "light", "answer"))
    inside = np.zeros(12, bool)
    inside[3:6] = True
    assert described(columns, inside) == "north and dark (100% of them)"
    assert described(columns, values[:, 2]) == "north (100% of them)"
    assert described(columns, np.zeros(12, bool)) == ""
