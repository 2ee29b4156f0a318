"""What a figure's texts say, where they stand, and whether they can be read: inside the canvas, none over another."""

from itertools import combinations

from matplotlib.text import Text

_ACROSS, _DOWN = 1.0, 2.0  # pixels that boxes may share: letters do not fill theirs


def texts(figure):
    """The texts, in the order in which they are drawn."""
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def boxes(figure):
    """Each text with its box in pixels."""
    renderer = figure.canvas.get_renderer()
    return [(t.get_text(), t.get_window_extent(renderer)) for t in figure.findobj(Text) if t.get_text()]


def illegible(figure):
    """A sentence for each text that leaves the canvas, and for each two that stand on each other."""
    width, height = figure.get_size_inches() * figure.dpi
    placed = boxes(figure)
    found = [
        f"{text!r} leaves the canvas of {width:.0f} x {height:.0f}: {b.x0:.0f}..{b.x1:.0f}, {b.y0:.0f}..{b.y1:.0f}"
        for text, b in placed
        if min(b.x0, b.y0) < 0 or b.x1 > width or b.y1 > height
    ]
    for (one, a), (other, b) in combinations(placed, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > _ACROSS and down > _DOWN:
            found.append(f"{one!r} and {other!r} share {across:.0f} x {down:.0f} pixels")
    return found
