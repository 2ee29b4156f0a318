"""What was asked, as data: it travels from the surface to the work, is written down, read back, and has an id.

A verb has a request (its settings), and a maker: how it is run, how its results are opened and how they are made
again. `REQUESTS` holds the makers by the format of their results; `verbs.kinds` knows all of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from pellucid.errors import StorageError
from pellucid.heatmaps import Method
from pellucid.keep.artefact import Artefact
from pellucid.models.targets import Target, parse_target
from pellucid.registry import Registry
from pellucid.verbs.choices import named_method

Say = Callable[[str], None]
"""Is told, in a line, what the work will cost."""


def unheld(name: str, was: str, cure: str) -> StorageError:
    """What is said of something in a request that is no data."""
    return StorageError(f"Its {name} was {was}, which a record cannot hold: {cure}")


@dataclass(frozen=True)
class Codec:
    """How objects of one type are written down, and read back.

    Attributes:
        type: whose objects.
        write: an object as plain values; None where it has none.
        read: the inverse.
    """

    type: type
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


CODECS: dict[str, Codec] = {
    "target": Codec(Target, lambda t: t.spec(), parse_target),
    "method": Codec(Method, lambda m: [m.name, m.parameters()], lambda v: named_method(v[0], **v[1])),
}
"""Under the name that marks them in a written request; verbs enter what only they hold."""


def written(name: str, value: Any) -> Any:
    """A setting as plain values.

    Raises:
        StorageError: it is, or holds, something that is no data.
    """
    for mark, codec in CODECS.items():
        if isinstance(value, codec.type):
            plain = codec.write(value)
            if plain is None:
                raise unheld(name, "an object without a text of its own, such as a function", "name it by a text.")
            return {mark: written(name, plain)}
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str | Path):
        if str(value).startswith("sha256:"):
            raise unheld(name, "a tensor", "name a file or one of the known settings.")
        return str(value)
    if isinstance(value, list | tuple):
        return [written(name, each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): written(str(key), each) for key, each in value.items()}
    raise unheld(name, f"a {type(value).__name__}", "give plain values.")


def restored(value: Any) -> Any:
    """The inverse of `written`; lists come back as tuples."""
    if isinstance(value, Mapping):
        plain = {key: restored(each) for key, each in value.items()}
        mark = next(iter(plain), "")
        return CODECS[mark].read(plain[mark]) if len(plain) == 1 and mark in CODECS else plain
    return tuple(restored(each) for each in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class Request(ABC):
    """What a verb is asked of some input; a kind is a frozen dataclass of settings."""

    verb: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values.

        Raises:
            StorageError: a setting is no data (a function, a tensor).
        """
        return {"verb": self.verb} | {f.name: written(f.name, getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `as_dict`, of whichever verb.

        Raises:
            StorageError: not what `as_dict` writes.
        """
        verb = values.get("verb")
        kind = next((r.request for r in REQUESTS.values() if r.request.verb == verb), None)
        if kind is None:
            raise StorageError(f"There is no request of {verb!r}.")
        known = {f.name for f in fields(kind)} | {"verb"}
        if unknown := sorted(set(values) - known):
            raise StorageError(f"A request of {verb!r} has no setting {unknown[0]!r}.")
        return kind(**{name: restored(value) for name, value in values.items() if name != "verb"})

    def run(self, model: Any, inputs: Any) -> Any:
        """The result for a loaded model and what the verb takes as its inputs.

        Raises:
            PellucidError: as the verb.
        """
        maker = next(m for m in REQUESTS.values() if m.request is type(self))
        return maker.run(model, inputs, self)

    @property
    def key(self) -> str:
        """The id of the request: a hash of all of it."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass
class Again:
    """A result made again from its record.

    Attributes:
        arrays: by the names under which they are stored.
        reasons: what is not as the record says, one sentence each; any makes it a different result.
        cause: why the arrays may differ though nothing is wrong; empty where there is no such reason.
    """

    arrays: dict[str, Tensor]
    reasons: list[str] = field(default_factory=list)
    cause: str = ""


@dataclass(frozen=True)
class Maker:
    """What makes one kind of result.

    Attributes:
        request: what is asked.
        run: `(model, inputs, request)` to the result.
        opened: a stored result as it was.
        recompute: `(artefact, model, inputs)`, and `target` where it is `targeted`, to what comes out today.
        targeted: whether it is of a target, which may have been a function.
    """

    request: type[Request]
    run: Callable[..., Any]
    opened: Callable[[Artefact], Any]
    recompute: Callable[..., Again]
    targeted: bool = False


REQUESTS: Registry[Maker] = Registry("result")
"""Format of a result -> what makes it."""
