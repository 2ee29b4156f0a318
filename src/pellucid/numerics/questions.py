"""Trees of yes-or-no questions in words."""

from __future__ import annotations

from collections.abc import Callable


def in_words(said: Callable[[int], str | tuple[str, int, int]], node: int = 0, indent: str = "") -> list[str]:
    """A line a question or an answer, indented by its depth.

    Args:
        said: of a node its answer; or what is asked there, and the nodes for yes and for no.
        node: where to begin.
        indent: of its line.
    """
    told = said(node)
    if isinstance(told, str):
        return [indent + told]
    question, yes, no = told
    deeper = indent + "    "
    return [f"{indent}if {question}:", *in_words(said, yes, deeper), f"{indent}else:", *in_words(said, no, deeper)]
