"""Networks that peers stumble over, each against a plain twin or the brute gradient; and models shared by threads."""

import copy
import threading
import time

import pytest
import torch
from torch import nn

from helpers.nets import Output, Twice, noise, pooled, seeded
from helpers.oracles import activation_and_gradient
from helpers.traces import (
    MineError,
    failing_target,
)
from pellucid.engine import Capture
from pellucid.errors import PellucidError
from pellucid.heatmaps import GradCAM, HiResCAM, InputXGradient, Saliency
from pellucid.models.layers import layers
from pellucid.models.sources import wrap
from pellucid.models.targets import Class, Unit
from pellucid.testing.snapshot import random_numbers


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


def test_which_of_two_scores_must_be_said():
    """Two tensors of scores in one output: the first is not taken for the answer because it is first."""
    net, x = pooled(), noise(2, 3, 32, 32)
    wrapped = Wrapped(net, lambda y: {"out": y, "aux": y * 0})
    with pytest.raises(PellucidError, match=r"'out'.*'aux'"):
        GradCAM().attribute(wrapped, x, 2)
    said = wrap(wrapped, output="out")
    assert torch.equal(GradCAM().attribute(said, x, 2), GradCAM().attribute(net, x, 2))


def test_data_parallel():
    net, x = pooled(), noise(2, 3, 32, 32)
    outer = nn.DataParallel(net)
    assert torch.equal(GradCAM().attribute(outer, x, 1), GradCAM().attribute(net, x, 1))
    inner = nn.Sequential(nn.DataParallel(net[:4]), *net[4:])
    assert torch.equal(GradCAM(layer="0.module.3").attribute(inner, x, 1), GradCAM().attribute(net, x, 1))


def test_a_layer_that_is_used_twice_is_explained_where_it_ran_last():
    net, x = seeded(Twice).eval(), noise(2, 3, 32, 32)
    A = net.shared(net.shared(net.front(x)).relu()).detach().requires_grad_()
    (G,) = torch.autograd.grad(net.fc(A.relu().mean((2, 3)))[:, 1].sum(), A)
    close(HiResCAM(layer="shared").attribute(net, x, 1), (A.detach() * G).sum(1))


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
    random_before = random_numbers()
    found = in_threads(lambda i: [method.attribute(net, inputs[i], i % 5) for _ in range(6)], range(4))
    for per_thread, alone in zip(found, expected, strict=True):
        assert all(torch.equal(values, alone) for values in per_thread)
    assert [m.training for m in net.modules()] == flags
    assert net.calls == 0
    assert not any(m._forward_hooks for m in net.modules())
    assert random_numbers() == random_before


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
