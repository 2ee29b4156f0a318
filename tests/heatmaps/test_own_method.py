"""A method that is entered under no name is explained like any other."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

import pellucid as pl
from pellucid.heatmaps import Method
from pellucid.heatmaps.base import Attribution


@dataclass(frozen=True, eq=False)
class Brightness(Method):
    """How bright each place is."""

    name: ClassVar[str] = "brightness"
    needs: ClassVar[str] = "gradients"

    @classmethod
    def run(cls, methods, job):
        """The mean over channels."""
        return [[Attribution(job.inputs.mean(1)) for _ in job.targets] for _ in methods]

    def parameters(self):
        """None."""
        return {}


def test_a_class_without_a_family_is_a_method():
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = pl.explain(pl.wrap(net, scores="softmax"), x, Brightness(), 1)
    torch.testing.assert_close(found.attribution, x.mean(1), check_dtype=False)
