"""What `importance` is asked, as one object: it travels from the surface to the work in place of arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pellucid.importance import Estimator, Players, get_estimator, get_players
from pellucid.importance.drawn import Given
from pellucid.models.targets import Target, TargetLike, as_target
from pellucid.verbs.players import as_players
from pellucid.verbs.request import CODECS, Codec, Request


def _players(values: Any) -> Players:
    kind, settings = values
    return get_players(kind, **settings)


CODECS["players"] = Codec(Players, lambda p: [p.kind, p.settings()], _players)
CODECS["estimator"] = Codec(
    Estimator,
    lambda e: [e.name, e.samples, e.seed],
    lambda values: get_estimator(values[0], samples=values[1], seed=values[2]),
)


@dataclass(frozen=True, kw_only=True)
class ImportanceRequest(Request):
    """What `importance` is asked.

    Attributes:
        players, estimator: which parts, and how they are measured.
        target: of which score.
        seed: of whatever is random beside the players and the estimator.
        group, compare: how many pictures are gathered (see `importance`).
        order: whether the order of a clip's frames is looked at too.
    """

    verb: ClassVar[str] = "importance"

    players: Players
    estimator: Estimator
    target: Target
    seed: int = 0
    group: str = "auto"
    compare: str | None = None
    order: bool = False

    @classmethod
    def of(
        cls,
        features: str | Players,
        by: str | Estimator,
        target: TargetLike,
        *,
        samples: int | str = "auto",
        seed: int = 0,
        regions: Given | None = None,
        gathered: dict[str, Any] | None = None,
        **cut: Any,
    ) -> ImportanceRequest:
        """From names and settings.

        Args:
            features, by, target, samples, seed, regions: see `importance`.
            gathered: `group`, `compare` and `order`, where they are given.
            cut: how the players are cut.

        Raises:
            PellucidError: a name or a setting makes no sense.
        """
        players = as_players(features, regions=regions, seed=seed, **cut)
        estimator = by if isinstance(by, Estimator) else get_estimator(by, samples=samples, seed=seed)
        return cls(players=players, estimator=estimator, target=as_target(target), seed=seed, **(gathered or {}))

    def settings(self) -> dict[str, Any]:
        """Everything that shapes the numbers, for the record."""
        return {
            "features": self.players.kind,
            "players": self.players.settings(),
            "by": self.estimator.name,
            "samples": self.estimator.samples,
            "seed": self.estimator.seed,
        }
