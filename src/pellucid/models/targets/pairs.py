"""Targets of networks that embed pictures: why these two are alike, why one is liker than another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import TargetError
from pellucid.media.address import address
from pellucid.media.picture import Picture
from pellucid.models.parts import described, taken
from pellucid.models.reading import Reading
from pellucid.models.targets.base import Labels, Met, Target, target

_NAMED = ("image_embeds", "pooler_output", "embeddings")  # transformers


def embedding_of(output: Any, part: str | None = None) -> Tensor:
    """The embeddings in an output, `(N, D)`: a tensor, or what holds one by the name `part` or a usual one.

    Raises:
        TargetError: there is none.
    """
    if isinstance(output, Tensor):
        found = output if output.ndim == 2 else None
    else:
        tensors = (taken(output, name) for name in ((part,) if part is not None else _NAMED))
        found = next((t for t in tensors if t is not None and t.ndim == 2), None)
    if found is None:
        raise TargetError(
            f"The model answers {described(output)}, and no embedding (N, D) of its pictures: name the part that is "
            "one, pl.wrap(module, task='embedding', output=...)."
        )
    return found.float()


@dataclass(frozen=True)
class _Compared(Target):
    """Base: the pictures that are compared with are opened and embedded by the model that is asked."""

    vectors: tuple[tuple[float, ...], ...] = ()  # of those pictures, of length 1
    output: str | None = None  # the part of the output that is the embedding
    companions: tuple[Met, ...] = field(default=(), repr=False, compare=False)  # those pictures

    @property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """The pictures that are compared with."""

    @property
    def others(self) -> tuple[Picture, ...]:
        """The same, opened."""
        return tuple(met.picture for met in self.companions)

    def read_by(self, reading: Reading) -> Target:
        """In the part that the reading names."""
        return replace(self, output=reading.output) if self.output is None else self

    def met(self, answer: Callable[[str], Met]) -> Target:
        """With the other pictures' embeddings, from what the model answers to each.

        Raises:
            MediaError: one cannot be read.
            TargetError: the model gives no embedding.
        """
        if self.vectors:
            return self
        vectors, companions = [], []
        for other in self.files:
            met = answer(other)
            vector = embedding_of(met.output, self.output)[0].double()
            if not bool(vector.norm() > 0):
                raise TargetError(f"The embedding of {Path(other).name} is zero, so nothing is like it.")
            vectors.append(tuple((vector / vector.norm()).tolist()))
            companions.append(met)
        return replace(self, vectors=tuple(vectors), companions=tuple(companions))

    def bind(self, module: nn.Module, inputs: Tensor, labels: Labels) -> Target:
        """Checked: the others are known."""
        if not self.vectors:
            raise TargetError(
                "The other picture is opened by a model that knows how it is shown: give pl.wrap(module), not a module."
            )
        return self

    def _cosines(self, output: Any) -> Tensor:
        """`(N, others)`."""
        own = embedding_of(output, self.output)
        vectors = torch.tensor(self.vectors, dtype=own.dtype, device=own.device)
        if vectors.shape[1] != own.shape[1]:
            raise TargetError(f"Embeddings of {own.shape[1]} and {vectors.shape[1]} numbers: compare by one model.")
        cosines: Tensor = own @ vectors.T / own.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return cosines


@target("pair", form="pair:OTHER.jpg")
@dataclass(frozen=True)
class PairTarget(_Compared):
    """How alike a picture is to another: the cosine of their embeddings.

    Args:
        other: the other picture: a file, or a name such as `sample:cat`.
    """

    other: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The other picture."""
        return (self.other,)

    def __call__(self, output: Any) -> Tensor:
        """The cosine, in [-1, 1]."""
        return self._cosines(output)[:, 0]

    def name(self, labels: Labels) -> str:
        """`like OTHER`."""
        return f"like {Path(self.other).stem}"

    def spec(self) -> str:
        """`pair:OTHER`, in full."""
        return f"pair:{address(self.other)}"

    @classmethod
    def read(cls, text: str) -> PairTarget | None:
        """`pair:OTHER`."""
        word, colon, other = text.partition(":")
        if word != "pair" or not colon:
            return None
        if not other.strip():
            raise TargetError("A pair needs the other picture: write pair:OTHER.jpg.")
        return cls(other=other.strip())


@target("rank", form="rank:A.jpg>B.jpg")
@dataclass(frozen=True)
class RankTarget(_Compared):
    """Why a picture is liker to one than to another: the difference of the two cosines.

    Args:
        first, second: the two pictures, files or names such as `sample:cat`.
    """

    first: str = ""
    second: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Both pictures."""
        return (self.first, self.second)

    def __call__(self, output: Any) -> Tensor:
        """The cosine with the first less that with the second."""
        cosines = self._cosines(output)
        return cosines[:, 0] - cosines[:, 1]

    def name(self, labels: Labels) -> str:
        """`liker to A than to B`."""
        return f"liker to {Path(self.first).stem} than to {Path(self.second).stem}"

    def spec(self) -> str:
        """`rank:A>B`, in full."""
        return f"rank:{address(self.first)}>{address(self.second)}"

    @classmethod
    def read(cls, text: str) -> RankTarget | None:
        """`rank:A>B`."""
        word, colon, both = text.partition(":")
        if word != "rank" or not colon:
            return None
        first, _, second = (part.strip() for part in both.partition(">"))
        if not first or not second:
            raise TargetError(f"{text!r} ranks nothing: write rank:A.jpg>B.jpg.")
        return cls(first=first, second=second)
