"""The catalogue: each sentence of the source beside its translation, in a file of gettext's."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

from pellucid.language.template import Template

_PHRASE = 12  # characters between the gaps


@dataclass
class Catalogue:
    """All sentences of one language.

    Attributes:
        plain: sentences without gaps.
        sentences: those with gaps, first those that say most between them.
        phrases: those that say little between their gaps, and are looked for last.
    """

    plain: dict[str, str] = field(default_factory=dict)
    sentences: list[Template] = field(default_factory=list)
    phrases: list[Template] = field(default_factory=list)

    def add(self, source: str, target: str) -> None:
        """A sentence and its translation; the ends of both are without spaces."""
        template = Template(source.strip(), target.strip())
        if not all(map(str.isdigit, template.gaps)) or not template.gaps:  # filled by name: also looked up unfilled
            self.plain[template.source] = template.target
        if template.gaps:
            (self.phrases if template.literal < _PHRASE else self.sentences).append(template)


@lru_cache(maxsize=4)
def catalogue(language: str) -> Catalogue:
    """What is known of a language; read once."""
    from babel.messages.pofile import read_po  # only who reads another language pays for it

    found = Catalogue()
    with (files("pellucid.language") / f"{language}.po").open("rb") as file:
        for message in read_po(file, locale=language):
            if message.id and message.string:
                found.add(str(message.id), str(message.string))
    for templates in (found.sentences, found.phrases):
        templates.sort(key=lambda template: -template.literal)
    return found
