"""Whatever shows behind a mask, another runtime answers as torch does."""

import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.nets import noise, settled
from pellucid.engine.runtimes.asked import installed
from pellucid.heatmaps import get_method

pytestmark = pytest.mark.skipif(installed("openvino") is None, reason="needs pellucid[fast]")


def net():
    torch.manual_seed(0)
    return settled(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
            nn.Linear(54, 4),
        )
    )  # fmt: skip


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", "uniform", "noisy-linear", "inpaint", "a tensor"])
def test_every_baseline(baseline, tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    model, x = net(), noise(2, 3, 12, 16)
    ground = noise(3, 12, 16, seed=7) if baseline == "a tensor" else baseline
    found = {}
    for runtime in ("torch", "openvino"):
        with pl.runtime(runtime):
            found[runtime] = get_method("rise", samples=65, cells=3, baseline=ground).explain(model, x, [1, "0>2"])
        assert {a.cost.ran.name for a in found[runtime]} == {runtime}
    for ours, theirs in zip(found["openvino"], found["torch"], strict=True):
        assert theirs.values.std() > 0
        close = 1e-3 * float(theirs.values.abs().max())
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-3, atol=close)
