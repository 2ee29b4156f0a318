"""A model with a part that was compiled by TorchScript: its own layers are read, that part's are not."""

import pytest
import torch
from torch import nn

import pellucid as pl

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Around(nn.Module):
    """A convolution of its own in front of a part."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.part = nn.Conv2d(3, 4, 3), part

    def forward(self, x):
        return self.part(self.first(x))


@pytest.fixture
def loaded(tmp_path):
    """What is behind the convolution, in Python and loaded from a file of TorchScript."""
    torch.manual_seed(1)
    rest = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    torch.jit.save(torch.jit.script(rest), tmp_path / "rest.pt")
    return rest, torch.jit.load(tmp_path / "rest.pt")


def test_a_loaded_part_is_passed_over_and_the_layers_in_front_of_it_are_read(loaded):
    rest, part = loaded
    x = torch.rand(1, 3, 16, 16)
    found = pl.heatmaps.GradCAM().attribute(Around(part).eval(), x, 0)
    expected = pl.heatmaps.GradCAM(layer="first").attribute(Around(rest).eval(), x, 0)
    torch.testing.assert_close(found, expected)


def test_a_model_that_is_such_a_part_and_little_else_is_refused_in_a_sentence(loaded):
    model = nn.Sequential(loaded[1]).eval()
    x = torch.rand(1, 4, 16, 16)
    with pytest.raises(pl.LayerError, match="use a method that needs no layer"):
        pl.heatmaps.GradCAM().attribute(model, x, 0)
    with pytest.raises(pl.LayerError, match="lies inside of TorchScript"):
        pl.heatmaps.GradCAM(layer="0").attribute(model, x, 0)
    assert pl.heatmaps.Saliency().attribute(model, x, 0).shape == (1, 4, 16, 16)
