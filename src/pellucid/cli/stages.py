"""`pellucid explain --stages`: a method's maps at every stage of the network, from one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli.console import say
from pellucid.cli.options import first_given

if TYPE_CHECKING:
    from pellucid.heatmaps import Method
    from pellucid.models.model import VisionModel
    from pellucid.models.targets import Target
    from pellucid.results.stages import Stages


def stages_alone(beside: Mapping[str, object]) -> None:
    """Refuse what does not go with `--stages`: name of an option -> what was given.

    Raises:
        MethodError: one of them was.
    """
    from pellucid.errors import MethodError

    wrong = first_given(beside)
    if wrong is not None:
        raise MethodError(f"--stages does not go with {wrong}: leave one of them out.")


def stage_by_stage(
    vision: VisionModel,
    files: Sequence[Any],
    methods: Sequence[Method],
    targets: Sequence[Target],
    layer: str | None,
    out: Path,
    report: dict[str, Any],
    *,
    quiet: bool,
) -> None:
    """Explain each input by each method for each target, stage by stage; save the sheets, and tell what they show."""
    from pellucid.verbs.stages import each_stages

    for given in files:
        for found in each_stages(vision, given, methods, targets, layer):
            saved = [str(path) for path in found.save(out)]
            source = found.record.input["source"] or found.name
            report["results"].append(
                {
                    "input": source,
                    "method": found.method,
                    "target": found.target,
                    "stages": found.table(),
                    "notes": found.notes,
                    "files": saved,
                }
            )
            if not quiet:
                _tell(found, source, saved)


def _tell(found: Stages, source: str, saved: list[str]) -> None:
    say(f"{source}: {found.method} for {found.target}, stage by stage (score {found.score:.4g})")
    for row in found.table():
        taken = f", {row['absorbed']:.4g} absorbed behind it" if row["absorbed"] else ""
        say(f"  {row['layer']}: {row['flow']:.4g} flows through{taken}")
    for note in found.notes:
        say(f"  note: {note}")
    say(f"  picture: {saved[-1]}")
