import copy
import gc
import random
import threading
import time
import weakref

import numpy as np
import pytest
import timm
import torch
from torch import nn

from helpers.cases import pixels, save
from helpers.nets import Busy, Output, noise, pooled, random_net, seeded
from helpers.oracles import activation_and_gradient
from pellucid.engine import Capture
from pellucid.errors import ModelError, PellucidError
from pellucid.features import PARAMETRISATIONS, Channel, Settings, TotalVariation, synthesise
from pellucid.features.activations import activation_maps
from pellucid.features.atlas import make_atlas
from pellucid.features.exemplars import find_exemplars
from pellucid.features.measures import ByActivation, ByRelevance, ByScore
from pellucid.heatmaps import METHODS, GradCAM, HiResCAM, InputXGradient, Saliency, get_method
from pellucid.heatmaps.base import prepare
from pellucid.importance import (
    Blocks,
    Channels,
    FrequencyBands,
    Patches,
    Superpixels,
    Tokens,
    get_estimator,
    measure,
)
from pellucid.importance.exchange import exchange
from pellucid.importance.frames import Frames, Segments, Tubes
from pellucid.importance.temporal import order_sensitivity, sufficient
from pellucid.models.layers import Layer, layers
from pellucid.models.layouts import Layout
from pellucid.models.model import VisionModel
from pellucid.models.preprocess import Preprocess
from pellucid.models.targets import Class, Unit, as_target

HOOKS = [name for name in vars(nn.Module()) if "hook" in name]


def random_states():
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), (kind, keys.tolist(), rest), random.getstate()


def plain(value):
    """An attribute by identity, with what it holds if it is a container or a tensor."""
    if isinstance(value, torch.Tensor):
        return id(value), value.tolist()
    if isinstance(value, dict):
        return id(value), [(key, id(item)) for key, item in value.items()]
    return id(value), [id(item) for item in value] if isinstance(value, (list, set)) else value


def state(net, x):
    """Everything an explanation must leave as it was; tensors by identity and by value."""

    def tensor(t):
        return None if t is None else (id(t), t.detach().clone().tolist(), t.requires_grad, id(t.grad), t.dtype)

    return {
        "hooks": {n: {h: copy.copy(getattr(m, h)) for h in HOOKS} for n, m in net.named_modules()},
        "training": {n: m.training for n, m in net.named_modules()},
        "inplace": {n: m.inplace for n, m in net.named_modules() if hasattr(m, "inplace")},
        "attributes": {n: {k: plain(v) for k, v in vars(m).items()} for n, m in net.named_modules()},
        "forwards": {n: "forward" in vars(m) for n, m in net.named_modules()},
        "parameters": {n: (tensor(p), p._version) for n, p in net.named_parameters()},
        "grads": {n: None if p.grad is None else p.grad.tolist() for n, p in net.named_parameters()},
        "buffers": {n: {k: tensor(b) for k, b in m._buffers.items()} for n, m in net.named_modules()},
        "input": (tensor(x), x._version, None if x.grad is None else x.grad.tolist()),
        "random": random_states(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._dynamo.eval_frame._stance.stance),
    }


class MineError(Exception):
    """An error of the user's own."""


class Failing(Busy):
    """Raises `error` at its n-th pass, half way through."""

    error, at, passes = None, 0, 0

    def forward(self, x):
        Failing.passes += 1
        if Failing.passes == Failing.at:
            self.body(x)
            self.calls += 5
            raise self.error
        return super().forward(x)


def busy(cls=Busy):
    """A net in a mixed state: flags, gradients and frozen parameters of all kinds."""
    net = seeded(cls).train()
    net.body[1].eval()
    net.tail.eval()
    net.tail[2].train()
    net.body[0].weight.requires_grad_(False)
    net.fc.weight.grad = torch.full_like(net.fc.weight, 3)
    net.body.register_forward_hook(lambda _m, _a, out: None)
    net.fc.register_full_backward_hook(lambda _m, _i, _o: None)
    x = noise(2, 3, 24, 24).requires_grad_()
    x.grad = torch.ones_like(x)
    return net, x


def failing_target(error, at):
    calls = [0]

    def target(y):
        calls[0] += 1
        if calls[0] == at:
            raise error
        return y[:, 1]

    target.calls = calls
    return target


def explain(name, net, x, target):
    return get_method(name).quick().attribute(net, x, target)


ON_TOKENS = [name for name, cls in METHODS.items() if "tokens" in cls.needs]
ON_CLIPS = [name for name, cls in METHODS.items() if "clip" in cls.needs or "recurrent" in cls.needs]
ON_CNNS = [name for name in METHODS if name not in (*ON_TOKENS, *ON_CLIPS)]
ERRORS = {"error": MineError("mine"), "cancel": KeyboardInterrupt()}


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


class BusyClip(Busy):
    """`Busy`'s ways with clips: each frame through the convolutions, then a recurrent layer or the mean over time."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = nn.GRU(6, 5) if recurrent else None
        self.body, self.tail = self.body if recurrent else nn.Conv3d(3, 6, 3, 2, 1), self.tail if recurrent else None

    def forward(self, x):
        BusyClip.passes += 1
        self.count += 1
        self.by_shape[x.shape] = self.fc.weight * 2
        self.last = x
        self.mean = x.detach().mean((0, 2, 3, 4))
        torch.rand(3)
        if BusyClip.passes == BusyClip.at:
            raise BusyClip.error
        x.mul_(0.5)
        if self.recurrent is None:
            return self.fc(self.body(x).mean((2, 3, 4)))
        frames = self.tail(self.body(x.transpose(1, 2).flatten(0, 1))).mean((2, 3)).unflatten(0, (len(x), -1))
        return self.recurrent(frames.transpose(0, 1))[0][-1]

    error, at, passes = None, 0, 0


def busy_clip(name):
    net = seeded(lambda: BusyClip("recurrent" in METHODS[name].needs)).train()
    net.fc.eval()
    net.fc.weight.grad = torch.full_like(net.fc.weight, 3)
    net.body.register_forward_hook(lambda _m, _a, out: None)
    x = noise(2, 3, 4, 16, 16).requires_grad_()
    x.grad = torch.ones_like(x)
    BusyClip.passes, BusyClip.at = 0, 0
    return net, x


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
            with pytest.raises(type(error)):
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
    with pytest.raises(type(ERRORS[error])):
        explain(name, net, x, 1)
    assert state(net, x) == before


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_after_memory_ran_out(error):
    net, x = busy(Failing)
    Failing.passes, Failing.at, Failing.error = 0, 1, error
    before = state(net, x)
    with pytest.raises(type(error)):
        Saliency().attribute(net, x, 1)
    assert state(net, x) == before


GRID = Layout("channels-first", (6, 6), 6)  # of the layer `tail`, whose zeros prove nothing


def synthesis(net, target=1, **settings):
    """A class and a unit, through views, with alpha and a regulariser; the picture model is made anew each time."""
    model = VisionModel(net, Preprocess(input_size=(24, 24), mean=(0, 0, 0), std=(1, 1, 1)))
    quick = Settings(**({"steps": 3, "views": 2, "alpha": "gradient"} | settings))
    return synthesise(model, [target, Channel("tail", 2, layout=GRID) - 0.1 * TotalVariation()], quick)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_syntheses_leave_none_either(name):
    """After success, an error or a cancel in the forward pass or the objective, and a refusal."""
    net, x = busy()
    before = state(net, x)
    found = synthesis(net, parametrisation=PARAMETRISATIONS[name]())
    assert not any(t.requires_grad for s in found for t in (s.picture, s.input, s.alpha))
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, 3, 5):  # bound, on the way, measured at the end
            with pytest.raises(type(error)):
                synthesis(net, failing_target(error, at), parametrisation=PARAMETRISATIONS[name]())
            assert state(net, x) == before
    with pytest.raises(PellucidError):
        synthesis(net, 99)
    assert state(net, x) == before
    Failing.passes, Failing.at, Failing.error = 0, 0, ERRORS["cancel"]
    net, x = busy(Failing)
    synthesis(net, parametrisation=PARAMETRISATIONS[name]())
    last, Failing.passes = Failing.passes, 0
    before = state(net, x)
    for at in (1, last - 2, last):
        Failing.passes, Failing.at = 0, at
        with pytest.raises(KeyboardInterrupt):
            synthesis(net, parametrisation=PARAMETRISATIONS[name]())
        assert state(net, x) == before


def test_syntheses_wake_dead_units_without_a_trace():
    net, x = busy()
    with torch.no_grad():
        net.body[1].bias.fill_(-100)  # everything behind the first rectifier is silent
    before = state(net, x)
    found = synthesis(net)
    assert found[1].facts["rescued_steps"] == 3
    assert state(net, x) == before


def looks(net, folder, error=None, at=0):
    """Everything that looks at units of natural pictures: search, relevance, receptive field, maps, atlas."""
    model = net_model(net)
    layer = Layer("tail", "", GRID, 1.0)
    target = as_target(failing_target(error, at)) if error else Class(1)
    x = noise(1, 3, 24, 24)
    return [
        find_exemplars(model, folder, ByActivation(layer), top=2, bottom=1, cache=False, batch=2),
        find_exemplars(model, folder, ByRelevance(layer, (1,), target=target), top=2, cache=False, batch=2),
        find_exemplars(model, folder, ByScore(layer, target), top=2, cache=False, batch=2),
        activation_maps(model, x, [layer], by="relevance", target=1),
        make_atlas(model, folder, layer, size=2, projection="pca", samples=12, least=1),
    ]


@pytest.fixture
def few_pictures(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", pixels(24, 24, seed=i))
    return tmp_path


def test_looking_at_natural_pictures_leaves_none_either(few_pictures):
    """After success, after an error or a cancel in a pass or in the target, and after a refusal."""
    net, x = busy()
    before = state(net, x)
    looks(net, few_pictures)
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, 2, 4):
            with pytest.raises(type(error)):
                looks(net, few_pictures, error, at)
            assert state(net, x) == before
    with pytest.raises(PellucidError):
        find_exemplars(net_model(net), few_pictures / "none", ByActivation(Layer("tail", "", GRID, 1.0)), cache=False)
    assert state(net, x) == before
    Failing.passes, Failing.at, Failing.error = 0, 0, ERRORS["cancel"]
    net, x = busy(Failing)
    looks(net, few_pictures)  # finds what is kept for later
    Failing.passes = 0
    looks(net, few_pictures)
    last = Failing.passes
    before = state(net, x)
    for at in range(1, last + 1, 3):
        Failing.passes, Failing.at = 0, at
        with pytest.raises(KeyboardInterrupt):
            looks(net, few_pictures)
        assert state(net, x) == before


def net_model(net):
    return VisionModel(net, Preprocess(input_size=(24, 24), resize=24, mean=(0, 0, 0), std=(1, 1, 1)))


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


# --- networks that peers stumble over: each against a plain twin or the brute gradient ---


def expected_hires(net, layer, x, target):
    A, G = activation_and_gradient(net, layer, x, lambda y: y[:, target])
    return (A * G).sum(1)


def close(a, b):
    assert b.any()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_models():
    net, x = pooled(), noise(2, 3, 32, 32)
    expected = HiResCAM(layer="3").attribute(net, x, 1)
    whole = torch.compile(net, backend="eager")
    whole(x)
    assert torch.equal(HiResCAM(layer="3").attribute(whole, x, 1), expected)
    part = copy.deepcopy(net)
    part[2].compile(backend="eager")
    part[1] = torch.compile(part[1], backend="eager")
    with torch.no_grad():
        logits = part(x)
    assert torch.equal(HiResCAM(layer="2").attribute(part, x, 1), HiResCAM(layer="2").attribute(net, x, 1))
    assert torch.equal(HiResCAM(layer="3").attribute(part, x, 1), expected)
    assert torch.equal(Saliency().attribute(part, x, 1), Saliency().attribute(net, x, 1))
    assert torch._dynamo.eval_frame._stance.stance == "default"
    torch._dynamo.utils.counters.clear()
    with torch.no_grad():
        assert torch.equal(part(x), logits)
    assert part[2]._compiled_call_impl is not None


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_submodules_shared_by_threads():
    net, x = pooled(), noise(1, 3, 32, 32)
    expected = HiResCAM(layer="0").attribute(net, x, 1)
    net[0].compile(backend="eager")
    with torch.no_grad():
        net(x)
    results = in_threads(lambda _: [HiResCAM(layer="0").attribute(net, x, 1) for _ in range(15)], range(3))
    assert all(torch.equal(found, expected) for per_thread in results for found in per_thread)
    assert torch._dynamo.eval_frame._stance.stance == "default"


class Frozen(nn.Module):
    """A backbone run under `no_grad`, as in feature extraction."""

    def __init__(self):
        super().__init__()
        self.backbone, self.fc = pooled()[:4], nn.Linear(6, 5)

    def forward(self, x):
        with torch.no_grad():
            f = self.backbone(x)
        return self.fc(f.mean((2, 3)))


def test_a_backbone_under_no_grad():
    net, x = seeded(Frozen).eval(), noise(2, 3, 32, 32)
    A = net.backbone(x).detach()
    expected = (net.fc.weight[2].detach()[:, None, None] * A).sum(1) / A[0, 0].numel()
    close(HiResCAM(layer="backbone.3").attribute(net, x, 2), expected)
    close(HiResCAM().attribute(net, x, 2), expected)
    twin = nn.Sequential(*net.backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.fc)
    close(HiResCAM(layer="backbone.1").attribute(net, x, 2), HiResCAM(layer="1").attribute(twin, x, 2))


def test_in_place_layers_read_as_what_the_layer_itself_returned():
    plain, inplace, x = pooled(), pooled(inplace=True), noise(2, 3, 32, 32)
    for layer in "0123":
        expected = HiResCAM(layer=layer).attribute(plain, x, 1)
        close(HiResCAM(layer=layer).attribute(inplace, x, 1), expected)
        close(expected, expected_hires(plain, layer, x, 1))
    a = HiResCAM(layer="0").attribute(inplace, x, Unit("2", 1))
    close(a, HiResCAM(layer="0").attribute(plain, x, Unit("2", 1)))


class Attentive(nn.Module):
    """Layers that return tuples: attention with its weights, and an LSTM."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        t = self.embed(x).flatten(2).mT
        t = t + self.attention(t, t, t)[0]
        return self.fc(self.lstm(t)[0].mean(1))


@pytest.mark.parametrize("layer", ["attention", "lstm", "embed"])
def test_layers_that_return_tuples(layer):
    net, x = seeded(Attentive).eval(), noise(2, 3, 32, 32)
    twin = copy.deepcopy(net)
    kept = {}

    def hook(_module, _args, output):
        kept["A"] = output[0] if isinstance(output, tuple) else output
        kept["A"].retain_grad()

    twin.get_submodule(layer).register_forward_hook(hook)
    twin(x)[:, 1].sum().backward()
    A, G = kept["A"].detach(), kept["A"].grad
    with Capture(net, [layer]) as capture:
        _, scores = capture.scored(x, lambda y, _: [y[:, 1]])
        close(capture.gradients(scores)[0][layer], G)
        close(capture.activations[layer], A)
    if layer == "embed":
        close(HiResCAM(layer=layer).attribute(net, x, 1), (A * G).sum(1))


class Wrapped(nn.Module):
    """Returns its scores in some structure."""

    def __init__(self, inner, wrap):
        super().__init__()
        self.inner, self.wrap = inner, wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


STRUCTURES = {
    "dataclass": lambda y: Output(torch.zeros(()), y),
    "dict": lambda y: {"loss": torch.zeros(()), "logits": y},
    "tuple": lambda y: (y, [torch.zeros(3)]),
    "list": lambda y: [y],
    "first of a dict": lambda y: {"out": y, "aux": y * 0},
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_outputs_in_structures(name):
    net, x = pooled(), noise(2, 3, 32, 32)
    wrapped = Wrapped(net, STRUCTURES[name])
    for target in (2, None, Class(1)):
        assert torch.equal(GradCAM().attribute(wrapped, x, target), GradCAM().attribute(net, x, target))
        assert torch.equal(Saliency().attribute(wrapped, x, target), Saliency().attribute(net, x, target))
    assert [(f"inner.{a.name}", a.layout) for a in layers(net, x)] == [
        (a.name, a.layout) for a in layers(wrapped, x) if a.name != "inner"
    ]


def test_data_parallel():
    net, x = pooled(), noise(2, 3, 32, 32)
    outer = nn.DataParallel(net)
    assert torch.equal(GradCAM().attribute(outer, x, 1), GradCAM().attribute(net, x, 1))
    inner = nn.Sequential(nn.DataParallel(net[:4]), *net[4:])
    assert torch.equal(GradCAM(layer="0.module.3").attribute(inner, x, 1), GradCAM().attribute(net, x, 1))


def test_a_layer_that_is_used_twice_is_explained_where_it_ran_last():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.front, self.shared, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 3, 1, 1), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.shared(self.shared(self.front(x)).relu()).relu().mean((2, 3)))

    net, x = seeded(Twice).eval(), noise(2, 3, 32, 32)
    A = net.shared(net.shared(net.front(x)).relu()).detach().requires_grad_()
    (G,) = torch.autograd.grad(net.fc(A.relu().mean((2, 3)))[:, 1].sum(), A)
    close(HiResCAM(layer="shared").attribute(net, x, 1), (A.detach() * G).sum(1))


# --- threads ---


def in_threads(work, items):
    """`work(item)` for every item at the same time; the results in order, the first error raised."""
    items = list(items)
    results, errors, barrier = [None] * len(items), [], threading.Barrier(len(items))

    def run(i):
        try:
            barrier.wait(10)
            results[i] = work(items[i])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(items))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    if errors:
        raise errors[0]
    return results


class Slow(nn.Module):
    """Gives way to the other threads in the middle of its pass, and counts its passes."""

    def __init__(self):
        super().__init__()
        self.net = pooled()
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        for module in self.net:
            time.sleep(0.001)
            x = module(x)
        return self.drop(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", [HiResCAM(layer="net.3"), HiResCAM(layer="net.0"), InputXGradient()])
def test_threads_share_a_model(method, training):
    net = seeded(Slow).train(training)
    net.net[1].eval()
    flags = [m.training for m in net.modules()]
    inputs = [noise(2, 3, 32, 32, seed=seed) for seed in range(4)]
    expected = [method.attribute(copy.deepcopy(net).eval(), x, i % 5) for i, x in enumerate(inputs)]
    random_before = random_states()
    found = in_threads(lambda i: [method.attribute(net, inputs[i], i % 5) for _ in range(6)], range(4))
    for per_thread, alone in zip(found, expected, strict=True):
        assert all(torch.equal(values, alone) for values in per_thread)
    assert [m.training for m in net.modules()] == flags
    assert net.calls == 0
    assert not any(m._forward_hooks for m in net.modules())
    assert random_states() == random_before


def test_a_failing_thread_does_not_disturb_its_neighbour():
    net, x = seeded(Slow).train(), noise(1, 3, 32, 32)
    expected = HiResCAM(layer="net.3").attribute(copy.deepcopy(net), x, 1)

    def work(fails):
        if not fails:
            return [HiResCAM(layer="net.3").attribute(net, x, 1) for _ in range(8)]
        for _ in range(8):
            with pytest.raises(MineError):
                HiResCAM(layer="net.3").attribute(net, x, failing_target(MineError(), 1))
        return []

    found, _ = in_threads(work, [False, True])
    assert all(torch.equal(values, expected) for values in found)
    assert net.training
    assert net.drop.training


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


IMPORTANCE = {
    "superpixels by shapley": (Superpixels(segments="grid", count=9), "shapley", None),
    "patches by gradient": (Patches(count=4), "gradient", None),
    "frequencies by conductance": (FrequencyBands(count=3), "conductance", None),
    "channels by ablation": (Channels(layer="tail.0", removal="mean"), "ablation", None),
    "channels by conductance": (Channels(layer="body"), "conductance", None),
    "tokens by gradient": (Tokens(layer="tail.1"), "gradient", None),
    "layers by ablation": (Blocks(layers=("body", "tail.0", "fc")), "ablation", None),
    "layers exchanged": (Blocks(layers=("body", "tail.0")), "permutation", noise(1, 3, 24, 24, seed=5)),
    "channels exchanged": (Channels(layer="body"), "permutation", noise(1, 3, 24, 24, seed=5)),
}


@pytest.mark.parametrize("name", IMPORTANCE)
def test_importance_leaves_none(name):
    """After success, and after an error or a cancel in the first and in the last score."""
    players, by, donor = IMPORTANCE[name]

    def run(net, x, target):
        job = prepare(net, x[:1], [target])
        return measure(players, get_estimator(by), job) if donor is None else exchange(players, [donor], job)

    harmless = failing_target(None, 0)
    net, x = busy()
    before = state(net, x)
    assert run(net, x, harmless).values.isfinite().all()
    assert state(net, x) == before
    for error in ERRORS.values():
        for at in (1, harmless.calls[0]):
            with pytest.raises(type(error)):
                run(net, x, failing_target(error, at))
            assert state(net, x) == before
