"""The fingerprint hashes whatever a state_dict holds: every change is told, and nothing else."""

import hashlib
import warnings

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.nets import noise, pooled, random_net, seeded
from pellucid.engine.fingerprint import fingerprint
from pellucid.errors import ModelError


def test_of_plain_tensors_it_is_the_hash_that_records_hold():
    net = random_net("resnet18")
    plain = hashlib.sha256()
    for name, t in sorted(net.state_dict().items()):
        plain.update(f"{name} {t.dtype} {tuple(t.shape)}".encode() + t.numpy().tobytes())
    assert fingerprint(net) == plain.hexdigest()


def quantised(change=0.0):
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    with torch.no_grad():
        net[3].weight[1, 2] += change
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear}, dtype=torch.qint8)


def test_packed_weights_of_quantised_layers_count():
    assert fingerprint(quantised()) == fingerprint(quantised()) != fingerprint(quantised(change=0.5))
    model = pl.wrap(quantised(), transform=pl.Preprocess(input_size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3))
    assert pl.explain(model, noise(1, 3, 16, 16), method="occlusion", target=1).attribution.any()


def test_parts_of_tensor_subclasses_count():
    torchao = pytest.importorskip("torchao.quantization")

    def net(change):
        made = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64)))
        with torch.no_grad():
            made[1].weight[3, 5] += change
        torchao.quantize_(made, torchao.Int8WeightOnlyConfig())
        return made

    assert fingerprint(net(0)) == fingerprint(net(0)) != fingerprint(net(0.5))


class Extra(nn.Module):
    """A module whose `state_dict` holds anything."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


EYE = torch.eye(3)
KINDS = {
    "a number": (1, 2),
    "a text": ("a", "b"),
    "bytes": (b"a", b"b"),
    "nothing": (None, 0),
    "a dict": ({"a": [1, EYE]}, {"a": [1, EYE * 2]}),
    "a set": ({"a", "b", "c"}, {"a", "b", "d"}),
    "an array": (EYE.numpy(), EYE.numpy() * 2),
    "a type": (torch.qint8, torch.float32),
    "rows and columns": (EYE[:1], EYE[:, :1]),
    "a sparse tensor": (EYE.to_sparse(), (EYE * 2).to_sparse()),
    "a tensor in rows": (EYE.to_sparse_csr(), EYE.to_sparse_csc()),
    "a conjugate": (torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j])),
    "a quantised tensor": tuple(torch.quantize_per_tensor(EYE, scale, 0, torch.qint8) for scale in (0.1, 0.2)),
    "one by channels": tuple(
        torch.quantize_per_channel(EYE, torch.full((3,), s), torch.zeros(3), 0, torch.qint8) for s in (0.1, 0.2)
    ),
    "a class of one's own": (slice(1, 2), slice(1, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_extra_state_of_any_kind_counts(kind):
    a, b = KINDS[kind]
    assert fingerprint(Extra(a)) == fingerprint(Extra(a)) != fingerprint(Extra(b))


def test_what_cannot_be_written_counts_as_being_there():
    assert fingerprint(Extra(lambda: 1)) == fingerprint(Extra(lambda: 2)) != fingerprint(Extra(None))


def test_weights_without_values_are_refused_with_the_cure():
    with pytest.raises(ModelError, match=r"meta device.*load them"):
        fingerprint(nn.Linear(2, 2, device="meta"))
    with pytest.raises(ModelError, match=r"lazy modules.*run it once"):
        fingerprint(nn.LazyBatchNorm2d())


def test_lazy_models_are_refused_everywhere_and_explained_after_one_pass():
    net = nn.Sequential(nn.LazyConv2d(4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3))
    model = pl.wrap(net, transform=pl.Preprocess(input_size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3))
    x = noise(1, 3, 16, 16)
    for attempt in (
        lambda: pl.explain(model, x, method="grad-cam", target=1),
        lambda: model.predict(x),
        lambda: pl.heatmaps.GradCAM().attribute(net, x, 1),
        lambda: pl.heatmaps.Saliency().attribute(net, x, 1),
    ):
        with pytest.raises(ModelError, match=r"lazy modules.*run it once"):
            attempt()
    assert isinstance(net[0].weight, nn.UninitializedParameter)
    net(x)
    assert pl.explain(model, x, method="saliency", target=1).attribution.any()


def test_a_model_without_sound_numbers_is_named_though_its_state_holds_more_than_tensors():
    net = nn.Sequential(*pooled(), Extra("text"))
    net[7].forward = lambda y: y
    with torch.no_grad():
        net[0].weight[0] = float("nan")
    model = pl.wrap(net, transform=pl.Preprocess(input_size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3))
    with pytest.raises(ModelError, match=r"NaN or infinity \(first in '0.weight'\)"):
        model.predict(noise(1, 3, 16, 16))
