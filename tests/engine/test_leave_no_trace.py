import copy
import gc
import weakref
from contextlib import suppress

import pytest
import timm
import torch
from torch import nn

from helpers.nets import noise, pooled, random_net
from helpers.traces import (
    ERRORS,
    ON_CLIPS,
    ON_CNNS,
    ON_TOKENS,
    BusyClip,
    Failing,
    MineError,
    busy,
    busy_clip,
    causes,
    explain,
    failing_target,
    raised_by_a_model,
    state,
)
from pellucid.engine import Capture, leave_no_trace
from pellucid.errors import ModelError, OutOfMemoryError, PellucidError
from pellucid.heatmaps import METHODS, GradCAM, Saliency, get_method
from pellucid.importance import (
    get_estimator,
    measure,
)
from pellucid.importance.frames import Frames, Segments, Tubes
from pellucid.importance.temporal import order_sensitivity, sufficient
from pellucid.models.layers import layers
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess
from pellucid.models.targets import Unit
from pellucid.scoring.job import prepare


@pytest.mark.parametrize("name", ON_CNNS)
def test_after_success(name):
    net, x = busy()
    before = state(net, x)
    assert explain(name, net, x, 1).any()
    assert state(net, x) == before


@pytest.mark.parametrize("name", ON_TOKENS)
def test_methods_on_tokens_leave_none_either(name):
    """After success, and after an error or a cancel in the first, the middle and the last score."""
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)
    net.blocks[1].eval()
    nn.init.normal_(net.head.weight)
    x = noise(1, 3, 64, 64)
    harmless = failing_target(None, 0)
    before = state(net, x)
    assert explain(name, net, x, harmless).any()
    assert state(net, x) == before
    assert METHODS[name].uses_target == bool(harmless.calls[0])
    for error in ERRORS.values() if harmless.calls[0] else ():
        for at in sorted({1, max(1, harmless.calls[0] // 2), harmless.calls[0]}):
            with pytest.raises(type(error)):
                explain(name, net, x, failing_target(error, at))
            assert state(net, x) == before


@pytest.mark.parametrize("name", ON_CLIPS)
def test_methods_on_clips_leave_none_either(name):
    """After success, and after an error or a cancel in the first and the last pass and score."""
    net, x = busy_clip(name)
    before = state(net, x)
    harmless = failing_target(None, 0)
    assert explain(name, net, x, harmless).any()
    passes = BusyClip.passes
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, harmless.calls[0]):
            with pytest.raises(type(error)):
                explain(name, net, x, failing_target(error, at))
            assert state(net, x) == before
        for at in (1, passes):
            net, x = busy_clip(name)  # what is found out about a net is remembered
            BusyClip.at, BusyClip.error = at, error
            before = state(net, x)
            with raised_by_a_model(error):
                explain(name, net, x, 1)
            assert state(net, x) == before
    net, x = busy_clip(name)
    m = get_method(name).quick()
    expected = m.attribute(net, x, 1)
    for caller in (torch.no_grad(), torch.inference_mode()):
        with caller:
            assert torch.equal(m.attribute(net, x, 1), expected)


@pytest.mark.parametrize("players", ["frames", "segments", "tubes", "order", "sufficient"])
def test_frame_importance_leaves_none(players):
    net, x = busy_clip("lstm-lrp")
    job = prepare(net, x[:1], [1])
    run = {
        "frames": lambda: measure(Frames(), get_estimator("ablation"), job),
        "segments": lambda: measure(Segments(count=2), get_estimator("shapley"), job),
        "tubes": lambda: measure(Tubes(cells=(2, 1, 1)), get_estimator("ablation"), job),
        "order": lambda: order_sensitivity(job),
        "sufficient": lambda: sufficient(job, Frames()),
    }[players]
    before = state(net, x)
    run()
    passes = BusyClip.passes
    assert state(net, x) == before
    for at in (1, passes):
        BusyClip.passes, BusyClip.at, BusyClip.error = 0, at, ERRORS["cancel"]
        with pytest.raises(KeyboardInterrupt):
            run()
        assert state(net, x) == before


@pytest.mark.parametrize("baseline", ["dropped", "inpaint", "noisy-linear"])
def test_baselines_leave_none_either(baseline):
    """On a transformer, whose first block is hooked to drop tokens."""
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)
    net.blocks[1].eval()
    nn.init.normal_(net.head.weight)
    x, method = noise(1, 3, 64, 64), get_method("occlusion", baseline=baseline, window=32, stride=16)
    harmless = failing_target(None, 0)
    before = state(net, x)
    assert method.attribute(net, x, harmless).any()
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, harmless.calls[0] // 2, harmless.calls[0]):
            with pytest.raises(type(error)):
                method.attribute(net, x, failing_target(error, at))
            assert state(net, x) == before


@pytest.mark.parametrize("at", ["first", "last"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ON_CNNS)
def test_after_an_error_in_the_target(name, error, at):
    harmless = failing_target(None, 0)
    explain(name, *busy(), harmless)
    if not harmless.calls[0]:
        assert not METHODS[name].uses_target
        return
    net, x = busy()
    before = state(net, x)
    with pytest.raises(type(ERRORS[error])):
        explain(name, net, x, failing_target(ERRORS[error], 1 if at == "first" else harmless.calls[0]))
    assert state(net, x) == before


@pytest.mark.parametrize("at", ["first", "last"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ON_CNNS)
def test_after_an_error_in_the_forward_pass(name, error, at):
    Failing.passes, Failing.at = 0, 0
    explain(name, *busy(Failing), 1)
    net, x = busy(Failing)
    Failing.passes, Failing.at, Failing.error = 0, 1 if at == "first" else Failing.passes, ERRORS[error]
    before = state(net, x)
    # What needs outputs alone answers from those it has, or goes the slow way where a quicker one failed.
    answers = error == "error" and at == "last" and METHODS[name].needs.startswith("outputs")
    with raised_by_a_model(ERRORS[error]) if not answers else suppress(ModelError):
        explain(name, net, x, 1)
    assert Failing.passes >= Failing.at
    assert state(net, x) == before


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_after_memory_ran_out(error):
    net, x = busy(Failing)
    Failing.passes, Failing.at, Failing.error = 0, 1, error
    before = state(net, x)
    with pytest.raises(OutOfMemoryError, check=lambda e: error in causes(e)):
        Saliency().attribute(net, x, 1)
    assert state(net, x) == before


def test_after_refusals():
    net, x = busy()
    before = state(net, x)
    for attempt in (
        lambda: GradCAM(layer="no.such").attribute(net, x, 1),
        lambda: GradCAM(layer="fc").attribute(net, x, 1),
        lambda: GradCAM().attribute(net, x, 99),
        lambda: GradCAM().attribute(net, x, "tabby"),
        lambda: GradCAM().attribute(net, x, lambda y: y),
        lambda: GradCAM(layer="tail.0").attribute(net, x, Unit("body.0", 1)),
        lambda: Saliency().attribute(net, x, (1, 2, 3)),
        lambda: Capture(net, ["tail"], watch=["no.such"]).__enter__(),
    ):
        with pytest.raises(PellucidError):
            attempt()
        assert state(net, x) == before


def test_predictions_and_listings_leave_no_trace_either():
    net, x = busy()
    model = VisionModel(net, Preprocess(input_size=(24, 24), mean=(0, 0, 0), std=(1, 1, 1)))
    before = state(net, x)
    model.predict(x)
    layers(net, x)
    fingerprint = model.fingerprint()
    assert state(net, x) == before
    assert model.fingerprint() == fingerprint


@pytest.mark.parametrize("name", ON_CNNS)
def test_what_comes_out_hangs_on_nothing(name):
    """No graph, no alias of the user's tensors, and the same whatever the state of the net and of the caller."""
    net, x = busy()
    m = get_method(name).quick()
    expected = m.attribute(net, x, 1)
    assert not expected.requires_grad
    for caller in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with caller:
            assert torch.equal(m.attribute(net, x, 1), expected)
            assert torch.equal(m.attribute(net, x.detach().clone(), 1), expected)
    frozen = copy.deepcopy(net).requires_grad_(False)
    assert torch.equal(m.attribute(frozen, x, 1), expected)
    assert torch.equal(m.attribute(copy.deepcopy(net).eval(), x, 1), expected)
    upstream = (x * 2).requires_grad_() / 2  # a non-leaf
    assert torch.equal(m.attribute(net, upstream, 1), expected)
    expected.zero_()
    assert x.detach().any()


def test_modes_are_the_callers_again():
    net, x = busy()
    for caller in (torch.no_grad(), torch.inference_mode()):
        with caller:
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            GradCAM().attribute(net, x, 1)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    with torch.inference_mode():
        made = noise(2, 3, 24, 24)
        net2 = pooled()
    assert GradCAM().attribute(net, made, 1).any()
    for m in (GradCAM(), Saliency()):
        with pytest.raises(ModelError, match=r"created inside `torch\.inference_mode`"):
            m.attribute(net2, noise(1, 3, 32, 32), 1)


def test_inference_mode_inside_a_model_is_named():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 3)

        def forward(self, x):
            with torch.inference_mode():
                f = self.body(x)
            return self.fc(f.clone().mean((2, 3)))

    with pytest.raises(ModelError, match="inference_mode"):
        GradCAM(layer="body").attribute(Inside().eval(), noise(1, 3, 16, 16), 0)


# --- memory ---


def test_no_activation_outlives_its_explanation():
    alive = []

    class Witness(nn.Module):
        def forward(self, x):
            y = x * 1
            alive.append(weakref.ref(y))
            return y

    net = nn.Sequential(*pooled()[:4], Witness(), *pooled()[4:]).eval()
    x = noise(2, 3, 32, 32)
    held = torch.ones(5)

    def target(y):
        return (y * held).sum(1)  # noqa: F821

    for name in ON_CNNS:
        if name != "cam":
            get_method(name).quick().attribute(net, x, target)
    with pytest.raises(MineError):
        GradCAM().attribute(net, x, failing_target(MineError(), 2))
    gc.collect()
    assert len(alive) > 10
    assert not any(ref() is not None for ref in alive)
    function, tensor = weakref.ref(target), weakref.ref(held)
    del target, held
    gc.collect()
    assert function() is None, "a layer search keeps the user's function alive"
    assert tensor() is None
    witness = weakref.ref(net)
    del net
    gc.collect()
    assert witness() is None


def test_parameters_get_no_gradients_and_the_prefix_no_graph():
    net, x = random_net("resnet18"), noise(1, 3, 64, 64)
    GradCAM(layer="layer4").attribute(net, x, 1)
    graphs = []
    hook = net.layer3.register_forward_hook(lambda _m, _a, y: graphs.append(y.requires_grad))
    GradCAM(layer="layer4").attribute(net, x, 1)
    hook.remove()
    assert graphs == [False]
    assert all(p.grad is None for p in net.parameters())


def test_a_guard_that_is_renewed_is_as_one_that_is_opened_again():
    for how in ("renewed", "opened again"):
        net, x = busy()
        before = state(net, x)
        guard = leave_no_trace(net)
        guard.__enter__()
        for _ in range(3):
            assert net.count == 0
            assert not net.calls
            assert net.log == ["kept"]
            assert not any(part.training for part in net.modules())
            net(x.detach().clone())
            if how == "renewed":
                guard.renew()
            else:
                guard.__exit__()
                guard.__enter__()
        guard.__exit__()
        assert state(net, x) == before


def test_a_guard_is_not_renewed_under_somebody_who_uses_the_model_too():
    net, x = busy()
    before = state(net, x)
    with leave_no_trace(net) as guard:
        with leave_no_trace(net):
            net(x.detach().clone())
            guard.renew()
            assert net.count == 1
        guard.renew()
        assert net.count == 0
    assert state(net, x) == before
