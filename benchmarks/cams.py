"""Class activation maps: time beside the bare forward pass and beside the rivals."""

from __future__ import annotations

import torch

from benchmarks import rivals
from benchmarks.report import Limit, Row, Section, at_least, at_most
from benchmarks.rivals import Setting
from benchmarks.timing import Paired, Spread, paired, timed
from pellucid.engine import Capture
from pellucid.heatmaps.cam import first_component

_EIGEN_LAYER = "layer1"


def _row(found: Paired, what: str, a: str, b: str, limit: Limit | None = None, note: str = "") -> Row:
    return Row(what, found.ratio(a, b), limit=limit, cpu=found.ratio(a, b, "cpu"), note=note)


def grad_cam(model: str, batch: int, repeats: int, device: str) -> Section:
    """Grad-CAM of every library, all nine maps of Pellucid, and the one-off cost of finding the layer."""
    s = Setting.make(model, batch, device, probe=False)
    bare = rivals.forward(s)
    bare()
    first = timed(lambda: setattr(s, "layer", s.find_layer()))
    names = rivals.CAMS if model == "ResNet-50" else rivals.CAMS[1:]  # `cam` needs pooling and one linear layer
    calls = {name: build(s) for name, build in rivals.GRAD_CAMS.items()}
    found = paired(calls | {"all": rivals.pellucid_all_cams(s, names)}, repeats)
    layer = s.layer.name if s.layer else ""
    forward = found.seconds("forward")
    wall, cpu = (t - found.seconds("pellucid", clock).median for t, clock in zip(first, ("wall", "cpu"), strict=True))
    rows = [
        _row(found, "grad-cam : bare forward", "pellucid", "forward", at_most(1.15)),
        _row(found, "grad-cam : captum", "pellucid", "captum", at_most(1.05)),
        _row(found, "grad-cam package : grad-cam", "grad-cam package", "pellucid", at_least(2.5)),
        _row(found, "torchcam : grad-cam", "torchcam", "pellucid"),
        _row(found, f"{len(names)} maps together : grad-cam", "all", "pellucid", at_most(1.25)),
        _row(found, "captum : bare forward", "captum", "forward"),
        _row(found, "grad-cam package : bare forward", "grad-cam package", "forward"),
        _row(found, "torchcam : bare forward", "torchcam", "forward"),
        Row("bare forward", forward, " s", cpu=found.seconds("forward", "cpu")),
        Row(
            "finding the layer, once for a model",
            Spread.of([wall]),
            " s",
            cpu=Spread.of([cpu]),
            note=f"{cpu / found.seconds('forward', 'cpu').median:.2g} bare forwards in processor time",
        ),
    ]
    about = (
        f"{model} with random weights, a batch of {batch}, layer `{layer}` (found by itself; the rivals are told). "
        "The bare forward is the same model on the same batch under `no_grad`. Read `a : b` as how many times longer "
        "`a` takes. "
    )
    if model != "ResNet-50":
        about += "captum does not reshape tokens, so only its cost compares; `cam` refuses this head."
    return Section(f"Grad-CAM on {model}", about, rows)


def eigen_cam(repeats: int, device: str) -> Section:
    """Eigen-CAM on a 56 x 56 x 256 layer, the whole call and the decomposition alone."""
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    s = Setting.make("ResNet-50", 1, device, probe=False)
    with torch.no_grad(), Capture(s.module, [_EIGEN_LAYER], stop_early=True) as capture:
        capture.forward(s.inputs)
        activation = capture.activations[_EIGEN_LAYER].clone()
    ours = rivals.pellucid_eigen_cam(s, _EIGEN_LAYER)
    ours()
    first_component(activation)
    array = activation.cpu().numpy()
    found = paired(
        {
            "ours": ours,
            "theirs": rivals.package_eigen_cam(s, _EIGEN_LAYER),
            "our step": lambda: first_component(activation),
            "their step": lambda: get_2d_projection(array),
        },
        repeats,
        warmup=0,
    )
    rows = [
        _row(found, "grad-cam package : eigen-cam, whole call", "theirs", "ours", at_least(10)),
        _row(found, "grad-cam package : eigen-cam, decomposition", "their step", "our step", at_least(10)),
        Row("eigen-cam, whole call", found.seconds("ours"), " s", cpu=found.seconds("ours", "cpu")),
        Row("eigen-cam, decomposition", found.seconds("our step"), " s", cpu=found.seconds("our step", "cpu")),
    ]
    about = (
        f"One picture, ResNet-50's `{_EIGEN_LAYER}`: {' x '.join(map(str, activation.shape[2:]))} cells of "
        f"{activation.shape[1]} channels. The package centres the channels first, Pellucid does not (as in the paper)."
    )
    return Section("Eigen-CAM on a large layer", about, rows)
