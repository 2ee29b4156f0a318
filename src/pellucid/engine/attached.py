"""What works on a model through a capture and hooks of its own, and leaves with both, whatever happens."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import Self

from pellucid.engine.capture import Capture
from pellucid.engine.hooks import Hooks


class Attached:
    """Base of contexts over a model: what is left to a kind is `attach`, and `detach` where it keeps something."""

    _capture: Capture
    _hooks: Hooks

    @abstractmethod
    def attach(self) -> None:
        """Set the hooks, and prove what is to be proven; the capture is open."""

    def detach(self) -> None:
        """Forget what the context was for; the hooks are gone, the capture is still open."""

    def __enter__(self) -> Self:
        self._capture.__enter__()
        try:
            self.attach()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()
        self.detach()
        self._capture.__exit__(kind, error, trace)
