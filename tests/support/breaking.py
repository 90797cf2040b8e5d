"""Writes that break: one of those that follow fails, or it fails and is there all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from keyvault import database
from keyvault.errors import VaultUnavailableError

Mode = Literal["failed", "failed but persisted"]
BROKEN = "a write that was broken on purpose"


class BreakingPoint:
    """Breaks one of the writes that follow. ``seen``: how many there were since it was armed."""

    def __init__(self) -> None:
        self.number = -1
        self.mode: Mode = "failed"
        self.seen = 0

    def arm(self, number: int, mode: Mode) -> None:
        """Break this write, counted from 0. -1: none."""
        self.number, self.mode, self.seen = number, mode, 0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, breakable."""

        def broken(*arguments: Any, **named: Any) -> Any:
            here = self._before()
            result = work(*arguments, **named)
            if here:
                raise VaultUnavailableError(BROKEN)
            return result

        return broken

    def around_block(
        self,
        block: Callable[..., AbstractContextManager[Any]],
        error: Callable[[str], Exception] = VaultUnavailableError,
    ) -> Callable[..., AbstractContextManager[Any]]:
        """The same transaction, breakable. One that fails is rolled back when all is written but the commit."""

        @contextmanager
        def broken(*arguments: Any, **named: Any) -> Iterator[Any]:
            here = self.seen == self.number
            failing = here and self.mode == "failed"
            self.seen += 1
            with block(*arguments, **named) as thing:
                yield thing
                if failing:
                    raise error(BROKEN)
            if here:
                raise error(BROKEN)

        return broken

    def _before(self) -> bool:
        """A write is about to happen. Tells whether it is to break behind it."""
        here = self.seen == self.number
        self.seen += 1
        if here and self.mode == "failed":
            raise VaultUnavailableError(BROKEN)
        return here


class BreakableDatabase:
    """Stands for ``keyvault.database`` in the modules under test: its transactions can break."""

    def __init__(self, point: BreakingPoint) -> None:
        self.writing = point.around_block(database.writing)

    def __getattr__(self, name: str) -> Any:
        return getattr(database, name)
