"""What happens in the one transaction that holds a ledger's head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from ledger.domain.events import Head, RecordedEvent, StreamVersions
from ledger.domain.marks import VaultMark
from ledger.errors import IntegrityError
from ledger.ports import LogSurvey
from ledger.storage import rows
from ledger.storage.database import Question
from ledger.storage.inserting import write_events
from ledger.storage.statements import select_abandoned, select_closed, select_dead, select_ids, select_versions
from ledger.storage.surveying import survey
from ledger.storage.tables import (
    Id,
    abandoned_streams,
    closed_streams,
    erasure_roots,
    heads,
    shredded_keys,
)

_LOCK: Final = Question(sa.select(heads).where(heads.c.ledger_id == sa.bindparam("ledger", type_=Id)).with_for_update())


class SqlHeadLock:
    """Satisfies ``ledger.ports.HeadLock``. Made under the lock, and of no use after its transaction."""

    def __init__(self, connection: Connection, ledger_id: UUID) -> None:
        self._connection = connection
        self._ledger_id = ledger_id
        # SQLite has taken its one write lock at BEGIN IMMEDIATE; PostgreSQL takes the row's lock here. READ COMMITTED
        # gives every later statement a snapshot that has what the previous holder has committed.
        found = _LOCK.within(connection, ledger=ledger_id)
        if not found:
            raise IntegrityError("a ledger has no head")
        self._head = rows.head_from(found[0])
        self.has_grown = False
        """Whether events were written under this lock. Readers take it, too, and have nothing to tell of."""

    @property
    def head(self) -> Head:
        """As committed by the previous holder."""
        return self._head

    def survey(
        self, event_ids: Collection[UUID], key_ids: Collection[bytes], stream_refs: Collection[bytes]
    ) -> LogSurvey:
        """All that an append must know."""
        return survey(self._connection, self._ledger_id, event_ids, key_ids, stream_refs)

    def find_ids(self, event_ids: Collection[UUID]) -> frozenset[UUID]:
        """Which of these ids are recorded."""
        return select_ids(self._connection, self._ledger_id, event_ids)

    def versions(self, stream_refs: Collection[bytes]) -> StreamVersions:
        """The versions of these streams."""
        return select_versions(self._connection, self._ledger_id, stream_refs)

    def shredded(self, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Which of these keys are dead."""
        return select_dead(self._connection, self._ledger_id, key_ids)

    def abandoned(self, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Which of these refs were given up before their stream had an event."""
        return select_abandoned(self._connection, self._ledger_id, stream_refs)

    def abandon(self, stream_ref: bytes) -> None:
        """Give a ref up."""
        row = {"ledger_id": self._ledger_id, "stream_ref": stream_ref}
        self._connection.execute(sa.insert(abandoned_streams), row)

    def closed(self, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Which of these streams have ended."""
        return select_closed(self._connection, self._ledger_id, stream_refs)

    def close(self, stream_ref: bytes, position: int) -> None:
        """End a stream with the event at ``position``."""
        row = {"ledger_id": self._ledger_id, "stream_ref": stream_ref, "position": position}
        self._connection.execute(sa.insert(closed_streams), row)

    def write(self, recorded: Sequence[RecordedEvent], head: Head) -> None:
        """Add the rows of these events and their keys, and move the head."""
        write_events(self._connection, self._ledger_id, recorded, head)
        self.has_grown = True

    def remember(self, mark: VaultMark) -> None:
        """Let the head remember this of the key vault."""
        self._connection.execute(
            sa.update(heads)
            .where(heads.c.ledger_id == self._ledger_id)
            .values(vault_mints=mark.mints, journal_line=mark.journal)
        )

    def shred(self, key_ids: Collection[bytes], position: int, erasure_id: UUID, root: bytes, *, before: bytes) -> None:
        """Record that these keys are dead from ``position`` on, and the roots of the trees there and ``before``."""
        common = {"ledger_id": self._ledger_id, "erasure_id": erasure_id}
        dead = [{**common, "key_id": key_id, "position": position} for key_id in key_ids]
        if dead:
            self._connection.execute(sa.insert(shredded_keys), dead)
        self._connection.execute(sa.insert(erasure_roots), {**common, "root": root, "root_before": before})
