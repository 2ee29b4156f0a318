"""Results that were saved by an earlier version (0.1, before the redesign) still open and can still be recomputed.

`tests/results/kept` holds one file of each kind, made with the network below, whose weights are a formula.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import pellucid as pl

KEPT = sorted(Path(__file__).with_name("kept").glob("*.json"))
LEARNED = "digits.tree"  # its tree is learned anew, from columns found anew
BESIDE_TRUTH = ("squares.boxes", "discs.regions")  # pictures and truth are not kept: `tests/audit` computes them again


def earlier_model():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            n = torch.arange(p.numel(), dtype=torch.float64)
            p.copy_((torch.sin(n * (k + 1.7) * 0.9 + k) * (2 / math.sqrt(p[0].numel() + 1))).view_as(p))
    look = pl.Preprocess(input_size=(48, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(net.eval(), transform=look, labels=["one", "two", "three"])


def test_there_is_one_of_each_kind():
    from pellucid.verbs.kinds import REQUESTS

    assert {pl.storage.read_artefact(file, REQUESTS).format for file in KEPT} == set(REQUESTS)


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_it_opens(file):
    found = pl.read(file)
    assert "img" in found._repr_html_() if hasattr(found, "_repr_html_") else found.png()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "file", [file for file in KEPT if file.stem not in (LEARNED, *BESIDE_TRUTH)], ids=lambda file: file.stem
)
def test_it_is_recomputed(file):
    assert pl.verify(file, model=earlier_model()).status in ("same", "within tolerance")


@pytest.mark.slow
def test_what_is_learned_again_is_the_same_or_said_to_be_another():
    """Where sums are rounded otherwise, the columns agree to a few thousandths, and a tree asks other questions."""
    from pellucid.verbs.distill import RELEARNED

    found = pl.verify(Path(__file__).with_name("kept") / f"{LEARNED}.json")
    assert found.status in ("same", "within tolerance", "different")
    if found.status == "different":
        said = RELEARNED.split("{}")[1].split("{")[0]
        assert len(found.reasons) == 1
        assert said in found.reasons[0]
