"""A readable model as data: what it says, what it speaks of, how far it can be believed, where it came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid import storage
from pellucid.errors import StorageError
from pellucid.explanation import Record
from pellucid.interpretable.additive import Additive
from pellucid.interpretable.base import Readable
from pellucid.interpretable.bcos import BcosHead
from pellucid.interpretable.examples import Neighbours, Prototypes
from pellucid.interpretable.fidelity import Fidelity
from pellucid.interpretable.frontier import Point
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.numerics import Array, softmax
from pellucid.interpretable.rules import Rules
from pellucid.interpretable.tree import Tree
from pellucid.interpretable.words import Words, words_from
from pellucid.keep.files import Files
from pellucid.models.layouts import Layout
from pellucid.models.preprocess import Preprocess

FORMAT = "pellucid-surrogate/1"
_HEADS: dict[str, type[Readable]] = {
    c.kind: c for c in (Tree, SparseLinear, Rules, Additive, Prototypes, Neighbours, Hierarchy, BcosHead)
}


@dataclass
class Surrogate:
    """A readable model, learned from a teacher or from labelled pictures.

    Attributes:
        into: its kind, see `learn.KINDS`.
        head: the model itself: `fit`, `predict`, `predict_proba`, `reasons`, `print`.
        words: what its columns are.
        card: how far it can be believed.
        front: complexity against agreement, what was chosen.
        labels: names of the classes.
        layer: where the words are read; `layout`, how.
        record: provenance.
        preprocess: how pictures become inputs.
        X: `(N, d)` the words of all pictures it was made from.
        answers: `(N, K)` what it was taught; `truth` `(N,)` the true classes, -1 or empty where unknown.
        held: numbers of the held-out pictures.
        sources: the pictures, each by what opens it.
        taught: whether there was a teacher.
        trained: weights of a network trained on the spot, which no name loads again.
        notes: what a reader must know.
    """

    into: str
    head: Readable
    words: Words
    card: Fidelity
    front: list[Point]
    labels: list[str]
    layer: str
    layout: Layout | None
    record: Record
    preprocess: dict[str, Any]
    X: Array
    answers: Array
    truth: NDArray[np.int64]
    held: NDArray[np.int64]
    sources: list[str]
    taught: bool = True
    trained: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the data it was made from."""
        return str(self.record.input.get("name") or "pictures")

    def probabilities(self) -> Array:
        """Its answers `(N, K)` on all pictures."""
        return softmax(self.head._scores(self.X))

    @property
    def learned_from(self) -> NDArray[np.bool_]:
        """`(N,)`: whether each picture was not held out."""
        mask = np.ones(len(self.X), bool)
        mask[self.held] = False
        return mask

    def exemplars(self, column: int, most: int = 6, *, rows: NDArray[np.bool_] | None = None) -> list[int]:
        """Numbers of the pictures with most of a word, among some of them."""
        values = np.where(rows, self.X[:, column], -np.inf) if rows is not None else self.X[:, column]
        order = np.argsort(-values, kind="stable")
        return [int(i) for i in order[:most] if np.isfinite(values[i])]


def to_files(surrogate: Surrogate, path: Path, files: Files | None = None) -> list[Path]:
    """Write it as `.npz` and `.json`, with further files that belong to it."""
    s = surrogate
    arrays: dict[str, NDArray[Any]] = {"X": s.X, "answers": s.answers, "truth": s.truth, "held": s.held}
    arrays["probabilities"] = s.probabilities()[s.held]
    arrays |= {f"head.{n}": a for n, a in s.head.arrays().items()}
    arrays |= {f"words.{n}": a for n, a in s.words.arrays().items()}
    arrays |= {f"network.{n}": t.numpy() for n, t in s.trained.items()}
    meta = {
        "into": s.into,
        "head": s.head.as_dict(),
        "words": s.words.about(),
        "card": s.card.as_dict(),
        "front": [dataclasses.asdict(p) for p in s.front],
        "labels": s.labels,
        "layer": s.layer,
        "layout": None if s.layout is None else dataclasses.asdict(s.layout),
        "preprocess": s.preprocess,
        "sources": s.sources,
        "taught": s.taught,
        "notes": s.notes,
        "record": dataclasses.asdict(s.record),
    }
    return storage.write_artefact(path, FORMAT, arrays, meta, files)


def from_files(path: Path | str) -> Surrogate:
    """The inverse of `to_files`.

    Raises:
        StorageError: missing, changed, or not such a file.
    """
    artefact = storage.read_artefact(path, [FORMAT])
    if artefact.tampered:
        raise StorageError(f"{'; '.join(artefact.tampered)}: distil again, or see `pellucid verify`.")
    return surrogate(artefact)


def surrogate(artefact: storage.Artefact) -> Surrogate:
    """What an artefact holds."""
    meta, arrays = artefact.meta, artefact.arrays

    def part(prefix: str) -> dict[str, NDArray[Any]]:
        return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}

    with storage.reading(artefact):
        layout = meta["layout"]
        if layout is not None:
            order = layout["order"]
            layout = Layout(**{**layout, "grid": tuple(layout["grid"]), "order": order and tuple(order)})
        return Surrogate(
            into=meta["into"],
            head=_HEADS[meta["head"]["kind"]].from_dict(meta["head"], part("head.")),
            words=words_from(meta["words"], part("words.")),
            card=Fidelity.from_dict(meta["card"]),
            front=[Point(**p) for p in meta["front"]],
            labels=meta["labels"],
            layer=meta["layer"],
            layout=layout,
            record=storage.record_from(meta),
            preprocess=meta["preprocess"],
            X=arrays["X"],
            answers=arrays["answers"],
            truth=arrays["truth"],
            held=arrays["held"],
            sources=meta["sources"],
            taught=meta["taught"],
            trained={n: torch.from_numpy(a) for n, a in part("network.").items()},
            notes=meta["notes"],
        )


def preprocessing(surrogate: Surrogate) -> Preprocess:
    """How pictures become inputs."""
    return Preprocess.from_dict(surrogate.preprocess)
