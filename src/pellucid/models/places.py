"""A layer's activation as what it says at each place, `(N, *grid, C)`, whatever its layout; and the way back."""

from __future__ import annotations

from torch import Tensor, nn

from pellucid.engine import unwrap
from pellucid.errors import LayerError
from pellucid.models.layers import describe
from pellucid.models.layouts import Layout


class Places:
    """How one layer reads, for inputs of any size.

    A layer behind the pooling, which gives a vector for each picture (or for each frame of a clip), has one place
    (one a frame).

    Args:
        module: the model.
        layer: module path.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        self.module, self.layer = unwrap(module), layer
        self._known: dict[tuple[int, ...], Layout | None] = {}

    def layout(self, x: Tensor) -> Layout | None:
        """The proven layout on inputs like `x` `(N, C, *space)`; None where the layer does not know places."""
        size = tuple(x.shape[1:])
        if size not in self._known:
            try:
                self._known[size] = describe(self.module, x, self.layer).layout
            except LayerError:
                self._known[size] = None
        return self._known[size]

    def rows(self, A: Tensor, x: Tensor) -> Tensor:
        """The activation `A` of inputs `x` as `(N, *grid, C)`.

        Raises:
            LayerError: it is neither a picture of the input nor a vector for each.
        """
        if (layout := self.layout(x)) is not None:
            return layout.to_map(A).movedim(1, -1)
        if A.ndim == 2 and len(A) == len(x):
            return A.reshape(len(A), *[1] * (x.ndim - 2), -1)
        if A.ndim == 3 and x.ndim == 5 and A.shape[:2] == (x.shape[0], x.shape[2]):
            return A[:, :, None, None]
        raise LayerError(
            f"The output of layer {self.layer!r}, of shape {tuple(A.shape)}, is neither a picture of the input nor a "
            "vector for each: choose another (`pellucid layers` lists them)."
        )

    def back(self, rows: Tensor, A: Tensor, x: Tensor) -> Tensor:
        """The inverse of `rows`: an activation of the shape of `A`, whose tokens without a place are kept."""
        if (layout := self.layout(x)) is not None:
            return layout.from_map(rows.movedim(-1, 1), A)
        return rows.reshape(A.shape)

    def said(self, x: Tensor) -> str:
        """The layout in words."""
        return str(self.layout(x) or ("a vector a frame" if x.ndim == 5 else "a vector a picture"))
