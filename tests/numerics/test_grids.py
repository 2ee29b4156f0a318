"""Coordinates of cells equal torch's own, and cost no import that nobody asked for."""

import subprocess
import sys

import pytest
import torch

from pellucid.numerics.grids import coordinates


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 5), (1, 7, 1)])
def test_coordinates_equal_those_of_torch(grid: tuple[int, ...]) -> None:
    numbers = torch.arange(torch.Size(grid).numel())
    expected = torch.unravel_index(numbers, grid)
    assert all(torch.equal(a, b) for a, b in zip(coordinates(numbers, grid), expected, strict=True))
    square = numbers.flip(0)[None]
    assert all(
        torch.equal(a, b) for a, b in zip(coordinates(square, grid), torch.unravel_index(square, grid), strict=True)
    )


def test_the_layer_of_a_map_is_found_without_symbolic_algebra() -> None:
    code = (
        "import sys, torch, pellucid as pl\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),"
        " torch.nn.Flatten(), torch.nn.Linear(4, 2))\n"
        "pl.explain(net, torch.rand(1, 3, 16, 16), method='grad-cam')\n"
        "assert 'sympy' not in sys.modules, sorted(m for m in sys.modules if m.startswith('torch.fx'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
