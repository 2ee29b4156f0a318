"""The page of the leaderboard: one part a network, and first what all of them have in common."""

import torch
from benchmarks.leaderboard import ENTRANTS, page, part
from torch import nn

import pellucid as pl


class Corner(nn.Module):
    """Is there light in the upper left?"""

    def forward(self, x):
        light = x[:, :, :4, :4].mean((1, 2, 3)) * 20
        return torch.stack([light, 10 - light], 1)


def test_a_part_says_who_beats_both_anchors():
    x = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    board = pl.evaluate(pl.wrap(Corner().eval(), scores="softmax"), x, "input-x-gradient", "srg,sensitivity-n")
    text = part(ENTRANTS["ResNet-50"], board)
    assert "- Surely above both anchors: none." in text
    assert "- Above both, but not surely: input-x-gradient." in text
    assert "- Not above both, so not to be trusted here: none." in text
    assert "3 pictures are too few to be sure" in text
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows[2] == "| input-x-gradient"
    assert {"| *edges*", "| *random order*"} == set(rows[3:])


def test_the_page_says_what_networks_have_in_common():
    said = (
        "- Surely above both anchors: {}.\n- Above both, but not surely: {}.\n"
        "- Not above both, so not to be trusted here: {}."
    )
    one, other = said.format("a, b", "none", "c"), said.format("a", "b", "c, d")
    text = page({"ResNet-50": other, "CIFAR ViT": one})
    assert "surely above both: a 2 of 2, b 1 of 2, c 0 of 2." in text
    assert "On the ResNet-50: surely above both anchors a; above, not surely b; not above c, d." in text
    assert text.index("## CIFAR ViT") < text.index("## ResNet-50")
    assert "2 networks" in text
    assert "On how many" not in page({"CIFAR ViT": said.format("none", "none", "c")})
