"""Does `check()`, which stops asking once it is certain, say what it would say after all masked pictures?"""

from __future__ import annotations

import torch

from benchmarks import blind
from benchmarks.pointing import data_folder
from benchmarks.report import Section, at_least, at_most, single
from pellucid.evaluation import Perturbed
from pellucid.evaluation.chance import Trial
from pellucid.evaluation.faithfulness import BLOCKS, cell_values
from pellucid.evaluation.verdict import SIGNIFICANT


def with_all_blocks(perturbed: Perturbed, values: torch.Tensor) -> float:
    """The p-value from every masked picture that may be asked for."""
    trial = Trial([cell_values(values, perturbed.grid)])
    for k in range(BLOCKS):
        trial.add(*perturbed._block(k))
    return trial.agreements()[0].p_value


def section(pictures: int) -> Section:
    """ResNet-20 on CIFAR-10: three methods and blind maps of each picture, both ways."""
    found = Section("Stopping early against asking for all", "")
    if not (data_folder() / "code" / "zoo.py").is_file():
        found.skipped = "no folder of pictures and weights: set PELLUCID_DATA to one."
        return found
    same: dict[str, list[bool]] = {"of methods": [], "of blind maps": []}
    believed: dict[str, list[tuple[bool, bool]]] = {"of methods": [], "of blind maps": []}
    asked = []
    for k, subject in enumerate(blind.cifar(pictures)):
        g = torch.Generator().manual_seed(k)
        for kind, maps in (("of methods", subject.maps), ("of blind maps", blind.blind_maps(g))):
            for values in maps.values():
                perturbed, before = Perturbed(subject.score, subject.x), subject.asked
                early = perturbed.agreement(values).p_value <= SIGNIFICANT
                asked.append(subject.asked - before)
                late = with_all_blocks(perturbed, values) <= SIGNIFICANT
                same[kind].append(early == late)
                believed[kind].append((early, late))
    every = subject.asked - before
    found.about = (
        f"ResNet-20 on {pictures} pictures of CIFAR-10, its own weights: whether a map is believed after as many "
        f"masked pictures as it took to be certain, and after all {every}."
    )
    for kind, equal in same.items():
        early, late = (sum(pair[k] for pair in believed[kind]) for k in (0, 1))
        note = f"of {len(equal)}; believed {early} early, {late} after all"
        found.rows.append(single(f"same verdict, {kind}", 100 * sum(equal) / len(equal), " %", at_least(97), note))
    found.rows.append(single("masked pictures that a map took", sum(asked) / len(asked), "", at_most(0.5 * every)))
    return found
