"""`check()` on models whose evidence is known, and what it costs."""

import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import SIDE, STRETCH, bright_net, pixels, planted_net
from pellucid.evaluation.chance import STEPS, mask_pairs
from pellucid.evaluation.faithfulness import BLOCKS, Perturbed
from pellucid.evaluation.sanity import SEEDS
from pellucid.evaluation.verdict import SIGNIFICANT
from pellucid.heatmaps import GradCAM, IntegratedGradients
from pellucid.heatmaps.base import Attribution, Method
from pellucid.scoring.job import Job

PLACE = (slice(8, 24), slice(40, 56))  # where the object lies, in the model's input


def scene():
    values = np.random.default_rng(0).integers(100, 150, (SIDE, SIDE, 3)).astype(np.uint8)
    values[PLACE] = 250
    return values


class Counter(nn.Module):
    """Counts the samples that pass through the net inside it, not through copies of it."""

    counts: ClassVar[dict[int, int]] = {}  # what a model keeps itself is put back behind each pass

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        self.counts[id(self)] = self.counts.get(id(self), 0) + len(x)
        return self.net(x)

    def since(self):
        """The samples since the last call."""
        return self.counts.pop(id(self), 0)


@dataclass(frozen=True)
class Fixed(Method):
    """A map made by `draw` from the model and the picture; stands for a method."""

    draw: object
    name: ClassVar[str] = "fixed"
    needs: ClassVar[str] = "outputs"
    signed: ClassVar[bool] = False
    uses_target: ClassVar[bool] = False

    @classmethod
    def run(cls, methods: Sequence["Fixed"], job: Job):
        maps = [m.draw(job.module, job.inputs) for m in methods]
        return [[Attribution(values) for _ in job.targets] for values in maps]

    def parameters(self):
        return {}


def at_the_object(module, x):
    """The bright patches as the model itself counts them; of shuffled weights, whatever they count."""
    return module[0](x)[:, 0].relu().detach()


def elsewhere(module, x):
    return at_the_object(module, x).roll((3, -4), (1, 2))


def edges(_module, x):
    """Where the picture changes; no model is asked."""
    dy, dx = x.mean(1).diff(dim=1)[:, :, 1:], x.mean(1).diff(dim=2)[:, 1:]
    return (dy.square() + dx.square()).sqrt()


@pytest.fixture
def model():
    return pl.wrap(planted_net(), transform=STRETCH, labels=("bright", "dark"))


def test_a_map_at_the_evidence_is_faithful_and_one_beside_it_is_not(model):
    good, bad = pl.explain(model, scene(), [Fixed(at_the_object), Fixed(elsewhere)], "bright").check()
    assert good.verdict == "faithful"
    assert good.insertion.auc > good.insertion.random_mean + 3 * good.insertion.random_std
    assert good.deletion.auc < good.deletion.random_mean - 3 * good.deletion.random_std
    assert bad.verdict == "not faithful"
    assert bad.insertion.auc < good.insertion.auc


def test_real_methods_are_faithful_on_a_planted_object(model):
    for e in pl.explain(model, scene(), "grad-cam,hires-cam,integrated-gradients,input-x-gradient", "bright"):
        assert e.check().verdict in {"faithful", "partly faithful"}, e.method
        assert e.quality.insertion.auc > e.quality.insertion.random_mean
        assert e.quality.deletion.auc < e.quality.deletion.random_mean


def test_a_map_of_the_picture_alone_fails_the_sanity_test(model):
    e = pl.explain(model, scene(), Fixed(edges), "bright")
    quality = e.check()
    assert quality.sanity == pytest.approx(1)
    assert quality.verdict in {"partly faithful", "not faithful"}
    assert "does NOT change with the weights" in quality.line


def test_the_curves_are_of_the_probability(model):
    quality = pl.explain(model, scene(), "grad-cam", "bright").check()
    x = torch.from_numpy(scene()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = float(planted_net()(x).softmax(1)[0, 0])
    assert quality.insertion.scores[-1] == pytest.approx(expected, abs=1e-5)
    assert quality.deletion.scores[0] == pytest.approx(expected, abs=1e-5)


def test_zero_maps_are_meaningless_and_cost_no_passes(model):
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    e = pl.explain(model, black, "input-x-gradient", "bright")
    quality = e.check()
    assert quality.verdict == "meaningless"
    assert "The map is zero" in quality.line
    assert quality.insertion is None
    assert quality.sanity is None


def test_bad_maps_beside_good_ones(model):
    def broken(_module, _x):
        return torch.full((1, 4, 4), torch.nan)

    def flat(_module, _x):
        return torch.ones(1, 4, 4)

    found = pl.explain(model, scene(), [Fixed(broken), "grad-cam", Fixed(flat)], "bright", check=True)
    assert [e.quality.verdict for e in found] == ["meaningless", "faithful", "meaningless"]
    assert [e.quality.line.split(":")[1].strip() for e in found[::2]] == [
        "The map holds NaN or infinity",
        "The map is flat",
    ]


def test_an_all_negative_map_says_so_and_is_measured(model):
    def against(module, x):
        return -1 - at_the_object(module, x)

    class Signed(Fixed):
        signed: ClassVar[bool] = True

    quality = pl.explain(model, scene(), Signed(against), "bright").check()
    assert "no positive value" in quality.line
    assert quality.verdict == "not faithful"
    assert quality.insertion.auc < quality.insertion.random_mean


def test_the_completeness_gap_of_the_method_passes_through(model):
    method = IntegratedGradients(max_steps=4, tolerance=None)
    e = pl.explain(model, scene(), method, "bright")
    x = torch.from_numpy(scene()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        change = float(planted_net()(x)[0, 0] - planted_net()(torch.zeros_like(x))[0, 0])
    gap = abs(float(e.attribution.sum()) - change) / abs(change)
    assert e.facts["completeness_gap"] == pytest.approx(gap, abs=1e-4)
    assert e.check().completeness_gap == e.facts["completeness_gap"]
    assert f"completeness gap {gap:.1%}" in e.quality.line
    assert pl.explain(model, scene(), "grad-cam", "bright").check().completeness_gap is None


def test_channel_relevance_has_no_curves(model):
    quality = pl.explain(model, scene(), "channel-relevance", "bright").check()
    assert quality.verdict in {"unproven", "not faithful"}
    assert quality.insertion is None
    assert math.isfinite(quality.sanity)


# ---------------------------------------------------------------- what it costs


def counted(net=None):
    counter = Counter(net or bright_net())
    return counter, pl.wrap(counter, transform=STRETCH)


def forwards(methods, targets):
    counter, model = counted()
    found = pl.explain(model, scene(), methods, targets)
    counter.since()
    found.check()
    return counter.since() - besides(found if isinstance(found, list) else [found])


SLOPE, MIRROR = 3, 2  # passes: a gradient and both ends of a step, once for a target; the mirror's answer and its map


def besides(found):
    """What is asked of maps that have passed the other tests."""
    faithful = [e for e in found if e.quality.verdict == "faithful"]
    return SLOPE * len({e.explained for e in faithful}) + MIRROR * len(faithful)


INNER = STEPS - 1
CURVES = 2 * INNER  # of one map, without the two ends
BLOCK = mask_pairs((14, 14), 0, 0).shape[1] * 2  # random masks that are asked for at a time


def masks_for(methods, targets=0):
    """The random masks asked for, all else taken off."""
    maps = len(methods.split(","))
    return forwards(methods, targets) - 2 - maps * CURVES


def test_a_map_that_is_certain_costs_no_more_than_one_block_and_its_curves():
    counter, model = counted(planted_net())
    e = pl.explain(model, scene(), Fixed(lambda m, x: at_the_object(getattr(m, "net", m), x)), 0)
    counter.since()
    assert e.check().verdict == "faithful"
    assert counter.since() == 2 + BLOCK + CURVES + 1 < 110  # the last: the picture's answer in a mirror


def test_random_masks_are_measured_once_for_all_methods_of_a_target():
    alone = {name: masks_for(name) for name in ("saliency", "input-x-gradient", "grad-cam")}
    assert all(count in {k * BLOCK for k in range(1, BLOCKS + 1)} for count in alone.values())
    most = max(alone.values())
    assert most - 2 * CURVES < masks_for(",".join(alone)) <= most  # where orders agree, curves are shared too


def test_a_masked_picture_is_shown_once_for_all_targets():
    """The ends and the random masks serve both targets, whichever needs more of them."""
    most = max(masks_for("saliency", target) for target in (0, 1))
    assert most + CURVES < forwards("saliency", [0, 1]) <= 2 + most + 2 * CURVES  # some of the curves' too
    _, model = counted()
    one, other = pl.explain(model, scene(), "saliency", [0, 1]).check()
    assert [one, other] == [pl.explain(model, scene(), "saliency", t).check() for t in (0, 1)]


def test_checking_again_or_one_by_one_shares_them_too():
    counter, model = counted()
    found = pl.explain(model, scene(), "saliency,input-x-gradient", 0)
    counter.since()
    first = found[0].check()
    second = found[1].check()
    assert counter.since() - besides(found) == 2 + masks_for("saliency,input-x-gradient") + 2 * CURVES
    together = pl.explain(model, scene(), "saliency,input-x-gradient", 0).check()
    assert [first, second] == together


def test_randomised_models_are_made_once_for_all_methods(monkeypatch):
    import pellucid.evaluation.sanity as sanity

    made = []

    def copying(module, inputs, seed):
        made.append(seed)
        return real(module, inputs, seed)

    real = sanity.randomised_copy
    monkeypatch.setattr(sanity, "randomised_copy", copying)
    _, model = counted()
    pl.explain(model, scene(), "saliency,grad-cam,hires-cam", [0, 1]).check()
    assert made == list(SEEDS)
    pl.explain(model, [scene(), pixels(SIDE, SIDE)], "saliency", 0).check()
    assert made == list(SEEDS) * 3  # once more for each picture


class Locked(nn.Module):
    """Holds what cannot be copied: a lock, and one inside an object beside the weights."""

    def __init__(self):
        super().__init__()
        self.net = planted_net()
        self.lock = threading.Lock()
        self.inside = SimpleNamespace(lock=threading.Lock(), net=[self.net])

    def forward(self, x):
        with self.lock, self.inside.lock:
            return self.inside.net[0](x)


def test_a_model_that_cannot_be_copied_is_tested_as_its_plain_self():
    locked, plain = (pl.wrap(net, transform=STRETCH, labels=("bright", "dark")) for net in (Locked(), planted_net()))
    found, expected = (pl.explain(m, scene(), "input-x-gradient", "bright").check() for m in (locked, plain))
    assert found.sanity == pytest.approx(expected.sanity, abs=1e-6)
    assert abs(found.sanity) < 0.8  # its weights were shuffled, inside of the object too
    assert found.verdict == expected.verdict == "faithful"


class Formula(nn.Module):
    """How bright the object's place is: a score without weights."""

    def forward(self, x):
        s = (x[:, :, PLACE[0], PLACE[1]].mean((1, 2, 3)) - 0.8) * 40
        return torch.stack([s, -s], 1)


def test_a_model_without_weights_is_not_blamed_for_not_changing_with_them():
    e = pl.explain(pl.wrap(Formula(), transform=STRETCH), scene(), "input-x-gradient", 0)
    quality = e.check()
    assert quality.sanity is None
    assert "weights" not in quality.line
    assert quality.verdict == "faithful"


class Deep(nn.Module):
    """Two stages; the second is dead on whatever is not as the weights of the first make it, so a shuffled copy
    chooses the first."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        y = self.first(x).relu()
        z = self.second(y).relu() if self.second.weight[0, 0, 0, 0] == 0.5 else self.second(y).detach().relu()
        if not z.requires_grad and self.second.weight[0, 0, 0, 0] != 0.5:
            z = z + y.mean()
        return self.head(z.mean((2, 3)))


def test_shuffled_copies_explain_the_layer_that_the_map_is_of(monkeypatch):
    from pellucid.evaluation import check

    torch.manual_seed(0)
    net = Deep()
    with torch.no_grad():
        net.second.weight[0, 0, 0, 0] = 0.5
    e = pl.explain(pl.wrap(net, transform=STRETCH), scene(), "hires-cam", 0)
    assert e.record.run["layer"] == "second"
    asked = []

    def listening(methods, twin, *rest):
        asked.extend(m.layer for m in methods)
        return real(methods, twin, *rest)

    real = check.explain_all
    monkeypatch.setattr(check, "explain_all", listening)
    quality = e.check()  # maps of the first layer would be larger than this one
    assert asked == ["second"] * len(SEEDS)
    assert quality.verdict in {"faithful", "partly faithful", "not faithful"}


def test_a_model_that_has_learned_since_is_refused_with_the_cure(model):
    e = pl.explain(model, scene(), "grad-cam", "bright")
    with torch.no_grad():
        model.module[0].weight[0] += 0.1
    with pytest.raises(pl.ModelError, match=r"weights have changed since .* explain the picture again"):
        e.check()


def test_maps_that_the_shuffled_copies_refuse_leave_the_others_alone(model):
    def refuses(module, x):
        if module is not model.module:
            raise pl.MethodError("not on this one")
        return at_the_object(module, x)

    refused, fine = pl.explain(model, scene(), [Fixed(refuses), "grad-cam"], "bright").check()
    assert refused.sanity is None
    assert refused.verdict == "faithful"
    assert fine == pl.explain(model, scene(), "grad-cam", "bright").check()


class Restless(nn.Module):
    """Draws from all three generators in each pass."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        torch.rand(1), np.random.rand(), random.random()
        return self.head(self.net(x).mean((2, 3)))


def test_the_callers_random_numbers_stay():
    e = pl.explain(pl.wrap(Restless().eval(), transform=STRETCH), scene(), "grad-cam", 0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    e.check()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_check_leaves_the_model_and_the_random_state_alone():
    net = bright_net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    model = pl.wrap(net, transform=STRETCH)
    e = pl.explain(model, scene(), "grad-cam")
    rng = torch.get_rng_state()
    e.check()
    assert torch.equal(torch.get_rng_state(), rng)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_checks_are_reproducible(model):
    a, b = (pl.explain(model, scene(), "hires-cam,saliency", seed=s).check() for s in (4, 4))
    assert a == b


def test_a_map_has_one_verdict_whatever_the_seed_of_its_run(model):
    """Of a map half beside the evidence some masks say "faithful" and some do not: `check` shows all runs the same."""
    net, x = model.module, model.preprocess(pl.read_image(scene()))[0][None]
    beside = at_the_object(net, x) + elsewhere(net, x)
    drawn = [Perturbed(lambda y: net(y).softmax(1)[:, 0].detach(), x, masks) for masks in (0, 5)]
    low, high = (p.agreement(beside[0]).p_value for p in drawn)
    assert low < SIGNIFICANT < high
    found = [pl.explain(model, scene(), Fixed(lambda *_: beside), seed=s).check() for s in range(20)]
    assert found == found[:1] * 20


def test_methods_that_hold_tensors_are_checked_side_by_side(model):
    black, grey = torch.zeros(3, SIDE, SIDE), torch.full((3, SIDE, SIDE), 0.5)
    methods = [IntegratedGradients(baseline=b, max_steps=4, tolerance=None) for b in (black, grey)]
    together = pl.explain(model, scene(), methods, ["bright", "bright>dark"])
    qualities = together.check()
    for e, quality in zip(together, qualities, strict=True):
        alone = pl.explain(model, scene(), e.ran, e.explained)
        assert alone.check() == quality


def test_several_pictures_are_checked_each_against_its_own(model):
    pictures = [scene(), np.roll(scene(), (32, -24), (0, 1))]
    both = pl.explain(model, pictures, GradCAM(), "bright")
    both.check()
    assert both[0].quality.insertion.scores != both[1].quality.insertion.scores
    for e, picture in zip(both, pictures, strict=True):
        alone = pl.explain(model, picture, GradCAM(), "bright")
        assert alone.check().insertion.scores == pytest.approx(e.quality.insertion.scores, abs=1e-5)
