"""A continued explanation is what a longer run from the start gives, and asks only for the rest."""

import pytest
import torch

import pellucid as pl
from helpers.cases import bright_model, bright_net, pixels
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


class Breaking:
    """Fails, once, from a certain row on."""

    def __init__(self, at):
        self.net, self.at, self.rows, self.broken = bright_net(), at, 0, False

    def __call__(self, batch):
        if self.rows + len(batch) > self.at and not self.broken:
            self.broken = True
            raise ConnectionError("the line is dead")
        self.rows += len(batch)
        with torch.no_grad():
            return self.net(batch)


@pytest.mark.parametrize(
    "method", [RISE(samples=640), HSIC(max_samples=512, cells=4, tolerance=1e-4)], ids=lambda m: m.name
)
def test_a_partial_map_comes_with_a_note_and_goes_on(method):
    predictor = Breaking(at=460)
    transform = bright_model().preprocess
    box = pl.wrap(predictor, transform=transform, labels=("bright", "dark"))
    picture = pixels(64, 64)
    part = pl.explain(box, picture, method, "bright")
    assert "the line is dead" in part.notes[-1]
    assert "pl.more" in part.notes[-1]
    assert 0 < part.facts["samples"] < 640
    assert part.attribution.any()
    asked = predictor.rows
    whole = pl.more(part, tolerance=method.tolerance)
    assert not any("failed" in note for note in whole.notes)
    sound = pl.explain(pl.wrap(Breaking(at=10**9), transform=transform), picture, method, 0)
    torch.testing.assert_close(whole.attribution, sound.attribution, rtol=1e-4, atol=1e-6)
    assert predictor.rows - asked < 640 - 256


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
