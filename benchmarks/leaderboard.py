"""`python -m benchmarks.leaderboard [NETWORK ...]`: docs/leaderboard.md, which methods to trust on which network.

Finished inputs are kept in `--keep`, so a run that was cut goes on where it stopped. Networks that are not named keep
what the page says of them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

import pellucid as pl
from benchmarks.pointing import boxed_pictures, cifar_network, data_folder, look_of, zoo_of
from pellucid.results.scoreboard import Scoreboard

PAGE = Path(__file__).resolve().parent.parent / "docs" / "leaderboard.md"

CLASSIC = "grad-cam,layer-cam,integrated-gradients,expected-gradients,rise,lime,attn-lrp"
OF_ATTENTION = (
    "grad-cam,layer-cam,eigen-cam,saliency,input-x-gradient,smooth-grad,integrated-gradients,expected-gradients,"
    "occlusion,attn-lrp,attention-rollout,attention-relevance,transformer-attribution"
)
CHEAP = "grad-cam,hires-cam,layer-cam,eigen-cam,saliency,input-x-gradient,deep-lift"


@dataclass(frozen=True)
class Entrant:
    """A network with its pictures.

    Attributes:
        about: the network and the pictures, in words.
        methods: that are measured.
        metrics: likewise.
        open: `count -> (model, pictures, further settings of evaluate)`.
        count: of the pictures.
        quick: whether methods run in their cheaper versions.
    """

    about: str
    methods: str
    metrics: str
    open: Callable[[int], tuple[Any, Any, dict[str, Any]]]
    count: int
    quick: bool


def _vit(count: int) -> tuple[Any, Any, dict[str, Any]]:
    module, info, x = cifar_network("vit_cifar")
    return pl.wrap(module, labels=info["labels"], scores="softmax", name="CIFAR ViT"), x[::25][:count], {}


def _embedded(_count: int) -> tuple[Any, Any, dict[str, Any]]:
    return pl.load(), "samples:", {}


def _resnet(count: int) -> tuple[Any, Any, dict[str, Any]]:
    folder = data_folder()
    with zoo_of(folder) as zoo:
        module, info = zoo.resnet50()
        labels = zoo.imagenet_labels()
    pictures = boxed_pictures(folder, 24)[:count]
    model = pl.wrap(module, transform=look_of(info), labels=labels, name="ResNet-50")
    return model, [p.path for p in pictures], {"masks": [p.box for p in pictures]}


ENTRANTS: dict[str, Entrant] = {
    "CIFAR ViT": Entrant(
        "A small vision transformer (6 blocks, 73.7 % right) on pictures of the CIFAR-10 test set, 32 x 32",
        OF_ATTENTION,
        "default,mprt-last",
        _vit,
        20,
        quick=True,
    ),
    "EfficientNet-Lite0": Entrant(
        "The embedded default on the pictures of `samples:`, many of which show nothing that it has a class for",
        CLASSIC,
        "default",
        _embedded,
        23,
        quick=False,
    ),
    "ResNet-50": Entrant(
        "ResNet-50 on ImageNet pictures with a box around the object",
        CHEAP,
        "srg,sensitivity-n,single-deletion,faithfulness-correlation,relevance-mass,mask-auc,mprt-last",
        _resnet,
        12,
        quick=True,
    ),
}

_HEAD = """# Leaderboard

Which explanation to believe depends on the network, so this is measured on {count}. `python -m benchmarks.leaderboard`
wrote this page; `pellucid evaluate` says the same of your own model and pictures (see [evaluate](evaluate.md)). A
method deserves trust where it ranks surely above both anchors, random order and an edge detector that never saw the
model (signed ranks over the pictures, Holm's correction, p up to 0.05); `srg` is 0 for a random order. Ranks are means
over faithfulness (and localisation, where boxes are known), 1 the best; behind ± is half of a 95 % interval over the
pictures.
"""
_SHOWN = ("srg", "sensitivity-n", "single-deletion", "road", "relevance-mass", "mprt-last")
_PART = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.M | re.S)
_TRUST = "What it says"
_SURE = 7  # pictures, from which on a rank test can be
_STANDINGS = ("Surely above both anchors", "Above both, but not surely", "Not above both, so not to be trusted here")


def part(entrant: Entrant, board: Scoreboard) -> str:
    """What is said of one network."""
    names = [m.name for m in board.metrics]
    shown = [n for n in _SHOWN if n in names]
    cheaper = ", methods in their cheaper versions (`--quick`)" if entrant.quick else ""
    lines = [f"{entrant.about}: {len(board.samples)} of them, the top class{cheaper}.", ""]
    arrows = [f"{n} {'↑' if board.metrics[names.index(n)].better == 'higher' else '↓'}" for n in shown]
    lines += [_row(["method", "mean rank", *arrows, "forwards", "backwards"]), _row(["---"] * (4 + len(shown)))]
    for standing in board.rank().standings:
        c = board.methods.index(standing.name)
        if not isfinite(standing.rank):
            continue
        cells = [_cell(*board.interval(c, names.index(n))) for n in shown]
        price = [f"{v:.0f}" for v in board.price_of(standing.name)[:2]]
        lines.append(
            _row([f"*{standing.name}*" if standing.blind else standing.name, f"{standing.rank:.2f}", *cells, *price])
        )
    lines += ["", *[f"- {line}" for line in board.lines() if " every anchor" not in line]]
    if len(board.samples) < _SURE:
        lines.append(f"- {len(board.samples)} pictures are too few to be sure of any difference.")
    lines += [f"- {what}: {_list(names)}." for what, names in zip(_STANDINGS, board.beside_anchors, strict=True)]
    return "\n".join(lines)


def _cell(mean: float, half: float) -> str:
    return "" if not isfinite(mean) else f"{mean:.2f} ± {half:.2f}" if isfinite(half) else f"{mean:.2f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def page(parts: dict[str, str]) -> str:
    """The page, with what all networks have in common first."""
    ordered = [name for name in ENTRANTS if name in parts]
    sets = {name: [_named(parts[name], what) for what in _STANDINGS] for name in ordered}
    lines = [
        f"On the {n}: surely above both anchors {_list(surely)}; above, not surely {_list(barely)}; not above "
        f"{_list(behind)}.{_doubt(parts[n])}"
        for n, (surely, barely, behind) in sets.items()
    ]
    sure = [m for surely, _, _ in sets.values() for m in surely]
    measured = [m for three in sets.values() for some in three for m in some]
    several = [m for m in dict.fromkeys(measured) if measured.count(m) > 1]
    if several:
        told = [f"{m} {sure.count(m)} of {measured.count(m)}" for m in several]
        lines.append(
            f"On how many of the networks where they were measured methods are surely above both: {_list(told)}."
        )
    count = "one network" if len(ordered) == 1 else f"{len(ordered)} networks"
    trust = "\n".join(f"- {line}" for line in lines)
    body = "".join(f"\n## {name}\n\n{parts[name].strip()}\n" for name in ordered)
    return f"{_HEAD.format(count=count)}\n## {_TRUST}\n\n{trust}\n{body}"


def _doubt(text: str) -> str:
    found = re.search(r"^- (\d+ pictures are too few[^\n]*)$", text, re.M)
    return f" {found[1]}" if found else ""


def _named(text: str, begin: str) -> list[str]:
    found = re.search(rf"^- {begin}[^:]*: (.*)\.$", text, re.M)
    return [] if found is None or found[1] == "none" else found[1].split(", ")


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"


def main() -> int:
    """Measure the networks that were named, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description="Write docs/leaderboard.md.")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"only these of {', '.join(ENTRANTS)}")
    parser.add_argument("--count", type=int, default=0, help="pictures of each network")
    parser.add_argument("--keep", default="pellucid-out/leaderboard", help="folder for what is finished")
    parser.add_argument("--page", default=str(PAGE))
    options = parser.parse_args()
    if unknown := [n for n in options.networks if n not in ENTRANTS]:
        parser.error(f"there is no network {unknown[0]!r}; there are {', '.join(ENTRANTS)}")
    torch.set_num_threads(1)
    file = Path(options.page)
    old = dict(_PART.findall(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    parts = {name: text for name, text in old.items() if name in ENTRANTS}
    for name in options.networks or ENTRANTS:
        entrant = ENTRANTS[name]
        model, pictures, how = entrant.open(options.count or entrant.count)
        how |= {"quick": entrant.quick, "keep": Path(options.keep) / name.replace(" ", "-"), "say": print}
        parts[name] = part(entrant, pl.evaluate(model, pictures, entrant.methods, entrant.metrics, **how))
        file.write_text(page(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
