"""Tails that compute what a few channels add, and tails with normalisation folded in, against whole passes."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from engine.test_folding import settled
from helpers.nets import noise
from pellucid.engine import differences
from pellucid.engine.differences import Differences
from pellucid.engine.folding import PAYS
from pellucid.engine.tail import Tail

KINDS = (
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": 3, "padding": 1, "stride": 2, "dilation": 2},
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": (3, 5), "padding": (1, 2)},
)


class Counted(nn.Conv2d):
    pass


def changed(A: torch.Tensor) -> torch.Tensor:
    """Left out, moved in one cell, and raised: one, one and three channels; and not changed at all."""
    B = A.repeat(4, 1, 1, 1)
    B[0, 3], B[1, 5, 2, 2] = 0, 8
    B[2, :3] += 1
    return B


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equals_the_convolution(kind):
    torch.manual_seed(0)
    conv, A = nn.Conv2d(32, 7, **kind), noise(1, 32, 9, 11)
    B = changed(A)
    known = Differences(A)
    reader = known.read_by(conv)
    with torch.no_grad():
        assert torch.equal(reader(B), conv(B))  # nobody said that this is the layer's
        known.changed = B
        assert torch.allclose(reader(B), conv(B), atol=1e-5)
        assert not torch.equal(reader(B), conv(B))  # it took the short way
        assert torch.equal(reader(B + 0), conv(B))
        B[3, 16:] = 0
        assert torch.equal(reader(B), conv(B))  # too many channels: the plain way


def test_written_to_between_two_readers():
    torch.manual_seed(0)
    first, second, A = nn.Conv2d(32, 7, 1), nn.Conv2d(32, 7, 1), noise(1, 32, 4, 4).abs()
    known = Differences(A)
    tail = known.read_by(nn.ModuleList([first, second]))
    known.changed = B = changed(A)
    with torch.no_grad():
        wanted = first(B), second((B - 1).relu())
        found = tail[0](B), tail[1](B.sub_(1).relu_())
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_grouped_hooked_and_other_convolutions_stay():
    parts = nn.ModuleList([nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")])
    parts += [Counted(8, 8, 1), nn.Conv1d(8, 8, 1), nn.Conv2d(8, 8, 1)]
    parts[-1].register_forward_hook(lambda *_: None)
    assert Differences(noise(1, 8, 4, 4)).read_by(parts) is parts


def left_out(A: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    B = A.repeat(stop - start, 1, 1, 1)
    channels = torch.arange(start, stop)
    B[channels - start, channels % A.shape[1]] = 0
    return B


def score(output: torch.Tensor, _watched: object, _rows: object) -> list[torch.Tensor]:
    return [output[:, 3], output[:, 7]]


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer3"), ("mobilenet_v2", "features.14")])
def test_the_tail_is_quickened_and_equals_whole_passes(name, layer, monkeypatch):
    torch.manual_seed(0)
    net, x = settled(getattr(torchvision.models, name)()), noise(1, 3, 64, 64)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    taken = []
    channels = Differences.channels
    monkeypatch.setattr(Differences, "channels", lambda self: taken.append(channels(self)) or taken[-1])
    count = PAYS + 100
    with Tail(net, x, layer, score, targets=2) as tail:
        found = tail(left_out, count)
    assert taken
    assert all(t is not None for t in taken)
    part = net.get_submodule(layer)
    with torch.no_grad():
        for i in (0, 50, 63, 64, 100, count - 1):
            handle = part.register_forward_hook(lambda _m, _i, A, i=i: left_out(A, i, i + 1))
            away = (found[i] - net(x)[0, [3, 7]].double()).abs()
            assert (away < 0.02 * found.std(0)).all()  # beside what the channels matter
            handle.remove()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_few_changes_are_not_worth_a_twin(monkeypatch):
    monkeypatch.setattr(differences, "Differences", None)
    net, x = settled(torchvision.models.resnet18()), noise(1, 3, 64, 64)
    with Tail(net, x, "layer3", score, targets=2) as tail:
        tail(left_out, PAYS - 1)
        assert tail._differences is None
