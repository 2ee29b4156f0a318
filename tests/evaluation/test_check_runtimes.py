"""`check()` says the same whatever runs its passes, of 30 pictures."""

from collections import Counter

import pytest

pytest.importorskip("torch")

import numpy as np

import pellucid as pl
from helpers.cases import SIDE, STRETCH, planted_net
from pellucid.engine.runtimes.asked import installed

PICTURES = 30


def picture(k):
    """Noise with a bright object, every third time hardly bright enough to count."""
    generator = np.random.default_rng(k)
    values = generator.integers(100, 150, (SIDE, SIDE, 3)).astype(np.uint8)
    y, x = 8 * generator.integers(0, SIDE // 8 - 1, 2)
    values[y : y + 16, x : x + 16] = 250 if k % 3 else 205
    return values


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_the_verdict_is_that_of_torch_on_thirty_pictures(runtime, tmp_path, monkeypatch):
    if installed(runtime) is None:
        pytest.skip(f"needs {runtime}")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    model = pl.wrap(planted_net(), transform=STRETCH, labels=("bright", "dark"))
    said = {}
    for name in ("torch", runtime):
        said[name] = []
        for k in range(PICTURES):
            with pl.runtime(name):
                e = pl.explain(model, picture(k), "hires-cam", target=("bright", "dark")[k % 2])
                quality = e.check()
            said[name].append((quality.verdict, quality.p_value))
            ran = {made.runtime for made, _ in e.session._quick.values() if made is not None}
            assert ran == (set() if name == "torch" else {runtime})
    theirs, ours = ([verdict for verdict, _ in said[name]] for name in ("torch", runtime))
    assert ours == theirs
    assert min(Counter(verdict == "faithful" for verdict in theirs).values()) >= 5  # many of both kinds
    apart = [abs(p - q) for (_, p), (_, q) in zip(*said.values(), strict=True)]
    assert max(apart) < 0.01  # rounding may let one moved map pass by another
