"""What a reader meets, in the reader's language: English, the source, or Chinese.

Sentences are written in English where they arise, records and JSON keep them so, and they are put into another
language only where they are shown: on the terminal, in figures, on pages.
"""

from pellucid.language.choice import LANGUAGES, choose, chosen, restored, speaking
from pellucid.language.counts import chance, counted, some
from pellucid.language.speech import printable, translated

__all__ = [
    "LANGUAGES",
    "chance",
    "choose",
    "chosen",
    "counted",
    "printable",
    "restored",
    "some",
    "speaking",
    "translated",
]
