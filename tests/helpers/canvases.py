"""Models of any number of channels and axes, with a preprocessing that only says what black and white are."""

from dataclasses import dataclass

from pellucid.models.model import VisionModel


@dataclass(frozen=True)
class Levels:
    """Black and white of every channel, and the sizes; it never sees a file."""

    channels: int
    input_size: tuple
    black: float = 0.0
    white: float = 1.0

    def display(self, x):
        return ((x - self.black) / (self.white - self.black)).clamp(0, 1)

    def as_dict(self):
        return {"black": self.black, "white": self.white}


def model_of(net, shape, labels=None, black=0.0, white=1.0):
    """A model whose inputs are `(C, *space)`, by default in display units."""
    return VisionModel(net, Levels(shape[0], tuple(shape[1:]), black, white), labels)
