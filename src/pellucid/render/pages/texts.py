"""Every text of a page that does not come from a result, in one place."""

from __future__ import annotations

SUMMARY = "Summary"
NOT_MEASURED = "not measured"
UNCHECKED = "not checked: how far this map may be believed was not measured; `pellucid explain ... --check` does."
SAID = "What the model said"
PROVENANCE = "Provenance: how to get it again"
COMMAND = "On the command line"
PYTHON = "In Python"
RECORD = "The record"
VALUES = "Values"
FIGURES = "All figures"
REPORT = (
    "Results: {count}. Made by Pellucid {version}; nothing in this page is fetched. `pellucid verify` of this file "
    "computes its numbers again."
)
BATCH = "Of the batch {batch}, {shown} of {count} rows, the worst first. Verdicts of all: {verdicts}."
THUMBNAIL = "To keep the page below {limit} MB, this input is shown as a picture: its raw values are in {file}."
UNDRAWN = "A result of format {format} has no page: let what opens it return a pellucid.results.base.Result."

VERDICTS = {
    "faithful": "Faithful: what the map marks moves the answer, more than a map that knows nothing would.",
    "partly faithful": "Partly faithful: the map agrees with the model, but not in every test.",
    "not faithful": "Not faithful: a map that knows nothing does as well here. Do not rest a decision on it.",
    "unproven": "Unproven: no test of faithfulness is defined for this kind of answer.",
    "meaningless": "Meaningless: do not read anything into it.",
}

INSERTION = (
    "Shown piece by piece in the map’s order, the answer reaches an area of {own} under its curve; in random order "
    "{random} ± {spread}. More is better: {standing}."
)
DELETION = (
    "Hidden piece by piece in the map’s order, the answer keeps an area of {own}; in random order {random} ± {spread}. "
    "Less is better: {standing}."
)
BETTER, SAME, WORSE = "better than chance", "no different from chance", "worse than chance"
OF_FRAMES = "Whole frames. "
BLIND = "A map as smooth that knows nothing agrees with the model as well in {share} of 100 draws (p {p})."
CHANGES = "With shuffled weights the map changes (rank correlation {value}): it depends on what the model has learned."
STAYS = (
    "With shuffled weights the map stays much as it is (rank correlation {value}): it shows the picture, not the model."
)
GAP = "The values add up to the change of the score but for {value}."
CURVES = {"insertion": "shown in the map’s order", "deletion": "hidden in the map’s order"}
TEMPORAL = {"insertion": "frames shown in order", "deletion": "frames hidden in order"}
BAND = "red: the map’s order; grey: random order, with twice its standard deviation; across: the share shown or hidden"
