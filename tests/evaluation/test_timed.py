"""Metrics of clips in time: against curves worked out by hand, a linear model, planted truth."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.evaluations import Formula, Value, candidate, read, sample
from pellucid.evaluation.banks import MapAndTruth
from pellucid.evaluation.competitors import competitor
from pellucid.evaluation.metrics import METRICS, as_metrics
from pellucid.evaluation.metrics.timed import over_time
from pellucid.evaluation.sample import Inquiry, Sample
from pellucid.evaluation.suites import pictures
from pellucid.verbs.evaluate_suite import evaluate_suite

WORTH = torch.tensor([0.1, 0.4, 0.2, 0.3])  # of the four frames
TEMPORAL = [name for name, m in METRICS.items() if m.clips]


def clips(net):
    frame = pl.Preprocess(input_size=(2, 2), mean=(0,) * 3, std=(1,) * 3)
    transform = pl.ClipPreprocess(spatial=frame, plan=pl.Plan("uniform", 4))
    return pl.wrap(net.eval(), transform=transform, scores="none")


def clip(mask=None):
    """Ones, of which each frame adds its worth."""
    net = Formula(lambda x: (x.mean((1, 3, 4)) * WORTH.to(x)).sum(1, keepdim=True))
    return Sample(clips(net), torch.ones(1, 3, 4, 2, 2), Value(), mask=mask)


def spread(worth):
    return worth[:, None, None].expand(4, 2, 2).clone()


def by_hand(worth, most):
    """What is left as frames go, in 16 steps; the frame whose middle is just reached is half gone."""
    order = worth.argsort(descending=most)
    middle = torch.empty(4)
    middle[order] = torch.arange(4) + 0.5
    left = [float((WORTH * ((middle - 4 * k / 16).sign() + 1) / 2).sum()) for k in range(17)]
    return np.trapezoid(left, dx=1 / 16)


@pytest.mark.parametrize("worth", [WORTH, -WORTH, torch.tensor([0.0, 1.0, 2.0, 3.0])])
def test_frames_leave_in_the_order_of_the_map(worth):
    def on_zeros(name):
        return read(METRICS[name].on("zero"), clip(), spread(worth))[0]

    morf, lerf = by_hand(worth, most=True), by_hand(worth, most=False)
    assert on_zeros("temporal-deletion") == pytest.approx(morf, abs=1e-6)
    assert on_zeros("temporal-insertion") == pytest.approx(lerf, abs=1e-6)
    assert on_zeros("temporal-srg") == pytest.approx(lerf - morf, abs=1e-6)


def test_stretches_of_time_beside_their_exact_shapley_values():
    def latch():  # the first two frames count together alone, the last one against them
        def score(x):
            a, b, _, d = x.mean((1, 3, 4)).unbind(1)
            return (torch.minimum(a, b) - 0.5 * d)[:, None]

        return Sample(clips(Formula(score)), torch.ones(1, 3, 4, 2, 2), Value())

    only, true = METRICS["temporal-shapley"].on("zero"), torch.tensor([0.5, 0.5, 0.0, -0.5])
    assert only.bank.shared((4, 2, 2)) == 16
    assert only.bank.shared((16, 2, 2)) == 64
    assert read(only, latch(), spread(true)) == pytest.approx([1])
    assert read(only, latch(), spread(-3 * true)) == pytest.approx([-1])
    seen = torch.tensor([1.0, 0.0, 0.0, 0.0])  # by hand: 0.375 * 0.75 over the norms of both, centred
    expected = np.corrcoef(seen, true)[0, 1]
    assert read(only, latch(), spread(seen)) == pytest.approx([expected])
    assert read(only, clip(), spread(WORTH)) == pytest.approx([1])


def test_a_clip_a_frame_later_is_explained_a_frame_later():
    net = Formula(lambda x: x.square().sum((1, 2, 3, 4))[:, None])
    x = torch.arange(1.0, 49).reshape(1, 3, 4, 2, 2)
    given = Sample(clips(net), x, Value())
    bank = METRICS["frame-shift-equivariance"].bank
    later, _ = bank.question(given)
    assert torch.equal(later[:, :, 1:], x[:, :, :3])
    assert torch.equal(later[:, :, 0], x[:, :, 0])

    def value(rival):
        c = competitor("rival", rival, {})
        with Inquiry(given) as inquiry:
            (own,) = c.draw(given.model, x, given.target, given).candidates(c)
            (answer,) = bank.answers(inquiry, [own])
        return METRICS["frame-shift-equivariance"].measure(answer)

    assert value(lambda _m, x, _t: x.square().sum(1)) == pytest.approx(1)
    ramp = torch.tensor([0.0, 1.0, 3.0, 2.0])[:, None, None].expand(4, 2, 2)
    fixed = np.corrcoef([0.0, 1.0, 3.0], [1.0, 3.0, 2.0])[0, 1]
    assert value(lambda _m, x, _t: ramp[None]) == pytest.approx(fixed)  # says when in the clip, not when in time


def test_what_frames_are_worth_is_told_apart_from_where_in_them():
    only = METRICS["temporal-sensitivity-n"].on("zero")
    assert read(only, clip(), spread(WORTH)) == pytest.approx([1])
    assert read(only, clip(), spread(-WORTH)) == pytest.approx([-1])
    crooked = spread(WORTH)
    crooked[:, 0] *= 2
    crooked[:, 1] = 0
    assert read(only, clip(), crooked) == pytest.approx([1])


def test_the_plan_counts_what_is_asked():
    m = METRICS["temporal-sensitivity-n"].on("zero")
    with Inquiry(clip()) as inquiry:
        m.bank.answers(inquiry, [candidate(spread(WORTH))])
        assert inquiry.forwards <= m.bank.shared((4, 2, 2)) + 2


def located(name, heat, frames):
    mask = torch.zeros(4, 2, 2, dtype=torch.bool)
    mask[list(frames), 0, 0] = True
    return read(METRICS[name], clip(mask), spread(torch.tensor(heat)))[0]


def test_a_map_in_time_beside_the_frames_that_hold_evidence():
    heat = [0.1, 0.6, 0.3, 0.0]
    assert located("temporal-mass", heat, [1, 2]) == pytest.approx(0.9)
    assert located("temporal-auc", heat, [1, 2]) == pytest.approx(1)
    assert located("temporal-auc", heat, [1, 3]) == pytest.approx(0.5)
    assert located("temporal-iou", heat, [1, 3]) == pytest.approx(0.5)
    assert located("temporal-pointing", heat, [2]) == 1  # next to it
    assert located("temporal-pointing", heat, [3]) == 0
    assert located("temporal-pointing", [1.0, 0.0, 0.0, 1.0], [3]) == 0.5
    assert located("temporal-pointing", heat, []) == located("temporal-mass", heat, []) == 0


def test_what_speaks_against_and_what_was_not_seen_is_no_relevance():
    heat = np.array([[1.0, -5.0], [np.nan, np.nan], [2.0, np.nan]]).ravel()
    truth = np.array([[True, False], [True, True], [False, False]]).ravel()
    found = over_time(MapAndTruth(heat, truth, (3, 1, 2)))
    assert found.heat.tolist() == [1, 2]
    assert found.truth.tolist() == [True, False]


@pytest.mark.parametrize("name", TEMPORAL)
def test_a_still_picture_is_told_that_it_has_no_frames(name):
    with pytest.raises(pl.PellucidError, match="of clips"):
        read(METRICS[name].on("zero"), sample(torch.rand(3, 4, 4)), torch.rand(4, 4))


def test_groups_hold_metrics_of_clips_for_clips_alone():
    for group in ("default", "all", "faithfulness", "localisation"):
        assert not {m.name for m in as_metrics(group, masks=True)} & set(TEMPORAL)
        assert {m.name for m in as_metrics(group, masks=True, clips=True)} & set(TEMPORAL)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    found = pl.evaluate(clips(net), torch.rand(1, 3, 4, 2, 2), "saliency", "temporal-srg,temporal-sensitivity-n")
    assert np.isfinite(found.scores[0]).all()
    assert not [text for method, _, text in found.said if method == "saliency"]


# --- suites


def test_what_cancels_adds_nothing():
    net, batch = pictures.draw("suppressor", 4, 1)
    teal = torch.tensor([0.0, 0.9, 0.9])[:, None, None]
    inside = (batch.pictures - teal).abs().amax(1) < 1e-3
    assert (inside.flatten(1).sum(1) > 50).all()
    assert float(net.found(batch.pictures).detach()[:, 0][inside].min()) > 1  # it is seen as green
    assert float(batch.oracle[inside].abs().max()) < 1e-3 * float(batch.oracle.max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["motion", "order"])
def test_on_clips_the_oracle_is_on_top_random_at_chance_edges_no_better(name):
    asked = "temporal-sensitivity-n,temporal-mass,temporal-auc,mask-auc,relevance-mass"
    board = evaluate_suite(name, "saliency", asked, count=6)
    names = [m.name for m in board.metrics]
    means = {m: dict(zip(names, board.means[c, :, 0], strict=True)) for c, m in enumerate(board.methods)}
    for blind in ("random order", "edges"):
        assert all(means["oracle"][n] > means[blind][n] for n in names), (blind, means)
    assert all(means["oracle"][n] == pytest.approx(1) for n in names if not n.startswith("temporal-sens"))
    assert 0.2 < means["random order"]["mask-auc"] < 0.8
    assert means["saliency"]["mask-auc"] > means["random order"]["mask-auc"]
    assert not any("surer" in note for note in board.notes)


def test_an_unknown_suite_is_told_which_there_are():
    with pytest.raises(pl.PellucidError, match="motion"):
        evaluate_suite("motoin", "grad-cam")
