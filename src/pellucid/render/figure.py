"""One picture, explained: the original and the model's answer at the left, beside it a tile an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pellucid.errors import PellucidError
from pellucid.explanation import Explanation
from pellucid.heatmaps import METHODS
from pellucid.media import CLIP, VOLUME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_USUAL, _WIDE, _MANY = 13.5, 24.0, 12  # inches; explanations from which on a sheet is wide and has families
_FAMILIES = {
    "cam": "class activation maps",
    "gradient": "gradients at the input",
    "propagation": "relevance led back by rules",
    "path": "gradients along a path",
    "perturbation": "answers to changed inputs",
    "region": "smallest regions",
    "mask": "masks found by gradients",
    "attention": "attention of transformers",
    "recurrent": "memory of recurrent networks",
}


def panel(explanations: Sequence[Explanation], *, width: float | None = None) -> Figure:
    """Draw explanations of one picture, by several methods and for several targets.

    At the left stands the original with the model's top classes. Each target has a section with a tile for
    each explanation: method, layer, overlay, a colour bar with the raw values, measured quality, warnings.
    A map without meaning says so. A volume is cut in three planes through the peak; a clip has a
    strip of key frames above the curve of its evidence over time.

    Args:
        explanations: of ONE picture, in the order in which they shall appear.
        width: the most inches the figure may take; it has as many columns as it needs and as fit, at least
            one beside the original. None: 13.5, and 24 for many methods of one picture.

    Returns:
        A figure bound to no window and no global state: see `figure_png`, or use its own `savefig`.

    Raises:
        PellucidError: nothing to draw, more than one picture, or other than two or three space axes.
    """
    if not explanations:
        raise PellucidError("There is nothing to draw: give at least one explanation.")
    if len({(e.name, e.record.input.get("sha256")) for e in explanations}) > 1:
        names = ", ".join(dict.fromkeys(e.name for e in explanations))
        raise PellucidError(f"A panel shows one picture, not several ({names}): draw a panel for each.")
    sections = _sections(explanations)
    width = width or (_WIDE if len(explanations) > _MANY else _USUAL)
    if explanations[0].medium is CLIP:
        from pellucid.render.strip import strips

        return strips(explanations, width)
    if explanations[0].medium is VOLUME:
        from pellucid.render.planes import panel_of_volumes

        return panel_of_volumes(explanations, width)
    from pellucid.render.paper.page import page  # brings matplotlib

    return page(explanations[0], sections, width)


def caption(explanations: Sequence[Explanation]) -> str:
    """What a panel shows, in a line: the picture, the methods, the targets."""
    methods = ", ".join(dict.fromkeys(e.method for e in explanations))
    targets = ", ".join(dict.fromkeys(e.target for e in explanations))
    return f"{explanations[0].name}: {methods} for {targets}"


def _sections(explanations: Sequence[Explanation]) -> list[tuple[str, list[Explanation]]]:
    """A section a target; a single one, without a name, where every target has but one explanation."""
    groups: dict[str, list[Explanation]] = {}
    for e in explanations:
        groups.setdefault(e.target, []).append(e)
    if len(groups) > 1 and max(map(len, groups.values())) == 1:
        return [("", list(explanations))]
    return [section for target, group in groups.items() for section in _by_family(target, group)]


def _by_family(target: str, group: list[Explanation]) -> list[tuple[str, list[Explanation]]]:
    """Of many methods a section each for those of one kind, in the order of the list of methods."""
    if len(group) <= _MANY:
        return [(target, group)]
    families: dict[str, list[Explanation]] = {}
    for e in group:
        known = METHODS.get(e.method)
        families.setdefault(_FAMILIES.get(known.family, known.family) if known else "others", []).append(e)
    return [(f"{target}: {family}", those) for family, those in families.items()]
