import itertools

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
from pytorch_grad_cam import GradCAMElementWise
from pytorch_grad_cam import HiResCAM as PeerHiResCAM
from pytorch_grad_cam import LayerCAM as PeerLayerCAM
from pytorch_grad_cam import XGradCAM as PeerXGradCAM
from torch import nn

from helpers.nets import OneConv, Sevens, noise, pooled, random_net, seeded
from helpers.oracles import activation_and_gradient
from pellucid.errors import LayerError, MethodError
from pellucid.heatmaps import (
    CAM,
    METHODS,
    ChannelRelevance,
    EigenCAM,
    EigenGradCAM,
    ElementwiseGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
    explain_all,
)
from pellucid.heatmaps.cam import ActivationGradientCAM, first_component
from pellucid.models.layers import best_layer
from pellucid.models.targets import Class, Contrast, PerSample, TopClass

CAMS = {
    name: cls
    for name, cls in METHODS.items()
    if issubclass(cls, ActivationGradientCAM)
    and "clip" not in cls.needs
    and "region" not in cls.needs
    and "box" not in cls.needs
}
BUT_CAM = {name: cls for name, cls in CAMS.items() if cls is not CAM}


def close(a, b, tolerance=1e-5):
    """Equal up to `tolerance` of the largest value, and not for want of values."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    assert a.shape == b.shape
    assert b.abs().max() > 0
    assert (a - b).abs().max() <= tolerance * b.abs().max()


# --- values computed by hand, and captum's own ---

RAMP = torch.arange(16.0).reshape(1, 1, 4, 4)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("layer", "x", "expected"),
    [
        ("conv1", RAMP, [[11.25, 13.5], [20.25, 22.5]]),
        ("relu1", RAMP, [[0.0, 4.0], [28.0, 32.5]]),
        ("conv1", RAMP + 1, [[14.5, 19.0], [32.5, 37.0]]),
        ("entry", RAMP, (0.5625 * RAMP)[0, 0].tolist()),
    ],
)
def test_captums_exact_values(layer, x, expected, inplace):
    assert GradCAM(layer=layer).attribute(OneConv(inplace), x, 0).tolist() == [expected]


def test_the_net_of_the_exact_values_is_captums():
    ours, theirs, x = OneConv(), BasicModel_ConvNet_One_Conv().eval(), noise(3, 1, 4, 4) * 20 + 10
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).any()


NETS = ["resnet18", "mobilenetv2_050", "densenet121", "convnext_atto"]


@pytest.mark.parametrize("name", NETS)
def test_grad_cam_equals_captum(name):
    net, x = random_net(name), noise(2, 3, 96, 96)
    layer = best_layer(net, x).name
    ours = GradCAM().attribute(net, x, PerSample((3, 7)))
    module = net.get_submodule(layer)
    theirs = LayerGradCam(net, module).attribute(x, target=torch.tensor([3, 7]), relu_attributions=True)
    close(ours, theirs.detach()[:, 0])


def test_grad_cam_on_tokens_equals_captum_on_their_picture():
    class Picture(nn.Module):
        """Lays the tokens out as a picture for captum, and takes them back."""

        def __init__(self, norm):
            super().__init__()
            self.norm, self.picture = norm, nn.Identity()

        def forward(self, tokens):
            tokens = self.norm(tokens)
            picture = self.picture(tokens[:, 1:].mT.unflatten(-1, (14, 14)))
            return torch.cat([tokens[:, :1], picture.flatten(2).mT], 1)

    net, x = random_net("vit_tiny_patch16_224", depth=3), noise(2, 3, 224, 224)
    ours = GradCAM(layer="blocks.2.norm1").attribute(net, x, 4)
    assert torch.equal(ours, GradCAM().attribute(net, x, 4))
    net.blocks[2].norm1 = Picture(net.blocks[2].norm1)
    theirs = LayerGradCam(net, net.blocks[2].norm1.picture).attribute(x, target=4, relu_attributions=True)
    close(ours, theirs.detach()[:, 0])


# --- every formula, by explicit loops over a brute gradient ---


@pytest.fixture(scope="module")
def case():
    net, x = seeded(Sevens).eval(), noise(2, 3, 32, 32, seed=1)
    A, G = activation_and_gradient(net, "body", x, lambda y: y[:, 3])
    assert (A < 0).any()
    assert (G < 0).any()
    assert G.var(dim=(2, 3)).min() > 0
    return net, x, A, G


def looped(A, G, weigh):
    """`sum_c weigh(A, G, n, c, i, j) A_nc` at each cell, in plain Python numbers."""
    N, C, H, W = A.shape
    a, g = A.double().numpy(), G.double().numpy()
    out = np.zeros((N, H, W))
    for n, c, i, j in itertools.product(range(N), range(C), range(H), range(W)):
        out[n, i, j] += weigh(a[n, c], g[n, c], i, j) * a[n, c, i, j]
    return torch.from_numpy(out).float()


def plus_plus(a, g, _i, _j):
    total = 0.0
    for p in range(a.shape[0]):
        for q in range(a.shape[1]):
            denominator = 2 * g[p, q] ** 2 + a.sum() * g[p, q] ** 3
            alpha = g[p, q] ** 2 / denominator if denominator != 0 else 0.0
            total += alpha * max(g[p, q], 0.0)
    return total


FORMULAS = {
    GradCAM: (lambda a, g, i, j: g.sum() / g.size, True),
    XGradCAM: (lambda a, g, i, j: (a * g).sum() / a.sum(), True),
    HiResCAM: (lambda a, g, i, j: g[i, j], False),
    LayerCAM: (lambda a, g, i, j: max(g[i, j], 0.0), True),
    ElementwiseGradCAM: (lambda a, g, i, j: g[i, j] if a[i, j] * g[i, j] > 0 else 0.0, False),
}


@pytest.mark.parametrize("method", FORMULAS)
def test_the_formula_by_a_loop(method, case):
    net, x, A, G = case
    weigh, rectified = FORMULAS[method]
    expected = looped(A, G, weigh)
    close(method(layer="body").attribute(net, x, 3), expected.relu() if rectified else expected)


def test_grad_cam_plus_plus_is_the_papers():
    net, x = pooled(width=3, channels=6), noise(2, 3, 24, 24, seed=3)
    net = nn.Sequential(*net[:4], nn.Flatten(), seeded(lambda: nn.Linear(6 * 36, 4))).eval()
    A, G = activation_and_gradient(net, "3", x, lambda y: y[:, 1])
    expected = looped(A, G, plus_plus).relu()
    close(GradCAMPlusPlus(layer="3").attribute(net, x, 1), expected)
    # what two peers compute instead
    close_to = expected.abs().max()
    forgotten = ((G**2 * G.relu()).sum((2, 3), keepdim=True) * A).sum(1).relu()
    misplaced = G**2 / (2 * G**2 + (A * G**3).sum((2, 3), keepdim=True))
    misplaced = ((misplaced.nan_to_num() * G.relu()).sum((2, 3), keepdim=True) * A).sum(1).relu()
    assert all((wrong - expected).abs().max() > 1e-3 * close_to for wrong in (forgotten, misplaced))


@pytest.mark.parametrize(
    ("method", "peer", "rectified"),
    [
        (XGradCAM, PeerXGradCAM, True),
        (HiResCAM, PeerHiResCAM, False),
        (LayerCAM, PeerLayerCAM, True),
        (ElementwiseGradCAM, GradCAMElementWise, False),
    ],
)
def test_raw_maps_equal_pytorch_grad_cams(method, peer, rectified):
    net, x = random_net("resnet18"), noise(2, 3, 64, 64)
    A, G = activation_and_gradient(net, "layer3", x, lambda y: y[:, 2])
    with peer(net, [net.layer3]) as theirs:
        expected = torch.from_numpy(theirs.get_cam_image(x, net.layer3, None, A.numpy(), G.numpy(), False))
    close(method(layer="layer3").attribute(net, x, 2), expected.relu() if rectified else expected, 1e-4)


def test_channel_relevance_is_the_mean_product_of_each_channel(case):
    net, x, A, G = case
    N, C, H, W = A.shape
    expected = torch.zeros(N, C, dtype=torch.double)
    for n, c, i, j in itertools.product(range(N), range(C), range(H), range(W)):
        expected[n, c] += float(G[n, c, i, j]) * float(A[n, c, i, j]) / (H * W)
    (found,) = ChannelRelevance(layer="body", maps=2).explain(net, x, [3])
    close(found.values, expected.float())
    for n in range(N):
        order = sorted(range(C), key=lambda c: -abs(float(expected[n, c])))[:2]
        assert found.extras["channels"][n].tolist() == order
        close(found.extras["activations"][n], A[n, order])


def first_by_svd(M):
    u, s, _ = np.linalg.svd(M, full_matrices=True)
    return s[0] * u[:, 0]


@pytest.mark.parametrize(("channels", "side"), [(6, 32), (40, 12), (9, 12)])
def test_eigen_cams_equal_the_full_svd_with_a_fixed_sign(channels, side):
    net, x = seeded(lambda: Sevens(side, channels)).eval(), noise(3, 3, side, side, seed=5)
    A, G = activation_and_gradient(net, "body", x, lambda y: y[:, 1])
    for method, X in ((EigenCAM, A), (EigenGradCAM, G * A)):
        found = method(layer="body").attribute(net, x, 1)
        for values, M in zip(found, X.double(), strict=True):
            expected = torch.from_numpy(first_by_svd(M.flatten(1).T.numpy())).reshape(values.shape)
            sign = torch.sign((expected * M.sum(0)).sum())
            close(values, (sign * expected).float())


def test_the_sign_of_a_component_follows_the_sum_and_not_the_chance_of_the_decomposition():
    X = noise(4, 5, 3, 3) - 1
    assert ((first_component(X) * X.sum(1)).sum((1, 2)) > 0).all()
    close(first_component(-X), -first_component(X))
    wide = noise(2, 30, 2, 2)
    close(first_component(torch.cat([wide, torch.zeros(2, 3, 2, 2)], 1)), first_component(wide))


# --- what theory says of pooling + linear heads ---


def gap_nets():
    return [(pooled(channels=12), noise(2, 3, 48, 40)), (random_net("resnet18"), noise(2, 3, 96, 96))]


@pytest.mark.parametrize("index", [0, 1])
def test_on_pooling_and_linear_heads(index):
    net, x = gap_nets()[index]
    bias = [m for m in net.modules() if isinstance(m, nn.Linear)][-1].bias.detach()
    weight = [m for m in net.modules() if isinstance(m, nn.Linear)][-1].weight.detach()
    with torch.no_grad():
        logit = net(x)[:, 3]
    cam, grad_cam, hires, relevance = (m().attribute(net, x, 3) for m in (CAM, GradCAM, HiResCAM, ChannelRelevance))
    cells = cam[0].numel()
    assert cells > 1
    A, _ = activation_and_gradient(net, best_layer(net, x).name, x, lambda y: y[:, 3])
    close(cam, torch.einsum("c,nchw->nhw", weight[3], A))
    close(grad_cam, cam.relu() / cells)
    close(hires, cam / cells)
    close(cam.mean((1, 2)), logit - bias[3])
    close(hires.sum((1, 2)), logit - bias[3])
    close(relevance.sum(1) * cells, logit - bias[3])


def test_cam_takes_contrasts_and_top_classes_too():
    net, x = random_net("resnet26", classes=600), noise(2, 3, 96, 96)  # its 1 x 1 convolutions have fewer rows
    a, b = CAM().attribute(net, x, 590), CAM().attribute(net, x, 7)
    close(CAM().attribute(net, x, Contrast(590, 7)), a - b)
    top = net(x).argmax(1).tolist()
    assert torch.equal(CAM().attribute(net, x), CAM().attribute(net, x, top))


def two_layer_head():
    return nn.Sequential(*pooled()[:6], *seeded(lambda: [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)])).eval()


def max_pooled():
    return nn.Sequential(*pooled()[:4], nn.AdaptiveMaxPool2d(1), *pooled()[5:]).eval()


@pytest.mark.parametrize(
    ("net", "side", "layer"),
    [
        (lambda: random_net("convnext_atto"), 96, None),
        (lambda: seeded(Sevens).eval(), 32, "body"),
        (two_layer_head, 32, "3"),
        (max_pooled, 32, "3"),
        (pooled, 32, "0"),
    ],
    ids=["norm before the head", "flattened", "two linear layers", "max pooling", "an earlier layer"],
)
def test_cam_refuses_other_heads(net, side, layer):
    net, x = net(), noise(1, 3, side, side)
    assert GradCAM(layer=layer).attribute(net, x, 2).any()
    with pytest.raises(MethodError, match=r"global average pooling.*use grad-cam"):
        CAM(layer=layer).attribute(net, x, 2)


# --- space of any dimension ---


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_signals_and_clips(dims):
    size = {1: (40,), 2: (24, 40), 3: (8, 24, 20)}[dims]
    net, x = pooled(dims), noise(2, 3, *size)
    A, G = activation_and_gradient(net, "3", x, lambda y: y[:, 0])
    axes = tuple(range(2, 2 + dims))
    weighted = (G.mean(axes, keepdim=True) * A).sum(1)
    assert weighted.relu().any()
    close(GradCAM().attribute(net, x, 0), weighted.relu())
    close(HiResCAM().attribute(net, x, 0), (G * A).sum(1))
    bias = net[-1].bias.detach()[0]
    close(CAM().attribute(net, x, 0).flatten(1).mean(1), net(x).detach()[:, 0] - bias)
    values = EigenCAM().attribute(net, x, 0)
    for n in range(2):
        expected = torch.from_numpy(first_by_svd(A[n].flatten(1).T.double().numpy())).float()
        close(values[n].flatten().abs(), expected.abs())


def test_an_object_in_a_clip_is_found_at_its_place_and_time():
    net = nn.Sequential(nn.Conv3d(1, 2, 4, 4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    with torch.no_grad():
        net[0].weight[0], net[0].weight[1] = 1, -1
    x = torch.zeros(1, 1, 8, 16, 16)
    x[0, 0, 4:8, 8:12, 0:4] = 1
    values = GradCAM(layer="1").attribute(net.eval(), x, 0)
    assert values.shape == (1, 2, 4, 4)
    assert values.nonzero().tolist() == [[0, 1, 2, 0]]


# --- several methods, several targets, one pass ---


def test_all_methods_of_one_pass_equal_each_alone(case):
    net, x, _, _ = case
    targets = [0, Contrast(1, 4), TopClass(1), PerSample((2, 3))]
    methods = [cls(layer="body") for cls in BUT_CAM.values()]
    calls = []
    counter = net.register_forward_hook(lambda *_: calls.append(1))
    explain_all(methods[:1], net, x, targets)  # the layer's layout is known from here on
    calls.clear()
    together = explain_all(methods, net, x, targets)
    counter.remove()
    assert len(calls) == 1
    for m, found in zip(methods, together, strict=True):
        assert len(found) == len(targets)
        for t, attribution in zip(targets, found, strict=True):
            close(attribution.values, m.attribute(net, x, t), 1e-6)


def test_methods_without_a_gradient_stop_at_their_layer():
    net, x = pooled(), noise(1, 3, 32, 32)
    EigenCAM(layer="1").attribute(net, x)
    ran = []
    hooks = [m.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, m in enumerate(net)]
    EigenCAM(layer="1").attribute(net, x)
    assert ran == [0, 1]
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", BUT_CAM)
def test_several_targets_equal_separate_ones_and_batches_equal_samples(name, case):
    net, x, _, _ = case
    m = BUT_CAM[name](layer="body")
    found = m.explain(net, x, [1, 4])
    for t, attribution in zip((1, 4), found, strict=True):
        close(attribution.values, m.attribute(net, x, t))
        close(attribution.values, torch.cat([m.attribute(net, one[None], t) for one in x]))
    if m.uses_target:
        assert not torch.allclose(found[0].values, found[1].values)
        mixed = m.attribute(net, x, [4, 1])
        close(mixed, torch.stack([found[1].values[0], found[0].values[1]]))
    else:
        assert torch.equal(found[0].values, found[1].values)


@pytest.mark.parametrize("method", [HiResCAM, ChannelRelevance])
def test_maps_linear_in_the_gradient_are_linear_in_the_target(method, case):
    net, x, _, _ = case
    m = method(layer="body")
    a, b = m.attribute(net, x, 1), m.attribute(net, x, 4)
    close(m.attribute(net, x, Contrast(1, 4)), a - b)
    close(m.attribute(net, x, lambda y: 2 * y[:, 1] + 3 * y[:, 4]), 2 * a + 3 * b)
    close(m.attribute(net, x, Class(1)), a)


def test_the_default_target_is_each_samples_top_class(case):
    net, x, _, _ = case
    m = HiResCAM(layer="body")
    top = net(x).argmax(1)
    assert torch.equal(m.attribute(net, x), m.attribute(net, x, top))
    second = net(x).argsort(1, descending=True)[:, 1]
    assert torch.equal(m.attribute(net, x, TopClass(1)), m.attribute(net, x, second))


def test_a_map_of_nothing_says_so():
    net, x = pooled(), noise(1, 3, 32, 32)
    with torch.no_grad():
        net[-1].weight[2] = -1
    (found,) = GradCAM().explain(net, x, [2])
    assert not found.values.any()
    assert "nothing in favour" in found.notes[0]
    (signed,) = HiResCAM().explain(net, x, [2])
    assert signed.values.sum() < 0
    assert not signed.notes
    with torch.no_grad():
        net[2].bias[:] = -100  # nothing is active any more
    (dead,) = HiResCAM(layer="3").explain(net, x, [2])
    assert not dead.values.any()
    assert "zero everywhere" in dead.notes[0]


def test_a_layer_whose_cells_never_reach_the_target_is_refused_by_name():
    net, x = random_net("vit_tiny_patch16_224", depth=2), noise(1, 3, 224, 224)
    with pytest.raises(LayerError, match=r"'blocks\.1'.*no gradient.*'blocks\.1\.norm1'"):
        GradCAM(layer="blocks.1").attribute(net, x, 0)


def test_half_precision_activations_are_weighed_in_single_precision():
    net, x = pooled(channels=12).bfloat16(), noise(1, 3, 48, 48).bfloat16()
    found = HiResCAM(layer="3").attribute(net, x, 1)
    assert found.dtype == torch.float32
    A, G = activation_and_gradient(net, "3", x, lambda y: y[:, 1].float())
    close(found, (G.float() * A.float()).sum(1))


@pytest.mark.parametrize("name", BUT_CAM)
def test_shifting_the_picture_by_a_cell_shifts_the_map(name):
    front = seeded(lambda: [nn.Conv2d(3, 8, 4, 4), nn.SiLU(), nn.Conv2d(8, 6, 1)])
    net = nn.Sequential(*front, *pooled()[3:]).eval()
    x = noise(1, 3, 32, 32)
    m = BUT_CAM[name](layer="3")
    a, b = m.attribute(net, x, 0), m.attribute(net, x.roll((4, 8), (2, 3)), 0)
    close(b, a if m.kind == "channels" else a.roll((1, 2), (1, 2)))
