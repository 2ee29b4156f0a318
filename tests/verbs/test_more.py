"""A continued explanation is what a longer run from the start gives, and asks only for the rest."""

import pytest
import torch

import pellucid as pl
from helpers.cases import BREAKS, Breaking, breaking_box, bright_model, bright_net, pixels
from pellucid.errors import MethodError, ModelError, StorageError
from pellucid.heatmaps import HSIC, LIME, RISE, KernelSHAP, Occlusion, Owen, Shapley, Sobol

PAIRS = {
    "rise": (RISE(samples=256), {"samples": 512}),
    "rise, auto": (RISE(max_samples=256, tolerance=1e-3), {"max_samples": 640}),
    "rise, independent": (RISE(samples=64, p=0.4), {"samples": 128}),
    "sobol": (Sobol(samples=4 * 18, cells=4), {"samples": 8 * 18}),
    "hsic": (HSIC(samples=128, cells=4), {"samples": 256}),
    "shapley": (Shapley(samples=8, count=16), {"samples": 16}),
    "shapley, auto": (Shapley(max_evaluations=128, tolerance=1e-9, count=16), {"max_evaluations": 512}),
    "kernel-shap": (KernelSHAP(samples=80, count=16), {"samples": 160}),
    "owen": (Owen(max_evaluations=32, count=16), {"max_evaluations": 128}),
    "lime": (LIME(samples=60, segments="grid", count=16), {"samples": 120}),
}


def counted():
    """A model that counts the rows it is asked for."""
    net, rows = bright_net(), []
    net[0].register_forward_hook(lambda _m, args, _y: rows.append(len(args[0])))
    model = bright_model()
    model.module = net
    return model, rows


@pytest.mark.parametrize("name", PAIRS)
def test_equals_the_longer_run_and_asks_for_the_rest(name, tmp_path):
    method, budget = PAIRS[name]
    model, rows = counted()
    picture = pixels(64, 64)
    longer = type(method)(**{**vars(method), **budget})
    rows.clear()
    expected = pl.explain(model, picture, longer, "bright")
    whole = sum(rows)
    first = pl.explain(model, picture, method, "bright")
    files = first.save(tmp_path)
    rows.clear()
    e = pl.more(first, **budget)
    assert sum(rows) < 0.95 * whole
    tolerance = 1e-5 * float(expected.attribution.abs().max())
    torch.testing.assert_close(e.attribution, expected.attribution, rtol=1e-4, atol=tolerance)
    assert e.facts.keys() == expected.facts.keys()
    assert e.facts["samples"] == expected.facts["samples"]
    assert e.record.method == expected.record.method
    assert e.record.target == "0"
    saved = next(f for f in files if f.suffix == ".json")
    again = pl.more(saved, model=model, inputs=picture, **budget)
    assert torch.equal(again.attribution, e.attribution)


def test_rise_goes_on_bit_for_bit_and_can_be_verified(tmp_path):
    model, _ = counted()
    picture = pixels(64, 64)
    expected = pl.explain(model, picture, RISE(samples=512), "bright")
    e = pl.more(pl.more(pl.explain(model, picture, RISE(samples=256), "bright"), samples=384), samples=512)
    assert torch.equal(e.attribution, expected.attribution)
    assert torch.equal(e.extras["standard_error"], expected.extras["standard_error"])
    assert e.extras["answered"].shape == expected.extras["answered"].shape
    file = e.save(tmp_path)[0]
    assert pl.verify(file, model=model, inputs=picture).status == "same"


def test_tensors_and_functions_of_the_output_go_on_too():
    model, _ = counted()
    x = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    first = pl.explain(model, x, RISE(samples=256), lambda y: y[:, 0] - y[:, 1])
    e = pl.more(first, samples=384)
    assert torch.equal(e.attribution, pl.explain(model, x, RISE(samples=384), lambda y: y[:, 0] - y[:, 1]).attribution)


@pytest.mark.parametrize("method", [RISE(samples=128), KernelSHAP(samples=80, count=16)], ids=lambda m: m.name)
def test_a_saved_function_goes_on_if_it_is_given(method, tmp_path):
    model, rows = counted()
    picture = pixels(64, 64)
    file = pl.explain(model, picture, method, lambda y: y[:, 0] - y[:, 1]).save(tmp_path)[0]
    rows.clear()
    expected = pl.explain(model, picture, type(method)(**{**vars(method), "samples": 160}), "bright>dark")
    whole = sum(rows)
    with pytest.raises(StorageError, match=r"function.*give it with pl\.more\(file, target=\.\.\.\)"):
        pl.more(file, model=model, inputs=picture, samples=160)
    rows.clear()
    e = pl.more(file, model=model, inputs=picture, target=lambda y: y[:, 0] - y[:, 1], samples=160)
    assert sum(rows) < 0.95 * whole
    torch.testing.assert_close(e.attribution, expected.attribution, rtol=1e-4, atol=1e-5)
    with pytest.raises(StorageError, match="function is not the one that was explained"):
        pl.more(file, model=model, inputs=picture, target=lambda y: y[:, 0], samples=160)
    with pytest.raises(StorageError, match="holds its target"):
        pl.more(pl.explain(model, picture, method, "bright"), target=lambda y: y[:, 0], samples=160)


def test_what_cannot_go_on_says_so(tmp_path):
    model, _ = counted()
    picture = pixels(64, 64)
    rise = pl.explain(model, picture, RISE(samples=64), "bright")
    with pytest.raises(MethodError, match="keeps no scores"):
        pl.more(pl.explain(model, picture, Occlusion(), "bright"), samples=3)
    with pytest.raises(MethodError, match=r"no budget 'cells': give samples or .*tolerance|no budget 'cells'"):
        pl.more(rise, cells=3)
    with pytest.raises(MethodError, match="larger budget"):
        pl.more(rise)
    file = rise.save(tmp_path)[0]
    with pytest.raises(StorageError, match="only in memory"):
        pl.more(file, model=model, samples=128)
    with pytest.raises(StorageError, match="wrapped"):
        pl.more(file, inputs=picture, samples=128)
    with pytest.raises(StorageError, match="picture is not the one"):
        pl.more(file, model=model, inputs=pixels(64, 64, seed=3), samples=128)
    with torch.no_grad():
        model.module[4].weight.mul_(2)
    with pytest.raises(StorageError, match="weights are not those"):
        pl.more(rise, samples=128)


# --- a black box that breaks down


BROKEN = {
    "rise": (RISE(samples=640), 460),
    "hsic, auto": (HSIC(max_samples=512, cells=4, tolerance=1e-4), 460),
    "hsic": (HSIC(samples=512, cells=4), 300),
    "sobol": (Sobol(samples=16 * 18, cells=4), 150),
    "lime": (LIME(samples=200, segments="grid", count=16), 120),
    "kernel-shap": (KernelSHAP(samples=200, count=16), 120),
    "shapley": (Shapley(samples=32, count=16), 200),
    "shapley, auto": (Shapley(tolerance=1e-9, max_evaluations=512, count=16), 300),
    "owen": (Owen(max_evaluations=128, count=64), 70),
}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_partial_map_comes_with_a_note_and_goes_on(name, how):
    method, at = BROKEN[name]
    box, predictor = breaking_box(at, how)
    picture = pixels(64, 64)
    part = pl.explain(box, picture, method, "bright")
    assert BREAKS[how] in part.notes[-1]
    assert f"rests on the {part.facts['samples']:.0f} masked inputs before" in part.notes[-1]
    assert "go on with `pl.more`" in part.notes[-1]
    assert 0.5 * at < part.facts["samples"] <= at
    assert part.attribution.any()
    if "efficiency_gap" in part.facts:
        assert part.facts["efficiency_gap"] < 1e-6
    asked = predictor.rows
    budget = next(f for f in ("tolerance", "samples", "max_evaluations") if hasattr(method, f))
    whole = pl.more(part, **{budget: getattr(method, budget)})
    assert not any("failed" in note for note in whole.notes)
    sound_box, sound = breaking_box()
    expected = pl.explain(sound_box, picture, method, 0)
    torch.testing.assert_close(whole.attribution, expected.attribution, rtol=1e-4, atol=1e-6)
    assert whole.facts["samples"] == expected.facts["samples"]
    assert predictor.rows - asked <= sound.rows - part.facts["samples"] + 3  # and the pass that names the answer


@pytest.mark.parametrize("at", [85, 100, 121, 150])
def test_a_partial_map_is_that_of_the_smaller_run(at):
    picture = pixels(64, 64)
    sound, _ = breaking_box()
    for short in (
        lambda n: LIME(samples=n, segments="grid", count=16),
        lambda n: Shapley(samples=2 * n, count=16),
        lambda n: Sobol(samples=18 * n, cells=4),
    ):
        part = pl.explain(breaking_box(at)[0], picture, short(200), "bright")
        smaller = (pl.explain(sound, picture, short(n), "bright") for n in range(2, 160))
        same = next(e for e in smaller if e.facts["samples"] >= part.facts["samples"])
        assert same.facts == pytest.approx(part.facts, rel=1e-4, abs=1e-6)
        for name in ("standard_error", "segments"):
            if name in part.extras:
                torch.testing.assert_close(part.extras[name], same.extras[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(part.attribution, same.attribution, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize(
    ("method", "at"),
    [
        (LIME(samples=200, segments="grid", count=16), 17),
        (KernelSHAP(samples=200, count=16), 32),
        (Shapley(samples=32, count=16), 50),
        (Shapley(count=9), 500),
        (Owen(max_evaluations=128, count=64), 4),
        (Sobol(samples=16 * 18, cells=4), 60),
    ],
    ids=lambda m: getattr(m, "name", None),
)
def test_too_little_for_a_map_is_one_sentence(method, at, how):
    with pytest.raises(ModelError, match=BREAKS[how]) as caught:
        pl.explain(breaking_box(at, how)[0], pixels(64, 64), method, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [RISE(samples=640), Shapley(samples=64, count=16)], ids=lambda m: m.name)
def test_a_box_that_answers_otherwise_than_before_gives_no_map(method):
    predictor, calls = Breaking(), []

    def drifts(batch):
        calls.append(len(batch))
        return predictor(batch) + 0.1 * (len(calls) > 20)

    with pytest.raises(ModelError, match="changes its answer"):
        pl.explain(pl.wrap(drifts, transform=bright_model().preprocess), pixels(64, 64), method, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_only_a_failure_of_the_model_is_dealt_with(error):
    model, rows = counted()

    def stop(*_):
        if sum(rows) > 100:
            raise error

    model.module[0].register_forward_hook(stop)
    with pytest.raises(error):
        pl.explain(model, pixels(64, 64), Shapley(samples=32, count=16), 0)


def test_what_was_answered_is_not_asked_for_again():
    predictor = Breaking(at=40)
    transform = bright_model().preprocess
    box = pl.wrap(predictor, transform=transform)
    picture = pixels(64, 64)
    with pytest.raises(ModelError, match=r"ConnectionError: the line is dead.*run it again"):
        pl.explain(box, picture, Occlusion(window=16, stride=8), 0)
    asked = predictor.rows
    found = pl.explain(box, picture, Occlusion(window=16, stride=8), 0)
    sound = Breaking(at=10**9)
    expected = pl.explain(
        pl.wrap(sound, transform=bright_model().preprocess), picture, Occlusion(window=16, stride=8), 0
    )
    torch.testing.assert_close(found.attribution, expected.attribution)
    assert asked > 30
    assert predictor.rows <= sound.rows + 1
