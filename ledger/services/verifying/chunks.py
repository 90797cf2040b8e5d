"""What is known of a few events in a row once they were checked.

They are checked in one of two ways: ``quick`` says only whether all is right, ``readable`` also what is not. The first
is what makes ``verify`` quick, the second is what it means: whatever ``quick`` does not find to be right is gone
through again, and where it does, both give the same (a test sees to it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.domain.events import Role
from ledger.domain.verdicts import Finding, Verdict
from ledger.ports import KeyView, ShreddedKey
from ledger.services.dependencies import Dependencies

ERASED_TYPE_MARK: Final = b"\x00\x06ledger\x00\x0dSubjectErased"
"""Category and type of a ``SubjectErased``, as its leaf has them."""


@dataclass(frozen=True, slots=True)
class Shredder:
    """An event that says that keys are dead. ``is_erasure``: it is a ``SubjectErased``, as each of them should be."""

    position: int
    event_id: UUID
    key_ids: tuple[bytes, ...]
    is_erasure: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events in a row. ``hashes``: of the leaves that the rows make, zeros where there is none. ``first_time``,
    ``last_time``: recorded-at of the first and the last row, None when there is no row. ``keys``: the fingerprint of
    the rows of ``event_keys`` that the parts ask for. ``sealed_bytes``: how much was read, more or less."""

    hashes: Sequence[bytes]
    first_time: int | None
    last_time: int | None
    shredders: Sequence[Shredder]
    keys: int
    counts: Counter[Verdict]
    findings: Sequence[Finding]
    sealed_bytes: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class How:
    """``opening``: every part is opened under its key. ``key``: of the fingerprints of this run."""

    opening: bool
    key: bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """What is known of the keys of a chunk. ``dead``: those that the log itself has shredded, each with the position.
    ``said_dead``: those of which only ``shredded_keys`` says so, and no event; that is found elsewhere, and here it is
    believed as far as the key vault says the same. ``views``: what the vault knows."""

    dead: Mapping[bytes, int]
    said_dead: Collection[bytes]
    views: Mapping[bytes, KeyView]


@dataclass(frozen=True, slots=True)
class KeyRegister:
    """Where keys are looked up. ``rows``: all that the ledger has shredded, where these are few; None: they are looked
    up for each chunk. ``views``: what the vault has said, for the rest of the range."""

    deps: Dependencies
    ledger_id: UUID
    opening: bool
    rows: Sequence[ShreddedKey] | None = None
    views: dict[bytes, KeyView] = field(default_factory=dict)

    @classmethod
    def of_range(cls, deps: Dependencies, ledger_id: UUID, *, opening: bool) -> KeyRegister:
        """For the chunks of one range: for longer nobody may rely on what was read."""
        rows = deps.store.shredded_rows(ledger_id, None, FEW_KEYS + 1)
        return cls(deps, ledger_id, opening, rows if len(rows) <= FEW_KEYS else None)

    def look_up(self, key_ids: Collection[bytes]) -> Keys:
        """Ask the vault first and the ledger second, as readers do (I7): an erasure between the two is then seen. What
        was read of the ledger beforehand can be older; then a chunk is not found to be right, and is looked at anew."""
        views = self._views_of(key_ids) if self.opening else {}
        rows = self.rows
        if rows is None:
            rows = list(self.deps.store.shredded_among(self.ledger_id, key_ids).values())
        dead = {row.key_id: row.position for row in rows if row.recorded}
        said_dead = {row.key_id for row in rows if not row.recorded}
        return Keys(dead, said_dead, views)

    def _views_of(self, key_ids: Collection[bytes]) -> Mapping[bytes, KeyView]:
        if len(self.views) > MOST_VIEWS:
            self.views.clear()
        unknown = [key_id for key_id in key_ids if key_id not in self.views]
        if unknown:
            self.views.update(self.deps.vault.look_up_keys(self.ledger_id, unknown))
        return self.views


FEW_KEYS: Final = 1000
"""Dead keys that are held in memory, at most."""

MOST_VIEWS: Final = 4000
"""Keys of living subjects that are held in memory beyond a chunk, at most."""

SEALED: Final = frozenset(Role) - {Role.SHREDDED}
