"""What a result of any kind can do once it can be drawn: PNG, notebook, picture viewer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.render.pages.card import Card


class Result(ABC):
    """Base of what users hold. A kind gives its figure and its caption; the rest follows."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """What the figure shows, in a line, for those who cannot see it."""

    @abstractmethod
    def figure(self) -> Figure:
        """The result drawn, as a matplotlib figure bound to no window."""

    def png(self) -> bytes:
        """The figure as PNG."""
        from pellucid.render import figure_png

        return figure_png(self.figure())

    def on_page(self, file: str = "") -> Card:
        """The result as a part of a page.

        Args:
            file: where it is saved, if it is; what stands there can be verified.
        """
        from pellucid.render.pages.figures import figure_card

        about = {name: getattr(self, name, ()) or () for name in ("notes", "prediction")}
        rows = self.table() if hasattr(self, "table") else ()
        return figure_card(
            self.caption, self.figure(), record=getattr(self, "record", None), rows=rows, file=file, **about
        )

    def html(self) -> str:
        """One page that needs nothing else: it opens from a disk, without a network."""
        from pellucid.render.pages.report import report_page

        card = self.on_page()
        return report_page(card.title, [card])

    def show(self) -> None:
        """Show the figure: in the notebook, or in the system's picture viewer."""
        try:
            from IPython import get_ipython
            from IPython.display import HTML, display

            if get_ipython() is not None:
                display(HTML(self._repr_html_()))
                return
        except ImportError:
            pass
        from io import BytesIO

        from PIL import Image

        Image.open(BytesIO(self.png())).show()

    def _repr_html_(self) -> str:
        from pellucid.render.pages.report import framed

        return framed(self.html(), self.caption)
