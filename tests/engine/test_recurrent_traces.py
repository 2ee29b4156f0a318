"""Recurrent and video models are left as they were, and cuDNN is switched off around recurrent layers alone."""

import pytest
import torch
from torch import nn

from engine.test_leave_no_trace import ERRORS, failing_target, state
from helpers.nets import noise
from helpers.video_nets import TimeFirst, cnn_rnn, conv3d
from pellucid.engine.trace import _differentiable_recurrence, leave_no_trace
from pellucid.heatmaps import get_method
from pellucid.models.adapters import ClipInput, PerFrame

METHODS = (
    "grad-cam",
    "saliency",
    "integrated-gradients",
    "occlusion",
    "rise",
    "recipro-cam",
    "score-cam",
    "kernel-shap",
)


def nets():
    net = cnn_rnn("LSTM").train()
    net.rnn.eval()
    net.fc.weight.grad = torch.full_like(net.fc.weight, 3)
    yield "lstm", net
    yield "gru", cnn_rnn("GRU", bidirectional=True).train()
    yield "btchw", ClipInput(TimeFirst(conv3d()), "BTCHW").train()
    yield "per frame", PerFrame(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


@pytest.mark.parametrize("name", METHODS)
def test_video_models_are_left_as_they_were(name):
    for kind, net in nets():
        x = noise(1, 3, 4, 24, 24).requires_grad_()
        harmless = failing_target(None, 0)
        before = state(net, x)
        assert get_method(name).quick().attribute(net, x, harmless).isfinite().all(), kind
        assert state(net, x) == before, kind
        for error in ERRORS.values():
            for at in {1, harmless.calls[0]}:
                with pytest.raises(type(error)):
                    get_method(name).quick().attribute(net, x, failing_target(error, at))
                assert state(net, x) == before, kind


def test_cudnn_is_off_around_recurrent_layers_while_a_graph_is_recorded_and_nowhere_else():
    net, seen = cnn_rnn("LSTM"), []
    for name in ("features", "rnn", "fc"):
        layer = net.get_submodule(name)
        layer.register_forward_hook(lambda m, a, o, name=name: seen.append((name, torch.backends.cudnn.enabled)))
    x = noise(1, 3, 4, 16, 16)
    before = state(net, x), torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    assert before[1]
    with _differentiable_recurrence(net, torch.device("cuda")):
        net(x)
    assert seen == [("features", True), ("rnn", False), ("fc", True)]
    seen.clear()
    with _differentiable_recurrence(net, torch.device("cuda")), torch.no_grad():
        net(x)
    assert all(enabled for _, enabled in seen)
    seen.clear()
    with leave_no_trace(net):  # on the CPU there is nothing to switch
        net(x)
    assert all(enabled for _, enabled in seen)
    assert (state(net, x), torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark) == before


def test_cudnn_is_back_after_a_recurrent_layer_has_failed():
    net = cnn_rnn("GRU")
    with pytest.raises(RuntimeError), _differentiable_recurrence(net, torch.device("cuda")):
        net.rnn(noise(1, 4, 3))  # of another width
    assert torch.backends.cudnn.enabled
    assert not net.rnn._forward_pre_hooks
    assert not net.rnn._forward_hooks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_recurrent_models_are_explained_on_cuda_in_evaluation_mode():
    net, x = cnn_rnn("LSTM"), noise(1, 3, 4, 24, 24)
    here = get_method("saliency").attribute(net, x, 1)
    there = get_method("saliency").attribute(net.cuda(), x.cuda(), 1).cpu()
    assert (here - there).abs().max() <= 1e-3 * here.abs().max()
