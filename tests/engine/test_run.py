"""The guard around a user's model: what it raises becomes a sentence with the cause, and batches are what it takes."""

import gc
import weakref
from contextlib import contextmanager, suppress

import pytest
import torch
from torch import nn

from helpers.nets import noise, pooled, seeded
from helpers.traces import causes
from pellucid.engine import Capture
from pellucid.engine.batching import adaptive_batches
from pellucid.engine.run import batch_note, batch_size, run_model
from pellucid.errors import ModelError, OutOfMemoryError, TargetError
from pellucid.heatmaps import METHODS, RISE, GradCAM, IntegratedGradients, LayerCAM, Occlusion, Saliency, get_method

X = noise(3, 3, 24, 24)


class Patient(nn.Module):
    """Keeps one patient's values, so that it takes batches of one only."""

    def __init__(self, rows=1):
        super().__init__()
        self.body, self.fc = pooled()[:4], nn.Linear(9, 5)
        self.register_buffer("kept", noise(rows, 3, seed=1))
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.fc(torch.cat([self.body(x).mean((2, 3)), self.kept], 1))


class Free(Patient):
    """The same for any batch."""

    def forward(self, x):
        return self.fc(torch.cat([self.body(x).mean((2, 3)), self.kept[:1].expand(len(x), -1)], 1))


def twins(rows=1):
    bound, free = seeded(lambda: Patient(rows)).eval(), seeded(lambda: Free(rows)).eval()
    free.load_state_dict(bound.state_dict())
    return bound, free


METHODS_OF_ALL_KINDS = {
    "grad-cam": GradCAM(),
    "layer-cam of two rows": LayerCAM(layer="body.1"),
    "score-cam": get_method("score-cam"),
    "ablation-cam": get_method("ablation-cam"),
    "recipro-cam": get_method("recipro-cam"),
    "saliency": Saliency(),
    "integrated-gradients": IntegratedGradients(),
    "occlusion": Occlusion(window=6, stride=3),
    "rise": RISE(samples=80),
    "kernel-shap": get_method("kernel-shap", segments="grid", samples=100),
}


@pytest.mark.parametrize("name", METHODS_OF_ALL_KINDS)
def test_a_model_of_batches_of_one_is_explained_as_its_twin_of_any(name):
    bound, free = twins()
    method = METHODS_OF_ALL_KINDS[name]
    (found,), (expected,) = (method.explain(net, X, [2]) for net in (bound, free))
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5 * float(expected.values.abs().max()))
    assert any("batches of 1 only" in note and "one by one" in note for note in found.notes)
    assert not any("batches" in note for note in expected.notes)


def test_several_layers_and_targets_of_a_batch_run_one_by_one():
    bound, free = twins()

    def both(net):
        with Capture(net, ["body.0", "body.3"], watch=["body.1"]) as capture:
            _, scores = capture.scored(X, lambda y, w: [y[:, 1], w["body.1"].mean((1, 2, 3)) + y[:, 0]])
            return capture.gradients(scores), {n: a.detach() for n, a in capture.activations.items()}

    (G, A), (expected_G, expected_A) = both(bound), both(free)
    for found, expected in zip([*G, A], [*expected_G, expected_A], strict=True):
        assert list(found) == list(expected)
        for name in expected:
            assert expected[name].any()
            torch.testing.assert_close(found[name], expected[name])


def test_a_program_exported_for_four_is_run_four_at_a_time():
    net, x = pooled(), noise(6, 3, 24, 24)
    program = torch.export.export(net, (x[:4],)).module()
    assert torch.equal(run_model(program, x), torch.cat([net(x[:4]), net(x[2:])])[[0, 1, 2, 3, 6, 7]])
    assert batch_size(program) == 4
    assert "4 at a time" in batch_note(program)[0]
    for method in (Saliency(), IntegratedGradients(), Occlusion(window=6, stride=3)):
        for rows in (x, x[:1]):
            a, b = method.attribute(program, rows, 1), method.attribute(net, rows, 1)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_model_of_any_batch_is_asked_no_more_than_before():
    net = seeded(lambda: Patient(3)).eval()
    net(X)
    net.sizes.clear()
    assert run_model(net, X).shape == (3, 5)
    assert net.sizes == [3]


def test_a_failure_that_does_not_come_again_is_no_batch_size():
    net, calls = pooled(), [0]

    def fail_once(*_):
        calls[0] += 1
        if calls[0] == 1:
            raise ArithmeticError("a passing cloud")

    net.register_forward_hook(fail_once)
    with pytest.raises(ModelError, match="ArithmeticError: a passing cloud"):
        run_model(net, X)
    assert batch_size(net) == 0
    assert calls[0] == 3


def test_an_input_that_was_written_to_is_not_run_again():
    bound = twins()[0]
    bound.register_forward_pre_hook(lambda _m, args: args[0].mul_(2).numel() < 0 or None)
    with pytest.raises(ModelError, match="Sizes of tensors must match"):
        run_model(bound, X.clone())


def test_what_is_known_of_batches_keeps_no_model_alive():
    bound = twins()[0]
    run_model(bound, X)
    seen = weakref.ref(bound)
    del bound
    gc.collect()
    assert seen() is None


class Curious(nn.Module):
    """Raises what it is told, in a part and at a pass of its own."""

    def __init__(self, error, at=1, backward=False):
        super().__init__()
        self.body, self.error, self.at, self.backward, self.passes = pooled(), error, at, backward, 0

    def forward(self, x):
        self.passes += 1
        y = self.body(x)
        if self.backward:
            y = Broken.apply(y, self.error)
        elif self.passes >= self.at:
            raise self.error
        return y


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, error):
        ctx.error = error
        return y.clone()

    @staticmethod
    def backward(ctx, _gradient):
        raise ctx.error


@contextmanager
def noting(errors):
    try:
        yield
    except Exception as error:
        errors.append(error)
        raise


class OddError(Exception):
    """Of a kind that nobody has heard of."""


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize(
    "name", [n for n, m in METHODS.items() if m.needs in ("outputs", "gradients", "gradients, a layer")]
)
def test_whatever_a_pass_raises_is_a_sentence_with_its_cause(name, at):
    error = OddError("the moon is full")
    net, method = Curious(error, at).eval(), get_method(name)
    caught = []
    with suppress(ModelError), noting(caught):
        method.attribute(net, X[:1], 1)
    for one in caught:
        assert "OddError: the moon is full" in str(one)
        assert "`raise self.error`" in str(one)
        assert error in causes(one)
    assert caught or net.passes < at  # a method of so few passes


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.needs in ("gradients", "gradients, a layer")])
def test_whatever_a_backward_pass_raises_is_one_too(name):
    error = OddError("no way back")
    with pytest.raises(ModelError, match=r"backward pass failed .OddError: no way back.*occlusion") as caught:
        get_method(name).attribute(Curious(error, backward=True).eval(), X[:1], 1)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [TargetError("of the user's own"), KeyboardInterrupt()])
def test_errors_of_ours_and_interrupts_pass(error):
    for method in (GradCAM(layer="body.3"), Saliency(), RISE(samples=8)):
        with pytest.raises(type(error)) as caught:
            method.attribute(Curious(error).eval(), X[:1], 1)
        assert caught.value is error


def test_hooks_of_the_users_are_guarded_and_located():
    net = pooled()
    net[2].register_forward_hook(lambda *_: [].pop())
    with pytest.raises(ModelError, match=r"IndexError: pop from empty list.*`net\[2\]"):
        Saliency().attribute(net, X, 1)


def test_memory_that_ran_out_says_so_when_nothing_can_be_halved():
    net = Curious(torch.OutOfMemoryError("CUDA out of memory")).eval()
    for method in (GradCAM(layer="body.3"), Saliency(), Occlusion()):
        with pytest.raises(OutOfMemoryError, match=r"Memory ran out.*smaller input"):
            method.attribute(net, X[:1], 1)
    sizes = []

    def run(start, stop):
        sizes.append(stop - start)
        if stop - start > 2:
            raise OutOfMemoryError("too much")

    assert adaptive_batches(run, 6, 6) == 1
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    with pytest.raises(OutOfMemoryError, match="Memory ran out"):
        adaptive_batches(lambda _start, _stop: bytearray(2**62), 1, 1)  # of our own, not the model's
