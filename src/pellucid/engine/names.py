"""Names of inputs, told by who makes them: who remembers answers then need not read every number of an input again.

A name rides on the tensor itself, with the version that it has. Whoever writes to the tensor changes its version, and
what is made of it is another tensor: neither bears the name, so a name is never wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor, nn

_NAMES = "_pellucid_names"


def remembers(module: nn.Module) -> bool:
    """Whether a part of a model remembers what it has answered by the names of inputs (its attribute `remembers`)."""
    return any(getattr(part, "remembers", False) for part in module.modules())


def named(inputs: Tensor, names: Sequence[Hashable]) -> Tensor:
    """The same tensor `(N, ...)`, from now on with a name for each of its rows."""
    if not inputs.is_inference():  # such a tensor has no version
        setattr(inputs, _NAMES, (inputs._version, tuple(names)))
    return inputs


def names_of(inputs: Tensor) -> Sequence[Hashable] | None:
    """The names of its rows, if it bears any and has not been written to since."""
    version, names = getattr(inputs, _NAMES, (-1, ()))
    return names if names and version == inputs._version and len(names) == len(inputs) else None


def renamed(made: Tensor, of: Tensor, how: Hashable = "") -> Tensor:
    """What was made of an input row by row, always alike, bears that input's names and how it was made."""
    names = names_of(of)
    return made if names is None else named(made, [(name, how) for name in names])
