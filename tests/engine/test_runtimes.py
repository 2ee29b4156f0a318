"""Another runtime in a network's place: it answers the same, or is not used; what is kept is whole."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import count, cycle

import pytest
import torch

import pellucid as pl
from helpers.nets import noise, settled
from helpers.runtimes import Small, coalitions, scores_in
from pellucid.engine import Capture, capture
from pellucid.engine.masks import GridMasks, WindowMasks
from pellucid.engine.perturb import Scorer
from pellucid.engine.runtimes import choice, shelf
from pellucid.engine.runtimes.asked import installed, to_come
from pellucid.errors import ModelError, OutOfMemoryError
from pellucid.heatmaps import get_method

pytestmark = pytest.mark.skipif(installed("openvino") is None, reason="needs pellucid[fast]")


@pytest.fixture(autouse=True)
def own_shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    return tmp_path / shelf.KIND


KINDS = {
    "coalitions": coalitions,
    "a smooth grid": lambda space: GridMasks(torch.rand(21, *[3] * len(space)), space, "linear"),
    "windows": lambda space: WindowMasks(torch.randint(0, 4, (21, len(space))), (3,) * len(space), space),
}


@pytest.mark.parametrize(("channels", "space"), [(3, (16, 16)), (1, (12, 20)), (5, (9, 14)), (3, (4, 10, 12))])
def test_scores_are_those_of_torch(channels, space):
    torch.manual_seed(0)
    net, x = settled(Small(channels, len(space))), noise(2, channels, *space)
    for make in KINDS.values():
        masks = make(space)
        for baseline in (torch.zeros_like(x), noise(2, channels, *space, seed=4)):
            plain, _ = scores_in("torch", net, x, masks, baseline=baseline)
            quick, cost = scores_in("openvino", net, x, masks, baseline=baseline, batch=5)  # 42 inputs: an odd end
            assert cost.ran.name == "openvino", cost.ran
            assert cost.ran.version == installed("openvino")
            assert (plain.std(1) > 0).all()  # masks tell
            torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_onnx_scores_are_those_of_torch():
    if installed("onnx") is None:
        pytest.skip("needs pellucid[onnx]")
    net, x = settled(Small()), noise(2, 3, 12, 20)
    masks = coalitions((12, 20))
    plain, _ = scores_in("torch", net, x, masks)
    quick, cost = scores_in("onnx", net, x, masks, batch=5)
    assert cost.ran.name == "onnx", cost.ran
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def doubled(output):
    return output[:, 0] * 2


@pytest.mark.parametrize("target", [1, "1>2", pl.Unit("a", 3), doubled], ids=["class", "contrast", "unit", "function"])
def test_any_target_gives_the_same_map(target):
    net, x = settled(Small()), noise(2, 3, 16, 16)
    maps = {}
    for name in ("torch", "openvino"):
        with pl.runtime(name):
            found = get_method("rise", samples=128).explain(net, x, [target])[0]
        maps[name] = found.values
        assert found.cost.ran.name == name
    assert maps["torch"].std() > 0
    torch.testing.assert_close(maps["openvino"], maps["torch"], rtol=1e-3, atol=1e-3 * float(maps["torch"].abs().max()))


class Branching(Small):
    """Goes another way where the input is dark: a trace follows one of the two."""

    def forward(self, x):
        out = super().forward(x)
        return out if x.abs().mean() > 0.6 else -out


class Fickle(Small):
    """Answers otherwise each time."""

    def forward(self, x):
        return super().forward(x) + torch.rand(len(x), 1)


class Untraced(Small):
    """Refuses to be traced."""

    def forward(self, x):
        if torch.jit.is_tracing():
            raise ValueError("not here")
        return super().forward(x)


class Custom(Small):
    """Works outside of torch on the way."""

    def forward(self, x):
        return torch.from_numpy(super().forward(x).detach().numpy() * 2)


class Wrapped(Small):
    """Answers an object that tensors cannot be taken out of."""

    class Box(dict):
        pass

    def forward(self, x):
        return {"scores": super().forward(x), "about": self.Box()}


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (Branching, "does not answer as the model does"),
        (Fickle, "does not answer as the model does"),
        (Untraced, "cannot take it over"),
        (Custom, "does not answer as the model does"),
        (Wrapped, "its output holds a Box"),
    ],
)
def test_what_cannot_be_trusted_is_not_used_and_the_record_says_why(cls, why):
    net, x = settled(cls()), noise(1, 3, 16, 16)
    masks = coalitions((16, 16))

    def score(output, watched, rows):
        return [(output["scores"] if isinstance(output, dict) else output)[:, 0]]

    with pl.runtime("openvino"), Scorer(net, x, torch.zeros_like(x), score) as scorer:
        scorer(masks)
        assert scorer.cost.ran.name == "torch"
        assert why in scorer.cost.ran.why
        spent = scorer.cost.forwards
        scorer(masks)
        assert scorer.cost.forwards == spent + len(masks.distinct()[0])  # nothing is tried again


def test_nothing_is_converted_for_a_job_that_ends_sooner_without(own_shelf, monkeypatch):
    ticks = count()  # of a tenth of a millisecond: on a busy machine a pass may take long enough to pay
    monkeypatch.setattr(capture, "clock", lambda: next(ticks) * 1e-4)
    net, x = settled(Small()), noise(1, 3, 16, 16)
    found = get_method("rise", samples=256).explain(net, x, [1])[0]
    assert found.cost.ran.name == "torch"
    assert found.cost.ran.why == ""
    assert not own_shelf.exists()


def test_what_pays_is_converted_once_and_kept(own_shelf, monkeypatch):
    net, x = settled(Small()), noise(1, 3, 96, 96)
    made = []
    maker = choice.opened
    monkeypatch.setattr(choice, "opened", lambda *a, **how: made.append(how) or maker(*a, **how))
    monkeypatch.setattr(choice, "_BASE", 0.0)
    monkeypatch.setattr(choice, "_A_MODULE", 0.0)
    monkeypatch.setattr(choice, "_READ", 0.0)
    monkeypatch.setattr(choice, "_LEAST_BESIDE_TWIN", 0.0)
    for _ in range(2):  # in memory the second time
        assert get_method("rise", samples=256).explain(net, x, [1])[0].cost.ran.name == "openvino"
    assert made == [{"kept": False}]
    assert len(list(own_shelf.iterdir())) == 1
    other = settled(Small())
    other.load_state_dict(net.state_dict())
    assert get_method("rise", samples=256).explain(other, x, [1])[0].cost.ran.name == "openvino"
    assert made == [{"kept": False}, {}]  # from the shelf


def test_a_program_at_hand_is_left_where_its_proofs_take_more_than_it_saves(monkeypatch):
    ticks = cycle((0, 5, 5, 6))  # the model's pass, the program's: what such small ones take says nothing
    monkeypatch.setattr(choice, "clock", lambda: next(ticks))
    net, x, masks = settled(Small()), noise(1, 3, 16, 16), coalitions((16, 16))
    scores_in("openvino", net, x, masks)
    (made,) = [made for _, made in choice._of(net).held.values()]
    for gain, name in ((1.2, "torch"), (5.0, "openvino"), (1.2, "torch")):
        made.gain = gain  # 21 passes: the proof takes four, and seven of the program
        _, cost = scores_in("auto", net, x, masks)
        assert cost.ran.name == name
        assert choice._of(net).held  # for a longer job


def test_what_is_to_come_is_what_is_said_or_else_what_has_been(monkeypatch):
    net, x = settled(Small()), noise(1, 3, 16, 16)
    place, tried = ((3, 16, 16), (), True), []
    monkeypatch.setattr(choice._Attempt, "made", lambda *_: tried.append(1))
    choice.note_pace(net, place, 0.01, 1)  # 100 passes save 0.32 s, all but the proof; a conversion takes 0.54 s

    def tries(count=None):
        tried.clear()
        with nullcontext() if count is None else to_come(count):
            choice.choose(net, x, place, 100, 100)
        return bool(tried)

    assert [tries(1), tries(2), tries(1)] == [False, True, False]
    assert tries()  # the fourth time that as many passes are asked for, and nobody says how often they will be
    assert not tries(1)
    choice._of(net).wanted.clear()
    assert [tries(), tries()] == [False, True]


def test_weights_that_change_are_converted_anew():
    net, x = settled(Small()), noise(1, 3, 16, 16)
    masks = coalitions((16, 16))
    before, _ = scores_in("openvino", net, x, masks)
    for change in (lambda: net.head.weight.mul_(3), lambda: net.head.weight.data.mul_(3)):  # the second is not counted
        with torch.no_grad():
            change()
        expected, _ = scores_in("torch", net, x, masks)
        found, cost = scores_in("openvino", net, x, masks)
        assert cost.ran.name == "openvino"
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, before)


def test_no_trace_is_left():
    from pellucid.testing.snapshot import differences, snapshot

    net, x = settled(Small()).train(), noise(1, 3, 16, 16)
    before, numbers = snapshot(net, x), torch.get_rng_state()
    scores_in("openvino", net, x, coalitions((16, 16)))
    assert differences(before, snapshot(net, x)) == []
    assert torch.equal(numbers, torch.get_rng_state())


def test_a_cancel_in_the_middle_leaves_a_usable_program():
    net, x = settled(Small()), noise(1, 3, 16, 16)
    masks = coalitions((16, 16))
    expected, _ = scores_in("torch", net, x, masks)
    calls = []

    def score(output, watched, rows):
        calls.append(len(output))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [output[:, 0], output[:, 1]]

    scorer = Scorer(net, x, 0 * x, score, targets=2, batch=4)
    with pl.runtime("openvino"), pytest.raises(KeyboardInterrupt), scorer:
        scorer(masks)
    found, cost = scores_in("openvino", net, x, masks)
    assert cost.ran.name == "openvino"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_that_finds_no_memory_is_halved(monkeypatch):
    from pellucid.engine.runtimes.openvino import OpenVinoProgram

    net, x = settled(Small()), noise(1, 3, 16, 16)
    masks = coalitions((16, 16))
    expected, _ = scores_in("torch", net, x, masks)
    run, sizes = OpenVinoProgram.__call__, []

    def scarce(self, inputs):
        sizes.append(len(inputs))
        if len(inputs) > 4:
            raise RuntimeError("Failed to allocate 123456 bytes of memory")
        return run(self, inputs)

    monkeypatch.setattr(OpenVinoProgram, "__call__", scarce)
    found, cost = scores_in("openvino", net, x, masks, batch=16)
    assert cost.ran.name == "openvino"
    assert max(sizes) == 16
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(
        OpenVinoProgram, "__call__", lambda self, inputs: (_ for _ in ()).throw(RuntimeError("can't allocate"))
    )
    with Capture(net) as capture:
        capture.converted = choice._known[net].held.popitem()[1][1]
        with pytest.raises(OutOfMemoryError):
            capture.forward(x)


def test_several_threads_share_a_batch():
    net, x = settled(Small()), noise(1, 3, 16, 16)
    masks = coalitions((16, 16))
    expected, _ = scores_in("torch", net, x, masks)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found, cost = scores_in("openvino", net, x, masks, batch=5)  # 5 inputs for 3 streams, then fewer than streams
    finally:
        torch.set_num_threads(before)
    assert cost.ran.name == "openvino"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_of_exemplars_is_read():
    net, xs = settled(Small()), noise(6, 3, 16, 16)
    with Capture(net, ["b"], stop_early=True) as capture:
        capture.forward(xs)
        expected = capture.activations["b"].clone()
        with pl.runtime("openvino"):
            capture.quicken(xs[:1], 100)
        assert capture.converted is not None
        assert capture.forward(xs) is None
        torch.testing.assert_close(capture.activations["b"], expected, rtol=1e-4, atol=1e-4)


def test_layers_that_somebody_listens_to_are_left_to_torch():
    net, x = settled(Small()), noise(1, 3, 16, 16)
    heard = []
    net.b.register_forward_hook(lambda *_: heard.append(1))
    _, cost = scores_in("openvino", net, x, coalitions((16, 16)))
    assert cost.ran.name == "torch"
    assert heard


def test_rough_sums_only_when_asked_for_and_measured():
    net, x = settled(Small()), noise(1, 3, 32, 32)
    maps = {}
    for precision in ("f32", "bf16"):
        with pl.runtime("openvino", precision):
            found = get_method("rise", samples=128).explain(net, x, [1])[0]
        maps[precision], ran = found.values, found.cost.ran
        if ran.precision == "f32":
            assert ran.notes == ()
            if precision == "bf16":
                assert "no bf16" in ran.why
        else:
            (note,) = ran.notes
            assert 0.8 < float(note.split(" is ")[1].rstrip(".")) <= 1
            assert not torch.equal(maps["bf16"], maps["f32"])


@pytest.mark.parametrize(
    ("name", "precision", "said"),
    [
        ("tensorrt", "f32", "auto, torch"),
        ("auto", "f8", "f32 or bf16"),
        ("onnx", "bf16", "choose openvino"),
        ("torch", "bf16", "openvino"),
    ],
)
def test_what_there_is_not_is_said(name, precision, said):
    with pytest.raises(ModelError, match=said), pl.runtime(name, precision):
        pass


def test_without_openvino_everything_works_as_ever_and_doctor_says_so(monkeypatch):
    from pellucid.cli import doctor
    from pellucid.engine.runtimes import asked

    monkeypatch.setattr(asked, "installed", lambda name: None)
    monkeypatch.setattr(choice, "installed", lambda name: None)
    assert "pip install 'pellucid[fast]'" in doctor._runtime()
    net, x = settled(Small()), noise(1, 3, 16, 16)
    found = get_method("rise", samples=128).explain(net, x, [1])[0]
    assert (found.cost.ran.name, found.cost.ran.why) == ("torch", "")
    with pl.runtime("auto", "bf16"):
        assert get_method("rise", samples=128).explain(net, x, [1])[0].cost.ran.why == "bf16 needs openvino"
    with pytest.raises(ModelError, match=r"pip install 'pellucid\[fast\]'"), pl.runtime("openvino"):
        pass


def test_the_record_holds_it_and_another_runtime_reproduces_it(tmp_path, embedded_model):
    rise = get_method("rise", samples=32)
    with pl.runtime("openvino"):
        e = pl.explain(embedded_model, "sample:cat", rise)
    assert e.record.run["runtime"] == {"name": "openvino", "version": installed("openvino"), "precision": "f32"}
    file = next(f for f in e.save(tmp_path) if f.suffix == ".json")
    with pl.runtime("torch"):
        verified = pl.verify(file)
    assert verified.status == "within tolerance", verified
    with pl.runtime("torch"):
        assert pl.explain(embedded_model, "sample:cat", rise).record.run["runtime"]["name"] == "torch"


@pytest.mark.slow
def test_a_rough_result_is_verified_as_rough(tmp_path, monkeypatch, embedded_model):
    from pellucid.verbs import verify

    with pl.runtime("openvino", "bf16"):
        e = pl.explain(embedded_model, "sample:cat", get_method("rise", samples=32))
    if e.record.run["runtime"]["precision"] == "f32":
        pytest.skip("this processor has no bf16")
    assert any("rank correlation" in note for note in e.notes)
    file = next(f for f in e.save(tmp_path) if f.suffix == ".json")
    assert pl.verify(file).status in ("same", "within tolerance")
    monkeypatch.setattr(verify, "_precision_of", lambda stored: verify.nullcontext())
    assert pl.verify(file).difference > 1e-4  # in single precision it is another
