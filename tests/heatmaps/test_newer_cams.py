"""FEM, KPCA-CAM, Shapley-CAM, Smooth Grad-CAM++, Integrated Grad-CAM, Relevance-CAM by hand."""

import numpy as np
import pytest
import torch

from helpers.nets import Sevens, noise, pooled, seeded
from helpers.oracles import activation_and_gradient
from pellucid.errors import MethodError
from pellucid.heatmaps import GradCAM, RelevanceCAM, ShapleyCAM, get_method
from pellucid.testing import check_method

NAMES = ("fem", "kpca-cam", "shapley-cam", "smooth-grad-cam++", "integrated-grad-cam", "relevance-cam")
X = noise(2, 3, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name):
    check_method(get_method(name).quick(), clips=True)


def net():
    return seeded(Sevens).eval()


def slopes(x, target=1):
    return activation_and_gradient(net(), "body", x, lambda y: y[:, target])


def test_fem_by_hand():
    A, _ = slopes(X)
    found = get_method("fem", layer="body", k=1.0).attribute(net(), X, 1)
    for n in range(2):
        total = sum(a.mean() * (a > a.mean() + a.std(unbiased=False)).float() for a in A[n])
        torch.testing.assert_close(found[n], total)


def test_kpca_is_numpys():
    A, _ = slopes(X)
    found = get_method("kpca-cam", layer="body").attribute(net(), X, 1)
    for n in range(2):
        cells = A[n].flatten(1).T.double().numpy()
        kernel = np.tanh(cells @ cells.T / cells.shape[1] + 1)
        centring = np.eye(len(kernel)) - 1 / len(kernel)
        values, vectors = np.linalg.eigh(centring @ kernel @ centring)
        expected = np.abs(vectors[:, -1]) * values[-1] ** 0.5
        np.testing.assert_allclose(found[n].abs().flatten().numpy(), expected, rtol=1e-4, atol=1e-5)
        assert np.corrcoef(found[n].flatten().numpy(), cells.sum(1))[0, 1] > 0


def test_shapley_cam_is_the_second_order_expansion():
    model = net()
    A, G = slopes(X)
    found = ShapleyCAM(layer="body").attribute(model, X, 1)
    for n in range(2):
        tail = lambda a: model.head(a[None])[0, 1]
        H = torch.autograd.functional.hessian(tail, A[n]).reshape(A[n].numel(), -1)
        slope = G[n] - (H @ A[n].flatten()).reshape(A[n].shape) / 2
        expected = (slope.mean((1, 2))[:, None, None] * A[n]).sum(0).relu()
        torch.testing.assert_close(found[n], expected, rtol=1e-3, atol=1e-6)


def test_without_curvature_it_is_grad_cam():
    flat, x = pooled(), noise(1, 3, 32, 32)
    torch.testing.assert_close(ShapleyCAM(layer="3").attribute(flat, x, 1), GradCAM(layer="3").attribute(flat, x, 1))


def test_smooth_grad_cam_by_a_loop():
    generator = torch.Generator().manual_seed(3)
    scale = 0.2 * (X.flatten(1).amax(1) - X.flatten(1).amin(1)).reshape(-1, 1, 1, 1)
    G = [slopes(X + scale * torch.randn(1, *X.shape[1:], generator=generator))[1] for _ in range(4)]
    A, _ = slopes(X)
    one, two, three = (sum(g**k for g in G) / 4 for k in (1, 2, 3))
    alpha = two / (2 * two + A.sum((2, 3), keepdim=True) * three)
    expected = ((alpha * one.relu()).sum((2, 3), keepdim=True) * A).sum(1).relu()
    method = get_method("smooth-grad-cam++", layer="body", samples=4, noise=0.2, seed=3)
    found = method.attribute(net(), X, 1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))


def test_integrated_grad_cam_by_a_loop():
    weights = sum(slopes((k + 0.5) / 4 * X)[1] for k in range(4)) / 4
    away = slopes(X)[0] - slopes(X * 0)[0]
    expected = (weights.mean((2, 3), keepdim=True) * away).sum(1).relu()
    found = get_method("integrated-grad-cam", layer="body", steps=4).attribute(net(), X, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_relevance_cam_through_pooling_and_one_linear_layer():
    """There the epsilon rule's relevance is gradient times activation."""
    flat, x = pooled(), noise(2, 3, 32, 32)
    A, G = activation_and_gradient(flat, "3", x, lambda y: y[:, 2])
    expected = ((A * G).sum((2, 3), keepdim=True) * A).sum(1).relu()
    found = RelevanceCAM(layer="3", composite="epsilon").attribute(flat, x, 2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("smooth-grad-cam++", {"samples": 0}),
        ("integrated-grad-cam", {"steps": 0}),
        ("relevance-cam", {"composite": "fair"}),
    ],
)
def test_bad_settings_are_refused(name, wrong):
    with pytest.raises(MethodError, match=r"at least 1|no composite"):
        get_method(name, **wrong)
