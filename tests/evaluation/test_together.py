"""Maps of several samples drawn in one batch are those that each would have alone."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.errors import PellucidError
from pellucid.evaluation.banks import MapAlone, MovedInputs, NoisyInputs, OtherClass
from pellucid.evaluation.competitors import Drawer, draw_all
from pellucid.evaluation.forecast import forecast
from pellucid.evaluation.metrics import as_metrics
from pellucid.evaluation.sample import Sample
from pellucid.evaluation.schedule import Schedule
from pellucid.evaluation.together import drawn_ahead, in_company, is_fixed, joined, redrawn_ahead
from pellucid.heatmaps import METHODS, get_method
from pellucid.models.targets import Class, Contrast, PerSample


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return pl.wrap(net.eval(), scores="softmax")


def samples(model, count=3, side=8):
    x = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    top = model.module(x).argmax(1).tolist()
    return [Sample(model, x[k : k + 1], PerSample((top[k],)), f"in{k}") for k in range(count)]


FIXED = [name for name in METHODS if is_fixed(get_method(name)) and get_method(name).kind == "map"]


def test_methods_that_draw_or_stop_by_what_they_find_are_drawn_alone():
    assert {"grad-cam", "layer-cam", "eigen-cam", "saliency", "input-x-gradient", "guided-backprop"} <= set(FIXED)
    assert not {"rise", "lime", "smooth-grad", "integrated-gradients", "expected-gradients"} & set(FIXED)


@pytest.mark.parametrize("name", FIXED)
def test_a_map_is_the_same_in_company(name, model):
    given = samples(model)
    c = Drawer(name, get_method(name))
    ahead = drawn_ahead([c], given)
    for sample, found in zip(given, ahead, strict=True):
        (alone,) = draw_all([c], model, sample.x, sample.target, sample)
        if isinstance(alone, PellucidError):
            assert found == {}, alone
            continue
        one = found[id(c)]
        torch.testing.assert_close(one.native, alone.native, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.maps(), alone.maps(), rtol=1e-4, atol=1e-6)
        assert one.geometry == alone.geometry
        assert one.layer == alone.layer
        assert one.cost.forwards <= alone.cost.forwards


def test_values_do_not_depend_on_company(model):
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    boxes = [(0, 0, 4, 4)] * 3
    asked = ("grad-cam,saliency,rise", "srg,sensitivity-n,entropy,mask-auc,lipschitz,random-logit,shift-equivariance")
    whole = pl.evaluate(model, x, *asked, masks=boxes)
    for n in range(3):
        alone = pl.evaluate(model, x[n : n + 1], *asked, masks=boxes[:1])
        for name in ("grad-cam", "saliency", "rise", "edges"):
            own = whole.scores[whole.methods.index(name), :, n]
            np.testing.assert_allclose(own, alone.scores[alone.methods.index(name), :, 0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bank", [OtherClass(), NoisyInputs(draws=3), MovedInputs()], ids=lambda b: b.name)
def test_what_banks_ask_is_the_same_in_company(bank, model):
    given = samples(model, 5)
    drawers = [Drawer(name, get_method(name)) for name in ("saliency", "grad-cam", "layer-cam", "rise")]
    for sample, ahead in zip(given, redrawn_ahead([bank], drawers, given), strict=True):
        assert set(ahead[bank]) == {id(c) for c in drawers[:3]}  # random masks are drawn of one input alone
        x, target = bank.question(sample)
        for c in drawers[:3]:
            (alone,) = draw_all([c], model, x, target, sample)
            torch.testing.assert_close(ahead[bank][id(c)].maps(), alone.maps(), rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(ahead[bank][id(c)].native, alone.native, rtol=1e-4, atol=1e-6)


def test_what_banks_ask_is_drawn_ahead_only_where_several_fit_into_a_batch(model):
    drawers = [Drawer("saliency", get_method("saliency"))]
    given = samples(model, 3)
    assert redrawn_ahead([OtherClass()], drawers, given[:1]) == [{}]
    assert redrawn_ahead([NoisyInputs(draws=9)], drawers, given) == [{}] * 3  # sixteen small inputs make a batch
    assert redrawn_ahead([MapAlone()], drawers, given) == [{}] * 3
    of_no_class = [Sample(model, s.x, Contrast(0, 1), s.name) for s in given]
    assert redrawn_ahead([OtherClass()], drawers, of_no_class) == [{}] * 3


def test_inputs_are_opened_in_batches_and_each_as_if_alone(model):
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    sizes = []
    handle = model.module.register_forward_pre_hook(lambda _m, given: sizes.append(len(given[0])))
    try:
        whole = pl.evaluate(model, x, {"edge": _none}, "entropy,random-logit")
    finally:
        handle.remove()
    assert sizes == [16, 4]  # no pass besides: the competitor asks none
    tops = model.module(x).argmax(1).tolist()
    seen = []
    pl.evaluate(model, x, {"who": lambda m, x, t: seen.append(t) or x.abs().mean(1)}, "entropy")
    assert seen == tops
    assert whole.thumbs.shape[0] == 20


def _none(_module, x, target):
    return x.mean(1) + target


def test_an_input_that_cannot_be_asked_is_left_out_of_its_batch(model):
    class Fussy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model.module

        def forward(self, x):
            if (x > 5).any():
                raise RuntimeError("far too bright")
            return self.inner(x)

    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    x[2] += 9
    found = pl.evaluate(pl.wrap(Fussy().eval(), scores="softmax"), x, {"edge": _none}, "entropy")
    assert len(found.samples) == 3
    assert sum("is left out" in note for note in found.notes) == 1
    alone = pl.evaluate(pl.wrap(Fussy().eval(), scores="softmax"), x[3:], {"edge": _none}, "entropy")
    np.testing.assert_allclose(found["edge", "entropy"][2], alone["edge", "entropy"][0])


def test_a_pass_over_all_is_shared(model):
    passes = []
    handle = model.module.register_forward_pre_hook(lambda _m, given: passes.append(len(given[0])))
    try:
        for name in ("grad-cam", "saliency"):
            c, (one, *_) = Drawer(name, get_method(name)), samples(model, 5)
            draw_all([c], model, one.x, one.target, one)  # the layer is found
            passes.clear()
            drawn_ahead([c], samples(model, 5))
            assert set(passes) == {5}
            assert len(passes) < 5
    finally:
        handle.remove()


def test_only_what_fits_together_is_one_group(model):
    small, large = samples(model, 2), samples(model, 2, side=12)
    other = [Sample(s.model, s.x, Class(1), "class") for s in small]
    mixed = [*small, *large, *other, small[0]]
    assert [len(g) for g in in_company(mixed)] == [2, 2, 2, 1]
    assert [len(g) for g in in_company(samples(model, 20))] == [16, 4]
    assert joined([Class(1), Class(2)]) is None
    assert joined([Contrast(0, 1), Contrast(0, 1)]) == Contrast(0, 1)
    assert joined([PerSample((1,)), PerSample((3,))]) == PerSample((1, 3))


# --- what it will cost


def test_the_cost_is_said_before(model):
    schedule = Schedule.of(as_metrics("srg"), [Drawer("rise", get_method("rise")), Drawer("a", get_method("grad-cam"))])
    told = []
    forecast(told.append, schedule, (8, 8), 10, kept=True)
    assert "2 methods, 1 metric:" in told[0]
    assert any("rise takes 1 forward a mask" in line for line in told)
    assert told[-1] == "  If it is stopped, the same command goes on from there."


def test_quick_takes_the_cheaper_versions(model):
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quick = pl.evaluate(model, x, "rise,grad-cam", "entropy", quick=True)
    assert quick.price_of("rise")[0] < 300
    assert any("quick versions" in note for note in quick.notes)
    (written, _) = quick.record.method["parameters"]["competitors"][:2]
    assert written[2]["samples"] == 256


def test_a_method_with_a_baseline_of_its_own_segments_takes_completeness_from_none(model):
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    found = pl.evaluate(model, x, "lime,grad-cam", "completeness-gap", quick=True)
    assert np.isfinite(found["grad-cam", "completeness-gap"]).all()
    assert not np.isfinite(found["lime", "completeness-gap"]).any()
    assert [text for m, _, text in found.said if "segment-mean" in text and m == "lime"]
    assert {m for m, _, _ in found.said} == {"lime"}
    assert any("nothing is sure" in line for line in found.lines()) or found.recommended is None
