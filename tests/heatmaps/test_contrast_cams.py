"""Finer-CAM against pytorch-grad-cam's, RefineCAM against a product by hand, both by their limits."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam import FinerCAM as PeerFinerCAM
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded
from pellucid.errors import MethodError
from pellucid.evaluation.sanity import on_grid
from pellucid.heatmaps import get_method


def net(classes=5):
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes),
        )
    ).eval()  # fmt: skip


X = noise(2, 3, 8, 8, seed=2)


def test_finer_cam_is_its_peers():
    model = net()
    top = model(X).argmax(1)
    found = get_method("finer-cam", layer="4").attribute(model, X, None)
    theirs = PeerFinerCAM(model, [model[4]])(X, None)
    for mine, peer, target in zip(found, theirs, top, strict=True):
        drawn = functional.interpolate(mine[None, None], size=(8, 8), mode="bilinear")[0, 0]
        if not drawn.any():
            continue
        scaled = (drawn - drawn.min()) / (drawn.max() - drawn.min())
        assert np.corrcoef(scaled.flatten().numpy(), peer.flatten())[0, 1] > 0.99, int(target)


def test_without_the_others_finer_cam_is_grad_cam():
    model = net()
    found = get_method("finer-cam", layer="4", gamma=0.0).attribute(model, X, 1)
    scores = model(X).detach()
    assert found.any()
    # the shares of similar classes move with the input too: what is left beside them is the class's own score
    plain = get_method("grad-cam", layer="4").attribute(model, X, 1)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6 * float(scores.abs().max()))


def test_two_classes_are_a_contrast():
    model = net(2)
    found = get_method("finer-cam", layer="4", classes=1).attribute(model, X, 0)
    torch.testing.assert_close(found, get_method("grad-cam", layer="4").attribute(model, X, "0>1"))


def test_refine_cam_is_the_product_of_normalised_maps():
    model = net()
    maps = [get_method("grad-cam++", layer=layer).attribute(model, X, 1) for layer in ("1", "4")]
    fine, coarse = (m / m.flatten(1).amax(1)[:, None, None] for m in maps)
    expected = fine * functional.interpolate(coarse[:, None], size=(8, 8), mode="bilinear")[:, 0]
    (found,) = get_method("refine-cam", layers="1,4").explain(model, X, [1])
    torch.testing.assert_close(found.values, expected)
    assert "1, 4" in found.notes[-1]
    (chosen,) = get_method("refine-cam").explain(model, X, [1])
    assert chosen.values.shape == (2, 8, 8)


def test_a_check_compares_maps_of_layers_chosen_anew():
    """The shuffled network may be read at other layers than the one explained, on another grid."""
    like, found = torch.zeros(1, 8, 8), torch.arange(16.0).reshape(1, 4, 4)
    assert on_grid(found, like).shape == (1, 8, 8)
    assert on_grid(like, like) is like
    method = get_method("refine-cam")
    assert method.at("1") is method
    assert get_method("grad-cam").at("1") == get_method("grad-cam", layer="1")
    assert get_method("grad-cam", layer="4").at("1") == get_method("grad-cam", layer="4")


def test_what_cannot_be_is_said():
    with pytest.raises(MethodError, match="the model has 2: give fewer"):
        get_method("finer-cam").attribute(net(2), X, 0)
    with pytest.raises(MethodError, match="classes of at least 1"):
        get_method("finer-cam", classes=0)


def test_a_score_of_your_own_is_told_from_the_classes_nearest_to_it():
    model = net()
    plain = get_method("grad-cam", layer="4").attribute(model, X, lambda y: y[:, 1] + 0.0)
    found = get_method("finer-cam", layer="4", gamma=0.0).attribute(model, X, lambda y: y[:, 1] + 0.0)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-7)
