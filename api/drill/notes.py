"""What a drill is told to do, and what it writes down on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from api.config import Settings
from api.drill.checks import Check, Told
from api.drill.readers import READER


class Follower(Protocol):
    """Who follows a drill. Called between its steps."""

    def begins(self, step: str) -> None: ...
    def ends(self, step: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a drill.

    ``environment``: what ``settings`` were read from, for the processes that the drill starts. ``out``: a folder that
    nobody else can look into. ``data_directories``: those of the PostgreSQL servers. ``url``, ``api_key``: a running
    server that is asked as well. ``reader``: the command of a reader process.
    """

    environment: Mapping[str, str]
    settings: Settings
    out: Path
    data_directories: tuple[Path, ...] = ()
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    keep_backups: bool = False
    without_destruction: bool = False
    reader: Sequence[str] = READER

    @property
    def databases(self) -> Mapping[str, str]:
        """Both databases by name, with the role that can read the most."""
        settings = self.settings
        return {
            "ledger": settings.migrate_database_url or settings.database_url,
            "keyvault": settings.migrate_keyvault_url or settings.keyvault_url,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done. ``began_at`` and ``took`` in microseconds."""

    name: str
    began_at: int
    took: int


@dataclass(slots=True)
class Notes:
    """Steps, checks, and what is told, in the order in which they came about."""

    clock: Callable[[], int]
    follower: Follower
    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    ledger_id: UUID | None = None
    subject_ref: bytes | None = None
    key_ids: tuple[bytes, ...] = ()
    erasure_ids: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    backups: list[str] = field(default_factory=list)
    under_way: str = ""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        self.under_way = name
        self.follower.begins(name)
        began_at = self.clock()
        try:
            yield
        finally:
            self.steps.append(Step(name, began_at, self.clock() - began_at))
        self.follower.ends(name)

    def tell(self, name: str, text: str) -> None:
        """Note something that decides nothing."""
        self.told.append(Told(name, text))
